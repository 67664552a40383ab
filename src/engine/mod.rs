//! Runs lowered plans: chunks, waits, progress. Knows ranks' boards and windows; never how a job was started nor
//! what the sums are for.

mod address;
mod awaiting;
mod board;
mod call;
mod core;
mod details;
mod error;
mod execution;
mod group;
pub(crate) mod hint;
mod layout;
mod letter;
mod letters;
mod line;
mod message;
mod mismatch;
pub mod reduce;
mod signature;
mod small;
mod straight;
mod surface;
mod ticket;
mod trouble;
mod units;
mod wait;

// What `line` is compiled over; its model puts loom's here.
mod atomics {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
}

pub use address::{Extent, Keys, RemotePart, WindowMap};
pub use board::{Board, MAXIMUM_SEQUENCE, PROCESSORS};
pub use call::{Call, Prepared, Scale};
pub use core::{Core, MAXIMUM_ACTIVE};
pub use error::{EngineError, Waited};
pub use group::{Group, Liveness, Observers};
pub use layout::Layout;
pub use letter::{Letter, Way};
pub use message::{MessageCore, SLOT_BYTES};
pub use signature::MAXIMUM_COUNT;
pub use signature::Signature;
pub use small::{
    FARTHEST, MOST_AHEAD, Occasion, SMALL_BYTES, Small, fits_small, may_run_ahead, parts_shown,
    small_exchange,
};
pub use straight::{Straight, is_straight, straight};
pub use surface::Engine;
pub use ticket::Ticket;
pub use trouble::Trouble;
pub use units::{fits_units, units_exchange};
