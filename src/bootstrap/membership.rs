//! A rank's place in a job that has come together.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::control::Control;
use super::liveness::{Departure, Liveness};
use super::progress::JoinProgress;
use super::roll::Presence;
use super::{BootstrapError, HostIdentity, Job, Rank, gather, host, join};
use crate::fabric::fork::Birthplace;

/// What one rank brought to [`Membership::all_gather`].
#[derive(Debug)]
pub struct Gathered {
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its descriptors, in its order, each a duplicate of this process's own.
    pub descriptors: Vec<OwnedFd>,
}

/// A job that has come together, seen from one rank of it.
///
/// `Send + Sync`; a process may hold several. Dropping it leaves the job, which the others can tell from a death.
pub struct Membership {
    pub(super) liveness: Liveness,
    pub(super) birthplace: Birthplace,
    local_rank: u32,
    state: Mutex<State>,
}

/// What changes from step to step.
pub(super) struct State {
    pub(super) control: Control,
    /// The number of the latest collective step, from 1.
    pub(super) sequence: u64,
    /// Why no step can be done any more.
    pub(super) broken: Option<BootstrapError>,
}

impl Membership {
    /// Meets the other ranks and waits until all have come. No thread is started: rank 0 receives the others inside
    /// this call.
    ///
    /// # Errors
    /// At the deadline every rank that had come names those that had not. See [`BootstrapError`] for what else can
    /// happen. Connections from strangers are refused, logged, and change nothing.
    pub fn join(job: &Job, deadline: Instant) -> Result<Self, BootstrapError> {
        Self::join_with(job, deadline, |_| {})
    }

    /// [`Self::join`], which tells `progress` what it has come to, on the calling thread.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub fn join_with(
        job: &Job,
        deadline: Instant,
        mut progress: impl FnMut(JoinProgress<'_>),
    ) -> Result<Self, BootstrapError> {
        let birthplace = Birthplace::here();
        if let Some(name) = &job.host {
            host::check_name(name)?;
            tracing::warn!(
                rank = job.rank,
                host = name,
                "this rank says that it is on another host than it is on"
            );
        }
        let (liveness, control) = if job.rank == 0 {
            join::as_root(job, deadline, &mut progress)?
        } else {
            join::as_leaf(job, deadline, &mut progress)?
        };
        Ok(Self {
            liveness,
            birthplace,
            local_rank: job.local_rank,
            state: Mutex::new(State {
                control,
                sequence: 0,
                broken: None,
            }),
        })
    }

    /// This rank.
    pub fn rank(&self) -> Rank {
        self.liveness.rank
    }

    /// Ranks in the job.
    pub fn size(&self) -> u32 {
        self.liveness.peers.len() as u32
    }

    /// This rank's number among those on its host, as its launcher said.
    pub fn local_rank(&self) -> u32 {
        self.local_rank
    }

    /// The process of each rank, by rank, as rank 0's PID name space numbers it.
    pub fn pids(&self) -> Vec<i32> {
        self.liveness.peers.iter().map(|peer| peer.pid).collect()
    }

    /// Whether a rank is a thread of this process.
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn same_process(&self, rank: Rank) -> bool {
        let peers = &self.liveness.peers;
        let own = &peers[self.liveness.rank as usize];
        peers[rank as usize].pid == own.pid && peers[rank as usize].host == own.host
    }

    /// The host of a rank.
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn host(&self, rank: Rank) -> &HostIdentity {
        &self.liveness.peers[rank as usize].host
    }

    /// The host of each rank, by rank, as a number: hosts count from 0 by first appearance, so that every rank has the
    /// same numbers.
    pub fn hosts(&self) -> Vec<u32> {
        host::numbered(self.liveness.peers.iter().map(|peer| &peer.host))
    }

    /// The ranks on this rank's host, ascending, this one included.
    pub fn host_ranks(&self) -> Vec<Rank> {
        (0..self.size())
            .filter(|&rank| self.host(rank) == self.host(self.rank()))
            .collect()
    }

    /// A rank that is gone, if any is: one that died before one that left in order, then the lowest. Does not block
    /// and takes no lock, so that any waiting loop can ask it now and then (it is one `poll` system call).
    pub fn departed(&self) -> Option<Departure> {
        self.liveness.first()
    }

    /// All ranks that are gone, ascending. Does not block.
    pub fn departures(&self) -> Vec<Departure> {
        self.liveness.departures()
    }

    /// Refuses in a forked child of the process that joined. One relaxed load.
    ///
    /// # Errors
    /// [`BootstrapError::Forked`].
    #[inline]
    pub fn check_process(&self) -> Result<(), BootstrapError> {
        self.birthplace.check(BootstrapError::Forked)
    }

    /// Gives every rank what every rank brings: a payload of any length up to 64 MiB (less 4 KiB), to all, and any
    /// number of descriptors, to those on the same host ([`Self::host_ranks`]): from ranks on other hosts there come
    /// none. Collective: every rank calls it in the same order with the same `what`, which names the step in errors.
    /// The answer is by rank, this one's own part included.
    ///
    /// Rank 0 passes everything on inside its own call, so the others get their answer no sooner than it calls.
    ///
    /// # Errors
    /// [`BootstrapError::Missing`] at the deadline names the ranks that had not come, on every rank that had; a
    /// rank that dies ends the step at once on all; [`BootstrapError::Mismatch`] where ranks are at different
    /// steps. After an error nothing more can be exchanged and each further call repeats it.
    pub fn all_gather(
        &self,
        what: &str,
        payload: &[u8],
        descriptors: Vec<OwnedFd>,
        deadline: Instant,
    ) -> Result<Vec<Gathered>, BootstrapError> {
        self.birthplace.check(BootstrapError::Forked)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        let outcome = gather::all_gather(&self.liveness, &mut state, what, payload, descriptors, deadline);
        match outcome {
            Err(error) if !matches!(error, BootstrapError::TooLarge { .. }) => {
                self.liveness.roll.mark(self.rank(), Presence::GaveUp);
                state.broken = Some(error.clone());
                Err(error)
            }
            other => other,
        }
    }

    /// Waits until every rank has come here. Collective.
    ///
    /// # Errors
    /// As [`Self::all_gather`].
    pub fn barrier(&self, what: &str, deadline: Instant) -> Result<(), BootstrapError> {
        self.all_gather(what, &[], Vec::new(), deadline).map(drop)
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Membership(rank {} of {})", self.rank(), self.size())
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // A forked child's copy must not sign its parent off.
        if self.birthplace.is_here() {
            let presence = match self.liveness.roll.presence(self.rank()) {
                _ if std::thread::panicking() => Presence::Panicked,
                Presence::GaveUp => Presence::GaveUp,
                _ => Presence::Left,
            };
            self.liveness.roll.mark(self.rank(), presence);
        }
    }
}
