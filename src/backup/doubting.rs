//! Who is not waited for any more. It is looked into only before a sleep: on the fast path nobody is doubted.

use std::time::{Duration, Instant};

use super::core::Core;
use super::home::Entry;
use super::protocol::{Doubts, Members, Seal, Tag, Way, Words, scan};

/// Everybody is trusted.
pub(super) struct Trust;

impl Doubts for Trust {
    fn worker(&self, _: u16) -> bool {
        false
    }
    fn ticket(&self, _: u16) -> bool {
        false
    }
}

/// What was found before a sleep.
#[derive(Default)]
pub(super) struct Suspicion {
    pub workers: Members,
    pub ticket: Option<u16>,
}

impl Doubts for Suspicion {
    fn worker(&self, worker: u16) -> bool {
        self.workers.contains(worker)
    }
    fn ticket(&self, ticket: u16) -> bool {
        self.ticket == Some(ticket)
    }
}

/// Since when this worker has seen what it waits for.
#[derive(Debug)]
pub(super) struct Watched<T> {
    what: Option<T>,
    since: Instant,
}

impl<T: PartialEq> Watched<T> {
    pub fn new() -> Self {
        Self {
            what: None,
            since: Instant::now(),
        }
    }

    /// How long it has been so.
    fn now(&mut self, what: T) -> Duration {
        if self.what.as_ref() != Some(&what) {
            self.what = Some(what);
            self.since = Instant::now();
        }
        self.since.elapsed()
    }
}

impl Core {
    /// Who is to be done without: members whose turn it is and who do nothing, once they are `gone` or the attempt has
    /// lasted for long; and a ticket that was taken long ago by somebody who has not come back with a name.
    pub(super) fn suspicion(&mut self, gone: &Members) -> Suspicion {
        let (step, shape) = (self.worker.step(), self.shape);
        let entry = Entry {
            memory: &self.memory,
            step,
        };
        let seal = entry.seal();
        let attempt = if seal.step() == step { seal.attempt() } else { 0 };
        let Some(scanned) = scan(&entry, &shape, step, attempt, |_, _, _| {}) else {
            return Suspicion::default();
        };
        if seal.step() < step {
            let hole = scanned.hole.map(|hole| hole.ticket);
            let long = self.hole.now((step, hole)) >= self.suspicion;
            let ticket = hole.filter(|_| long);
            return Suspicion {
                ticket,
                ..Suspicion::default()
            };
        }
        let long = self.attempt.now(seal) >= self.suspicion;
        let mut workers = Members::default();
        let idle = |worker: &u16| long || gone.contains(*worker);
        let stuck = self.stuck(seal, &scanned.members);
        stuck
            .iter()
            .filter(idle)
            .for_each(|worker| workers.insert(worker));
        Suspicion {
            workers,
            ticket: None,
        }
    }

    /// Members for whom everything is there that they need, and whose part is not.
    pub(super) fn stuck(&self, seal: Seal, members: &Members) -> Members {
        let mut stuck = Members::default();
        let Way::Tree { children } = self.way else {
            return stuck;
        };
        let tag = Tag::of(seal.step(), self.worker.view(), seal.attempt());
        let published = |worker: u16| {
            let shown = self.memory.shown(worker);
            shown.tag.load(std::sync::atomic::Ordering::Acquire) == tag.0
                && shown.bytes.load(std::sync::atomic::Ordering::Acquire) == self.memory.places.bytes as u64
        };
        for (position, worker) in (0u16..).zip(members.iter()) {
            let first = position * children + 1;
            let mut below = (first..first + children).filter_map(|child| members.at(child));
            if (position == 0 || !published(worker)) && below.all(published) {
                stuck.insert(worker);
            }
        }
        stuck
    }
}
