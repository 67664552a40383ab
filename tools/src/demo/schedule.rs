//! Which images form which step's batch, and which of them are whose. The same order for any number of workers.

use std::ops::Range;

use sapwood::plan::lowered::{Rank, block_range};

use super::members::Members;
use super::random::SplitMix;

/// The order of a training run.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// How many images there are to train on.
    pub training: usize,
    /// Images of a step, all workers together; an epoch's last step has what is left.
    pub batch: usize,
    /// Decides every epoch's order.
    pub seed: u64,
}

impl Schedule {
    /// Steps of an epoch.
    pub fn steps(&self) -> usize {
        self.training.div_ceil(self.batch)
    }

    /// The image numbers of an epoch, in the order in which they are used.
    pub fn order(&self, epoch: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..self.training).collect();
        SplitMix::new(self.seed, 2 + epoch as u64).shuffle(&mut numbers);
        numbers
    }

    /// The positions in the epoch's order that a step uses.
    pub fn step(&self, step: usize) -> Range<usize> {
        step * self.batch..((step + 1) * self.batch).min(self.training)
    }
}

/// The positions in an epoch's order that some of `workers` workers use in a step.
pub fn parts(step: &Range<usize>, workers: u32, members: Members) -> impl Iterator<Item = usize> {
    let step = step.clone();
    members.iter().flat_map(move |rank| share(&step, workers, rank))
}

/// A worker's part of a range: parts differ by at most one and together make the whole.
pub fn share(whole: &Range<usize>, ranks: u32, rank: Rank) -> Range<usize> {
    let part = block_range(whole.len(), ranks, rank);
    whole.start + part.start..whole.start + part.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_once_an_epoch_for_any_number_of_workers() {
        let schedule = Schedule {
            training: 103,
            batch: 16,
            seed: 4,
        };
        for ranks in [1, 2, 3, 7, 20] {
            let order = schedule.order(1);
            let mut seen = Vec::new();
            for step in 0..schedule.steps() {
                for rank in 0..ranks {
                    seen.extend_from_slice(&order[share(&schedule.step(step), ranks, rank)]);
                }
            }
            assert_eq!(
                seen, order,
                "{ranks} workers use the same images in the same order"
            );
            seen.sort_unstable();
            assert_eq!(seen, (0..103).collect::<Vec<_>>());
        }
        assert_ne!(schedule.order(0), schedule.order(1));
    }
}
