//! The usual course of a step among few workers of one host, straight down: a ticket, a slot, the seal, the sum. Every move
//! is one that [`Core::turn`] makes too. As soon as something else is to be done, or to be waited for any longer, the worker is
//! left as it is, and turns go on from there.

use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use super::core::Core;
use super::mapped::Mapped;
use super::protocol::{Did, Seal, Slot, Tickets, Words};

/// Where tests let others go first.
#[inline(always)]
fn between() {
    #[cfg(test)]
    super::tests::between::between();
}

impl Core<Mapped> {
    /// What a worker does whose gradient is complete. It looks so often at what is not there yet.
    pub(super) fn go_straight(&mut self, looks: u32) {
        if self.caught || self.worker.is_usual() && !self.has_come() || !self.ends(looks) {
            return;
        }
        between();
        if let Some(tag) = self.worker.sums()
            && self.sum(tag) == Did::Done
        {
            self.worker.has_summed(tag);
        }
    }

    /// Takes a ticket and fills its slot.
    #[inline(always)]
    fn has_come(&mut self) -> bool {
        let step = self.worker.step();
        let words = self.ground.entry(step);
        self.fetch_gradients();
        let found = words.tickets_word().fetch_add(1, SeqCst);
        between();
        let Some(ticket) = self.worker.took(Tickets(found)) else {
            return false;
        };
        words.expect_to_fill(ticket, self.is_last(ticket));
        let slot = words.slot_word(ticket);
        let found = slot.load(Acquire);
        between();
        let Some(own) = self.worker.fills(ticket, Slot(found)) else {
            return false;
        };
        let filled = slot.compare_exchange(found, own.0, SeqCst, Acquire);
        between();
        let now = filled.unwrap_or_else(|now| now);
        let has_filled = self.worker.has_filled(ticket, Slot(found), Slot(now));
        self.eager = self.arrived(ticket);
        has_filled
    }

    /// Seals the step, if that is for this worker to do, or sees that it is over.
    #[inline(always)]
    fn ends(&mut self, looks: u32) -> bool {
        let Some(ticket) = self.worker.waits_usually() else {
            return false;
        };
        let step = self.worker.step();
        let words = self.ground.entry(step);
        let last = self.is_last(ticket);
        for _ in 0..looks {
            let seal = words.seal();
            between();
            if self.worker.sees(seal) {
                return true;
            }
            if last && let Some((members, desired)) = self.worker.proposal(seal, &words) {
                between();
                // The seal releases it.
                words.few_word().store(members.0, Relaxed);
                between();
                let word = words.seal_word();
                if let Err(found) = word.compare_exchange(seal.0, desired.0, SeqCst, Acquire) {
                    return self.worker.sees(Seal(found));
                }
                between();
                self.has_sealed(step);
                self.ground.entry(step + 1).expect_to_reopen();
                return self.worker.sees(desired);
            }
            std::hint::spin_loop();
        }
        false
    }
}
