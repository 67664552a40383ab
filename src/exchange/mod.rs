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

mod bucket;
mod progress;
mod step;

pub use bucket::Bucket;
pub use step::{Outcome, Step};

use std::sync::{Arc, Mutex};

use crate::bootstrap::Rank;
use crate::communicator::{Communicator, CommunicatorError, Window};
use crate::engine::{MAXIMUM_ACTIVE, reduce::Operation};
use crate::memory::Buffer;
use bucket::{Returned, Slot};
use progress::Progress;

/// Buckets start on a cache line of their own.
const ALIGNMENT: usize = 64 / size_of::<f32>();

/// Why an exchange could not be made or a step did not end.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The communicator failed; it names the rank, the operation and the step waited for.
    #[error(transparent)]
    Communicator(#[from] CommunicatorError),
    /// A bucket that does not exist, exists twice, is empty or was taken already.
    #[error("bucket {name:?}: {what}")]
    Bucket {
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

/// Settings of an exchange. The same on every rank.
#[derive(Debug)]
pub struct Builder {
    communicator: Communicator,
    buckets: Vec<(String, usize)>,
    progress: bool,
}

impl Builder {
    /// Adds a bucket of `count` elements. Steps may make buckets ready in any order.
    pub fn bucket(mut self, name: impl Into<String>, count: usize) -> Self {
        self.buckets.push((name.into(), count));
        self
    }

    /// Whether a thread of its own moves exchanges on while the loop computes (it does unless told otherwise).
    /// Without it they move only inside `finish`.
    pub fn progress_thread(mut self, wanted: bool) -> Self {
        self.progress = wanted;
        self
    }

    /// Allocates and registers the buckets, all in one region. Collective.
    ///
    /// # Errors
    /// No bucket, more than 48, an empty one, a name used twice, memory limits, ranks whose buckets differ.
    pub fn build(self) -> Result<Exchange, ExchangeError> {
        let Self {
            communicator,
            buckets,
            progress,
        } = self;
        if buckets.is_empty() {
            return Err(ExchangeError::Empty);
        }
        if buckets.len() > MAXIMUM_ACTIVE {
            return Err(ExchangeError::TooMany {
                count: buckets.len(),
                most: MAXIMUM_ACTIVE,
            });
        }
        for (index, (name, count)) in buckets.iter().enumerate() {
            let wrong = |what| {
                Err(ExchangeError::Bucket {
                    name: name.clone(),
                    what,
                })
            };
            if *count == 0 {
                return wrong("it has no elements");
            }
            if buckets[..index].iter().any(|(earlier, _)| earlier == name) {
                return wrong("the name is used twice");
            }
        }
        agree(&communicator, &buckets)?;
        let padded = |count: usize| count.checked_next_multiple_of(ALIGNMENT);
        let total = buckets
            .iter()
            .try_fold(0usize, |sum, (_, count)| sum.checked_add(padded(*count)?));
        let total = total.unwrap_or(usize::MAX);
        let whole = Buffer::<f32>::allocate(total).map_err(CommunicatorError::from)?;
        let mut rest: Window<f32> = communicator.register(whole)?;
        let mut slots = Vec::with_capacity(buckets.len());
        for (name, count) in buckets {
            let (bucket, tail) = rest.split_at(count);
            let padding = (count.next_multiple_of(ALIGNMENT) - count).min(tail.len());
            rest = tail.split_at(padding).1;
            let starter = communicator.starter(&bucket, Operation::Average)?;
            slots.push(Slot {
                name,
                starter: Arc::new(starter),
                window: Some(bucket),
            });
        }
        let returned = Arc::new(Mutex::new(Vec::<Returned>::with_capacity(slots.len())));
        let progress = if progress && communicator.size() > 1 {
            Some(Progress::start(communicator.engine().clone()).map_err(ExchangeError::Progress)?)
        } else {
            None
        };
        let contributors = (0..communicator.size()).collect();
        Ok(Exchange {
            progress,
            slots,
            returned,
            contributors,
            step: 0,
            communicator,
        })
    }
}

/// Finds ranks whose buckets differ: by number they would average each other's.
fn agree(communicator: &Communicator, buckets: &[(String, usize)]) -> Result<(), CommunicatorError> {
    let own = serde_json::to_vec(buckets).expect("plain data");
    let all = communicator.all_gather_bytes("comparing the buckets of an exchange", &own)?;
    let Some(odd) = all.iter().position(|theirs| *theirs != own) else {
        return Ok(());
    };
    let theirs = serde_json::from_slice::<Vec<(String, usize)>>(&all[odd]).unwrap_or_default();
    let difference = buckets
        .iter()
        .zip(&theirs)
        .enumerate()
        .find(|(_, (mine, theirs))| mine != theirs);
    let (rank, step) = (communicator.rank(), "building an exchange");
    let what = match difference {
        Some((index, (mine, theirs))) => format!(
            "bucket {index} is {:?} of {} elements on rank {odd}, {:?} of {} on rank {rank}",
            theirs.0, theirs.1, mine.0, mine.1
        ),
        None => format!(
            "rank {odd} has {} buckets, rank {rank} has {}",
            theirs.len(),
            buckets.len()
        ),
    };
    Err(CommunicatorError::Disagreement {
        rank,
        call: step,
        what,
    })
}

/// Gradients that all ranks average, step by step.
#[derive(Debug)]
pub struct Exchange {
    // Dropped first: it drives the communicator's engine.
    progress: Option<Progress>,
    slots: Vec<Slot>,
    returned: Arc<Mutex<Vec<Returned>>>,
    contributors: Vec<Rank>,
    step: u64,
    communicator: Communicator,
}

impl Exchange {
    /// Settings to make one with. The exchange takes the communicator over.
    pub fn builder(communicator: Communicator) -> Builder {
        Builder {
            communicator,
            buckets: Vec::new(),
            progress: true,
        }
    }

    /// The communicator, for barriers, broadcasts and figures between steps.
    pub fn communicator(&self) -> &Communicator {
        &self.communicator
    }

    /// Whether exchanges move on while the loop computes.
    pub fn has_progress_thread(&self) -> bool {
        self.progress.is_some()
    }

    /// Begins the next step: every rank does, and takes and readies every bucket once in it.
    ///
    /// # Errors
    /// An earlier step failed, or was not finished: then the exchange is over, on every rank.
    pub fn begin(&mut self) -> Result<Step<'_>, ExchangeError> {
        if self.communicator.in_step() {
            // Its drop has said so already, unless it was forgotten.
            self.communicator.abort_handle().abort();
            return Err(ExchangeError::Unfinished {
                rank: self.communicator.rank(),
                step: self.step - 1,
            });
        }
        let first = self.communicator.begin_step(self.slots.len() as u64)?;
        let step = self.step;
        self.step += 1;
        Ok(Step::new(self, step, first))
    }
}
