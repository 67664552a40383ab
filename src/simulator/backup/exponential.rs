//! Workers whose times are independent and exponential, with mean 1: the law whose order statistics are known exactly,
//! which the simulation is held against.

use crate::simulator::Random;

/// One step's arrival times.
pub fn draw(random: &mut Random, times: &mut [f64]) {
    for time in times {
        *time = -random.uniform().ln();
    }
}

/// The mean time until all but `backups` of the workers have arrived: H_M − H_b. (With i still missing, the next one
/// comes after 1/i on average, and nothing is remembered.)
pub fn mean(workers: usize, backups: usize) -> f64 {
    (backups + 1..=workers).map(|missing| 1.0 / missing as f64).sum()
}

/// The variance of the same time: the waits between arrivals are independent.
pub fn variance(workers: usize, backups: usize) -> f64 {
    (backups + 1..=workers)
        .map(|missing| (missing as f64).powi(-2))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::backup::seal_times;

    #[test]
    fn the_papers_two_figures() {
        assert!((mean(100, 0) - 5.19).abs() < 0.005 && (mean(100, 4) - 3.10).abs() < 0.005);
    }

    #[test]
    fn the_simulation_agrees_with_the_formula() {
        const STEPS: usize = 20_000;
        for workers in [1, 2, 11, 100] {
            let mut random = Random::new(workers as u64);
            let most = 10.min(workers - 1);
            let columns = seal_times(workers, most, STEPS, |_, times| draw(&mut random, times));
            for (backups, column) in columns.iter().enumerate() {
                let off = column.mean() - mean(workers, backups);
                let error = (variance(workers, backups) / STEPS as f64).sqrt();
                assert!(
                    off.abs() < 5.0 * error,
                    "{workers} workers, {backups} backups: {off} off, {error}"
                );
            }
        }
    }
}
