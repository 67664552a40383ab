//! What a demo run showed: figures from all workers together, what was checked, as JSON and as a table.

use serde::Serialize;

use super::arguments::DemoArguments;
use super::dataset::Dataset;
use super::messages::WorkerReport;
use super::model;
use super::schedule::Schedule;
use super::trainer::Trained;
use crate::table::{Align, Table, grouped};

/// How far a weight may be from the single process's.
///
/// Both runs round the sums over a batch differently, by some units of 2^-24; weights and gradients are of the order of
/// 1 and below, and training does not amplify a difference (see `model`). Measured: at most 5e-7 for 1 to 9 workers, 5
/// to 9,000 steps. A wrong share, divisor or order is at 1e-3 and above after a few steps.
pub const WEIGHT_TOLERANCE: f64 = 1e-5;

/// Two quantiles of some times, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Milliseconds {
    /// Half of the steps took no longer.
    pub p50: f64,
    /// 99 of 100 steps took no longer.
    pub p99: f64,
}

/// An epoch of all workers together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Epoch {
    /// Mean cross-entropy over the training images, as they were used.
    pub loss: f64,
    /// Share of the test images that were classified rightly at the end of the epoch.
    pub accuracy: f64,
}

/// What an epoch moves between the workers at one batch size.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EpochBytes {
    /// Images of a step.
    pub batch: usize,
    /// Steps of the epoch.
    pub steps: usize,
    /// Counted where they arrived, all workers together.
    pub bytes: u64,
}

/// Everything that `--json` writes.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct Findings {
    pub dataset: String,
    pub workers: usize,
    pub backups: usize,
    pub accuracy: f64,
    pub steps: usize,
    pub bytes_exchanged: u64,
    pub bytes_copied: u64,
    pub replicas_identical: bool,
    /// BLAKE2s-256 of the weights' bits in hexadecimal: equal where two runs trained to the same weights.
    pub weights_digest: String,
    pub matches_single_process: bool,
    pub max_weight_difference: f64,
    pub dropped_gradients: u64,
    pub step_ms: Milliseconds,
    /// Needs the backup-worker barrier.
    pub step_ms_waiting_for_all: Option<Milliseconds>,
    pub weight_tolerance: f64,
    pub single_process_accuracy: f64,
    pub plan: String,
    pub fabric: String,
    /// Whether that fabric stages what is to be summed.
    pub staged: bool,
    pub batch: usize,
    pub seed: u64,
    pub slow: Option<SlowWorker>,
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

/// The worker that was slowed on purpose.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SlowWorker {
    /// Which.
    pub rank: u32,
    /// By how much in each step.
    pub ms: u64,
}

impl Findings {
    /// Puts the workers' reports (at least one, by rank) together and holds them against the single process.
    pub fn new(
        arguments: &DemoArguments,
        data: &Dataset,
        reports: &[WorkerReport],
        alone: &Trained,
        count_batches: &[usize],
    ) -> Self {
        let schedule = Schedule {
            training: data.training(),
            batch: arguments.batch,
            seed: arguments.seed,
        };
        let weights = &reports[0].weights;
        let differences = alone
            .model
            .weights()
            .zip(weights)
            .map(|(a, &b)| f64::from((a - f32::from_bits(b)).abs()));
        // A NaN counts as the largest difference there is.
        let difference = differences.fold(0.0, |most: f64, next| {
            if next.is_nan() {
                f64::INFINITY
            } else {
                most.max(next)
            }
        });
        let steps = reports[0].steps.len();
        let test = data.testing() as f64;
        let epochs: Vec<Epoch> = (0..arguments.epochs)
            .map(|epoch| Epoch {
                loss: reports
                    .iter()
                    .map(|report| report.epochs[epoch].loss)
                    .sum::<f64>()
                    / data.training() as f64,
                accuracy: reports
                    .iter()
                    .map(|report| report.epochs[epoch].right)
                    .sum::<usize>() as f64
                    / test,
            })
            .collect();
        let bytes_per_epoch: Vec<EpochBytes> = count_batches
            .iter()
            .enumerate()
            .map(|(index, &batch)| EpochBytes {
                batch,
                steps: Schedule { batch, ..schedule }.steps(),
                bytes: reports.iter().map(|report| report.counted[index].exchanged).sum(),
            })
            .collect();
        // A copy in an epoch that only counts bytes is one too, where there should be none.
        let staged = reports[0].staged;
        let copied = |report: &WorkerReport| {
            let counted = report.counted.iter().filter(|_| !staged);
            report.traffic.copied + counted.map(|traffic| traffic.copied).sum::<u64>()
        };
        Self {
            dataset: if arguments.data.is_some() {
                data.name().to_owned()
            } else {
                "digits".to_owned()
            },
            workers: arguments.workers,
            backups: arguments.backups,
            accuracy: epochs.last().map_or(0.0, |epoch| epoch.accuracy),
            steps,
            bytes_exchanged: reports.iter().map(|report| report.traffic.exchanged).sum(),
            bytes_copied: reports.iter().map(copied).sum(),
            replicas_identical: reports.iter().all(|report| report.weights == *weights),
            weights_digest: digest(weights),
            matches_single_process: weights.len() == model::parameters() && difference <= WEIGHT_TOLERANCE,
            max_weight_difference: difference,
            dropped_gradients: 0,
            step_ms: quantiles(&step_times(reports)),
            step_ms_waiting_for_all: None,
            weight_tolerance: WEIGHT_TOLERANCE,
            single_process_accuracy: alone.epochs.last().map_or(0, |epoch| epoch.right) as f64 / test,
            plan: reports[0].plan.clone(),
            fabric: reports[0].fabric.clone(),
            staged,
            batch: arguments.batch,
            seed: arguments.seed,
            slow: arguments.slow.map(|slow| SlowWorker {
                rank: slow.rank,
                ms: slow.delay.as_millis() as u64,
            }),
            training_images: data.training(),
            test_images: data.testing(),
            parameters: model::parameters(),
            communication_falls_with_batch: falls_as_one_over_batch(&bytes_per_epoch),
            bytes_per_epoch,
            waited_ms: reports
                .iter()
                .map(|report| report.waited.iter().map(|&ns| ns as f64 / 1e6).collect())
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

    /// The figures in people's words: what, how much, and a remark.
    pub fn rows(&self) -> Vec<[String; 3]> {
        let row = |what: &str, figure: String, remark: String| [what.to_owned(), figure, remark];
        let right = (self.accuracy * self.test_images as f64).round();
        let yes_no = |yes| if yes { "yes" } else { "NO" }.to_owned();
        let mut rows = vec![
            row(
                "test accuracy",
                format!("{:.1} %", self.accuracy * 100.0),
                format!("{right} of {} images never trained on", self.test_images),
            ),
            row(
                "steps",
                grouped(self.steps as u64),
                format!(
                    "{} epochs of {} images, {} a step",
                    self.epochs.len(),
                    grouped(self.training_images as u64),
                    self.batch
                ),
            ),
            row(
                "step time p50",
                format!("{:.2} ms", self.step_ms.p50),
                "of the slowest worker in each step".to_owned(),
            ),
            row(
                "step time p99",
                format!("{:.2} ms", self.step_ms.p99),
                self.slow_remark(),
            ),
            row(
                "exchanged",
                bytes(self.bytes_exchanged),
                format!(
                    "by {} workers, plan {}, fabric {}",
                    self.workers, self.plan, self.fabric
                ),
            ),
            row(
                "copied",
                bytes(self.bytes_copied),
                if self.staged {
                    "staged until it is summed; leaves' gradients and results are not".to_owned()
                } else {
                    "read where the backward pass wrote, stored where the optimizer reads".to_owned()
                },
            ),
            row(
                "replicas identical",
                yes_no(self.replicas_identical),
                format!("{} weights, bit by bit", grouped(self.parameters as u64)),
            ),
            row(
                "matches one process",
                yes_no(self.matches_single_process),
                format!(
                    "largest weight difference {:.1e}, tolerance {:.1e}",
                    self.max_weight_difference, self.weight_tolerance
                ),
            ),
        ];
        for count in &self.bytes_per_epoch {
            rows.push(row(
                &format!("epoch at batch {}", count.batch),
                bytes(count.bytes),
                format!("exchanged in {} steps", count.steps),
            ));
        }
        rows
    }

    fn slow_remark(&self) -> String {
        self.slow.map_or(String::new(), |slow| {
            format!("rank {} sleeps {} ms in each step", slow.rank, slow.ms)
        })
    }

    /// The table for a terminal.
    pub fn table(&self) -> String {
        let mut table = Table::new(&[Align::Left, Align::Right, Align::Left]);
        self.rows().into_iter().for_each(|row| table.row(row));
        table.render(2)
    }
}

/// Of each step, how long the slowest worker took, in milliseconds.
pub fn step_times(reports: &[WorkerReport]) -> Vec<f64> {
    let slowest = |step| {
        reports
            .iter()
            .map(|report: &WorkerReport| report.steps[step])
            .max()
            .unwrap_or(0)
    };
    (0..reports[0].steps.len())
        .map(|step| slowest(step) as f64 / 1e6)
        .collect()
}

/// By the nearest rank.
pub fn quantiles(times: &[f64]) -> Milliseconds {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| match sorted.len() {
        0 => 0.0,
        count => sorted[((share * count as f64).ceil() as usize).clamp(1, count) - 1],
    };
    Milliseconds {
        p50: at(0.5),
        p99: at(0.99),
    }
}

/// Whether every step moves the same bytes, so that an epoch's fall as the batch grows.
fn falls_as_one_over_batch(counts: &[EpochBytes]) -> bool {
    counts
        .windows(2)
        .all(|pair| pair[0].bytes * pair[1].steps as u64 == pair[1].bytes * pair[0].steps as u64)
}

/// The batch sizes for which an epoch's bytes are counted: the run's own, half and twice of it, where the images allow.
pub fn batches_to_count(batch: usize, workers: usize, training: usize) -> Vec<usize> {
    let first = (batch / 2).min(training / 4).max(workers).max(1);
    let mut batches: Vec<usize> = [first, 2 * first, 4 * first]
        .into_iter()
        .map(|batch| batch.min(training))
        .collect();
    batches.dedup();
    batches
}

/// Bytes in the largest decimal unit that leaves at least 1.
pub fn bytes(number: u64) -> String {
    match number {
        0..1_000 => format!("{number} B"),
        1_000..1_000_000 => format!("{:.1} kB", number as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", number as f64 / 1e6),
        _ => format!("{:.2} GB", number as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_by_nearest_rank() {
        let times: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let found = quantiles(&times);
        assert_eq!((found.p50, found.p99), (50.0, 99.0));
        let one = quantiles(&[7.0]);
        assert_eq!((one.p50, one.p99), (7.0, 7.0));
        assert_eq!(quantiles(&[]).p99, 0.0);
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            ["1", "12", "1,234", "1,234,567"],
            [1, 12, 1_234, 1_234_567]
                .map(grouped)
                .each_ref()
                .map(String::as_str)
        );
        assert_eq!(
            [bytes(0), bytes(2_500), bytes(3_400_000)],
            ["0 B", "2.5 kB", "3.4 MB"]
        );
    }

    #[test]
    fn three_batch_sizes_around_the_runs_own() {
        assert_eq!(batches_to_count(128, 4, 1437), [64, 128, 256]);
        assert_eq!(batches_to_count(1437, 4, 1437), [359, 718, 1436]);
        assert_eq!(batches_to_count(4, 4, 1437), [4, 8, 16]);
        assert_eq!(batches_to_count(64, 64, 40), [40]);
    }

    #[test]
    fn bytes_per_step_must_not_depend_on_the_batch() {
        let count = |batch, steps, bytes| EpochBytes { batch, steps, bytes };
        assert!(falls_as_one_over_batch(&[
            count(64, 23, 2300),
            count(128, 12, 1200),
            count(256, 6, 600)
        ]));
        assert!(!falls_as_one_over_batch(&[
            count(64, 23, 2300),
            count(128, 12, 2300)
        ]));
    }
}
