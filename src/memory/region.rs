//! The shared handle of a piece of memory. Handles keep it alive; none of them reads or writes it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};

use super::{Mapping, MemoryError, MemoryKind, Owner, check_allocation};

/// Tells regions of one process apart for as long as it lives; addresses are used again, these numbers are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionId(u64);

/// Whether the kernel is asked for 2 MiB pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Asked for from 2 MiB up; ordinary pages where the kernel has none.
    #[default]
    WhereAvailable,
    /// Never asked for.
    Never,
}

/// Page-aligned memory that is registered once and then visible to this process, to peers on the host and to NICs.
///
/// Cloning shares the same memory; it is given back when the last clone (an operation in flight may hold one) is
/// dropped. Access to the bytes goes through a [`super::Buffer`] or through `unsafe` use of [`Region::base`].
#[derive(Clone, Debug)]
pub struct Region(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: RegionId,
    base: NonNull<u8>,
    len: usize,
    kind: Box<dyn MemoryKind>,
}

// SAFETY: the pointer is to memory that `kind` owns, and the handle itself never dereferences it.
unsafe impl Send for Inner {}
// SAFETY: as above; all fields are immutable.
unsafe impl Sync for Inner {}

#[derive(Debug)]
struct Host {
    file: OwnedFd,
    // Held for its Drop.
    _mapping: Arc<Mapping>,
}

impl MemoryKind for Host {
    fn name(&self) -> &'static str {
        "host"
    }
    fn host_accessible(&self) -> bool {
        true
    }
    fn share(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

#[derive(Debug)]
struct Foreign {
    // Held for its Drop.
    _owner: Arc<dyn Owner>,
}

impl MemoryKind for Foreign {
    fn name(&self) -> &'static str {
        "foreign"
    }
    fn host_accessible(&self) -> bool {
        true
    }
    fn share(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Region {
    /// `len` zeroed bytes of host memory in an anonymous memory file (nothing stays behind when the process is
    /// killed), sealed against resizing, every page faulted in.
    ///
    /// # Errors
    /// 0 bytes, a memory limit (checked first, and named), or the operating system's refusal.
    pub fn host(len: usize, huge: HugePages) -> Result<Self, MemoryError> {
        let (region, mapping) = Self::in_a_file(len)?;
        mapping
            .populate(huge == HugePages::WhereAvailable)
            .map_err(|source| MemoryError::System {
                what: "faulting in a region",
                bytes: len,
                source,
            })?;
        Ok(region)
    }

    /// As [`Region::host`], with pages that come when they are first touched: for memory of which most may never be used.
    ///
    /// # Errors
    /// As there.
    pub fn untouched(len: usize) -> Result<Self, MemoryError> {
        Ok(Self::in_a_file(len)?.0)
    }

    fn in_a_file(len: usize) -> Result<(Self, Arc<Mapping>), MemoryError> {
        if len == 0 {
            return Err(MemoryError::Empty);
        }
        check_allocation(len)?;
        let refused = |what| {
            move |source: rustix::io::Errno| MemoryError::System {
                what,
                bytes: len,
                source: source.into(),
            }
        };
        let file =
            rustix::fs::memfd_create("sapwood-region", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
                .map_err(refused("creating a memory file"))?;
        rustix::fs::ftruncate(&file, len.next_multiple_of(rustix::param::page_size()) as u64)
            .map_err(refused("sizing a memory file"))?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(refused("sealing a memory file"))?;
        let mapping = Arc::new(Mapping::of(&file, len, true)?);
        let kind = Box::new(Host {
            file,
            _mapping: mapping.clone(),
        });
        // SAFETY: the mapping is `len` bytes long, writable, and lives in the kind that the region keeps.
        let region = unsafe { Self::of_kind(mapping.base(), len, kind) };
        Ok((region, mapping))
    }

    /// Memory that somebody else allocated and `owner` keeps alive.
    ///
    /// # Errors
    /// 0 bytes.
    ///
    /// # Safety
    /// `base..base + len` must stay valid for reads and writes, at this address, until `owner` is dropped, and
    /// nobody else may access it while a [`super::Buffer`] over it or an operation in flight does.
    pub unsafe fn foreign(base: NonNull<u8>, len: usize, owner: Arc<dyn Owner>) -> Result<Self, MemoryError> {
        if len == 0 {
            return Err(MemoryError::Empty);
        }
        // SAFETY: passed on to the caller.
        Ok(unsafe { Self::of_kind(base, len, Box::new(Foreign { _owner: owner })) })
    }

    /// The first `len` bytes of a memory file that another process has made, sealed against shrinking: what is there stays
    /// as it is. Whose memory it is, the caller must know.
    ///
    /// # Errors
    /// A file that is shorter or not sealed; the operating system's refusal.
    pub(crate) fn of_file(file: &OwnedFd, len: usize) -> Result<Self, MemoryError> {
        let mapping = Arc::new(Mapping::of(file, len, true)?);
        let base = mapping.base();
        let file = file.try_clone().map_err(|source| MemoryError::System {
            what: "duplicating a region's descriptor",
            bytes: len,
            source,
        })?;
        let _mapping = mapping;
        // SAFETY: the mapping has that many bytes and lives as long as the region.
        Ok(unsafe { Self::of_kind(base, len, Box::new(Host { file, _mapping })) })
    }

    /// Memory of any kind: the seam through which GPU memory comes in.
    ///
    /// # Safety
    /// `base..base + len` must be memory of that kind and stay so until `kind` is dropped.
    pub unsafe fn of_kind(base: NonNull<u8>, len: usize, kind: Box<dyn MemoryKind>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = RegionId(NEXT.fetch_add(1, Ordering::Relaxed));
        Self(Arc::new(Inner { id, base, len, kind }))
    }

    /// The region's number in this process.
    pub fn id(&self) -> RegionId {
        self.0.id
    }

    /// The first byte, as this process sees it.
    #[inline]
    pub fn base(&self) -> NonNull<u8> {
        self.0.base
    }

    /// Bytes.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// What memory this is.
    pub fn kind(&self) -> &dyn MemoryKind {
        &*self.0.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_region_is_zeroed_aligned_and_sealed() {
        let region = Region::host((4 << 20) + 5, HugePages::WhereAvailable).unwrap();
        assert_eq!(region.base().as_ptr() as usize % (2 << 20), 0);
        let file = region.kind().share().unwrap();
        assert!(
            rustix::fs::ftruncate(file, 0).is_err(),
            "sealed against shrinking"
        );
        assert!(
            rustix::fs::ftruncate(file, 1 << 30).is_err(),
            "sealed against growing"
        );
        // SAFETY: the last byte of a region that nobody else knows.
        assert_eq!(unsafe { region.base().add(region.len() - 1).read() }, 0);
    }

    #[test]
    fn a_second_mapping_sees_the_same_bytes() {
        let region = Region::host(100, HugePages::Never).unwrap();
        let file = region.kind().share().unwrap().try_clone_to_owned().unwrap();
        let other = Mapping::of(&file, 100, false).unwrap();
        // SAFETY: both pointers are to the same 100 bytes, used by this thread alone.
        unsafe {
            region.base().add(99).write(7);
            assert_eq!(other.base().add(99).read_volatile(), 7);
        }
    }

    #[test]
    fn an_unsealed_or_short_file_is_not_mapped() {
        let file = rustix::fs::memfd_create("t", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&file, 4096).unwrap();
        assert!(
            Mapping::of(&file, 4096, false).is_err(),
            "its owner could shrink it under us"
        );
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        assert!(Mapping::of(&file, 4097, false).is_err());
        assert!(Mapping::of(&file, 4096, false).is_ok());
    }

    #[test]
    fn zero_bytes_are_refused() {
        assert!(matches!(
            Region::host(0, HugePages::Never),
            Err(MemoryError::Empty)
        ));
    }
}
