//! The seam between kinds of memory: host memory now, GPU memory and frameworks' allocations beside it.

use std::fmt::Debug;
use std::os::fd::BorrowedFd;

/// Where bytes live and how others can be given access to them.
///
/// Implementors own the memory: when the last handle of a region is dropped, so is its kind, and the memory with it.
pub trait MemoryKind: Debug + Send + Sync {
    /// For reports and errors: `host`, `foreign`, `cuda`.
    fn name(&self) -> &'static str;

    /// Whether this process's CPUs may load and store it.
    fn host_accessible(&self) -> bool;

    /// A descriptor from which another process of this host can map the same bytes from offset 0, if there is one.
    fn share(&self) -> Option<BorrowedFd<'_>>;

    /// The dma-buf that NICs reach the memory through, and where in it the memory starts, if that is the way to
    /// register it.
    fn dma_buf(&self) -> Option<(BorrowedFd<'_>, u64)> {
        None
    }
}

/// Whatever keeps foreign memory alive: a tensor's handle, a vector, a mapping.
pub trait Owner: Debug + Send + Sync {}

impl<T: Debug + Send + Sync> Owner for T {}
