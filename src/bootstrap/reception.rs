//! Rank 0 at the rendezvous: goes on until all ranks have come, and hands each the same table.
//!
//! One poll loop serves all connections, those that have not introduced themselves included, so that a silent or
//! hostile client holds nobody up.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::channel::Channel;
use super::control;
use super::liveness;
use super::message::{self, Answer, Kind, Leaving, Message, Peer, Table};
use super::progress::{JoinProgress, Watch};
use super::refusals::Refusals;
use super::roll::{Presence, Roll};
use super::socket::{self, Listener};
use super::visitor::Visitor;
use super::{BootstrapError, DepartureKind, HostIdentity, Job, Rank, noise};

/// A rank that has come.
pub(super) struct Member {
    pub(super) channel: Channel,
    pub(super) peer: Peer,
}

/// Everybody has.
pub(super) struct Arrived {
    pub(super) roll: Roll,
    /// By rank.
    pub(super) peers: Vec<Peer>,
    /// By rank less one.
    pub(super) channels: Vec<Channel>,
    pub(super) pids: Vec<i32>,
    pub(super) pidfds: Arc<Vec<OwnedFd>>,
    pub(super) salt: u128,
}

/// Rank 0's end of the rendezvous while the ranks come in.
pub(super) struct Reception<'job> {
    pub(super) job: &'job Job,
    started: Instant,
    deadline: Instant,
    pub(super) listener: Option<Listener>,
    pub(super) roll: Roll,
    pub(super) roll_descriptor: Arc<Vec<OwnedFd>>,
    pub(super) host: HostIdentity,
    pub(super) visitors: Vec<Visitor>,
    /// By rank less one.
    pub(super) members: Vec<Option<Member>>,
    pub(super) pids: Vec<i32>,
    pub(super) pidfds: Vec<OwnedFd>,
    /// There is no descriptor left to accept with until a visitor goes.
    pub(super) exhausted: bool,
    pub(super) refusals: Refusals,
}

impl<'job> Reception<'job> {
    pub(super) fn open(job: &'job Job, deadline: Instant) -> Result<Self, BootstrapError> {
        let roll = Roll::create(job.size)?;
        roll.mark(0, Presence::Joined);
        let duplicate = roll
            .descriptor()
            .try_clone_to_owned()
            .map_err(|error| BootstrapError::System {
                doing: "duplicating the roll's descriptor".into(),
                source: Errno::from_io_error(&error).unwrap_or(Errno::MFILE),
            })?;
        let listener = if job.size > 1 {
            Some(job.listener(deadline)?)
        } else {
            None
        };
        let mut members = Vec::new();
        members.resize_with(job.size as usize - 1, || None);
        let mut reception = Self {
            job,
            started: Instant::now(),
            deadline,
            listener,
            roll,
            roll_descriptor: Arc::new(vec![duplicate]),
            host: HostIdentity::of(job),
            visitors: Vec::new(),
            members,
            pids: Vec::new(),
            pidfds: Vec::new(),
            exhausted: false,
            refusals: Refusals::at("the rendezvous"),
        };
        if !job.rendezvous.is_network() {
            reception.watch_process(std::process::id() as i32)?;
        }
        Ok(reception)
    }

    /// Receives until all have come, then hands the table to each.
    pub(super) fn receive_all(mut self, watch: &mut Watch<'_>) -> Result<Arrived, BootstrapError> {
        match self.gather(watch).and_then(|()| self.hand_out_table()) {
            Err(error) => {
                self.roll.mark(0, Presence::GaveUp);
                let members = self.members.iter_mut().flatten();
                control::tell_all(members.map(|member| &mut member.channel), &error);
                Err(error)
            }
            Ok((table, pidfds)) => Ok(Arrived {
                roll: self.roll,
                peers: table.peers,
                channels: self
                    .members
                    .into_iter()
                    .flatten()
                    .map(|member| member.channel)
                    .collect(),
                pids: table.watched,
                pidfds,
                salt: table.salt,
            }),
        }
    }

    fn gather(&mut self, watch: &mut Watch<'_>) -> Result<(), BootstrapError> {
        if let Some(listener) = &self.listener {
            watch.tell(JoinProgress::Open {
                rendezvous: &listener.found_at(&self.job.rendezvous)?,
            });
        }
        let mut told = Vec::new();
        loop {
            self.accept()?;
            self.look_at_visitors()?;
            let ranks = self.absent();
            self.look_at_members(&ranks)?;
            if ranks.is_empty() {
                return Ok(());
            }
            if told != ranks {
                watch.tell(JoinProgress::WaitingFor { absent: &ranks });
                told.clone_from(&ranks);
            }
            if Instant::now() >= self.deadline {
                return Err(self.missing(ranks));
            }
            watch.still()?;
            self.wait(watch.still.is_some())?;
        }
    }

    fn absent(&self) -> Vec<Rank> {
        (1..)
            .zip(&self.members)
            .filter(|(_, member)| member.is_none())
            .map(|(rank, _)| rank)
            .collect()
    }

    fn missing(&self, ranks: Vec<Rank>) -> BootstrapError {
        BootstrapError::Missing {
            ranks,
            size: self.job.size,
            step: String::new(),
            waited: self.started.elapsed(),
        }
    }

    /// A rank that has come and goes again ends the join: it would never be complete.
    fn look_at_members(&mut self, absent: &[Rank]) -> Result<(), BootstrapError> {
        let mut gone = None;
        for (member, rank) in self.members.iter_mut().zip(1..) {
            let Some(Member { channel, .. }) = member else {
                continue;
            };
            let problem = |problem: String| BootstrapError::Protocol { rank, problem };
            channel.flush().map_err(problem)?;
            channel.receive().map_err(problem)?;
            while let Some(message) = channel.next_message() {
                hear(channel, &self.roll, rank, message, absent).map_err(problem)?;
            }
            if channel.is_closed() {
                gone.get_or_insert((rank, channel.is_out_of_reach()));
            }
        }
        let Some((rank, out_of_reach)) = gone else {
            return Ok(());
        };
        // It gave up waiting for those who are absent: it is they who are named.
        if self.roll.presence(rank) == Presence::GaveUp && !absent.is_empty() {
            return Err(self.missing(absent.to_vec()));
        }
        let how = match liveness::how_it_went(self.roll.presence(rank)) {
            DepartureKind::Died if out_of_reach => DepartureKind::OutOfReach,
            how => how,
        };
        let step = String::new();
        Err(BootstrapError::Departed { rank, how, step })
    }

    /// Sleeps until somebody comes, says something or has taken too long, or for a slice.
    fn wait(&mut self, slice: bool) -> Result<(), BootstrapError> {
        let patience = self.patience();
        let mut until = self
            .visitors
            .iter()
            .map(|visitor| visitor.since + patience)
            .fold(self.deadline, Instant::min);
        if slice {
            until = until.min(Instant::now() + control::SLICE);
        }
        let mut entries = Vec::with_capacity(1 + self.visitors.len() + self.members.len());
        if let (Some(listener), true) = (&self.listener, self.has_room()) {
            entries.push(PollFd::new(&listener.socket, PollFlags::IN));
        }
        for visitor in &self.visitors {
            entries.push(PollFd::from_borrowed_fd(visitor.descriptor(), PollFlags::IN));
        }
        for Member { channel, .. } in self.members.iter().flatten() {
            if channel.is_starved() {
                until = until.min(Instant::now() + Duration::from_millis(1));
            }
            entries.push(PollFd::from_borrowed_fd(
                channel.socket().as_fd(),
                channel.interest(),
            ));
        }
        socket::poll_until(&mut entries, until).map(drop)
    }

    fn hand_out_table(&mut self) -> Result<(Table, Arc<Vec<OwnedFd>>), BootstrapError> {
        // From here on nobody can come any more.
        self.listener = None;
        for visitor in self.visitors.drain(..) {
            self.refusals.refuse(
                &visitor.origin,
                "it had not finished the handshake when all ranks had come",
            );
        }
        let mut salt = [0; 16];
        noise::fill_random(&mut salt)?;
        let own = Peer {
            pid: std::process::id() as i32,
            host: self.host.clone(),
        };
        let members = self.members.iter().flatten();
        let table = Table {
            peers: std::iter::once(own)
                .chain(members.map(|member| member.peer.clone()))
                .collect(),
            watched: self.pids.clone(),
            salt: u128::from_le_bytes(salt),
        };
        let body = Arc::new(message::encode(&table));
        let pidfds = Arc::new(std::mem::take(&mut self.pidfds));
        for member in self.members.iter_mut().flatten() {
            member
                .channel
                .queue(Kind::Table, Arc::clone(&body), Arc::clone(&pidfds));
        }
        self.flush_all()?;
        Ok((table, pidfds))
    }

    fn flush_all(&mut self) -> Result<(), BootstrapError> {
        loop {
            for (member, rank) in self.members.iter_mut().zip(1..) {
                let Some(Member { channel, .. }) = member else {
                    continue;
                };
                channel
                    .flush()
                    .map_err(|problem| BootstrapError::Protocol { rank, problem })?;
            }
            let slow = (1..)
                .zip(self.members.iter().flatten())
                .find(|(_, member)| !member.channel.is_flushed());
            let Some((rank, _)) = slow else { return Ok(()) };
            if Instant::now() >= self.deadline {
                let problem = "did not take the table of ranks before the deadline: is it stopped?".into();
                return Err(BootstrapError::Protocol { rank, problem });
            }
            let mut channels: Vec<&mut Channel> = self
                .members
                .iter_mut()
                .flatten()
                .map(|member| &mut member.channel)
                .collect();
            control::turn(&mut channels, |index| index as Rank + 1, self.deadline)?;
        }
    }
}

/// What a rank that has come may say before all have: over the network, that it gives up, and who is absent it may
/// ask.
fn hear(
    channel: &mut Channel,
    roll: &Roll,
    rank: Rank,
    message: Message,
    absent: &[Rank],
) -> Result<(), String> {
    match message.kind {
        Kind::Leaving => {
            let Leaving { how, .. } = message::decode(&message.body)?;
            let presence = match how {
                DepartureKind::Panicked => Presence::Panicked,
                DepartureKind::Left => Presence::Left,
                _ => Presence::GaveUp,
            };
            roll.mark(rank, presence);
        }
        Kind::Question => {
            let answer = Answer {
                sequence: 0,
                behind: absent.to_vec(),
            };
            channel.queue_body(Kind::Answer, message::encode(&answer));
            channel.flush()?;
        }
        kind => return Err(format!("sent a {kind:?} before all ranks had joined")),
    }
    Ok(())
}
