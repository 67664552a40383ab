//! What is posted and not yet known to be over, and the memory it works on (invariant 1).
//!
//! A table holds the requests, or the receives, of one connection. It is indexed by the `wr_id` that the device gives
//! back ([`Ticket`]): the low bits of its sequence number are the slot, the rest is the slot's generation. An entry
//! owns a clone of the handle of every registration that the device may still touch for it. It leaves the table
//! when a completion says that it is over (its own, or a later one of the same queue pair), when it was never
//! handed to the device, or after the queue pair was destroyed, and never otherwise: a completion of an earlier
//! generation finds nothing.
//!
//! This file must never call into verbs: it is plain bookkeeping, so that properties can be tested on any machine.

use std::sync::Arc;

use super::ticket::Ticket;
use crate::fabric::{Opcode, Registration, Status};

/// A posted request.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The caller's number.
    pub id: u64,
    /// The local memory, until the device is through with it; `None` where it took the bytes at the post.
    pub registration: Option<Arc<dyn Registration>>,
    /// Bytes to be moved.
    pub bytes: usize,
    /// What it is to the caller.
    pub opcode: Opcode,
    /// Whether the caller wants to hear of its success. Never of what is of this module's own making.
    pub signaled: bool,
    /// Of this module's own making: not reported when it fails, either.
    pub internal: bool,
    /// How it ended, where not by success.
    pub status: Option<Status>,
    /// How it is to end when its turn comes: found out at the post, and carried out by the device as something that
    /// it refuses.
    pub refused: Option<Status>,
    /// What it took of the endpoint's [`super::budget::Budget`].
    pub weight: u8,
    /// Queue pairs that have yet to report it; 0 for what queue pair 0 alone carries, whose reports are in order.
    pub unreported_lanes: u8,
    /// Of `lone`'s: its success is reported, and it holds no memory if it is a write.
    pub lone: bool,
}

impl Outgoing {
    /// A write whose bytes were taken at the post and whose success is reported.
    #[inline(always)]
    pub fn lone(id: u64, bytes: usize) -> Self {
        Self {
            id,
            registration: None,
            bytes,
            weight: 0,
            unreported_lanes: 0,
            opcode: Opcode::Write,
            status: None,
            signaled: true,
            internal: false,
            refused: None,
            lone: true,
        }
    }
}

/// A posted receive.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The caller's number.
    pub id: u64,
    /// The memory it fills.
    pub registration: Option<Arc<dyn Registration>>,
    /// Queue pairs that have yet to report it.
    pub unreported_lanes: u8,
    /// What came.
    pub opcode: Opcode,
    /// How it ended, where not by success.
    pub status: Option<Status>,
    /// Bytes that came, on all queue pairs together.
    pub bytes: usize,
    /// What came with them.
    pub immediate: Option<u32>,
}

/// Entries in the order of posting; see the module.
#[derive(Debug)]
pub(super) struct InFlight<T> {
    slots: Box<[Option<T>]>,
    /// Which bits of a number are its slot.
    mask: usize,
    /// The number of the oldest entry.
    head: u64,
    /// The number that the next entry gets.
    tail: u64,
}

impl<T> InFlight<T> {
    /// For at least so many entries.
    pub fn with_capacity(entries: usize) -> Self {
        Self::starting_at(entries, 0)
    }

    fn starting_at(entries: usize, sequence: u64) -> Self {
        let slots = entries.max(1).next_power_of_two();
        Self {
            slots: std::iter::repeat_with(|| None).take(slots).collect(),
            mask: slots - 1,
            head: sequence,
            tail: sequence,
        }
    }

    #[inline(always)]
    fn slot(&self, sequence: u64) -> usize {
        sequence as usize & self.mask
    }

    /// The number that the next entry gets.
    #[inline(always)]
    pub fn next(&self) -> u64 {
        self.tail
    }

    /// The number of the oldest entry, or of the next one if there is none.
    #[inline(always)]
    pub fn oldest(&self) -> u64 {
        self.head
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        (self.tail - self.head) as usize
    }

    /// Whether there is no room for another entry.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.len() == self.slots.len()
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.tail == self.head
    }

    /// Takes an entry in.
    ///
    /// # Panics
    /// If there is no room: the caller counts.
    #[inline(always)]
    pub fn push(&mut self, entry: T) {
        assert!(!self.is_full(), "the in-flight table is full");
        self.push_counted(entry);
    }

    /// Takes an entry in where the caller knows that there is room; if there is none, an older entry is lost, and its
    /// memory kept for good.
    #[inline(always)]
    pub fn push_counted(&mut self, entry: T) {
        let slot = self.tail as usize & self.mask;
        // SAFETY: there are `mask + 1` slots.
        let slot = unsafe { self.slots.get_unchecked_mut(slot) };
        // What was there is nothing: nothing is dropped.
        std::mem::forget(slot.replace(entry));
        self.tail += 1;
    }

    /// Whether a `wr_id` of this table is that of its oldest entry, or of the next one if it is empty.
    #[inline(always)]
    pub fn has_oldest_number(&self, number: u64) -> bool {
        (number ^ self.head) << (u64::BITS - Ticket::SEQUENCE_BITS) == 0
    }

    /// The entry that a completion is of and its full number; `None` for one that is over already, or never was.
    #[inline(always)]
    pub fn find(&self, ticket_sequence: u64) -> Option<u64> {
        let distance = ticket_sequence.wrapping_sub(self.head) & Ticket::SEQUENCE_MASK;
        (distance < self.tail - self.head).then_some(self.head + distance)
    }

    /// The entry of this number, which [`InFlight::find`] gave.
    #[inline(always)]
    pub fn get_mut(&mut self, sequence: u64) -> Option<&mut T> {
        if sequence < self.head || sequence >= self.tail {
            return None;
        }
        let slot = self.slot(sequence);
        self.slots[slot].as_mut()
    }

    /// The oldest entry.
    #[inline(always)]
    pub fn front(&self) -> Option<&T> {
        if self.is_empty() {
            return None;
        }
        self.slots[self.slot(self.head)].as_ref()
    }

    /// All entries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        (self.head..self.tail).filter_map(|number| self.slots[self.slot(number)].as_ref())
    }

    /// Takes the oldest entry out: it is over.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let slot = self.slot(self.head);
        self.head += 1;
        self.slots[slot].take()
    }

    /// As [`InFlight::pop`], for an entry that nobody looks at any more.
    #[inline]
    pub fn drop_oldest(&mut self) {
        let slot = self.slot(self.head);
        self.head += u64::from(self.head != self.tail);
        self.slots[slot] = None;
    }

    /// Takes the newest entry out: it was not handed to the device.
    pub fn take_back(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        self.tail -= 1;
        let slot = self.slot(self.tail);
        self.slots[slot].take()
    }

    /// Keeps everything in it for good: the device could not be made to let go of it.
    pub fn abandon(&mut self) {
        while let Some(entry) = self.pop() {
            std::mem::forget(entry);
        }
    }
}

impl InFlight<Outgoing> {
    /// Makes `lone`'s entries ordinary ones, which have a place in the budget: so many.
    pub fn count_lone(&mut self) -> usize {
        let mut counted = 0;
        for entry in self.slots.iter_mut().flatten().filter(|entry| entry.lone) {
            entry.lone = false;
            entry.weight = 1;
            counted += 1;
        }
        counted
    }

    /// The place of the oldest entry, empty where there is none, and its number: who empties the one adds to the other.
    #[inline(always)]
    pub fn oldest_place(&mut self) -> (&mut Option<Outgoing>, &mut u64) {
        let slot = self.head as usize & self.mask;
        // SAFETY: there are `mask + 1` slots.
        (unsafe { self.slots.get_unchecked_mut(slot) }, &mut self.head)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_holds_its_memory_until_it_is_taken_out() {
        let memory = Arc::new(());
        let mut table = InFlight::with_capacity(4);
        table.push(memory.clone());
        table.push(memory.clone());
        assert_eq!(Arc::strong_count(&memory), 3);
        table.pop();
        assert_eq!(Arc::strong_count(&memory), 2);
        table.take_back();
        assert_eq!(Arc::strong_count(&memory), 1);
    }

    #[test]
    fn a_completion_of_an_earlier_generation_finds_nothing() {
        let mut table = InFlight::with_capacity(4);
        for round in 0..100u64 {
            table.push(round);
            assert_eq!(table.find(round), Some(round));
            assert_eq!(table.find(round + 1), None, "never posted");
            if round >= 4 {
                assert_eq!(table.find(round - 4), None, "the same slot, a generation ago");
            }
            assert_eq!(table.pop(), Some(round));
            assert_eq!(table.find(round), None, "over");
        }
    }

    #[test]
    fn numbers_wrap_around() {
        let start = Ticket::SEQUENCE_MASK - 1;
        let mut table = InFlight::starting_at(4, start);
        for entry in 0..4 {
            table.push(entry);
        }
        for entry in 0..4u64 {
            let found = table.find((start + entry) & Ticket::SEQUENCE_MASK).unwrap();
            assert_eq!(table.get_mut(found), Some(&mut (entry as i32)));
        }
        assert_eq!(table.find(Ticket::SEQUENCE_MASK - 2), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Pop,
        TakeBack,
        Look(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Push),
            3 => Just(Step::Pop),
            1 => Just(Step::TakeBack),
            3 => (0..64u64).prop_map(Step::Look),
        ];
        proptest::collection::vec(step, 0..400)
    }

    proptest! {
        /// Against a queue of (number, entry): whatever is asked, the table finds what the queue holds, and every
        /// entry's memory is held exactly as long as it is there.
        #[test]
        fn it_is_a_queue_with_numbers(steps in steps(), start in prop_oneof![Just(0), Just(Ticket::SEQUENCE_MASK - 20)]) {
            let mut table = InFlight::starting_at(8, start);
            let mut model: VecDeque<(u64, Arc<u64>)> = VecDeque::new();
            let mut next = start;
            let mut all = Vec::new();
            for step in steps {
                match step {
                    Step::Push if model.len() < 8 => {
                        let memory = Arc::new(next);
                        all.push(memory.clone());
                        table.push(memory.clone());
                        model.push_back((next, memory));
                        next += 1;
                    }
                    Step::Push => {}
                    Step::Pop => prop_assert_eq!(table.pop(), model.pop_front().map(|(_, memory)| memory)),
                    Step::TakeBack => {
                        let expected = model.pop_back();
                        prop_assert_eq!(table.take_back(), expected.clone().map(|(_, memory)| memory));
                        if let Some((number, _)) = expected {
                            next = number;
                        }
                    }
                    Step::Look(back) => {
                        let number = next.wrapping_sub(back).wrapping_add(8);
                        let expected = model.iter().find(|(known, _)| *known == number);
                        let found = table.find(number & Ticket::SEQUENCE_MASK);
                        prop_assert_eq!(found, expected.map(|(known, _)| *known));
                        if let (Some(found), Some((_, memory))) = (found, expected) {
                            prop_assert_eq!(table.get_mut(found), Some(&mut memory.clone()));
                        }
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                for memory in &all {
                    let held = model.iter().any(|(_, known)| Arc::ptr_eq(known, memory));
                    prop_assert_eq!(Arc::strong_count(memory), if held { 3 } else { 1 });
                }
            }
        }
    }
}
