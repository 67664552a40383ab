//! Rows of figures: computed from what was measured, added over two directions, written for programs. Prints nothing.

use serde::{Deserialize, Serialize};

use super::setup::Setup;
use super::test::Verb;
use super::{bandwidth, latency};

const MEBIBYTE: f64 = 1_048_576.0;
/// 10^9 bits.
const GIGABIT: f64 = 125e6;

/// One size of a test. Figures that do not exist are absent: `null` for programs, `-` for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Row {
    Latency(Latency),
    Bandwidth(Bandwidth),
}

/// Microseconds: of half a round trip for write and send, of a whole one for read and atomic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Latency {
    #[serde(rename = "MsgSize")]
    pub(super) size: u64,
    #[serde(rename = "n_iterations")]
    pub(super) iterations: u64,
    pub(super) t_min: Option<f64>,
    pub(super) t_max: Option<f64>,
    pub(super) t_typical: Option<f64>,
    pub(super) t_avg: Option<f64>,
    pub(super) t_stdev: Option<f64>,
    pub(super) percentile_99: Option<f64>,
    #[serde(rename = "percentile_99.9")]
    pub(super) percentile_99_9: Option<f64>,
    /// Iterations in a second, of a test that ran for a time.
    pub(super) tps_average: Option<f64>,
    #[serde(flatten)]
    pub(super) checked: Checked,
}

/// Bandwidths in MiB/s, or in Gb/s where those were asked for; the rate in millions of messages a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Bandwidth {
    #[serde(rename = "MsgSize")]
    pub(super) size: u64,
    #[serde(rename = "n_iterations")]
    pub(super) iterations: u64,
    #[serde(rename = "BW_peak")]
    pub(super) peak: Option<f64>,
    #[serde(rename = "BW_average")]
    pub(super) average: f64,
    #[serde(rename = "MsgRate")]
    pub(super) rate: f64,
    #[serde(flatten)]
    pub(super) checked: Checked,
}

/// What a data check saw; nothing where none was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checked {
    pub(super) validated_bytes: Option<u64>,
    pub(super) wrong_bytes: Option<u64>,
}

impl Row {
    pub(super) fn of_latency(setup: &Setup, size: usize, measured: &latency::Measured) -> Self {
        // Half of a round trip, as in perftest.
        let divisor = match setup.test.verb {
            Verb::Write | Verb::Send => 2000.0,
            Verb::Read | Verb::Atomic => 1000.0,
        };
        let size = size as u64;
        let checked = Checked::default();
        Self::Latency(match measured {
            latency::Measured::Window {
                iterations,
                nanoseconds,
            } => Latency {
                size,
                iterations: *iterations,
                t_min: None,
                t_max: None,
                t_typical: None,
                t_avg: (*iterations > 0).then(|| rounded(nanoseconds / divisor / *iterations as f64)),
                t_stdev: None,
                percentile_99: None,
                percentile_99_9: None,
                tps_average: Some(rounded(*iterations as f64 / (nanoseconds * 1e-9))),
                checked,
            },
            latency::Measured::Samples(samples) => {
                let mut sorted: Vec<f64> = samples.iter().map(|sample| sample / divisor).collect();
                sorted.sort_unstable_by(f64::total_cmp);
                let average = sorted.iter().sum::<f64>() / sorted.len() as f64;
                let variance = sorted
                    .iter()
                    .map(|sample| (sample - average).powi(2))
                    .sum::<f64>()
                    / sorted.len() as f64;
                Latency {
                    size,
                    iterations: setup.iterations().unwrap_or(sorted.len() as u64),
                    t_min: sorted.first().copied().map(rounded),
                    t_max: sorted.last().copied().map(rounded),
                    t_typical: Some(rounded(median(&sorted))),
                    t_avg: Some(rounded(average)),
                    t_stdev: Some(rounded(variance.sqrt())),
                    percentile_99: Some(rounded(quantile(&sorted, 0.99))),
                    percentile_99_9: Some(rounded(quantile(&sorted, 0.999))),
                    tps_average: None,
                    checked,
                }
            }
        })
    }

    pub(super) fn of_bandwidth(setup: &Setup, size: usize, measured: &bandwidth::Measured) -> Self {
        let unit = if setup.gbits { GIGABIT } else { MEBIBYTE };
        let seconds = measured.nanoseconds * 1e-9;
        let of = |messages: f64, seconds: f64| messages * size as f64 / seconds / unit;
        Self::Bandwidth(Bandwidth {
            size: size as u64,
            iterations: measured.messages,
            peak: measured
                .fastest
                .map(|nanoseconds| rounded(of(1.0, nanoseconds * 1e-9))),
            average: rounded(of(measured.messages as f64, seconds)),
            rate: rounded(measured.messages as f64 / seconds / 1e6),
            checked: Checked::default(),
        })
    }

    /// Both directions together.
    pub(super) fn plus(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Bandwidth(one), Self::Bandwidth(two)) => Self::Bandwidth(Bandwidth {
                peak: one.peak.zip(two.peak).map(|(one, two)| rounded(one + two)),
                average: rounded(one.average + two.average),
                rate: rounded(one.rate + two.rate),
                ..one.clone()
            }),
            _ => self.clone(),
        }
    }

    pub(super) fn with(mut self, found: Option<Checked>) -> Self {
        match &mut self {
            Self::Latency(Latency { checked, .. }) | Self::Bandwidth(Bandwidth { checked, .. }) => {
                *checked = found.unwrap_or_default();
            }
        }
        self
    }

    pub(super) fn checked(&self) -> Checked {
        match self {
            Self::Latency(Latency { checked, .. }) | Self::Bandwidth(Bandwidth { checked, .. }) => *checked,
        }
    }
}

/// The mean of the two in the middle where the number is even.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

/// The nearest-rank quantile.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.clamp(1, sorted.len().max(1)) - 1)
        .copied()
        .unwrap_or(f64::NAN)
}

/// To what a clock can know: a millionth of the unit.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(
            (median(&sorted), quantile(&sorted, 0.99), quantile(&sorted, 0.999)),
            (500.5, 990.0, 999.0)
        );
        assert_eq!((median(&sorted[..3]), quantile(&sorted[..1], 0.999)), (2.0, 1.0));
    }

    #[test]
    fn bandwidth_has_perftest_s_units() {
        let measured = bandwidth::Measured {
            messages: 1000,
            nanoseconds: 1e9,
            fastest: Some(500_000.0),
        };
        let row = |gbits| {
            let setup = Setup::for_tests(if gbits {
                "write-bw --report_gbits"
            } else {
                "write-bw"
            });
            match Row::of_bandwidth(&setup, 1 << 20, &measured) {
                Row::Bandwidth(row) => row,
                Row::Latency(_) => unreachable!("a bandwidth test"),
            }
        };
        let mebibytes = row(false);
        assert_eq!(
            (mebibytes.average, mebibytes.peak, mebibytes.rate),
            (1000.0, Some(2000.0), 0.001)
        );
        assert!((row(true).average - 8.388608).abs() < 1e-9);
    }

    #[test]
    fn write_latency_is_half_of_a_round_trip_and_the_maximum_is_true() {
        let samples = latency::Measured::Samples(vec![2000.0, 4000.0, 6000.0, 100_000.0]);
        let of = |name| match Row::of_latency(&Setup::for_tests(name), 8, &samples) {
            Row::Latency(row) => row,
            Row::Bandwidth(_) => unreachable!("a latency test"),
        };
        let (write, read) = (of("write-lat"), of("read-lat"));
        assert_eq!(
            (write.t_min, write.t_max, write.t_typical),
            (Some(1.0), Some(50.0), Some(2.5))
        );
        assert_eq!(
            (read.t_min, read.t_max, read.t_avg),
            (Some(2.0), Some(100.0), Some(28.0))
        );
        let document = serde_json::to_value(Row::Latency(write)).unwrap();
        for name in [
            "MsgSize",
            "n_iterations",
            "t_stdev",
            "percentile_99",
            "percentile_99.9",
        ] {
            assert!(document[name].is_number(), "{name}");
        }
        assert!(document["tps_average"].is_null() && document["wrong_bytes"].is_null());
    }
}
