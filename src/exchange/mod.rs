//! What a training loop holds: named gradient buckets that the backward pass fills and the ranks average while it
//! goes on. Nothing here copies a gradient: a bucket lies in a registered window, peers read it from where it was
//! written, and the mean lands in its place.
//!
//! ```
//! use sapwood::{bootstrap::Job, communicator::Communicator, exchange::Exchange};
//!
//! let job = Job::local(1)?.remove(0); // under a launcher: Communicator::from_environment()
//! let communicator = Communicator::builder().join(&job)?;
//! let mut exchange = Exchange::builder(communicator).bucket("layer 1", 8).bucket("layer 2", 4).build()?;
//! for _ in 0..3 {
//!     let mut step = exchange.begin()?;
//!     let mut second = step.take("layer 2")?;
//!     second.fill(0.5); // the backward pass writes here
//!     second.ready()?; // and from here on the ranks exchange it, while layer 1 is computed
//!     let mut first = step.take("layer 1")?;
//!     first.fill(0.25);
//!     first.ready()?;
//!     let outcome = step.finish()?;
//!     assert_eq!(outcome.contributors(), [0]);
//!     assert_eq!(outcome.mean("layer 2"), [0.5; 4]);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A bucket in flight cannot be written: `ready` takes it.
//!
//! ```compile_fail,E0382
//! fn late(mut bucket: sapwood::exchange::Bucket) {
//!     bucket.ready().unwrap();
//!     bucket[0] = 1.0; // borrow of moved value
//! }
//! ```
//!
//! Nor can a slice of it be kept across `ready`:
//!
//! ```compile_fail,E0505
//! fn kept(mut bucket: sapwood::exchange::Bucket) {
//!     let gradient = &mut bucket[..];
//!     bucket.ready().unwrap(); // cannot move out of `bucket` because it is borrowed
//!     gradient[0] = 1.0;
//! }
//! ```
//!
//! Nor can the mean be kept across the next step:
//!
//! ```compile_fail,E0499
//! fn stale(exchange: &mut sapwood::exchange::Exchange) {
//!     let outcome = exchange.begin().unwrap().finish().unwrap();
//!     let next = exchange.begin().unwrap(); // cannot borrow `*exchange` as mutable more than once at a time
//!     println!("{}", outcome.mean("layer 1")[0]);
//! }
//! ```
//!
//! With backup workers a step does not wait for the slowest: of N + b ranks the first N to be ready are averaged, for all.
//! Weights that are kept as the exchange's state let a rank that fell far behind catch up.
//!
//! ```
//! use sapwood::{bootstrap::Job, communicator::Communicator, exchange::Exchange};
//!
//! let communicator = Communicator::builder().join(&Job::local(1)?.remove(0))?;
//! let mut exchange =
//!     Exchange::builder(communicator).bucket("layer", 4).state("weights", 4).backups(0).build()?;
//! exchange.set_state(|mut state| state.of("weights").fill(1.0));
//! let mut step = exchange.begin()?;
//! let mut gradient = step.take("layer")?;
//! gradient.fill(0.5);
//! if !step.sealed() { // between layers: is the step decided without this gradient?
//!     gradient.ready()?;
//! }
//! let mut outcome = step.finish()?;
//! if outcome.caught_up().is_none() {
//!     outcome.update(|mean, mut state| {
//!         let weights = state.of("weights").iter_mut();
//!         weights.zip(mean.of("layer")).for_each(|(weight, gradient)| *weight -= gradient);
//!     });
//! }
//! assert_eq!(exchange.state("weights"), [0.5; 4]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backups;
mod bucket;
mod building;
mod collective;
#[allow(clippy::module_inception, reason = "it is what the module is about")]
mod exchange;
mod participation;
mod progress;
mod state;
mod step;

pub use bucket::Bucket;
pub use building::Builder;
pub use exchange::Exchange;
pub use participation::Participation;
pub use state::{Means, State};
pub use step::{Outcome, Step};

use crate::backup::BackupError;
use crate::bootstrap::Rank;
use crate::communicator::CommunicatorError;

/// Why an exchange could not be made or a step did not end.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The communicator failed; it names the rank, the operation and the step waited for.
    #[error(transparent)]
    Communicator(#[from] CommunicatorError),
    /// The step did not end, or backup workers cannot be had: it names the ranks that were missing.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A bucket that does not exist, exists twice, is empty or was taken already.
    #[error("bucket {name:?}: {what}")]
    Bucket {
        /// Which.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A part of the training state that has no elements or exists twice.
    #[error("state {name:?}: {what}")]
    State {
        /// Which.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The exchange has no bucket.
    #[error("an exchange needs at least one bucket")]
    Empty,
    /// More buckets than can be in flight at once.
    #[error("{count} buckets, an exchange has at most {most}: put the gradients of several layers into one")]
    TooMany {
        /// How many were asked for.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// A step was begun while the one before it was not finished; the other ranks are told.
    #[error("rank {rank}: step {step} was not finished: its buckets may still be in flight")]
    Unfinished {
        /// Who.
        rank: Rank,
        /// Which step, from 0.
        step: u64,
    },
    /// A step was finished before all buckets were ready; the other ranks are told.
    #[error("rank {rank}: step {step} was finished before these buckets were ready: {names}")]
    NotReady {
        /// Who.
        rank: Rank,
        /// Which step, from 0.
        step: u64,
        /// Which buckets.
        names: String,
    },
    /// The progress thread could not be started.
    #[error("the progress thread could not be started: {0}")]
    Progress(std::io::Error),
}
