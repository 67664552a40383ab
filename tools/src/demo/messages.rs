//! What launcher and worker tell each other: the worker's assignment as its only argument, then
//! one JSON document a line on the worker's standard output.

use std::ops::Range;
use std::path::PathBuf;

use sapwood::plan::lowered::Rank;
use serde::{Deserialize, Serialize};

use super::gradients::Traffic;
use super::record::StepRecord;
use super::spans::Span;
use super::trainer::{EpochShare, Trained};

/// What the workers are to do. Who each of them is, and where they meet, it learns as every rank of a job does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// The images; the built-in ones if absent.
    pub data: Option<PathBuf>,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images of a step, all workers together.
    pub batch: usize,
    /// Decides weights and order.
    pub seed: u64,
    /// How many workers a step need not wait for. Then there is a second run, which waits for all.
    pub backups: u32,
    /// Workers that sleep in each step, and for how many milliseconds.
    pub slow: Vec<(Rank, u64)>,
    /// The steps whose spans are kept, of the run that waits for all.
    pub kept_steps: Range<usize>,
    /// Likewise, of the run with backup workers.
    pub kept_with_backups: Range<usize>,
    /// Batch sizes for which an epoch's bytes are counted afterwards.
    pub count_batches: Vec<usize>,
    /// The plan that reduces the gradients.
    pub plan: String,
}

/// A worker's line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// So many steps have begun, those for counting bytes included; sent now and then.
    Steps(usize),
    /// The run with backup workers has ended; whether to go on with the one that waits for all is to be said on standard
    /// input.
    Main(Box<RunReport>),
    /// All is done.
    Done(Box<WorkerReport>),
    /// It broke off; a sentence.
    Failed(String),
}

/// The launcher's line, by which a worker goes on.
pub const GO_ON: &str = "go on";
/// The one by which it reports what it has.
pub const THAT_IS_ALL: &str = "that is all";

/// What a worker did and ended with, over all its runs. All that it has not done is as the default.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Whose.
    pub rank: Rank,
    /// The plan that ran.
    pub plan: String,
    /// The fabric that it ran over.
    pub fabric: String,
    /// Whether that fabric stages what is to be summed.
    pub staged: bool,
    /// The run with backup workers, if there was one; it comes before the rest, by itself.
    #[serde(skip)]
    pub with_backups: Option<RunReport>,
    /// The run that waited for all.
    pub waiting: RunReport,
    /// In the run that waited for all.
    pub traffic: Traffic,
    /// In one epoch for each of the batch sizes asked for.
    pub counted: Vec<Traffic>,
    /// Why the run that waits for all did not come to its end, nor the counting after it.
    pub broken_off: Option<String>,
}

/// What a worker did in one training run and ended with.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct RunReport {
    /// The bits of all weights at the end.
    pub weights: Vec<u32>,
    /// By epoch.
    pub epochs: Vec<EpochShare>,
    /// The steps that it took part in, or jumped from.
    pub steps: Vec<StepRecord>,
    /// Nanoseconds that its exchange waited for each rank.
    pub waited: Vec<u64>,
    /// Of the kept steps.
    pub spans: Vec<Span>,
}

impl RunReport {
    /// Of a run that has ended.
    pub fn new(trained: Trained) -> Self {
        Self {
            weights: trained.model.weights().map(f32::to_bits).collect(),
            epochs: trained.epochs,
            steps: trained.steps,
            waited: trained.waited,
            spans: trained.spans,
        }
    }
}

impl WorkerReport {
    /// The run that the figures are of: that with backup workers, if there was one.
    pub fn main(&self) -> &RunReport {
        self.with_backups.as_ref().unwrap_or(&self.waiting)
    }
}
