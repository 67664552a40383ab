//! Who is not waited for any more. It is looked into only before a sleep: on the fast path nobody is doubted.

use std::time::{Duration, Instant};

use super::core::Core;
use super::ground::{Found, Ground};
use super::protocol::{Doubts, Members, Scanned, Seal, Tag, Way, Words, listed, scan};

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
    pub fn now(&mut self, what: T) -> Duration {
        if self.what.as_ref() != Some(&what) {
            self.what = Some(what);
            self.since = Instant::now();
        }
        self.since.elapsed()
    }
}

/// The words of the own step, as they were seen.
pub(super) struct Seen {
    pub seal: Seal,
    pub scanned: Scanned,
    /// Those whose tickets count.
    pub arrived: Members,
    /// A ticket without a name that keeps the next attempt from being sealed.
    hole: Option<u16>,
}

impl<G: Ground> Core<G> {
    /// Looks at the words of the own step; none if they are a later step's.
    pub(super) fn see(&mut self) -> Result<Option<Seen>, Found> {
        let step = self.worker.step();
        let words = self.ground.words(self.worker.view(), step)?;
        let seal = words.seal();
        let attempt = if seal.step() == step { seal.attempt() } else { 0 };
        let mut arrived = Members::default();
        let scanned = scan(&words, &self.shape, step, attempt, |_, slot, _| {
            slot.worker()
                .into_iter()
                .for_each(|worker| arrived.insert(worker));
        });
        let exclusions = listed(&words, &self.shape, step);
        let next = exclusions.and_then(|count| scan(&words, &self.shape, step, count, |_, _, _| {}));
        let hole = next.and_then(|next| next.hole).map(|hole| hole.ticket);
        Ok(scanned.map(|scanned| Seen {
            seal,
            scanned,
            arrived,
            hole,
        }))
    }

    /// Who is to be done without: members whose turn it is and who do nothing, once they are `gone` or the attempt has
    /// lasted for long; and a ticket that was taken long ago by somebody who has not come back with a name.
    pub(super) fn suspicion(&mut self, gone: &Members) -> Suspicion {
        let step = self.worker.step();
        let Ok(Some(seen)) = self.see() else {
            return Suspicion::default();
        };
        let Seen {
            seal, scanned, hole, ..
        } = seen;
        // It may keep the first attempt from being sealed, or one without a member that was excluded.
        let long = self.hole.now((step, hole)) >= self.suspicion;
        let ticket = hole.filter(|_| long);
        if seal.step() < step {
            return Suspicion {
                ticket,
                ..Suspicion::default()
            };
        }
        // Each attempt is given twice as long as the one before: where all are slow, doubts would use up what can be
        // excluded in a step.
        let patience = self.suspicion * (1 << seal.attempt().min(16));
        let long = self.attempt.now(seal) >= patience;
        let mut workers = Members::default();
        let idle = |worker: &u16| long || gone.contains(*worker);
        let stuck = self.stuck(seal, &scanned.members);
        stuck
            .iter()
            .filter(idle)
            .for_each(|worker| workers.insert(worker));
        Suspicion { workers, ticket }
    }

    /// Members for whom everything is there that they need, and whose part is not. Those to whom there is no way yet are asked
    /// for one once the attempt has lasted for half of what makes a doubt; before, they are trusted.
    pub(super) fn stuck(&mut self, seal: Seal, members: &Members) -> Members {
        let mut stuck = Members::default();
        let asked = self.attempt.now(seal) >= self.suspicion / 2;
        let (Way::Tree { children }, Some(root)) = (self.way, members.at(0)) else {
            return stuck;
        };
        let tag = Tag::of(seal.step(), self.worker.view(), seal.attempt());
        let held = self.ground.places().result_tag(tag);
        if self.worker.can_lose() && self.ground.load(root, held) == Some(tag.0) {
            // The root waits for all to have the result, and then has only to commit it.
            for member in members.iter().filter(|member| *member != root) {
                if (asked || self.ground.has_way(member)) && !self.has_marked(member, tag) {
                    stuck.insert(member);
                }
            }
            if stuck.is_empty() {
                stuck.insert(root);
            }
            return stuck;
        }
        let whole = self.ground.places().bytes;
        let mut published = Members::default();
        for worker in members.iter().filter(|member| *member != root) {
            let seen = asked || self.ground.has_way(worker) || self.ground.is_gone(worker);
            if !seen
                || self
                    .ground
                    .shown(worker, tag)
                    .is_some_and(|shown| shown.bytes == whole)
            {
                published.insert(worker);
            }
        }
        for (position, worker) in (0u16..).zip(members.iter()) {
            let first = position * children + 1;
            let mut below = (first..first + children).filter_map(|child| members.at(child));
            if !published.contains(worker) && below.all(|child| published.contains(child)) {
                stuck.insert(worker);
            }
        }
        stuck
    }
}
