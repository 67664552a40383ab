//! How many iterations a number of gradients needs, and which number of backup workers is best.

use super::paper::{ITERATIONS, ITERATIONS_EXPONENT, WORKERS};

/// Iterations until convergence with so many gradients in each: I(N) = 76,000 · (100 / N)^0.855, rounded. Known between
/// N = 50 and N = 100, and continued beyond.
///
/// # Panics
/// Without gradients.
pub fn iterations(gradients: usize) -> u64 {
    assert!(gradients > 0, "an iteration needs a gradient");
    (ITERATIONS * (WORKERS as f64 / gradients as f64).powf(ITERATIONS_EXPONENT)).round() as u64
}

/// The number of backup workers with the least time, given the times for 0, 1, 2, … of them; the smallest of equals.
pub fn best(times: impl IntoIterator<Item = f64>) -> usize {
    let numbered = times.into_iter().enumerate();
    numbered
        .min_by(|(_, one), (_, other)| one.total_cmp(other))
        .map_or(0, |(backups, _)| backups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_two_points_lie_on_the_curve() {
        assert_eq!(iterations(100), 76_000);
        let of_50 = iterations(50) as f64;
        assert!((of_50 / 137_500.0 - 1.0).abs() < 1e-3, "{of_50}");
        assert!((1..200).all(|gradients| iterations(gradients) > iterations(gradients + 1)));
    }

    #[test]
    fn the_least_and_first_is_best() {
        assert_eq!(best([3.0, 1.0, 2.0, 1.0]), 1);
        assert_eq!(best([]), 0);
    }
}
