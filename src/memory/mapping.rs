//! One mapping of a memory file into this process. Unmaps when dropped and never touches the bytes.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use super::MemoryError;

/// The size from which, and to which, mappings are aligned so that the kernel can use huge pages.
pub(super) const HUGE_PAGE: usize = 2 << 20;

/// A shared mapping of `len` bytes of a file, from offset 0.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    /// Whole pages.
    mapped: usize,
    len: usize,
}

// SAFETY: the mapping is plain memory owned by this value; it gives out only a raw pointer, whose users answer for
// what they do with it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of `file`, which must be at least that long and sealed against shrinking: else
    /// a load past its end would be a SIGBUS. Mappings of 2 MiB and more start on a 2 MiB boundary.
    ///
    /// # Errors
    /// The file is shorter than `len` or not sealed, or the operating system refuses the mapping.
    pub fn of(file: &OwnedFd, len: usize, writable: bool) -> Result<Self, MemoryError> {
        let refused = |what, source: rustix::io::Errno| MemoryError::System {
            what,
            bytes: len,
            source: source.into(),
        };
        let size = rustix::fs::fstat(file.as_fd())
            .map_err(|e| refused("looking at a shared region", e))?
            .st_size;
        let seals = rustix::fs::fcntl_get_seals(file.as_fd())
            .map_err(|e| refused("looking at a region's seals", e))?;
        if len == 0 || (size as u64) < len as u64 || !seals.contains(rustix::fs::SealFlags::SHRINK) {
            return Err(refused(
                "mapping a shared region that is shorter or not sealed",
                rustix::io::Errno::INVAL,
            ));
        }
        let mapped = len.next_multiple_of(rustix::param::page_size());
        let protection = if writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        let slack = if mapped >= HUGE_PAGE { HUGE_PAGE } else { 0 };
        // SAFETY: a fresh mapping at an address of the kernel's choice: nothing existing is replaced.
        let reserved = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                mapped + slack,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(|e| refused("reserving addresses", e))? as usize;
        let start = if slack == 0 {
            reserved
        } else {
            reserved.next_multiple_of(HUGE_PAGE)
        };
        // SAFETY: FIXED replaces only pages of the reservation made just above, which nobody else knows.
        let result = unsafe {
            rustix::mm::mmap(
                start as *mut _,
                mapped,
                protection,
                MapFlags::SHARED | MapFlags::FIXED,
                file.as_fd(),
                0,
            )
        };
        let release = |from: usize, to: usize| {
            if to > from {
                // SAFETY: a part of the reservation that the mapping does not cover.
                let _ = unsafe { rustix::mm::munmap(from as *mut _, to - from) };
            }
        };
        if let Err(error) = result {
            release(reserved, reserved + mapped + slack);
            return Err(refused("mapping a shared region", error));
        }
        release(reserved, start);
        release(start + mapped, reserved + mapped + slack);
        let base = NonNull::new(start as *mut u8).expect("the kernel never maps address 0 by itself");
        Ok(Self { base, mapped, len })
    }

    /// Asks for huge pages (a hint; refusal is not an error) and faults every page in, so that the first use is
    /// not the one that pays.
    pub(super) fn populate(&self, huge: bool) -> std::io::Result<()> {
        use rustix::mm::{Advice, madvise};
        if huge && self.mapped >= HUGE_PAGE {
            // SAFETY: the advised range is this mapping; huge pages change no content.
            let _ = unsafe { madvise(self.base.as_ptr().cast(), self.mapped, Advice::LinuxHugepage) };
        }
        // SAFETY: populating the pages of this mapping changes no content.
        match unsafe { madvise(self.base.as_ptr().cast(), self.mapped, Advice::LinuxPopulateWrite) } {
            // Kernels before 5.14 do not know it: pages then come at first touch.
            Err(rustix::io::Errno::INVAL) => Ok(()),
            other => other.map_err(Into::into),
        }
    }

    /// The first byte.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `of`, is unmapped once, and whoever used the pointer held this value.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}
