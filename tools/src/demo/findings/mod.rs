//! What a demo run showed: figures from all workers together, and what was checked. What `--json` writes.

mod bytes_per_epoch;
mod numbers;
mod participation;
mod table;

use serde::Serialize;

use super::arguments::{DemoArguments, Slow};
use super::dataset::Dataset;
use super::members::Members;
use super::messages::{RunReport, WorkerReport};
use super::model;
use super::outcome::{Death, Outcome};
use super::trainer::Trained;
use crate::table::grouped;
pub use bytes_per_epoch::{EpochBytes, batches_to_count};
use numbers::quantiles;
pub use numbers::{Milliseconds, bytes};
pub use participation::{Participation, members_of_steps};

/// How far a weight may be from the single process's.
///
/// Both runs round the sums over a batch differently, by some units of 2^-24; weights and gradients are of the order of
/// 1 and below, and training does not amplify a difference (see `model`). Measured: at most 5e-7 for 1 to 9 workers, 5
/// to 9,000 steps. A wrong share, divisor or order is at 1e-3 and above after a few steps.
pub const WEIGHT_TOLERANCE: f64 = 1e-5;

/// An epoch of all workers together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Epoch {
    /// Mean cross-entropy over the training images whose gradients were used.
    pub loss: f64,
    /// Share of the test images that were classified rightly at the end of the epoch.
    pub accuracy: f64,
}

/// Everything that `--json` writes. What has a twin with `waiting_for_all` in its name is of the run with backup workers
/// if there was one; then `exchanged`, `copied`, `waited` and bytes by epoch are of the other.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct Findings {
    pub dataset: String,
    pub workers: usize,
    pub backups: usize,
    pub accuracy: f64,
    pub accuracy_waiting_for_all: Option<f64>,
    pub steps: usize,
    pub bytes_exchanged: u64,
    pub bytes_copied: u64,
    pub replicas_identical: bool,
    /// BLAKE2s-256 of the weights' bits in hexadecimal: equal where two runs trained to the same weights.
    pub weights_digest: String,
    pub matches_single_process: bool,
    pub max_weight_difference: f64,
    /// Steps times workers, less the gradients that were in a mean.
    pub dropped_gradients: u64,
    /// By rank.
    pub participation: Vec<Participation>,
    /// Workers that were in fewer than one of ten means.
    pub hardly_heard: Vec<u32>,
    pub step_ms: Milliseconds,
    pub step_ms_waiting_for_all: Option<Milliseconds>,
    /// From the first step's begin to the last one's end, tests included.
    pub training_s: f64,
    pub training_s_waiting_for_all: Option<f64>,
    pub weight_tolerance: f64,
    pub single_process_accuracy: f64,
    pub plan: String,
    pub fabric: String,
    /// Hosts that the workers said they were on.
    pub hosts: usize,
    /// Whether that fabric stages what is to be summed.
    pub staged: bool,
    pub batch: usize,
    pub seed: u64,
    pub slow: Vec<SlowWorker>,
    /// Why there are no backup workers, where that was not asked for.
    pub without_backups: Option<String>,
    /// Workers that died and were not waited for.
    pub deaths: Vec<Died>,
    /// Why there are no figures of the run that waits for all: then all that is of it is empty, or 0.
    pub without_waiting: Option<String>,
    pub training_images: usize,
    pub test_images: usize,
    pub parameters: usize,
    pub bytes_per_epoch: Vec<EpochBytes>,
    pub communication_falls_with_batch: bool,
    /// By rank: for how long its exchange waited for each rank.
    pub waited_ms: Vec<Vec<f64>>,
    pub seconds: f64,
    pub epochs: Vec<Epoch>,
}

fn digest(weights: &[u32]) -> String {
    use blake2::Digest;
    let mut hasher = blake2::Blake2s256::new();
    for bits in weights {
        hasher.update(bits.to_le_bytes());
    }
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A worker that was slowed on purpose.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SlowWorker {
    /// Which.
    pub rank: u32,
    /// By how much in each step.
    pub ms: u64,
}

/// A worker that died.
#[derive(Clone, Debug, Serialize)]
pub struct Died {
    /// Which.
    pub rank: u32,
    /// Its process and how that ended.
    pub how: String,
    /// In which run.
    pub run: &'static str,
    /// The last step, from 0, that it is known to have begun; workers say so ten times a second.
    pub step: usize,
}

impl Died {
    fn new(death: &Death, members: &[Members]) -> Self {
        let begun = death.begun.saturating_sub(1);
        let (run, step) = match death.in_main {
            true => {
                let heard = members.iter().rposition(|members| members.contains(death.rank));
                ("with backups", begun.max(heard.unwrap_or(0)))
            }
            false => ("waiting for all", begun.saturating_sub(members.len())),
        };
        Self {
            rank: death.rank,
            how: death.how.clone(),
            run,
            step,
        }
    }

    /// How it died and where, after its rank.
    pub fn words(&self) -> String {
        let Self { how, step, run, .. } = self;
        format!("{how} in step {step} or soon after, {run}")
    }
}

/// The single process's runs.
#[derive(Debug)]
pub struct Singles {
    /// With the recorded members of each step.
    pub with_backups: Option<Trained>,
    /// With all images; unless the workers' run that waits for all broke off.
    pub waiting: Option<Trained>,
}

/// A run of all workers, and what one process made of the same steps.
struct Run<'a> {
    workers: Vec<&'a RunReport>,
    alone: &'a Trained,
    /// Whether each worker tested all images, at the same weights, unless it jumped over the epoch's end; else its share.
    tested_whole: bool,
}

impl Run<'_> {
    /// The workers that have come to the end.
    fn ended(&self) -> impl Iterator<Item = &RunReport> {
        let workers = self.workers.iter().copied();
        workers.filter(|worker| !worker.weights.is_empty())
    }

    fn weights(&self) -> &[u32] {
        self.ended().next().map_or(&[], |worker| &worker.weights)
    }

    fn replicas_identical(&self) -> bool {
        self.ended().all(|worker| worker.weights == self.weights())
    }

    /// The largest of any weight from the single process's.
    fn difference(&self) -> f64 {
        if self.weights().len() != model::parameters() {
            return f64::INFINITY;
        }
        let pairs = self.alone.model.weights().zip(self.weights());
        let differences = pairs.map(|(a, &b)| f64::from((a - f32::from_bits(b)).abs()));
        // A NaN counts as the largest difference there is.
        differences.fold(0.0, |most: f64, next| match next.is_nan() {
            true => f64::INFINITY,
            false => most.max(next),
        })
    }

    fn epochs(&self, test_images: usize) -> Vec<Epoch> {
        let count = self.ended().next().map_or(0, |worker| worker.epochs.len());
        let epoch = |number: usize| {
            let shares = || self.ended().map(|worker| &worker.epochs[number]);
            let images: usize = shares().map(|share| share.images).sum();
            let rights = shares().filter_map(|share| share.right);
            let right = match self.tested_whole {
                true => rights.max().unwrap_or(0),
                false => rights.sum(),
            };
            Epoch {
                loss: shares().map(|share| share.loss).sum::<f64>() / images.max(1) as f64,
                accuracy: right as f64 / test_images as f64,
            }
        };
        (0..count).map(epoch).collect()
    }
}

impl Findings {
    /// Puts what the workers have come to together and holds them against the single process. `members`: of
    /// each step of the main run.
    pub fn new(
        arguments: &DemoArguments,
        data: &Dataset,
        outcome: &Outcome,
        members: &[Members],
        singles: &Singles,
    ) -> Self {
        let (reports, survivor) = (&outcome.reports, outcome.survivor());
        let waiting = singles.waiting.as_ref().map(|alone| Run {
            workers: reports.iter().map(|report| &report.waiting).collect(),
            alone,
            tested_whole: false,
        });
        let with_backups = singles.with_backups.as_ref().map(|alone| Run {
            workers: reports.iter().map(WorkerReport::main).collect(),
            alone,
            tested_whole: true,
        });
        let runs = || with_backups.iter().chain(&waiting);
        let main = runs().next().unwrap_or_else(|| unreachable!("one has ended"));
        let epochs = main.epochs(data.testing());
        let accuracy = |epochs: &[Epoch]| epochs.last().map_or(0.0, |epoch| epoch.accuracy);
        let difference = runs().map(Run::difference).fold(0.0, f64::max);
        let alone_right = main.alone.epochs.last().and_then(|epoch| epoch.right);
        let times = |run: &Run<'_>| quantiles(&step_times(&run.workers, members.len()));
        let other = with_backups.as_ref().and(waiting.as_ref());
        let bytes_per_epoch = match outcome.waited {
            true => bytes_per_epoch::count(arguments, data, reports),
            false => Vec::new(),
        };
        // A copy in an epoch that only counts bytes is one too, where there should be none.
        let staged = survivor.staged;
        let copied = |report: &WorkerReport| {
            let counted = report.counted.iter().filter(|_| !staged);
            report.traffic.copied + counted.map(|traffic| traffic.copied).sum::<u64>()
        };
        let dropped = members
            .iter()
            .map(|set| u64::from(reports.len() as u32 - set.len()));
        let participation = participation::of_workers(&main.workers, members);
        Self {
            dataset: if arguments.data.is_some() {
                data.name().to_owned()
            } else {
                "digits".to_owned()
            },
            workers: arguments.workers,
            backups: arguments.backups(),
            accuracy: accuracy(&epochs),
            accuracy_waiting_for_all: other.map(|run| accuracy(&run.epochs(data.testing()))),
            steps: members.len(),
            bytes_exchanged: reports.iter().map(|report| report.traffic.exchanged).sum(),
            bytes_copied: reports.iter().map(copied).sum(),
            replicas_identical: runs().all(Run::replicas_identical),
            weights_digest: digest(main.weights()),
            matches_single_process: difference <= WEIGHT_TOLERANCE,
            max_weight_difference: difference,
            dropped_gradients: dropped.sum(),
            hardly_heard: participation::hardly_heard(&participation),
            participation,
            step_ms: times(main),
            step_ms_waiting_for_all: other.map(times),
            training_s: training_seconds(&main.workers),
            training_s_waiting_for_all: other.map(|run| training_seconds(&run.workers)),
            weight_tolerance: WEIGHT_TOLERANCE,
            single_process_accuracy: alone_right.unwrap_or(0) as f64 / data.testing() as f64,
            plan: survivor.plan.clone(),
            fabric: survivor.fabric.clone(),
            hosts: arguments.hosts,
            staged,
            batch: arguments.batch,
            seed: arguments.seed,
            slow: arguments.slow().iter().map(SlowWorker::from).collect(),
            without_backups: arguments.without_backups(),
            without_waiting: without_waiting(outcome),
            deaths: outcome
                .deaths
                .iter()
                .map(|death| Died::new(death, members))
                .collect(),
            training_images: data.training(),
            test_images: data.testing(),
            parameters: model::parameters(),
            communication_falls_with_batch: bytes_per_epoch::falls(&bytes_per_epoch),
            bytes_per_epoch,
            waited_ms: reports
                .iter()
                .filter(|_| outcome.waited)
                .map(|report| report.waiting.waited.iter().map(|&ns| ns as f64 / 1e6).collect())
                .collect(),
            seconds: 0.0,
            epochs,
        }
    }

    /// Whether no more was copied than the fabric must: nothing where ranks look into each other's memory, else what
    /// comes to be summed, which is staged. What goes up and what comes down are the same bytes.
    pub fn copies_hold(&self) -> bool {
        let most = if self.staged { self.bytes_exchanged / 2 } else { 0 };
        self.bytes_copied <= most
    }

    /// What did not hold, a sentence each.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if !self.replicas_identical {
            broken.push("the workers ended with different weights".to_owned());
        }
        if !self.matches_single_process {
            broken.push(format!(
                "a weight differs by {:.1e} from that of one process; at most {:.1e} is rounding",
                self.max_weight_difference, self.weight_tolerance
            ));
        }
        if !self.copies_hold() {
            let most = if self.staged {
                "at most what came to be summed should be, half of the exchange"
            } else {
                "none should be"
            };
            broken.push(format!(
                "{} bytes were copied; {most}",
                grouped(self.bytes_copied)
            ));
        }
        if !self.communication_falls_with_batch {
            broken.push("the bytes per step depend on the batch; they should not".to_owned());
        }
        broken
    }
}

/// Why the run that waits for all has no figures.
fn without_waiting(outcome: &Outcome) -> Option<String> {
    let death = outcome.deaths.iter().find(|_| !outcome.waited)?;
    let rank = death.rank;
    Some(match death.in_main {
        true => format!("not run: it would wait for rank {rank}, which had died"),
        false => format!("broken off: it waited for rank {rank}, which died"),
    })
}

impl From<&Slow> for SlowWorker {
    fn from(slow: &Slow) -> Self {
        Self {
            rank: slow.rank,
            ms: slow.delay.as_millis() as u64,
        }
    }
}

/// Of each step, how long the slowest of those took whose gradients are in the mean, in milliseconds.
pub fn step_times(workers: &[&RunReport], steps: usize) -> Vec<f64> {
    let mut times = vec![0.0f64; steps];
    for (rank, worker) in (0..).zip(workers) {
        for record in worker.steps.iter().filter(|record| record.members.contains(rank)) {
            let time = &mut times[record.step as usize];
            *time = time.max(record.took as f64 / 1e6);
        }
    }
    times
}

/// From the first begin of a step to the end of the last one that its worker's gradient is in.
fn training_seconds(workers: &[&RunReport]) -> f64 {
    let records = || {
        (0..)
            .zip(workers)
            .flat_map(|(rank, worker)| worker.steps.iter().map(move |step| (rank, step)))
    };
    let begin = records().map(|(_, step)| step.begun).min();
    let used = records().filter(|(rank, step)| step.members.contains(*rank));
    let end = used.map(|(_, step)| step.begun + step.took).max();
    end.unwrap_or(0).saturating_sub(begin.unwrap_or(0)) as f64 / 1e9
}
