//! The bytes that messages come from and go to. The only file of the tests that touches memory by address.

use std::sync::atomic::{AtomicU8, Ordering};

use sapwood::memory::{HugePages, MemoryError, Region};

/// A region of this side. Peers and devices write to it, so nothing here hands out a reference to its bytes.
pub(super) struct Memory {
    region: Region,
}

impl Memory {
    pub(super) fn new(bytes: usize) -> Result<Self, MemoryError> {
        let region = Region::host(bytes, HugePages::WhereAvailable)?;
        Ok(Self { region })
    }

    pub(super) fn region(&self) -> &Region {
        &self.region
    }

    /// Copies in. Between two steps that both sides agree on, so that nothing is in flight here.
    pub(super) fn put(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        // SAFETY: inside the region; whoever calls has let everything in flight to these bytes end, and they are
        // written through raw pointers only.
        unsafe {
            let target = self.region.base().as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
    }

    /// Copies out; as [`Self::put`].
    pub(super) fn get(&self, offset: usize, into: &mut [u8]) {
        self.check(offset, into.len());
        // SAFETY: as in `put`.
        unsafe {
            let source = self.region.base().as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(source, into.as_mut_ptr(), into.len());
        }
    }

    /// One byte that the other side may be writing to at this moment.
    pub(super) fn byte(&self, offset: usize) -> &AtomicU8 {
        self.check(offset, 1);
        // SAFETY: inside the region, which lives as long as the reference; every access to the byte while it is
        // looked at goes through an atomic or is a write by the fabric, outside of this program's memory model.
        unsafe { AtomicU8::from_ptr(self.region.base().as_ptr().add(offset)) }
    }

    /// A word of an atomic test.
    pub(super) fn word(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        self.get(offset, &mut bytes);
        u64::from_ne_bytes(bytes)
    }

    /// Sets the byte.
    pub(super) fn set_byte(&self, offset: usize, value: u8) {
        self.byte(offset).store(value, Ordering::Release);
    }

    fn check(&self, offset: usize, len: usize) {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.region.len()),
            "{offset} + {len} leaves the region"
        );
    }
}
