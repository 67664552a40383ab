//! A rank's place in a job that has come together.

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::door::Door;
use super::join::Joined;
use super::liveness::{Departure, DepartureKind};
use super::message::{PAYLOAD_LIMIT, Peer, STEP_LIMIT};
use super::one_host::OneHost;
use super::progress::{JoinProgress, Watch};
use super::star::Star;
use super::{BootstrapError, HostIdentity, Job, Rank, host, join, returning};
use crate::fabric::fork::Birthplace;
use crate::fabric::select::Choice;

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
    rank: Rank,
    local_rank: u32,
    peers: Vec<Peer>,
    birthplace: Birthplace,
    pub(super) meeting: Meeting,
    /// What it was joined with.
    pub(super) job: Job,
    /// Random, and the same on all ranks.
    pub(super) salt: u128,
    /// For those who come back, where they may. Dropped last: the next life of this rank waits for it.
    door: Option<Door>,
}

/// How the ranks of a job are connected.
pub(super) enum Meeting {
    /// All at one Unix socket.
    OneHost(Box<OneHost>),
    /// Over the network.
    Network(Box<Star>),
}

impl Membership {
    /// Meets the other ranks and waits until all have come: rank 0 receives the others inside this call. Over the
    /// network rank 0 then has a thread that passes on what the ranks say until they have left; on one host no thread
    /// is started.
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
        if let Some(name) = &job.host {
            host::check_name(name)?;
            tracing::warn!(
                rank = job.rank,
                host = name,
                "this rank says that it is on another host than it is on"
            );
        }
        let mut watch = Watch {
            tell: &mut progress,
            still: None,
        };
        Self::meet(job, deadline, &mut watch)
    }

    /// [`Self::join`] for whoever may want to end it.
    pub(super) fn meet(job: &Job, deadline: Instant, watch: &mut Watch<'_>) -> Result<Self, BootstrapError> {
        let birthplace = Birthplace::here();
        if !returning::is_allowed(job) {
            let joined = join::join(job, deadline, watch)?;
            return Ok(Self::of(job, birthplace, joined, None));
        }
        let lock = returning::take_lock(job, deadline)?;
        let joined = match job.attempt {
            0 => join::join(job, deadline, watch)?,
            _ => returning::join(job, deadline, watch)?,
        };
        let Meeting::OneHost(one_host) = &joined.1 else {
            return Ok(Self::of(job, birthplace, joined, None));
        };
        let roll = &one_host.liveness.roll;
        let door = match lock {
            Some(lock) => {
                let roll = rustix::io::fcntl_dupfd_cloexec(roll.descriptor(), 0);
                let roll = roll.map_err(BootstrapError::system("duplicating the roll's descriptor"))?;
                Some(Door::new(lock, job, (joined.0.clone(), joined.2), roll))
            }
            None => {
                tracing::warn!(
                    rank = job.rank,
                    "this process is in the job already: by this membership the rank cannot come back if it dies"
                );
                roll.will_not_return(job.rank);
                None
            }
        };
        Ok(Self::of(job, birthplace, joined, door))
    }

    fn of(job: &Job, birthplace: Birthplace, (peers, meeting, salt): Joined, door: Option<Door>) -> Self {
        Self {
            rank: job.rank,
            local_rank: job.local_rank,
            peers,
            birthplace,
            meeting,
            job: job.clone(),
            salt,
            door,
        }
    }

    /// How often this rank has come back after a death, which the others took part in nothing for: 0 is its first life.
    /// Of one that has, [`Self::all_gather`] is refused.
    pub fn life(&self) -> u64 {
        match &self.meeting {
            Meeting::OneHost(one_host) => one_host.liveness.lives.own,
            Meeting::Network(_) => 0,
        }
    }

    /// In which of its lives a rank is, or was when it died again: 0 is the first. One load.
    pub(crate) fn life_of(&self, rank: Rank) -> u64 {
        match &self.meeting {
            Meeting::OneHost(one_host) => one_host.liveness.roll.life(rank),
            Meeting::Network(_) => 0,
        }
    }

    /// Whether ranks of this job may come back after a death; the same on all ranks.
    pub(crate) fn allows_returns(&self) -> bool {
        returning::is_allowed(&self.job)
    }

    /// Keeps text and descriptors, or why there are none, under a number for ranks that come back.
    pub(crate) fn keep(
        &self,
        number: u32,
        what: Result<(String, Vec<OwnedFd>), String>,
    ) -> Result<(), BootstrapError> {
        self.door.as_ref().map_or(Ok(()), |door| door.keep(number, what))
    }

    /// Keeps it no more.
    pub(crate) fn forget(&self, number: u32) {
        if let (Some(door), true) = (&self.door, self.birthplace.is_here()) {
            door.forget(number);
        }
    }

    /// What another rank keeps under a number for this one, which has come back.
    pub(crate) fn fetch(
        &self,
        number: u32,
        deadline: Instant,
    ) -> Result<(String, Vec<OwnedFd>), BootstrapError> {
        returning::fetch(&self.job, self.salt, number, deadline)
    }

    /// This rank.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// Ranks in the job.
    pub fn size(&self) -> u32 {
        self.peers.len() as u32
    }

    /// This rank's number among those on its host, as its launcher said.
    pub fn local_rank(&self) -> u32 {
        self.local_rank
    }

    /// The fabric that was asked for.
    pub fn fabric(&self) -> Choice {
        self.job.fabric
    }

    /// The process of each rank, by rank, as rank 0's PID name space numbers it; over the network, as its own does.
    pub fn pids(&self) -> Vec<i32> {
        self.peers.iter().map(|peer| peer.pid).collect()
    }

    /// Whether a rank is a thread of this process.
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn same_process(&self, rank: Rank) -> bool {
        let own = &self.peers[self.rank as usize];
        let other = &self.peers[rank as usize];
        other.pid == own.pid && other.host == own.host
    }

    /// The host of a rank.
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn host(&self, rank: Rank) -> &HostIdentity {
        &self.peers[rank as usize].host
    }

    /// The host of each rank, by rank, as a number: hosts count from 0 by first appearance, so that every rank has the
    /// same numbers.
    pub fn hosts(&self) -> Vec<u32> {
        host::numbered(self.peers.iter().map(|peer| &peer.host))
    }

    /// The ranks on this rank's host, ascending, this one included.
    pub fn host_ranks(&self) -> Vec<Rank> {
        (0..self.size())
            .filter(|&rank| self.host(rank) == self.host(self.rank()))
            .collect()
    }

    /// A rank that is gone, if any is: one that died before one that left in order, then the lowest. Does not block
    /// and waits for no lock, so that any waiting loop can ask it now and then (it is a `poll` system call or two).
    ///
    /// A process that is killed is seen at once. A host that vanishes is seen after 10 s of silence. Over the network
    /// the deaths on other hosts are rank 0's process to tell: once that has ended, its own is the last that is seen.
    pub fn departed(&self) -> Option<Departure> {
        self.departures()
            .into_iter()
            .min_by_key(|departure| departure.how)
    }

    /// All ranks that are gone, ascending. Does not block.
    pub fn departures(&self) -> Vec<Departure> {
        match &self.meeting {
            Meeting::OneHost(one_host) => one_host.liveness.departures(),
            Meeting::Network(star) => star.departures(),
        }
    }

    /// All ranks that are gone so that nothing can come from them any more, ascending: who has given up on a step, and
    /// goes on, is none of them. Does not block.
    pub fn ended(&self) -> Vec<(Rank, DepartureKind)> {
        match &self.meeting {
            Meeting::OneHost(one_host) => one_host.liveness.ended(),
            Meeting::Network(star) => star.ended(),
        }
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
    /// On one host rank 0 passes everything on inside its own call, so the others get their answer no sooner than it
    /// calls.
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
        let cut = (0..=what.len().min(STEP_LIMIT))
            .rev()
            .find(|&at| what.is_char_boundary(at))
            .unwrap_or(0);
        let name = &what[..cut];
        if payload.len() > PAYLOAD_LIMIT {
            return Err(BootstrapError::TooLarge {
                step: name.into(),
                bytes: payload.len(),
                limit: PAYLOAD_LIMIT,
            });
        }
        match &self.meeting {
            Meeting::OneHost(one_host) => one_host.all_gather(name, payload, descriptors, deadline),
            Meeting::Network(star) => star.all_gather(name, payload, descriptors, deadline),
        }
    }

    /// Waits until every rank has come here. Collective.
    ///
    /// # Errors
    /// As [`Self::all_gather`].
    pub fn barrier(&self, what: &str, deadline: Instant) -> Result<(), BootstrapError> {
        self.all_gather(what, &[], Vec::new(), deadline).map(drop)
    }

    /// Ends every step of this membership, those that others wait in included, because this rank cannot go on with
    /// what `step` names, for the reason `why`: the others' calls end at once with [`BootstrapError::GaveUp`], which
    /// tells it. For a rank that fails between two steps while the others are on their way to the next. Only the first
    /// reason is told; nothing more can be exchanged afterwards.
    pub fn give_up(&self, step: &str, why: &str) {
        if !self.birthplace.is_here() {
            return;
        }
        // So short that it always fits where it is told.
        let short = |text: &str, most: usize| text.chars().take(most).collect::<String>();
        let error = BootstrapError::GaveUp {
            rank: self.rank,
            step: short(step, 60),
            why: short(why, 300),
        };
        match &self.meeting {
            Meeting::OneHost(one_host) => one_host.give_up_for(error),
            Meeting::Network(star) => star.give_up_for(error),
        }
    }

    /// Ends this rank's waits in [`Self::all_gather`], at once and for good, from any thread; on one host the others
    /// are told. Who has survived can still come together ([`Self::survivors`]).
    pub fn interrupt(&self) {
        if self.birthplace.is_here() {
            match &self.meeting {
                Meeting::OneHost(one_host) => one_host.interrupt(),
                Meeting::Network(star) => star.interrupt(),
            }
        }
    }

    /// What this rank does every few milliseconds while it waits in [`Self::all_gather`]: it must not block, nor call this
    /// membership. Once.
    pub fn while_waiting(&self, work: impl Fn() + Send + Sync + 'static) {
        match &self.meeting {
            Meeting::OneHost(one_host) => one_host.liveness.meanwhile.set_work(Box::new(work)),
            Meeting::Network(star) => star.meanwhile.set_work(Box::new(work)),
        }
    }

    /// Whether [`Self::interrupt`] was called.
    pub(super) fn is_interrupted(&self) -> bool {
        match &self.meeting {
            Meeting::OneHost(one_host) => one_host.liveness.is_interrupted(),
            Meeting::Network(star) => star.is_interrupted(),
        }
    }

    /// Says to the others that this rank takes part in nothing any more.
    pub(super) fn give_up_silently(&self) {
        if let Meeting::OneHost(one_host) = &self.meeting {
            one_host.give_up();
        }
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
            let panicking = std::thread::panicking();
            match &mut self.meeting {
                Meeting::OneHost(one_host) => one_host.leave(panicking),
                Meeting::Network(star) => star.leave(panicking),
            }
        }
    }
}
