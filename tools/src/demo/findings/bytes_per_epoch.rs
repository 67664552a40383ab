//! What an epoch moves between the workers, by batch size: counted in epochs of their own that do nothing else.

use serde::Serialize;

use crate::demo::arguments::DemoArguments;
use crate::demo::dataset::Dataset;
use crate::demo::messages::WorkerReport;
use crate::demo::schedule::Schedule;

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

/// Puts together what the workers have counted.
pub fn count(arguments: &DemoArguments, data: &Dataset, reports: &[WorkerReport]) -> Vec<EpochBytes> {
    let batches = batches_to_count(arguments.batch, arguments.workers, data.training());
    let count = |(index, batch): (usize, usize)| EpochBytes {
        batch,
        steps: Schedule {
            training: data.training(),
            batch,
            seed: arguments.seed,
        }
        .steps(),
        bytes: reports.iter().map(|report| report.counted[index].exchanged).sum(),
    };
    batches.into_iter().enumerate().map(count).collect()
}

/// Whether every step moves the same bytes, so that an epoch's fall as the batch grows.
pub fn falls(counts: &[EpochBytes]) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(falls(&[
            count(64, 23, 2300),
            count(128, 12, 1200),
            count(256, 6, 600)
        ]));
        assert!(!falls(&[count(64, 23, 2300), count(128, 12, 2300)]));
    }
}
