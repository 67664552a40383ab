//! Regions that a NIC, a peer process and a framework can all see. Knows nothing of ranks or fabrics.
//!
//! A [`Region`] is the shared handle of a piece of memory: fabrics register it, operations in flight keep it alive,
//! and it gives no safe access to the bytes. A [`Buffer`] is the one right to read and write them.

mod buffer;
mod element;
mod kind;
mod limits;
mod mapping;
mod region;

pub use buffer::Buffer;
pub use element::{DataType, Element};
pub use kind::{MemoryKind, Owner};
pub use limits::check_allocation;
pub use mapping::Mapping;
pub use region::{HugePages, Region, RegionId};

/// Why memory could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Nothing was asked for.
    #[error("a region of 0 bytes was asked for; a region has at least one byte")]
    Empty,
    /// More than an address space holds.
    #[error("{count} elements of {size} bytes do not fit an address space")]
    Overflow {
        /// Elements asked for.
        count: usize,
        /// Bytes of one.
        size: usize,
    },
    /// A limit would be broken; found before anything was allocated.
    #[error("{bytes} bytes are needed but {limit} allows {available} more; {remedy}")]
    Limit {
        /// What was asked for.
        bytes: usize,
        /// Which limit, with its value.
        limit: String,
        /// What is left of it.
        available: usize,
        /// What raises it.
        remedy: String,
    },
    /// The operating system refused.
    #[error("{what} of {bytes} bytes failed: {source}{}", remedy(.source))]
    System {
        /// The call, in words.
        what: &'static str,
        /// The size it was made for.
        bytes: usize,
        /// The reason given.
        source: std::io::Error,
    },
    /// An offset that does not fit the element type, or a range outside of the region.
    #[error("bytes {offset}..{end} of a region of {len} bytes are not a slice of {element}: {why}")]
    Range {
        /// First byte.
        offset: usize,
        /// One past the last byte.
        end: usize,
        /// The region's length.
        len: usize,
        /// The element type's name.
        element: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

fn remedy(error: &std::io::Error) -> &'static str {
    match rustix::io::Errno::from_io_error(error) {
        Some(rustix::io::Errno::MFILE) => " (raise the limit on open files: ulimit -n)",
        _ => "",
    }
}
