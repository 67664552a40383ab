//! A rank's board: the shared page on which it alone writes and which all ranks of the communicator read.
//!
//! It holds the rank's state, one announcement line for each recent operation (with the payload of a small one in
//! the same cache line), slots for small payloads that need more room, and the progress counters of the tasks
//! of recent operations. One writer for each line, no read-modify-write.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::details::Details;
use super::hint::for_writing;
use super::line::Line;
use super::units::{UNIT_SLOT_BYTES, UNIT_SLOTS, Unit};
use super::{Layout, Signature, Trouble};

pub(super) const LINE: usize = 64;

/// Operations that a board can tell apart. A rank is never this far ahead of one that still reads its lines:
/// all-to-all operations bind ranks within one, trees within their depth.
pub(super) const DEPTH: u64 = 256;

/// Bytes of payload in an announcement line.
pub(super) const LINE_PAYLOAD: usize = LINE - 16;

/// The same where the line also holds a factor.
pub(super) const SCALED_PAYLOAD: usize = LINE_PAYLOAD - 8;
const FACTOR_AT: usize = LINE - 8;

/// Slots for payloads of operations that not all ranks wait for, and the bytes of one.
pub(super) const AHEAD: usize = 64;
pub(super) const AHEAD_BYTES: usize = 4 * LINE;

/// Chunks of one task that a counter can count.
pub(super) const CHUNK_BITS: u32 = 24;

/// The chunk count that says that a task is over, whatever its number of chunks.
pub(super) const WHOLE: u64 = (1 << CHUNK_BITS) - 1;

/// Operations of one communicator: counters hold the number above the chunks, and one that wrapped would say that
/// everything was done. Some reserved numbers are kept back.
pub const MAXIMUM_SEQUENCE: u64 = (1 << (u64::BITS - CHUNK_BITS)) - 1024;

/// Words of a set of processors, and where it is: in the line of the rank's state, which hardly ever changes.
pub const PROCESSORS: usize = 4;
const PROCESSORS_AT: usize = 32;

/// Messages from one rank to another that a board can show at a time.
pub(super) const LETTERS: u64 = 8;

/// A line about a message to or from one other rank. The number is stored last; a receiver's answer has it shifted by
/// one, with the lowest bit set where it refuses.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Post {
    pub number: AtomicU64,
    /// Where the message lies, as windows are named.
    pub place: AtomicU64,
    pub bytes: AtomicU64,
    pub label: AtomicU64,
}

/// One rank's board as this process sees it.
#[derive(Clone, Debug)]
pub struct Board {
    base: NonNull<u8>,
    layout: Layout,
    // Keeps the mapping.
    _memory: Arc<dyn Any + Send + Sync>,
}

// SAFETY: shared words are atomics; payload bytes are handed out as raw pointers, whose users answer for them.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Board {
    /// # Safety
    /// `base` must point to `layout.bytes()` bytes, aligned to 64, at first zero, that `memory` keeps mapped and
    /// that only the board's owner writes. For the owner they must be writable.
    pub unsafe fn new(base: NonNull<u8>, layout: Layout, memory: Arc<dyn Any + Send + Sync>) -> Self {
        debug_assert!((base.as_ptr() as usize).is_multiple_of(LINE));
        Self {
            base,
            layout,
            _memory: memory,
        }
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset + 8 <= self.layout.bytes() && offset.is_multiple_of(8));
        // SAFETY: offsets come from the layout and stay within its bytes; the word is aligned, mapped as long as
        // `self`, and accessed only atomically.
        unsafe { self.base.add(offset).cast().as_ref() }
    }

    fn line_at(sequence: u64) -> usize {
        LINE * (1 + (sequence % DEPTH) as usize)
    }

    #[inline]
    fn line(&self, sequence: u64) -> &Line {
        // SAFETY: within the layout, aligned to a cache line, mapped as long as `self`; two words, accessed only
        // atomically, for which every bit pattern is valid.
        unsafe { self.base.add(Self::line_at(sequence)).cast().as_ref() }
    }

    /// What the owner's contribution to operation `sequence` is multiplied by, where the operation has factors: to be
    /// stored before it is announced. The last word of the line, beyond [`SCALED_PAYLOAD`] bytes of payload.
    #[inline]
    pub(super) fn factor(&self, sequence: u64) -> f64 {
        f64::from_bits(
            self.word(Self::line_at(sequence) + FACTOR_AT)
                .load(Ordering::Relaxed),
        )
    }

    #[inline]
    pub(super) fn set_factor(&self, sequence: u64, factor: f64) {
        self.word(Self::line_at(sequence) + FACTOR_AT)
            .store(factor.to_bits(), Ordering::Relaxed);
    }

    /// Takes the line of `sequence` from the operation that had it before. To be called before anything is stored in
    /// [`Board::line_payload`], and followed by [`Board::announce`].
    #[inline]
    pub(super) fn reuse(&self, sequence: u64) {
        self.line(sequence).reuse();
    }

    /// Says what this rank does as its operation `sequence`; everything stored before is visible to who sees it.
    #[inline]
    pub(super) fn announce(&self, sequence: u64, signature: Signature) {
        self.line(sequence).announce(sequence, signature.0);
    }

    /// As [`Board::reuse`] and [`Board::announce`], with what a small operation has no room for and no need of: which
    /// memory, and the whole hash of the plan's name.
    #[inline]
    pub(super) fn announce_details(
        &self,
        sequence: u64,
        signature: Signature,
        details: Details,
        factor: Option<f64>,
    ) {
        self.reuse(sequence);
        if let Some(factor) = factor {
            self.set_factor(sequence, factor);
        }
        let line = Self::line_at(sequence);
        for (index, word) in details.0.into_iter().enumerate() {
            self.word(line + 16 + 8 * index).store(word, Ordering::Relaxed);
        }
        self.announce(sequence, signature);
    }

    /// The sequence number in the line of `sequence`: that one if announced, an earlier or later one otherwise.
    #[inline]
    pub(super) fn announced(&self, sequence: u64) -> u64 {
        self.line(sequence).announced()
    }

    /// What was announced; meaningful after [`Board::announced`] has answered `sequence`, while no later operation
    /// can have begun.
    #[inline]
    pub(super) fn signature(&self, sequence: u64) -> Signature {
        Signature(self.line(sequence).signature())
    }

    /// What was announced as operation `sequence`, if it was and no later operation has the line. The details are
    /// those of [`Board::announce_details`], where that was called.
    #[inline]
    pub(super) fn call(&self, sequence: u64) -> Option<(Signature, Details)> {
        let at = Self::line_at(sequence);
        let details = || {
            Details(std::array::from_fn(|index| {
                self.word(at + 16 + 8 * index).load(Ordering::Relaxed)
            }))
        };
        self.line(sequence)
            .of(sequence, || (self.signature(sequence), details()))
    }

    /// Fetches the line of an operation that is about to come for writing: peers that have read it still share it.
    #[inline]
    pub(super) fn expect(&self, sequence: u64) {
        for_writing(self.base.as_ptr().wrapping_add(Self::line_at(sequence)));
    }

    /// The same for the counter of a task.
    #[inline]
    pub(super) fn expect_progress(&self, sequence: u64, task: usize) {
        for_writing(std::ptr::from_ref(self.counter(sequence, task)).cast());
    }

    /// The payload that travels in the announcement's own cache line: [`LINE_PAYLOAD`] bytes, aligned to 16.
    #[inline]
    pub(super) fn line_payload(&self, sequence: u64) -> *mut u8 {
        // SAFETY: within the layout.
        unsafe { self.base.add(Self::line_at(sequence) + 16).as_ptr() }
    }

    /// One of the slots for payloads in [units](super::units).
    #[inline]
    pub(super) fn units(&self, turn: u64) -> *mut Unit {
        let offset = self.layout.units_at() + turn as usize % UNIT_SLOTS * UNIT_SLOT_BYTES;
        // SAFETY: within the layout.
        unsafe { self.base.add(offset).as_ptr().cast() }
    }

    /// One of the two slots for small payloads that need more than a line.
    #[inline]
    pub(super) fn small_payload(&self, turn: u64) -> *mut u8 {
        let offset = self.layout.small_at() + (turn % 2) as usize * self.layout.small;
        // SAFETY: within the layout.
        unsafe { self.base.add(offset).as_ptr() }
    }

    /// One of the slots for payloads of operations that not all ranks wait for.
    #[inline]
    pub(super) fn ahead_payload(&self, index: usize) -> *mut u8 {
        let offset = self.layout.ahead_at() + index % AHEAD * AHEAD_BYTES;
        // SAFETY: within the layout.
        unsafe { self.base.add(offset).as_ptr() }
    }

    /// The progress counter of a task of operation `sequence`.
    #[inline]
    pub(super) fn counter(&self, sequence: u64, task: usize) -> &AtomicU64 {
        assert!(task < self.layout.counters, "task {task} has no counter");
        let index = (sequence % DEPTH) as usize * self.layout.counters + task;
        self.word(self.layout.counters_at() + index * self.layout.stride)
    }

    /// The line in which the owner shows its message with this number to `peer`.
    #[inline]
    pub(super) fn letter(&self, peer: u32, number: u64) -> &Post {
        self.post(peer as usize, number)
    }

    /// The line in which the owner answers the message with this number from `peer`.
    #[inline]
    pub(super) fn answer(&self, peer: u32, number: u64) -> &Post {
        self.post(self.layout.ranks + peer as usize, number)
    }

    fn post(&self, list: usize, number: u64) -> &Post {
        assert!(list < 2 * self.layout.ranks, "there is no such rank");
        let line = list * LETTERS as usize + (number % LETTERS) as usize;
        // SAFETY: within the layout, aligned to a cache line, mapped as long as `self`; words that are accessed only
        // atomically, for which every bit pattern is valid.
        unsafe {
            self.base
                .add(self.layout.letters_at() + line * LINE)
                .cast()
                .as_ref()
        }
    }

    /// Shows which processors the owner may run on; those beyond the 256th count as one of these.
    pub fn show_processors(&self, processors: [u64; PROCESSORS]) {
        for (index, word) in processors.into_iter().enumerate() {
            self.word(PROCESSORS_AT + 8 * index)
                .store(word, Ordering::Release);
        }
    }

    /// What [`Board::show_processors`] has shown.
    pub fn processors(&self) -> [u64; PROCESSORS] {
        std::array::from_fn(|index| self.word(PROCESSORS_AT + 8 * index).load(Ordering::Acquire))
    }

    /// Tells every rank that this one has given up. The first reason stays.
    pub fn give_up(&self, trouble: Trouble) {
        if self.trouble().is_none() {
            self.word(8).store(trouble.pack(), Ordering::Release);
        }
    }

    /// Whether, and why, the board's owner has given up.
    pub fn trouble(&self) -> Option<Trouble> {
        Trouble::unpack(self.word(8).load(Ordering::Acquire))
    }

    /// Says whom the owner sleeps for, or no more.
    pub(super) fn wait_for(&self, peer: Option<u32>) {
        self.word(24)
            .store(peer.map_or(0, |peer| u64::from(peer) + 1), Ordering::Relaxed);
    }

    /// Whom the owner sleeps for, if it does.
    pub(super) fn waits_for(&self) -> Option<u32> {
        self.word(24)
            .load(Ordering::Relaxed)
            .checked_sub(1)
            .map(|peer| peer as u32)
    }

    /// Says that the owner, having given up, touches no other rank's memory any more.
    pub(super) fn fall_silent(&self) {
        self.word(16).store(1, Ordering::Release);
    }

    /// Whether the owner touches no other rank's memory any more, whatever it was in the middle of.
    pub fn is_silent(&self) -> bool {
        self.word(16).load(Ordering::Acquire) != 0 || self.has_left()
    }

    /// Says that the owner takes part in nothing any more.
    pub fn leave(&self) {
        self.word(0).store(1, Ordering::Release);
    }

    /// Whether the owner has left.
    pub fn has_left(&self) -> bool {
        self.word(0).load(Ordering::Acquire) != 0
    }
}

/// The counter value that says that `done` chunks of operation `sequence` have been done. Values grow for ever, so
/// that a counter is never reset: one that a later operation has written satisfies whoever waits for an earlier one.
#[inline]
pub(super) fn progress(sequence: u64, done: u64) -> u64 {
    debug_assert!(done < 1 << CHUNK_BITS);
    sequence << CHUNK_BITS | done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{HugePages, Region};

    #[test]
    fn nothing_on_a_board_overlaps() {
        for ranks in [1, 2, 64, 4096] {
            let layout = Layout::new(ranks, 0, 100);
            let region = Region::host(layout.bytes(), HugePages::Never).unwrap();
            // SAFETY: a fresh region of that size, kept by the board.
            let board = unsafe { Board::new(region.base(), layout, Arc::new(region.clone())) };
            let mut places = vec![(0, 32), (PROCESSORS_AT, 8 * PROCESSORS)];
            let at = |pointer: *const u8| pointer as usize - region.base().as_ptr() as usize;
            for sequence in 0..DEPTH {
                places.push((Board::line_at(sequence), 16));
                places.push((at(board.line_payload(sequence)), LINE_PAYLOAD));
                for task in 0..layout.tasks() {
                    places.push((at(std::ptr::from_ref(board.counter(sequence, task)).cast()), 8));
                }
            }
            places.extend((0..UNIT_SLOTS as u64).map(|turn| (at(board.units(turn).cast()), UNIT_SLOT_BYTES)));
            places.extend((0..2).map(|turn| (at(board.small_payload(turn)), 100)));
            places.extend((0..AHEAD).map(|index| (at(board.ahead_payload(index)), AHEAD_BYTES)));
            for peer in 0..ranks {
                for number in 0..LETTERS {
                    for post in [board.letter(peer, number), board.answer(peer, number)] {
                        places.push((at(std::ptr::from_ref(post).cast()), size_of::<Post>()));
                    }
                }
            }
            places.sort_unstable();
            assert!(places.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
            assert!(places.last().is_some_and(|(at, len)| at + len <= layout.bytes()));
        }
    }

    #[test]
    fn the_first_trouble_stays() {
        let layout = Layout::new(2, 0, 64);
        let region = Region::host(layout.bytes(), HugePages::Never).unwrap();
        // SAFETY: as above.
        let board = unsafe { Board::new(region.base(), layout, Arc::new(region.clone())) };
        assert_eq!(board.trouble(), None);
        board.give_up(Trouble::Gone(5));
        board.give_up(Trouble::Aborted);
        assert_eq!(board.trouble(), Some(Trouble::Gone(5)));
    }
}
