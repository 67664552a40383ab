//! Where things lie on a board. This only counts bytes: what they mean is [`super::board`]'s.

use super::board::{AHEAD, AHEAD_BYTES, DEPTH, LETTERS, LINE};
use super::units::{UNIT_SLOT_BYTES, UNIT_SLOTS};

/// Where things are on a board; the same on every rank of a communicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub(super) ranks: usize,
    pub(super) small: usize,
    pub(super) counters: usize,
    pub(super) stride: usize,
}

impl Layout {
    /// For programs of up to `2 * ranks + 16` tasks, or `tasks` if that is more, and small payloads of up to `small`
    /// bytes.
    pub fn new(ranks: u32, tasks: usize, small: usize) -> Self {
        let counters = (2 * ranks as usize + 16).max(tasks);
        // Counters that different peers poll get lines of their own while that is cheap.
        let stride = if counters <= 64 { LINE } else { size_of::<u64>() };
        Self {
            ranks: ranks as usize,
            small: small.next_multiple_of(LINE),
            counters,
            stride,
        }
    }

    /// The board's size in bytes.
    pub fn bytes(&self) -> usize {
        self.letters_at() + 2 * self.ranks * LETTERS as usize * LINE
    }

    pub(super) fn letters_at(&self) -> usize {
        (self.counters_at() + DEPTH as usize * self.counters * self.stride).next_multiple_of(LINE)
    }

    /// The most tasks that a program may have.
    pub fn tasks(&self) -> usize {
        self.counters
    }

    pub(super) fn units_at(&self) -> usize {
        (LINE * (1 + DEPTH as usize)).next_multiple_of(UNIT_SLOT_BYTES)
    }

    pub(super) fn small_at(&self) -> usize {
        self.units_at() + UNIT_SLOTS * UNIT_SLOT_BYTES
    }

    pub(super) fn ahead_at(&self) -> usize {
        self.small_at() + 2 * self.small
    }

    pub(super) fn counters_at(&self) -> usize {
        self.ahead_at() + AHEAD * AHEAD_BYTES
    }
}
