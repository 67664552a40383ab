//! What launcher and worker tell each other: one JSON document a line, over the worker's standard input and output.

use std::path::PathBuf;

use sapwood::plan::lowered::Rank;
use serde::{Deserialize, Serialize};

use super::gradients::Traffic;
use super::spans::Span;
use super::trainer::EpochShare;

/// What a worker is to do; its first and only line of input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// Which worker it is.
    pub rank: Rank,
    /// How many there are.
    pub ranks: u32,
    /// The process that started it, without which it has no purpose.
    pub launcher: u32,
    /// The images; the built-in ones if absent.
    pub data: Option<PathBuf>,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images of a step, all workers together.
    pub batch: usize,
    /// Decides weights and order.
    pub seed: u64,
    /// Milliseconds that this worker sleeps in each step.
    pub slow_ms: u64,
    /// The first step whose spans are kept, and how many are.
    pub kept_steps: (usize, usize),
    /// Batch sizes for which an epoch's bytes are counted afterwards.
    pub count_batches: Vec<usize>,
    /// How long any wait may take.
    pub timeout_ms: u64,
    /// How the workers reach each other.
    pub meeting: super::workers::Meeting,
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
