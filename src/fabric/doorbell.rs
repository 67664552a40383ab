//! Going to sleep and being woken across processes: a futex in shared memory, beside it a descriptor for who sleeps on
//! other things as well, and how long to spin before either.
//!
//! The protocol, without which wake-ups are lost, is in [`super::handshake`].

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use rustix::thread::futex;

use super::handshake::{Bell, Sleepers};

/// A handle to the bell of one rank. Whoever holds it may ring; its owner sleeps on it.
#[derive(Clone, Debug)]
pub struct Doorbell {
    bell: NonNull<Bell>,
    /// An eventfd, where the owner may sleep on one.
    descriptor: Option<Arc<OwnedFd>>,
    // Keeps the mapping that `bell` points into.
    _memory: Arc<dyn std::any::Any + Send + Sync>,
}

// SAFETY: the bell consists of atomics in memory that the handle keeps mapped.
unsafe impl Send for Doorbell {}
// SAFETY: as above.
unsafe impl Sync for Doorbell {}

impl Doorbell {
    /// # Safety
    /// `bell` must point to 64 aligned bytes of shared, writable memory, at first zero, that `memory` keeps mapped
    /// and that are used for nothing else.
    pub(super) unsafe fn new(
        bell: NonNull<Bell>,
        memory: Arc<dyn std::any::Any + Send + Sync>,
        descriptor: Option<Arc<OwnedFd>>,
    ) -> Self {
        Self {
            bell,
            descriptor,
            _memory: memory,
        }
    }

    /// A bell in memory that ranks share for something of their own.
    ///
    /// # Safety
    /// `line` must point to 64 bytes, aligned to as many, that all who use the bell have mapped, writable and at first zero,
    /// that `memory` keeps mapped and that are used for nothing else.
    pub(crate) unsafe fn within(line: NonNull<u8>, memory: Arc<dyn std::any::Any + Send + Sync>) -> Self {
        // SAFETY: passed on; a bell is a line.
        unsafe { Self::new(line.cast(), memory, None) }
    }

    /// For the owner's next life, before it sleeps: nobody of an earlier one does any more.
    pub(crate) fn forget_sleepers(&self) {
        self.bell().forget_sleepers();
    }

    #[inline]
    fn bell(&self) -> &Bell {
        // SAFETY: valid as long as `_memory`, by the contract of `new`; all accesses are atomic.
        unsafe { self.bell.as_ref() }
    }

    /// Wakes the owner if it sleeps. What was stored before (by anyone who then calls this) is seen by it.
    #[inline]
    pub fn ring(&self) {
        self.bell().ring(|rings, sleepers| self.wake(rings, sleepers));
    }

    /// [`Doorbell::ring`] for many, in less time.
    #[inline]
    pub fn ring_all<'a>(bells: impl Iterator<Item = &'a Self>) {
        fence(Ordering::SeqCst);
        Self::ring_fenced(bells);
    }

    /// As [`Doorbell::ring_all`], where what they are rung for was published by a sequentially consistent read-modify-write just
    /// before.
    #[inline]
    pub fn ring_all_swapped<'a>(bells: impl Iterator<Item = &'a Self>) {
        // Such an instruction lets nothing pass it on these processors.
        #[cfg(target_arch = "x86_64")]
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
        #[cfg(not(target_arch = "x86_64"))]
        fence(Ordering::SeqCst);
        Self::ring_fenced(bells);
    }

    #[inline]
    fn ring_fenced<'a>(bells: impl Iterator<Item = &'a Self>) {
        for bell in bells {
            bell.bell()
                .ring_fenced(|rings, sleepers| bell.wake(rings, sleepers));
        }
    }

    #[cold]
    fn wake(&self, rings: &AtomicU32, sleepers: Sleepers) {
        if sleepers.on_word() {
            // The word is shared between processes, so the futex is not a private one. Failure is impossible for a
            // mapped, aligned word.
            let _ = futex::wake(rings, futex::Flags::empty(), i32::MAX as u32);
        }
        if let Some(descriptor) = self.descriptor.as_ref().filter(|_| sleepers.on_descriptor()) {
            // It does not block. Full after 2^64 - 2 rings that nobody took back: then it is readable already.
            let _ = rustix::io::write(descriptor, &1u64.to_ne_bytes());
        }
    }

    /// From here to [`Doorbell::disarm`], rings make this descriptor readable; `None` if the bell has none. Who arms
    /// looks once more, afterwards, whether there is a need to sleep.
    pub(super) fn arm(&self) -> Option<RawFd> {
        let descriptor = self.descriptor.as_ref()?;
        self.bell().arm();
        Some(descriptor.as_raw_fd())
    }

    /// Ends what [`Doorbell::arm`] began. Who was woken `hush`es, and then looks for what there is to do.
    pub(super) fn disarm(&self) {
        self.bell().disarm();
    }

    /// Makes the descriptor unreadable. Whoever rang stored before what it rang for, so a look after this sees it.
    pub(super) fn hush(&self) {
        if let Some(descriptor) = &self.descriptor {
            // Empty, if it was a time-out that woke us; nothing else can fail.
            let _ = rustix::io::read(descriptor, &mut [0; 8]);
        }
    }

    /// Sleeps until somebody rings or `at_most` has passed, unless `ready` says already that there is no need.
    /// Returns early now and then: the caller looks again either way.
    pub fn sleep(&self, at_most: Duration, ready: impl FnOnce() -> bool) {
        self.bell().sleep(ready, |rings, before| {
            let timeout = rustix::time::Timespec {
                tv_sec: at_most.as_secs() as _,
                tv_nsec: at_most.subsec_nanos() as _,
            };
            // Time-outs, interruptions and a changed word all mean: look again.
            let _ = futex::wait(rings, futex::Flags::empty(), before, Some(&timeout));
        });
    }
}

/// How a waiter passes its time: spin about as long as a wake-up costs, then yield, then sleep (invariant 7).
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Looks before the first yield.
    pub spins: u32,
    /// Yields before the first sleep.
    pub yields: u32,
    /// There are more waiters than cores: whoever looks for long keeps the awaited one from running.
    pub crowded: bool,
    /// The shortest sleep; it grows to eight times that, so that liveness is looked at now and then.
    pub nap: Duration,
}

impl Patience {
    /// For `ranks` waiters on this host: with more of them than cores, spinning keeps the awaited one from running.
    pub fn for_ranks(ranks: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Self::on_cores(ranks, cores)
    }

    /// The same where it is known how many cores the waiters have between them: each may be bound to one of its own.
    pub fn on_cores(ranks: usize, cores: usize) -> Self {
        let nap = Duration::from_millis(10);
        if ranks > cores {
            Self {
                spins: 20,
                yields: 200,
                crowded: true,
                nap,
            }
        } else {
            Self {
                spins: 400,
                yields: 50,
                crowded: false,
                nap,
            }
        }
    }

    /// Waits until `ready` answers `Some`, the deadline passes (`None`), or `look` (called before each sleep and
    /// after it) answers `Some`.
    pub fn wait<T>(
        &self,
        bell: &Doorbell,
        deadline: Instant,
        mut ready: impl FnMut() -> Option<T>,
        mut look: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        for _ in 0..self.spins {
            if let Some(found) = ready() {
                return Some(found);
            }
            std::hint::spin_loop();
        }
        for _ in 0..self.yields {
            if let Some(found) = ready() {
                return Some(found);
            }
            std::thread::yield_now();
        }
        let mut nap = self.nap;
        loop {
            if let Some(found) = ready().or_else(&mut look) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return ready();
            }
            let mut found = None;
            bell.sleep(nap.min(left), || {
                found = ready();
                found.is_some()
            });
            if found.is_some() {
                return found;
            }
            nap = (nap * 2).min(self.nap * 8);
        }
    }
}
