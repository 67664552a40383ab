//! Runs lowered plans: chunks, waits, progress. Knows ranks' boards and windows; never how a job was started nor
//! what the sums are for.

mod address;
mod board;
mod core;
mod error;
mod execution;
mod group;
mod line;
pub mod reduce;
mod signature;
mod small;
mod wait;

// What `line` is compiled over; its model puts loom's here.
mod atomics {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
}

pub use address::{Extent, WindowMap};
pub use board::{Board, Layout, MAXIMUM_SEQUENCE, Trouble};
pub use core::{Core, MAXIMUM_ACTIVE, Ticket};
pub use error::{EngineError, Waited};
pub use execution::{Call, Prepared};
pub use group::{Group, Liveness, Observers};
pub use signature::MAXIMUM_COUNT;
pub use signature::Signature;
pub use small::{SMALL_BYTES, Small, fits_small, small_exchange};
