//! What two ranks share to drive one queue pair: counters, slots and a ring of bytes in a memory file.
//!
//! Everything is an atomic or is reached by raw copies, any bit pattern is a valid value, and nobody ever uses what
//! the other side wrote as an index without checking it.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::fabric::doorbell::Doorbell;
use crate::fabric::handshake::{Activity, Bell, Revocation};
use crate::memory::{HugePages, Mapping, MemoryError, Region};

/// The most requests, and receives, of one queue pair.
pub(super) const DEPTH: usize = 256;
/// Incoming messages and fragments that wait for the owner's poll.
pub(super) const SLOTS: usize = 512;
/// Bytes of sends that wait for the owner's poll.
pub(super) const BOUNCE: usize = 64 << 10;
/// The longest piece of a send that is handed over at once.
pub(super) const FRAGMENT: usize = 16 << 10;

/// Types that may lie in memory that another process writes to.
///
/// # Safety
/// Any bit pattern, zeroes too, is valid at any time, and shared access from several threads and processes is
/// sound: atomics and `UnsafeCell`s of bytes only. Alignment is at most a page.
pub(super) unsafe trait Shareable: Send + Sync + 'static {}

/// A value in a memory file, mapped into this process.
pub(super) struct Shared<T: Shareable> {
    at: NonNull<T>,
    memory: Arc<dyn Any + Send + Sync>,
}

// SAFETY: a pointer to a `T: Send + Sync` in memory that `memory` keeps mapped.
unsafe impl<T: Shareable> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Shareable> Sync for Shared<T> {}

impl<T: Shareable> Shared<T> {
    /// A zeroed value and the descriptor by which others map it.
    pub fn create() -> Result<(Self, OwnedFd), MemoryError> {
        let region = Region::host(size_of::<T>(), HugePages::Never)?;
        let descriptor = region
            .kind()
            .share()
            .expect("host regions have a descriptor")
            .try_clone_to_owned()
            .map_err(|source| MemoryError::System {
                what: "duplicating the descriptor of a control segment",
                bytes: size_of::<T>(),
                source,
            })?;
        let at = region.base().cast();
        let memory = Arc::new(region);
        Ok((Self { at, memory }, descriptor))
    }

    /// The value in a peer's memory file.
    pub fn map(descriptor: &OwnedFd, writable: bool) -> Result<Self, MemoryError> {
        let mapping = Mapping::of(descriptor, size_of::<T>(), writable)?;
        let at = mapping.base().cast();
        let memory = Arc::new(mapping);
        Ok(Self { at, memory })
    }

    /// What keeps the value mapped.
    pub fn memory(&self) -> Arc<dyn Any + Send + Sync> {
        self.memory.clone()
    }
}

impl<T: Shareable> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: page-aligned, `size_of::<T>()` bytes long, mapped as long as `memory`; sealed against shrinking;
        // any content is valid by the contract of `Shareable`.
        unsafe { self.at.as_ref() }
    }
}

impl<T: Shareable> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            at: self.at,
            memory: self.memory.clone(),
        }
    }
}

/// What an endpoint shows to all its peers.
#[repr(C)]
pub(super) struct Front {
    /// On which it sleeps.
    bell: Bell,
    /// Not 0 once the endpoint was dropped.
    pub closed: AtomicU32,
}

// SAFETY: atomics only.
unsafe impl Shareable for Front {}

impl Shared<Front> {
    /// The bell as a handle of its own; `descriptor` is the owner's eventfd, if it may sleep on one.
    pub fn doorbell(&self, descriptor: Option<Arc<OwnedFd>>) -> Doorbell {
        // SAFETY: the bell is aligned, in writable shared memory that was zero when made, kept by `memory`, and
        // nothing else uses it.
        unsafe { Doorbell::new(NonNull::from(&self.bell), self.memory(), descriptor) }
    }
}

/// Written by the owner of the segment.
#[repr(C, align(64))]
pub(super) struct OwnerLine {
    /// Receives posted since the beginning.
    pub posted: AtomicU64,
    /// Slots consumed since the beginning.
    pub consumed: AtomicU64,
    /// Bytes taken out of the bounce ring since the beginning.
    pub taken: AtomicU64,
}

/// Written by the peer.
#[repr(C, align(64))]
pub(super) struct PeerLine {
    /// Slots filled since the beginning.
    pub produced: AtomicU64,
}

/// One thing that arrived.
#[repr(C, align(16))]
pub(super) struct Slot {
    /// Kind in the low 32 bits, immediate in the high.
    pub what: AtomicU64,
    /// Bytes written, or bytes of this fragment.
    pub len: AtomicU64,
}

/// The receiving half of a queue pair: owned by the receiver, mapped by its peer.
#[repr(C)]
pub(super) struct Inbound {
    pub owner: OwnerLine,
    pub revocation: Revocation,
    pub activity: Activity,
    pub peer: PeerLine,
    /// How much each posted receive holds; receive `i` is at `i % DEPTH`.
    pub capacities: [AtomicU64; DEPTH],
    pub slots: [Slot; SLOTS],
    /// Bytes of sends on their way.
    pub bounce: Bounce,
}

// SAFETY: atomics, and bytes in an `UnsafeCell` that are only reached by raw copies.
unsafe impl Shareable for Inbound {}

/// A ring of bytes that one side fills and the other empties, by raw copies; who may touch which part follows from
/// `produced` and `taken`.
#[repr(C, align(64))]
pub(super) struct Bounce(UnsafeCell<[u8; BOUNCE]>);

// SAFETY: only a raw pointer is given out.
unsafe impl Sync for Bounce {}

impl Bounce {
    pub fn base(&self) -> *mut u8 {
        self.0.get().cast()
    }
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A write with immediate.
    Immediate(u32),
    /// A piece of a send that goes on.
    Piece,
    /// The last, or only, piece of a send.
    Last,
    /// The last, or only, piece of a send with an immediate.
    LastWithImmediate(u32),
    /// A send that is longer than the receive; nothing of it was handed over.
    TooLong,
}

impl Arrival {
    pub fn encode(self) -> u64 {
        let (kind, immediate) = match self {
            Self::Immediate(value) => (1, value),
            Self::Piece => (2, 0),
            Self::Last => (3, 0),
            Self::LastWithImmediate(value) => (4, value),
            Self::TooLong => (5, 0),
        };
        u64::from(immediate) << 32 | kind
    }

    /// `None` for what no peer of this version writes.
    pub fn decode(what: u64) -> Option<Self> {
        let immediate = (what >> 32) as u32;
        match what as u32 {
            1 => Some(Self::Immediate(immediate)),
            2 => Some(Self::Piece),
            3 => Some(Self::Last),
            4 => Some(Self::LastWithImmediate(immediate)),
            5 => Some(Self::TooLong),
            _ => None,
        }
    }
}
