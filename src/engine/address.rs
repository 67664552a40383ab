//! Where the ranks' windows are in this process's address space. Holds what keeps them mapped.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

/// A symmetric window: the same number of bytes on every rank, each reachable from here.
#[derive(Debug)]
pub struct WindowMap {
    id: u16,
    bases: Box<[NonNull<u8>]>,
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
    /// `bases[r]` must point to rank r's `len` bytes, as long as `memory` lives: readable, and for this process's
    /// own rank writable. `id` must be the same on every rank and, as far as it goes, no other window's.
    pub unsafe fn new(
        id: u16,
        bases: Box<[NonNull<u8>]>,
        len: usize,
        memory: Vec<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        Self {
            id,
            bases,
            len,
            _memory: memory,
        }
    }

    /// Each rank's first byte, by rank.
    pub fn bases(&self) -> &[NonNull<u8>] {
        &self.bases
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

    /// Window and offset in one word, for the ranks to compare: the offset in bytes in the lower 48 bits.
    pub(super) fn place(&self) -> u64 {
        u64::from(self.window.id) << 48 | self.offset as u64
    }

    /// The window.
    pub fn window(&self) -> &Arc<WindowMap> {
        &self.window
    }
}
