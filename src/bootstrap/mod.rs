//! Who is in the job: the environment a launcher sets, the authenticated rendezvous where the ranks meet, small
//! exchanges between all of them, and liveness.
//!
//! A [`Job`] says who this rank is and where it meets the others. [`Membership::join`] proves to rank 0, and has
//! rank 0 prove, that both know the job's secret, and yields a [`Membership`]: the roll of all ranks, collective
//! exchanges of small payloads and descriptors ([`Membership::all_gather`]) and a look at who is gone
//! ([`Membership::departed`]).
//!
//! Invariant 9 is kept here: nothing but the handshake is answered before the other side has proved that it knows
//! the secret and runs as the same user, and the secret itself is never sent, logged or printed.
//!
//! This module must never start a thread, leave a file behind, or carry bulk data: it is the control path. All the
//! ranks are on one host today; [`Rendezvous`] and [`HostIdentity`] are where several hosts come in.

mod channel;
mod control;
mod environment;
mod error;
mod gather;
mod host;
mod job;
mod join;
mod listen;
mod liveness;
mod membership;
mod message;
mod noise;
mod pair;
mod progress;
mod rendezvous;
mod roll;
mod secret;
mod socket;
mod tcp;
mod visitor;

pub use environment::variable;
pub use error::BootstrapError;
pub use host::HostIdentity;
pub use job::{DEFAULT_TIMEOUT, Job, MAXIMUM_SIZE};
pub use liveness::{Departure, DepartureKind};
pub use membership::{Gathered, Membership};
pub use pair::PairRole;
pub use progress::JoinProgress;
pub use rendezvous::Rendezvous;
pub use secret::Secret;

/// The number of a participant in a job or communicator, from 0.
pub type Rank = u32;
