//! What ends an endpoint's wait from another thread: a flag, and something to be woken by where the flag is not looked
//! at because its owner sleeps. The owner lowers the flag in `poll`; a ring that comes in between is kept.
//!
//! This file names no atomics of its own and no descriptor: `tests/loom_verbs.rs` compiles it again over loom's and
//! tries every interleaving.

use super::atomics::{AtomicBool, Ordering};

/// See the module.
#[derive(Debug)]
pub(super) struct Flag {
    raised: AtomicBool,
}

impl Flag {
    pub fn new() -> Self {
        Self {
            raised: AtomicBool::new(false),
        }
    }

    /// Raises it, and calls `wake` if it was not raised yet: who raised it before has done, or is about to do, that.
    #[inline]
    pub fn raise(&self, wake: impl FnOnce()) {
        if !self.raised.swap(true, Ordering::AcqRel) {
            wake();
        }
    }

    #[inline]
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Takes it back, by the owner. What the ringer stored before is seen by who looks afterwards.
    #[inline]
    pub fn lower(&self) {
        // Only loaded on the fast path.
        if self.is_raised() {
            self.raised.swap(false, Ordering::AcqRel);
        }
    }
}
