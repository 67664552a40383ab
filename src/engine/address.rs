//! Where the ranks' windows are: in this process's address space, or behind the keys that requests name. Holds what
//! keeps them there.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::fabric::{Registration, RemoteRegion, RemoteSlice, Slice};

/// What requests name of a window where peers' memory cannot be loaded and stored.
#[derive(Debug)]
pub struct Keys {
    /// This rank's own part, and where in the registered region it starts, in bytes.
    pub local: (Arc<dyn Registration>, usize),
    /// The other ranks', by rank; none for this one.
    pub remote: Box<[Option<RemotePart>]>,
}

/// A peer's part of a window: the region it lies in, and where in that it starts, in bytes.
pub type RemotePart = (Arc<dyn RemoteRegion>, usize);

/// A symmetric window: the same number of bytes on every rank, each reachable from here.
#[derive(Debug)]
pub struct WindowMap {
    id: u16,
    /// Each rank's first byte; empty where there are keys instead.
    bases: Box<[NonNull<u8>]>,
    /// This rank's first byte.
    own: NonNull<u8>,
    keys: Option<Keys>,
    len: usize,
    // Keeps every rank's mapping; the own registration among them.
    _memory: Vec<Arc<dyn Any + Send + Sync>>,
}

// SAFETY: the pointers are only handed out, not followed; what they point to is kept by `_memory`.
unsafe impl Send for WindowMap {}
// SAFETY: as above.
unsafe impl Sync for WindowMap {}

impl WindowMap {
    /// # Safety
    /// `bases[r]` must point to rank r's `len` bytes, as long as `memory` lives: readable, and writable for this
    /// process's own `rank` and where an operation's result lies. `id` must be the same on every rank and, as far as it
    /// goes, no other window's.
    pub unsafe fn new(
        id: u16,
        rank: u32,
        bases: Box<[NonNull<u8>]>,
        len: usize,
        memory: Vec<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        Self {
            id,
            own: bases[rank as usize],
            bases,
            keys: None,
            len,
            _memory: memory,
        }
    }

    /// A window that peers reach by requests only.
    ///
    /// # Panics
    /// If the `len` bytes leave the registered region.
    pub fn by_keys(id: u16, keys: Keys, len: usize) -> Self {
        let (registration, offset) = &keys.local;
        let region = registration.region();
        assert!(*offset <= region.len() && len <= region.len() - offset);
        // SAFETY: just checked.
        let own = unsafe { region.base().add(*offset) };
        Self {
            id,
            bases: Box::new([]),
            own,
            keys: Some(keys),
            len,
            _memory: Vec::new(),
        }
    }

    /// Each rank's first byte, by rank; none where peers are reached by requests.
    pub fn bases(&self) -> &[NonNull<u8>] {
        &self.bases
    }

    /// Its number, the same on each rank.
    pub(super) fn number(&self) -> u16 {
        self.id
    }

    /// Bytes on each rank.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len
    }
}

/// The part of a window that an operation reads or writes: the same offset on every rank. Keeps the window mapped.
#[derive(Clone, Debug)]
pub struct Extent {
    window: Arc<WindowMap>,
    offset: usize,
}

impl Extent {
    /// `bytes` bytes of the window from `offset`.
    ///
    /// # Panics
    /// If they leave the window.
    pub fn new(window: Arc<WindowMap>, offset: usize, bytes: usize) -> Self {
        assert!(
            offset <= window.len && bytes <= window.len - offset,
            "an extent leaves its window"
        );
        Self { window, offset }
    }

    /// The first byte on a rank.
    #[inline]
    pub(super) fn of(&self, rank: u32) -> *mut u8 {
        // SAFETY: the offset was checked against the window's length, which every rank's mapping has.
        unsafe { self.window.bases[rank as usize].add(self.offset).as_ptr() }
    }

    /// The first byte on this rank.
    #[inline]
    pub(super) fn own(&self) -> *mut u8 {
        // SAFETY: as above; the own part is always mapped.
        unsafe { self.window.own.add(self.offset).as_ptr() }
    }

    /// `len` bytes of this rank's part from byte `at` on, for a request.
    #[inline]
    pub(super) fn local(&self, at: usize, len: usize) -> Slice {
        let (registration, offset) = &self.keys().local;
        Slice {
            registration: registration.clone(),
            offset: offset + self.offset + at,
            len,
        }
    }

    /// A peer's part from byte `at` on, for a request.
    #[inline]
    pub(super) fn remote(&self, rank: u32, at: usize) -> RemoteSlice {
        let (region, offset) = self.keys().remote[rank as usize]
            .as_ref()
            .expect("every other rank's part was imported");
        RemoteSlice {
            region: region.clone(),
            offset: offset + self.offset + at,
        }
    }

    fn keys(&self) -> &Keys {
        let keys = self.window.keys.as_ref();
        keys.expect("requests are made only where windows have keys")
    }

    /// Window and offset in one word, for the ranks to compare: the offset in bytes in the lower 48 bits.
    pub(super) fn place(&self) -> u64 {
        u64::from(self.window.id) << 48 | self.offset as u64
    }

    /// The window.
    pub fn window(&self) -> &Arc<WindowMap> {
        &self.window
    }
}
