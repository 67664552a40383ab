//! Arrival times with rare, long waits, fitted to what the paper measured ([`super::paper`]). The fit is made here, not
//! copied in: three numbers from three measurements.
//!
//! # Why no independent identical law fits
//! If each of 100 workers were late (beyond 2 s) with the same probability p, whatever the others do, both shares would
//! follow from p alone: the last one is on time in (1 − p)^100 of the steps, 30 % for p = 1.20 %; but then the 98th would
//! be on time in 88 %, and 80 % were measured, which needs p = 1.54 %. No shape of the law of times helps: only p enters.
//! Stragglers come together more often than that, so the rate itself must differ from step to step.
//!
//! # The law
//! * A step's rate is drawn from a beta law, and given it the workers are independent ([`StragglerRates`]). Its two
//!   parameters follow exactly from the two shares.
//! * A straggler's time is Pareto's from 2 s on. Its exponent is such that the longest time of a run of 76,000 steps (the
//!   paper's way to convergence; how long the observed run was is not known) is above 310 s as often as below.
//! * Everyone else's time is uniform from 1.4 s to 1.8 s. That is chosen, not fitted: the three measurements say only
//!   that it is within 2 s.
//!
//! Neither what was chosen nor the length of the run decides which number of backup workers is best: see the tests.

use super::paper::{ITERATIONS, LAST, LONGEST, NEXT_TO_LAST, NEXT_TO_LAST_BACKUPS, ON_TIME, WORKERS};
use super::straggler_rates::StragglerRates;
use crate::simulator::Random;
use crate::simulator::bisection::zero_of;

/// The law, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LongTail {
    /// How many are late.
    pub rates: StragglerRates,
    /// How late: a straggler takes longer than t with probability (2 s / t)^exponent.
    pub exponent: f64,
    /// Between which times, in seconds, the others are there.
    pub usual: (f64, f64),
}

impl LongTail {
    /// The law that has the paper's three measurements.
    pub fn fitted() -> Self {
        let rates = |spread| StragglerRates::with_share(spread, 0, WORKERS, LAST);
        let rates = rates(zero_of(0.0..1.0, |spread| {
            rates(spread).at_most(NEXT_TO_LAST_BACKUPS, WORKERS) - NEXT_TO_LAST
        }));
        Self {
            rates,
            exponent: beyond_longest(&rates, ITERATIONS).ln() / (ON_TIME / LONGEST).ln(),
            usual: (1.4, 1.8),
        }
    }

    /// One step's arrival times.
    pub fn draw(&self, random: &mut Random, times: &mut [f64]) {
        let (soonest, latest) = self.usual;
        let mut step = self.rates.step();
        for time in times {
            *time = if step.straggles(random) {
                ON_TIME * random.uniform().powf(-1.0 / self.exponent)
            } else {
                soonest + (latest - soonest) * random.uniform()
            };
        }
    }

    /// The share of steps that are sealed within 2 s.
    pub fn share_on_time(&self, workers: usize, backups: usize) -> f64 {
        self.rates.at_most(backups, workers)
    }

    /// The time that the longest of so many of the paper's steps exceeds as often as not, in seconds.
    pub fn median_longest(&self, steps: f64) -> f64 {
        ON_TIME * beyond_longest(&self.rates, steps).powf(-1.0 / self.exponent)
    }
}

/// The probability that a straggler takes longer than the median of a run's longest time.
fn beyond_longest(rates: &StragglerRates, steps: f64) -> f64 {
    let counts: Vec<f64> = rates.counts(WORKERS).collect();
    // In half of the runs, no step has a straggler that takes longer.
    let step_without = 0.5f64.powf(1.0 / steps);
    zero_of(0.0..1.0, |beyond| {
        let without = |count: usize| (1.0 - beyond).powi(count as i32);
        let share: f64 = counts
            .iter()
            .enumerate()
            .map(|(count, p)| p * without(count))
            .sum();
        share - step_without
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::backup::{SealTimes, best, iterations, seal_times};

    #[test]
    fn the_three_measurements_are_met() {
        let law = LongTail::fitted();
        assert!((law.share_on_time(100, 0) - LAST).abs() < 1e-12, "{law:?}");
        assert!(
            (law.share_on_time(100, 2) - NEXT_TO_LAST).abs() < 1e-12,
            "{law:?}"
        );
        assert!(
            (law.median_longest(ITERATIONS) / LONGEST - 1.0).abs() < 1e-9,
            "{law:?}"
        );
        // The mean time of a straggler exists, and that of its square.
        assert!(law.exponent > 2.0, "{law:?}");
    }

    #[test]
    fn independent_workers_meet_one_share_and_miss_the_other() {
        let last = StragglerRates::with_share(0.0, 0, WORKERS, LAST);
        assert!((last.mean - 0.0120).abs() < 5e-5, "{last:?}");
        assert!((last.at_most(2, WORKERS) - 0.88).abs() < 5e-3, "{last:?}");
        let next_to_last = StragglerRates::with_share(0.0, 2, WORKERS, NEXT_TO_LAST);
        assert!((next_to_last.mean - 0.0154).abs() < 5e-5, "{next_to_last:?}");
        assert!(
            (next_to_last.at_most(0, WORKERS) - 0.21).abs() < 5e-3,
            "{next_to_last:?}"
        );
    }

    #[test]
    fn the_simulation_agrees_with_the_law() {
        const STEPS: usize = 20_000;
        let law = LongTail::fitted();
        let mut random = Random::new(1);
        let columns = seal_times(100, 10, STEPS, |_, times| law.draw(&mut random, times));
        for (backups, column) in columns.iter().enumerate() {
            let expected = law.share_on_time(100, backups);
            let error = (expected * (1.0 - expected) / STEPS as f64).sqrt();
            let share = column.share_within(ON_TIME);
            assert!(
                (share - expected).abs() < 5.0 * error,
                "{backups}: {share}, {expected}"
            );
        }
    }

    /// Four or five, within half a percent of each other, whatever the usual times are and however long the run was.
    #[test]
    fn a_few_backup_workers_are_best() {
        const STEPS: usize = 20_000;
        let law = LongTail::fitted();
        let exponent = |steps| beyond_longest(&law.rates, steps).ln() / (ON_TIME / LONGEST).ln();
        let usual = [law.usual, (1.0, 2.0), (1.6, 1.6)].map(|usual| LongTail { usual, ..law });
        let runs = [1e3, 1e4, 1e6].map(|steps| LongTail {
            exponent: exponent(steps),
            ..law
        });
        for law in usual.into_iter().chain(runs) {
            let mut random = Random::new(1);
            let columns = seal_times(WORKERS, 10, STEPS, |_, times| law.draw(&mut random, times));
            let converged =
                |(column, backups): (&SealTimes, usize)| column.mean() * iterations(WORKERS - backups) as f64;
            let converged: Vec<f64> = columns.iter().zip(0..).map(converged).collect();
            assert!(
                [4, 5].contains(&best(converged.iter().copied())),
                "{law:?}: {converged:?}"
            );
            assert!(
                (converged[4] / converged[5] - 1.0).abs() < 0.005,
                "{law:?}: {converged:?}"
            );
        }
    }
}
