//! How many of a step's workers are stragglers: the rate differs from step to step, and given the rate the workers are
//! independent. Knows how many, not how late.

use crate::simulator::Random;
use crate::simulator::bisection::zero_of;

/// A mixture of straggler rates: a beta law with this mean, as wide as `spread` = 1 / (α + β) makes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StragglerRates {
    /// The mean rate: the probability that a given worker is a straggler in a given step. From 0 to below 1.
    pub mean: f64,
    /// 0 makes every step's rate the same, and all workers independent.
    pub spread: f64,
}

impl StragglerRates {
    /// The rates of this spread with which at most `stragglers` of the `workers` are late in this share of the steps.
    pub fn with_share(spread: f64, stragglers: usize, workers: usize, share: f64) -> Self {
        let rates = |mean| Self { mean, spread };
        rates(zero_of(0.0..1.0, |mean| {
            rates(mean).at_most(stragglers, workers) - share
        }))
    }

    /// The rate's standard deviation from step to step.
    pub fn deviation(&self) -> f64 {
        (self.mean * (1.0 - self.mean) * self.spread / (1.0 + self.spread)).sqrt()
    }

    /// The workers of one step, in any order.
    pub fn step(&self) -> Step {
        Step {
            rates: *self,
            asked: 0.0,
            stragglers: 0.0,
        }
    }

    /// The probabilities of 0, 1, … and `workers` stragglers in a step.
    pub fn counts(&self, workers: usize) -> impl Iterator<Item = f64> {
        let Self { mean, spread } = *self;
        let on_time = move |before: usize| (1.0 - mean + spread * before as f64).ln();
        let none: f64 = (0..workers)
            .map(|before| on_time(before) - (1.0 + spread * before as f64).ln())
            .sum();
        // Each probability from the one before, as logarithms: that of none may be too small for a number.
        (0..=workers).scan(none, move |logarithm, count| {
            let this = *logarithm;
            if let Some(others) = (workers - count).checked_sub(1) {
                *logarithm += ((others + 1) as f64 / (count + 1) as f64).ln()
                    + (mean + spread * count as f64).ln()
                    - on_time(others);
            }
            Some(this.exp())
        })
    }

    /// The probability that a step has at most so many stragglers.
    pub fn at_most(&self, stragglers: usize, workers: usize) -> f64 {
        self.counts(workers).take(stragglers + 1).sum()
    }
}

/// A step of which some workers are known to be stragglers or not.
///
/// Nobody needs the step's rate itself: given those before, a worker is a straggler with the rate that is to be expected
/// after them (Pólya's urn), which is the same law.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    rates: StragglerRates,
    asked: f64,
    stragglers: f64,
}

impl Step {
    /// Whether the next worker is a straggler.
    pub fn straggles(&mut self, random: &mut Random) -> bool {
        let StragglerRates { mean, spread } = self.rates;
        let rate = (mean + spread * self.stragglers) / (1.0 + spread * self.asked);
        // Uniform numbers leave 0 out and have 1: a rate of 0 is never, a rate of 1 always.
        let straggles = random.uniform() <= rate;
        self.asked += 1.0;
        self.stragglers += f64::from(u8::from(straggles));
        straggles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_have_the_mean() {
        for (mean, spread, workers) in [
            (0.01, 0.0, 100),
            (0.3, 0.5, 7),
            (0.3, 0.0, 4096),
            (0.0146, 0.0047, 4096),
            (0.0, 0.1, 5),
        ] {
            let rates = StragglerRates { mean, spread };
            let sum: f64 = rates.counts(workers).sum();
            let counted = rates.counts(workers).enumerate();
            let expected: f64 = counted.map(|(count, p)| count as f64 * p).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{rates:?}: {sum}");
            assert!(
                (expected - mean * workers as f64).abs() < 1e-6,
                "{rates:?}: {expected}"
            );
        }
    }

    #[test]
    fn without_spread_workers_are_independent() {
        let rates = StragglerRates {
            mean: 0.25,
            spread: 0.0,
        };
        for (probability, expected) in rates.counts(2).zip([0.5625, 0.375, 0.0625]) {
            assert!((probability - expected).abs() < 1e-12, "{probability}");
        }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        const STEPS: usize = 50_000;
        let rates = StragglerRates {
            mean: 0.2,
            spread: 0.3,
        };
        let mut random = Random::new(3);
        let mut seen = [0usize; 6];
        for _ in 0..STEPS {
            let mut step = rates.step();
            seen[(0..5).filter(|_| step.straggles(&mut random)).count()] += 1;
        }
        for (count, expected) in rates.counts(5).enumerate() {
            let share = seen[count] as f64 / STEPS as f64;
            let error = (expected * (1.0 - expected) / STEPS as f64).sqrt();
            assert!(
                (share - expected).abs() < 5.0 * error,
                "{count} stragglers: {share}, {expected}"
            );
        }
    }
}
