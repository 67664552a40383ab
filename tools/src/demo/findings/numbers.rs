//! Numbers and how people read them: quantiles, bytes.

use serde::Serialize;

/// Two quantiles of some times, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Milliseconds {
    /// Half of the steps took no longer.
    pub p50: f64,
    /// 99 of 100 steps took no longer.
    pub p99: f64,
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
    fn bytes_for_people() {
        assert_eq!(
            [bytes(0), bytes(2_500), bytes(3_400_000)],
            ["0 B", "2.5 kB", "3.4 MB"]
        );
    }
}
