//! The membership as the engine needs it: asked who is gone, by a rank that is about to sleep.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::bootstrap::{BootstrapError, Departure, DepartureKind, Gathered, Membership};
use crate::engine::Liveness;

/// Shared by a communicator and its engine.
#[derive(Clone, Debug)]
pub(super) struct Members(Arc<Membership>);

impl Members {
    pub(super) fn new(membership: Membership) -> Self {
        Self(Arc::new(membership))
    }

    /// Every rank's bytes and descriptors, by rank. Collective.
    pub(super) fn all_gather(
        &self,
        what: &str,
        payload: &[u8],
        descriptors: Vec<OwnedFd>,
        timeout: Duration,
    ) -> Result<Vec<Gathered>, BootstrapError> {
        self.0
            .all_gather(what, payload, descriptors, Instant::now() + timeout)
    }

    /// Tells the others that this rank cannot go on, and why.
    pub(super) fn give_up(&self, doing: &str, why: &str) {
        self.0.give_up(doing, why);
    }

    /// Ends this rank's waits for the others, from any thread.
    pub(super) fn interrupt(&self) {
        self.0.interrupt();
    }

    /// What this rank moves on while it waits for the others.
    pub(super) fn while_waiting(&self, work: impl Fn() + Send + Sync + 'static) {
        self.0.while_waiting(work);
    }

    pub(super) fn membership(&self) -> &Membership {
        &self.0
    }

    /// For who must not keep it.
    pub(super) fn weak(&self) -> Weak<Membership> {
        Arc::downgrade(&self.0)
    }

    /// A rank that is known to have died.
    pub(super) fn first_death(&self) -> Option<Departure> {
        first_death(&self.0)
    }
}

/// A rank that is known to have died.
pub(super) fn first_death(membership: &Membership) -> Option<Departure> {
    use DepartureKind::{Died, Panicked, Returned};
    let died = |departure: &Departure| matches!(departure.how, Died | Panicked | Returned);
    membership.departures().into_iter().find(died)
}

impl Liveness for Members {
    fn gone(&self, rank: u32) -> Option<String> {
        let departures = self.0.departures();
        departures
            .into_iter()
            .find(|departure| departure.rank == rank)
            .map(|departure| departure.how.to_string())
    }

    fn dead(&self) -> Option<(u32, String)> {
        let died = self.first_death()?;
        Some((died.rank, died.how.to_string()))
    }

    fn ended(&self, rank: u32) -> bool {
        let mut found = false;
        self.each_ended(&mut |gone, _| found |= gone == rank);
        found
    }

    fn each_ended(&self, each: &mut dyn FnMut(u32, String)) {
        let ended = self.0.ended().into_iter();
        // Who is out of reach may still live. (Who has given up may still read, and is not among them.)
        ended
            .filter(|(_, how)| *how != DepartureKind::OutOfReach)
            .for_each(|(rank, how)| each(rank, how.to_string()));
    }

    fn life(&self, rank: u32) -> u64 {
        self.0.life_of(rank)
    }
}
