//! How long a lowered plan takes, from a few figures about the machine; and which plan takes the least. Measures nothing
//! itself: the figures come from a file that `sapwood tune` writes.
//!
//! # The model
//! It is LogGP (A. Alexandrov, M. Ionescu, K. Schauser, C. Scheiman: LogGP: Incorporating Long Messages into the LogP
//! Model, SPAA 1995): a message of `n` bytes keeps its sender busy for the overhead `o`, occupies the way out of the one
//! and the way into the other for `g + n G`, arrives the latency `L` later, and keeps its receiver busy for `o` again. A
//! plan is played through with these: each rank does one chunk at a time, each chunk as soon as all that it waits for has
//! come, and the slowest rank's end is the plan's time. Three things are added to the paper's:
//!
//! - **Classes of pairs.** Each has figures of its own ([`Class`]): ranks that load and store each other's memory, ranks of
//!   one host that send messages, and ranks of different hosts. Cores that share a second-level cache would be another one;
//!   the ranks do not know who does.
//! - **Where bytes lie.** A byte costs more the larger the memory is that a rank goes through in a call: `G` is a table by
//!   that size ([`Curve`]), not a number. Where memory is shared there are two: one for bytes that nobody else writes,
//!   which stay in the rank's caches from call to call, one for bytes that come from another core's.
//! - **Cores.** Ranks of one host share as many cores as it has.
//!
//! What the model does not explain is carried beside it: for the shapes that were measured, by how much it was off
//! ([`Tuning`]). A prediction is the model's, times that.

mod choice;
mod curve;
mod footprint;
mod model;
mod parameters;
mod residual;
mod schedule;
mod setting;
mod tuning;

#[cfg(test)]
mod tests;

pub use choice::{Candidate, Chosen, scaled_chunk_bytes};
pub use curve::{Curve, Knot};
pub use model::{Case, CostError, Prediction, TaskTime, predict};
pub use parameters::{Class, Link, Own, Parameters};
pub use residual::{Point, Residual, Shape};
pub use setting::{Alternative, Setting};
pub use tuning::{Tuning, TuningError};
