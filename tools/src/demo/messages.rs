//! What launcher and worker tell each other: the worker's assignment as its only argument, then
//! one JSON document a line on the worker's standard output.

use std::path::PathBuf;

use sapwood::plan::lowered::Rank;
use serde::{Deserialize, Serialize};

use super::gradients::Traffic;
use super::spans::Span;
use super::trainer::EpochShare;

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
    /// A worker that sleeps in each step, and for how many milliseconds.
    pub slow: Option<(Rank, u64)>,
    /// The first step whose spans are kept, and how many are.
    pub kept_steps: (usize, usize),
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
    /// All is done.
    Done(Box<WorkerReport>),
    /// It broke off; a sentence.
    Failed(String),
}

/// What a worker did and ended with.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Whose.
    pub rank: Rank,
    /// The plan that ran.
    pub plan: String,
    /// The fabric that it ran over.
    pub fabric: String,
    /// Whether that fabric stages what is to be summed.
    pub staged: bool,
    /// The bits of all weights at the end.
    pub weights: Vec<u32>,
    /// By epoch.
    pub epochs: Vec<EpochShare>,
    /// Nanoseconds by step.
    pub steps: Vec<u64>,
    /// Nanoseconds that its exchange waited for each rank.
    pub waited: Vec<u64>,
    /// Of the kept steps.
    pub spans: Vec<Span>,
    /// In the training run.
    pub traffic: Traffic,
    /// In one epoch for each of the batch sizes asked for.
    pub counted: Vec<Traffic>,
}
