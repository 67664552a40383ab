//! The words that decide, as the CPUs of one host reach them: their atomic domain is these CPUs, for everybody.

use std::sync::atomic::Ordering::{Acquire, SeqCst};

use super::memory::Memory;
use super::protocol::{Access, Exclusion, Seal, Slot, Tickets, Word, Words};

/// The words of one step.
pub(super) struct Entry<'a> {
    pub memory: &'a Memory,
    pub step: u64,
}

impl Words for Entry<'_> {
    #[inline]
    fn seal(&self) -> Seal {
        Seal(self.memory.home(Word::Seal(self.step)).load(Acquire))
    }

    #[inline]
    fn tickets(&self) -> Tickets {
        Tickets(self.memory.home(Word::Tickets(self.step)).load(Acquire))
    }

    #[inline]
    fn slot(&self, ticket: u16) -> Slot {
        Slot(self.memory.home(Word::Slot(self.step, ticket)).load(Acquire))
    }

    #[inline]
    fn exclusion(&self, index: u16) -> Exclusion {
        Exclusion(self.memory.home(Word::Exclusion(self.step, index)).load(Acquire))
    }
}

/// Does it, and answers what was there before. What this worker wrote before is seen by whoever sees the new value.
#[inline]
pub(super) fn access(memory: &Memory, access: Access) -> u64 {
    match access {
        Access::Load(word) => memory.home(word).load(Acquire),
        Access::Add(word) => memory.home(word).fetch_add(1, SeqCst),
        Access::Swap {
            word,
            expected,
            desired,
        } => match memory
            .home(word)
            .compare_exchange(expected, desired, SeqCst, Acquire)
        {
            Ok(found) | Err(found) => found,
        },
    }
}
