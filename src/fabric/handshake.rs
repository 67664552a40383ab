//! The two handshakes on which everything between processes rests: going to sleep and being woken, and operating and
//! being fenced. Both are of Dekker's kind (each side stores its own word, passes a sequentially consistent fence and
//! looks at the other's), so without the fences both sides could miss each other.
//!
//! This file names no atomics of its own: `tests/loom_fabric.rs` compiles it again over loom's and tries every
//! interleaving.

use super::atomics::{AtomicU32, Ordering, fence};

/// One cache line on which a rank sleeps.
#[repr(C, align(64))]
pub(super) struct Bell {
    /// Counts rings; what is slept on.
    rings: AtomicU32,
    /// How many sleep, or are about to: in the lower half those that sleep on the word, in the upper half those that
    /// sleep on a descriptor. One word, so that a ringer looks once.
    sleepers: AtomicU32,
}

/// One that sleeps on a descriptor.
const ON_DESCRIPTOR: u32 = 1 << 16;

/// Who may be asleep when a bell is rung.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sleepers(u32);

impl Sleepers {
    /// Somebody who waits for the word to change.
    pub fn on_word(self) -> bool {
        !self.0.is_multiple_of(ON_DESCRIPTOR)
    }

    /// Somebody who waits for a descriptor to become readable.
    pub fn on_descriptor(self) -> bool {
        self.0 >= ON_DESCRIPTOR
    }
}

impl Bell {
    /// After something was published: calls `wake` if somebody may be asleep who has not seen it.
    #[inline]
    pub fn ring(&self, wake: impl FnOnce(&AtomicU32, Sleepers)) {
        fence(Ordering::SeqCst);
        self.ring_fenced(wake);
    }

    /// The same where a sequentially consistent fence has come between the publishing and this: one is enough for many
    /// bells.
    #[inline]
    pub fn ring_fenced(&self, wake: impl FnOnce(&AtomicU32, Sleepers)) {
        let sleepers = self.sleepers.load(Ordering::Relaxed);
        if sleepers != 0 {
            self.rings.fetch_add(1, Ordering::Release);
            wake(&self.rings, Sleepers(sleepers));
        }
    }

    /// Of those who sleep here none is left: their process has died, and this is its next life, which has not slept yet.
    pub fn forget_sleepers(&self) {
        self.sleepers.store(0, Ordering::Relaxed);
    }

    /// From here to [`Bell::disarm`] a ringer makes the descriptor readable. Who arms looks once more, afterwards,
    /// whether there is a need to sleep.
    pub fn arm(&self) {
        self.sleepers.fetch_add(ON_DESCRIPTOR, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// See [`Bell::arm`]. A ringer that looked before may still make the descriptor readable after this.
    pub fn disarm(&self) {
        self.sleepers.fetch_sub(ON_DESCRIPTOR, Ordering::Relaxed);
    }

    /// Calls `wait`, which sleeps as long as the word has the value given, unless `ready` says that there is no need.
    pub fn sleep(&self, ready: impl FnOnce() -> bool, wait: impl FnOnce(&AtomicU32, u32)) {
        let before = self.rings.load(Ordering::Acquire);
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !ready() {
            wait(&self.rings, before);
        }
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Written by the owner of some memory, read by a peer before each operation on it.
#[repr(C, align(64))]
pub(super) struct Revocation {
    revoked: AtomicU32,
}

impl Revocation {
    /// Whether the peer may not begin, or go on with, anything.
    #[inline]
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire) != 0
    }

    /// Says so; whether it was said for the first time. After this, [`Activity::in_progress`] is final where it says
    /// that nothing is.
    pub fn revoke(&self) -> bool {
        let first = self.revoked.swap(1, Ordering::Relaxed) == 0;
        fence(Ordering::SeqCst);
        first
    }
}

/// Written by a peer around each of its operations, read by the owner of the memory.
#[repr(C, align(64))]
pub(super) struct Activity {
    /// Odd in the middle of an operation; it grows by one at each end.
    busy: AtomicU32,
}

impl Activity {
    /// Runs an operation, unless it is revoked: `None`. `ends` counts the ends of the peer's operations; it is the
    /// only one to write this word.
    #[inline]
    pub fn operate<T>(
        &self,
        ends: &mut u32,
        revocation: &Revocation,
        operation: impl FnOnce() -> T,
    ) -> Option<T> {
        self.busy.store(ends.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let result = (!revocation.is_revoked()).then(operation);
        *ends = ends.wrapping_add(2);
        self.busy.store(*ends, Ordering::Release);
        result
    }

    /// Which operation the peer is in the middle of, if it is.
    #[inline]
    pub fn in_progress(&self) -> Option<u32> {
        let busy = self.busy.load(Ordering::Acquire);
        (busy % 2 == 1).then_some(busy)
    }
}

// In the library these words are zeroed shared memory and are never constructed.
#[cfg(loom)]
#[allow(dead_code, reason = "for the model, which includes this file")]
impl Bell {
    pub fn for_a_model() -> Self {
        Self {
            rings: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
        }
    }
}

#[cfg(loom)]
#[allow(dead_code, reason = "as above")]
impl Revocation {
    pub fn for_a_model() -> Self {
        let revoked = AtomicU32::new(0);
        Self { revoked }
    }
}

#[cfg(loom)]
#[allow(dead_code, reason = "as above")]
impl Activity {
    pub fn for_a_model() -> Self {
        let busy = AtomicU32::new(0);
        Self { busy }
    }
}
