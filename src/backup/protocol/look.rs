//! What a worker makes of the words of its step.
//!
//! The words need not be read at one instant. The seal is read first; every other word, once it belongs to the step, is
//! final (slots, exclusions) or only counts up (tickets), and whatever follows from a look is one compare-and-swap that
//! expects what was seen. So a look that took long is a look at its end, whose compare-and-swap may fail.

use super::scan::{Scanned, listed, scan, scan_into};
use super::worker::Phase;
use super::{Access, Exclusion, Reach, Seal, Slot, Tag, Tickets, Way, Word, Worker};

/// The words of one step, as they are found at home. The seal is asked for first.
pub trait Words {
    /// Of the step, or of another that has the same place in the ring; so are the rest.
    fn seal(&self) -> Seal;
    /// How many tickets were taken.
    fn tickets(&self) -> Tickets;
    /// Who has a ticket.
    fn slot(&self, ticket: u16) -> Slot;
    /// Which tickets do not count.
    fn exclusion(&self, index: u16) -> Exclusion;
}

/// Who is not waited for any more. It may be wrong: that costs time, and never correctness.
pub trait Doubts {
    /// Whether a member's part is to be done without it: it is dead, or has been silent for long.
    fn worker(&self, worker: u16) -> bool;
    /// Whether whoever took a ticket long ago will not come back with its name.
    fn ticket(&self, ticket: u16) -> bool;
}

impl Worker {
    /// Looks at the words of its step, and at who is doubted.
    pub fn look(&mut self, words: &impl Words, doubts: &impl Doubts) {
        if !self.attentive() {
            return;
        }
        let seal = words.seal();
        if self.is_over(seal) {
            return;
        }
        if words.tickets().step() > self.step {
            return self.behind();
        }
        match self.phase {
            Phase::Returning => self.look_for_itself(words),
            Phase::Watch => self.look_around(seal, words, doubts),
            // It computes and has no say, or what it was to pull is not there yet.
            _ => {}
        }
    }

    /// Whether the step is over by this seal, and what follows then.
    #[inline]
    pub(super) fn is_over(&mut self, seal: Seal) -> bool {
        if seal.step() > self.step {
            self.behind();
            return true;
        }
        let over = seal.step() == self.step && seal.is_committed();
        if over {
            self.decided(Tag::of(self.step, self.view, seal.attempt()));
        }
        over
    }

    /// The step has this result. Where the words can be lost, a result is applied only by who has looked after it had
    /// marked it: so that whoever loses sight of the words finds the mark.
    fn decided(&mut self, tag: Tag) {
        self.phase = match self.shape.way {
            _ if self.held == tag => Phase::Apply(tag),
            Way::Flat => Phase::Sum(tag),
            Way::Tree { .. } => Phase::Pull(tag),
        };
    }

    /// A worker that was started anew must not arrive twice, nor do what an earlier life of it was to do.
    fn look_for_itself(&mut self, words: &impl Words) {
        let Some(exclusions) = listed(words, &self.shape, self.step) else {
            return self.behind();
        };
        let (me, mut earlier) = (self.me, None);
        let scanned = scan(words, &self.shape, self.step, exclusions, |ticket, slot, _| {
            if slot.worker() == Some(me) {
                earlier = Some(ticket);
            }
        });
        match (scanned, earlier) {
            (None, _) => self.behind(),
            (Some(_), None) => self.phase = Phase::Compute,
            // What that life showed is complete, and stays.
            (Some(_), Some(ticket)) if self.flat() => {
                self.ticket = Some(ticket);
                self.fresh = false;
                self.phase = Phase::Watch;
            }
            (Some(_), Some(ticket)) => self.exclude(words, exclusions, ticket),
        }
    }

    fn look_around(&mut self, seal: Seal, words: &impl Words, doubts: &impl Doubts) {
        let (step, shape) = (self.step, self.shape);
        let Some(exclusions) = listed(words, &shape, step) else {
            return self.behind();
        };
        let (me, incarnation) = (self.me, self.incarnation);
        let (mut counts, mut doubted) = (false, None);
        let mut scanned = Scanned::default();
        let whole = scan_into(
            words,
            &shape,
            step,
            exclusions,
            &mut scanned,
            |ticket, slot, member| {
                let worker = slot.worker().unwrap_or(me);
                counts |= worker == me && (slot.incarnation() == incarnation || Some(ticket) == self.ticket);
                if member && worker != me && doubted.is_none() && doubts.worker(worker) {
                    doubted = Some(ticket);
                }
            },
        );
        if !whole {
            return self.behind();
        }
        if !counts {
            // The others go on without it; its gradient is still good, should they need it.
            self.part.leave();
            self.ticket = None;
            self.phase = Phase::Ticket;
            return;
        }
        let in_force = (seal.step() == step).then(|| seal.attempt());
        if in_force.is_none_or(|attempt| exclusions > attempt) {
            if scanned.complete {
                let desired = match shape.way {
                    Way::Flat => Seal::committed(step, exclusions),
                    Way::Tree { .. } => Seal::sealed(step, exclusions),
                };
                return self.swap(Word::Seal(step), seal.0, desired.0);
            }
            if let Some(hole) = scanned.hole
                && scanned.arrived >= shape.members()
                && doubts.ticket(hole.ticket)
            {
                return self.swap(Word::Slot(step, hole.ticket), hole.found.0, Slot::void(step).0);
            }
            return;
        }
        // As many exclusions as are in force: these are the attempt's members.
        let tag = Tag::of(step, self.view, exclusions);
        if self.part.tag != tag
            && let Way::Tree { children } = shape.way
        {
            self.part
                .enter(tag, &scanned.members, self.me, children, shape.reach);
        }
        // Worth it only if enough are left.
        if let Some(ticket) = doubted
            && scanned.arrived > shape.members()
        {
            self.exclude(words, exclusions, ticket);
        }
    }

    fn exclude(&mut self, words: &impl Words, index: u16, ticket: u16) {
        if index == self.shape.exclusions() {
            // No more can be left out: who is waited for must come.
            return;
        }
        let word = Word::Exclusion(self.step, index);
        let expected = words.exclusion(index);
        if expected.step() >= self.step {
            // Somebody was faster.
            return;
        }
        self.swap(word, expected.0, Exclusion::of(self.step, ticket).0);
    }

    fn swap(&mut self, word: Word, expected: u64, desired: u64) {
        self.phase = Phase::Act(Access::Swap {
            word,
            expected,
            desired,
        });
    }

    /// Whether the words can be lost, with their owner: then nothing may be applied that was not marked before the look.
    pub fn can_lose(&self) -> bool {
        self.shape.reach != Reach::LoadStore
    }
}
