//! Bytes between two ranks, in the vocabulary of verbs: regions, queue pairs, completions, reads and writes.
//!
//! This file and its neighbours are the contract; each provider is a folder beside them that passes the
//! conformance suite. Nothing above this module asks which provider it is on: it asks for [`Capabilities`].
//! Connection set-up is out of band: what one side exports as a [`Parcel`] is carried to the other by whoever calls.

mod capabilities;
mod contract;
pub mod delayed;
mod doorbell;
mod error;
pub(crate) mod fork;
mod handshake;
pub mod mixed;
mod parcel;
pub mod select;
pub mod shm;
mod state;
pub mod tcp;
pub mod verbs;
mod work;

pub use capabilities::{AtomicDomain, Capabilities, OrderingScope};
pub use contract::{DeviceMemory, Endpoint, Fabric, Fence, Parcel, Registration, RemoteRegion, Sleep};
pub use doorbell::{Doorbell, Patience};
pub use error::{FabricError, PostError};
pub use work::{Access, Completion, Opcode, Operation, Receive, RemoteSlice, Request, Slice, Status};

/// What [`handshake`] is built on; its model has another.
mod atomics {
    pub(super) use std::sync::atomic::{AtomicU32, Ordering, fence};
}

/// A position in the communicator, from 0.
pub type Rank = u32;
