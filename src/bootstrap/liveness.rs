//! Who is gone of the ranks that met at one Unix socket, and how: looked up, never waited for.
//!
//! Three witnesses: the roll, where a rank that leaves in order says so; a descriptor of each other process (pidfd),
//! which is ready when the process has ended; and the control connections, which hang up. A stopped process is not
//! gone.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec};
use serde::{Deserialize, Serialize};

use super::Rank;
use super::lives::Lives;
use super::meanwhile::Meanwhile;
use super::message::Peer;
use super::roll::{Presence, Roll};

/// A rank that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// The rank.
    pub rank: Rank,
    /// How it went.
    pub how: DepartureKind,
}

/// How a rank went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DepartureKind {
    /// It ended without leaving the job: killed, crashed, or exited too early.
    Died,
    /// It died, and its process was started anew since: it takes part in what backup workers do, and in nothing that
    /// needs all ranks from the first.
    Returned,
    /// Nothing has come from its host for 9 s, not even acknowledgements: the host or the network has failed. Its
    /// process may live on.
    OutOfReach,
    /// It left while its thread was panicking.
    Panicked,
    /// It left in order.
    Left,
    /// A step of the bootstrap had failed on it, by a deadline for example.
    GaveUp,
}

impl fmt::Display for DepartureKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Died => "died (its process ended without leaving the job)",
            Self::Returned => "died, and has come back to its backup workers alone",
            Self::OutOfReach => "cannot be reached any more (nothing has come from its host for 9 s)",
            Self::Panicked => "panicked and left the job",
            Self::GaveUp => "gave up",
            Self::Left => "left the job",
        })
    }
}

impl fmt::Display for Departure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "rank {} {}", self.rank, self.how)
    }
}

/// Descriptors of the job's processes.
///
/// Rank 0 opens each while that process is still connected, so that it cannot be another's with a recycled number,
/// and passes them on; they work across PID name spaces.
pub(super) struct Processes {
    pub(super) pids: Vec<i32>,
    pub(super) descriptors: Arc<Vec<OwnedFd>>,
}

/// Everything that [`Self::departures`] looks at.
pub(super) struct Liveness {
    pub(super) rank: Rank,
    pub(super) roll: Roll,
    pub(super) peers: Vec<Peer>,
    pub(super) processes: Processes,
    /// The control connections and the ranks at their other ends.
    pub(super) connections: Vec<(Rank, Arc<OwnedFd>)>,
    /// Those of ranks that have come back.
    pub(super) lives: Lives,
    /// While this rank waits.
    pub(super) meanwhile: Meanwhile,
}

impl Liveness {
    pub(super) fn is_interrupted(&self) -> bool {
        self.meanwhile.is_interrupted()
    }

    /// All ranks that are gone, by rank. Does not block: one system call, and a load for each rank.
    pub(super) fn departures(&self) -> Vec<Departure> {
        let ended = self.seen();
        // The roll is read after the poll: whoever left in order wrote so before its end could be seen.
        (0..self.peers.len() as Rank)
            .filter(|rank| *rank != self.rank)
            .filter_map(|rank| {
                let how = departed(self.roll.presence(rank), ended[rank as usize]);
                let back = self.roll.life(rank) > 0;
                let how = how.or(back.then_some(DepartureKind::Returned))?;
                Some(Departure { rank, how })
            })
            .collect()
    }

    /// Those of them from whom nothing can come any more, and how they ended.
    pub(super) fn ended(&self) -> Vec<(Rank, DepartureKind)> {
        let ended = self.seen();
        (0..self.peers.len() as Rank)
            .filter(|rank| *rank != self.rank)
            .filter(|rank| ended[*rank as usize] || self.roll.has_left(*rank))
            .map(|rank| {
                let how = how_it_went(self.roll.presence(rank));
                // It had given up, and then it ended: nobody knows more than that it did.
                let died = how == DepartureKind::GaveUp && !self.roll.has_left(rank);
                (rank, if died { DepartureKind::Died } else { how })
            })
            .collect()
    }

    /// Whose process has ended, or whose connection to this rank: one system call.
    fn seen(&self) -> Vec<bool> {
        let own_pid = self.peers[self.rank as usize].pid;
        let others = self.processes.pids.iter().zip(self.processes.descriptors.iter());
        let watched: Vec<(i32, &OwnedFd)> = others
            .filter(|(pid, _)| **pid != own_pid)
            .map(|(pid, descriptor)| (*pid, descriptor))
            .collect();
        let mut entries: Vec<PollFd<'_>> = Vec::with_capacity(watched.len() + self.connections.len());
        entries.extend(
            watched
                .iter()
                .map(|(_, descriptor)| PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN)),
        );
        entries.extend(
            self.connections
                .iter()
                .map(|(_, socket)| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::RDHUP)),
        );
        let mut ended = vec![false; self.peers.len()];
        // A poll that fails has seen nothing; the next look will.
        if rustix::event::poll(
            &mut entries,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )
        .is_ok_and(|ready| ready > 0)
        {
            let (processes, connections) = entries.split_at(watched.len());
            let dead: Vec<i32> = processes
                .iter()
                .zip(&watched)
                .filter(|(entry, _)| !entry.revents().is_empty())
                .map(|(_, w)| w.0)
                .collect();
            if !dead.is_empty() {
                for (ended, peer) in ended.iter_mut().zip(&self.peers) {
                    *ended |= dead.contains(&peer.pid);
                }
            }
            for (entry, (rank, _)) in connections.iter().zip(&self.connections) {
                ended[*rank as usize] |= !entry.revents().is_empty();
            }
        }
        // All that was looked at so far is of first lives.
        for rank in (0..self.peers.len() as Rank).filter(|rank| *rank != self.rank) {
            let life = self.roll.life(rank);
            if life > 0 || self.lives.own > 0 {
                ended[rank as usize] = self.lives.ended(rank, life);
            }
        }
        ended
    }

    /// The departure that matters most: a death before a clean leave, then the lowest rank.
    pub(super) fn first(&self) -> Option<Departure> {
        self.departures()
            .into_iter()
            .min_by_key(|departure| departure.how)
    }
}

/// How a rank went, of which it is known that it went.
pub(super) fn how_it_went(presence: Presence) -> DepartureKind {
    match presence {
        Presence::Left => DepartureKind::Left,
        Presence::Panicked => DepartureKind::Panicked,
        Presence::GaveUp => DepartureKind::GaveUp,
        Presence::Absent | Presence::Joined => DepartureKind::Died,
    }
}

/// Whether a rank is gone, and how: whether its end was seen, or it says so itself.
fn departed(presence: Presence, ended: bool) -> Option<DepartureKind> {
    let says_so = !matches!(presence, Presence::Absent | Presence::Joined);
    (ended || says_so).then(|| how_it_went(presence))
}
