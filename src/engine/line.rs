//! One line of a board: what its owner does as one of its operations, announced to all. Lines are used in turn, so a
//! reader must notice that the line has become a later operation's while it looked.
//!
//! This file names no atomics of its own: `tests/loom_engine.rs` compiles it again over loom's and tries every
//! interleaving.

use super::atomics::{AtomicU64, Ordering, fence};

/// The first words of a line; in the rest of its cache line is what the announcement carries.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Line {
    /// The operation's number; 0 while the line changes hands.
    sequence: AtomicU64,
    signature: AtomicU64,
}

impl Line {
    /// Takes the line from the operation that had it: nobody takes what is stored from here on for that one's.
    #[inline]
    pub fn reuse(&self) {
        self.sequence.store(0, Ordering::Relaxed);
        // Whoever sees anything that is stored from here on sees the zero.
        fence(Ordering::Release);
    }

    /// After [`Line::reuse`]: everything stored before is visible to who sees the number.
    #[inline]
    pub fn announce(&self, sequence: u64, signature: u64) {
        self.signature.store(signature, Ordering::Relaxed);
        self.sequence.store(sequence, Ordering::Release);
    }

    /// The number in the line.
    #[inline]
    pub fn announced(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    /// The signature in the line.
    #[inline]
    pub fn signature(&self) -> u64 {
        self.signature.load(Ordering::Relaxed)
    }

    /// What `read` finds in the line, if that belongs to operation `sequence`.
    #[inline]
    pub fn of<T>(&self, sequence: u64, read: impl FnOnce() -> T) -> Option<T> {
        if self.announced() != sequence {
            return None;
        }
        let found = read();
        fence(Ordering::Acquire);
        (self.sequence.load(Ordering::Relaxed) == sequence).then_some(found)
    }
}

// In the library lines are zeroed shared memory and are never constructed.
#[cfg(loom)]
#[allow(dead_code, reason = "for the model, which includes this file")]
impl Line {
    pub fn for_a_model() -> Self {
        Self {
            sequence: AtomicU64::new(0),
            signature: AtomicU64::new(0),
        }
    }
}
