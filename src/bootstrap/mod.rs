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
//! Ranks on one host meet at a Unix socket. Ranks on several meet at a TCP port of rank 0's host, and those that share
//! a host at a Unix socket of that host besides: bytes go to everybody, encrypted; descriptors to host-mates.
//!
//! This module must never leave a file behind or carry bulk data: it is the control path. The only threads that it
//! keeps are rank 0's of a job over the network, which passes on what the ranks say, deaths above all, while the
//! program computes, in a job whose dead ranks may come back that of each rank's door, which sleeps until one
//! does, and a switchboard's, which sleeps until another rank calls; nothing else is done there.

mod admission;
mod attempt;
mod ballot;
mod channel;
mod control;
mod door;
mod environment;
mod error;
mod gather;
mod host;
mod hub;
mod inherit;
mod inquiry;
mod interface;
mod job;
mod join;
mod liveness;
mod lives;
mod meanwhile;
mod membership;
mod message;
mod near;
mod noise;
mod one_host;
mod pair;
mod part;
mod parts;
mod process_manager;
mod progress;
mod reception;
mod refusals;
mod rendezvous;
mod returning;
mod roll;
mod secret;
mod socket;
mod star;
#[cfg(test)]
mod strangers;
mod survivors;
mod switchboard;
mod tcp;
mod unique_id;
mod verdict;
mod visitor;
mod visits;

pub use environment::{
    ENVIRONMENT, EnvironmentVariable, UnknownVariable, environment_table, unknown_variables, variable,
    warn_of_unknown_variables,
};
pub use error::BootstrapError;
pub use host::HostIdentity;
pub use job::{DEFAULT_TIMEOUT, Job, MAXIMUM_SIZE};
pub use liveness::{Departure, DepartureKind};
pub use membership::{Gathered, Membership};
pub use pair::PairRole;
pub use part::{Invitation, Part, Reachable};
pub use progress::JoinProgress;
pub use rendezvous::Rendezvous;
pub use secret::Secret;
pub use survivors::{Conclusion, Survivors};
pub(crate) use switchboard::{Answer, CallError, Caller, Place, Said, Switchboard};
pub use unique_id::UniqueId;

/// The number of a participant in a job or communicator, from 0.
pub type Rank = u32;
