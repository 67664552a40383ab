//! The rows of the backup-worker barrier's benchmark, for people and for programs. Computes quantiles and ratios; takes no
//! time itself.

use sapwood::backup::protocol::Way;
use serde::Serialize;

use crate::bench::report::{decimals, quantile};

/// What was asked for and what belongs to all rows.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Config {
    pub(super) collective: &'static str,
    pub(super) ranks: u32,
    pub(super) backups: u32,
    pub(super) fabric: String,
    pub(super) iterations: usize,
    pub(super) warmup: usize,
    /// What reading the clock costs, in microseconds.
    pub(super) clock: f64,
    /// A cache line's way to another rank's core and back, in microseconds; `null` where ranks share cores.
    pub(super) round_trip: Option<f64>,
}

/// How times are spread, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Spread {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Of at least one time.
    pub(super) fn new(mut times: Vec<f64>) -> Self {
        times.sort_unstable_by(f64::total_cmp);
        Self {
            p50: quantile(&times, 0.5),
            p99: quantile(&times, 0.99),
            max: times[times.len() - 1],
        }
    }

    fn cells(&self) -> String {
        [self.p50, self.p99, self.max]
            .map(|time| format!(" {:>9}", decimals(time)))
            .concat()
    }
}

/// One size.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    size: usize,
    count: usize,
    #[serde(rename = "type")]
    element: &'static str,
    way: String,
    backups: u32,
    /// From the N-th arrival to the seal.
    seal: Spread,
    /// From the N-th arrival to the last rank's result.
    result: Spread,
    /// Elements, on all ranks together; `null` where nothing was checked.
    nwrong: Option<u64>,
    /// The all-reduce of the same size, from the last arrival to the last rank's result.
    all_reduce: Spread,
    /// The result's median over that of the all-reduce and three round trips.
    ratio: Option<f64>,
}

impl Row {
    pub(super) fn new(
        size: usize,
        count: usize,
        way: Way,
        backups: u32,
        (seal, result, all_reduce): (Spread, Spread, Spread),
        round_trip: Option<f64>,
        nwrong: Option<u64>,
    ) -> Self {
        Self {
            size,
            count,
            element: "float",
            way: match way {
                Way::Flat => "flat".into(),
                Way::Tree { children } => format!("tree:{children}"),
            },
            backups,
            ratio: round_trip.map(|trip| result.p50 / (all_reduce.p50 + 3.0 * trip)),
            seal,
            result,
            nwrong,
            all_reduce,
        }
    }

    /// The row as a line of the table.
    pub(super) fn line(&self) -> String {
        format!(
            " {:>11} {:>11} {:>7} {:>4} {} {} {:>7} {} {:>7}\n",
            self.size,
            self.count,
            self.way,
            self.backups,
            self.seal.cells(),
            self.result.cells(),
            self.nwrong.map_or("N/A".into(), |count| count.to_string()),
            self.all_reduce.cells(),
            self.ratio.map_or("N/A".into(), decimals),
        )
    }
}

/// The document that `--json` writes.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    config: Config,
    results: Vec<Row>,
    out_of_bounds: OutOfBounds,
}

#[derive(Debug, Serialize)]
struct OutOfBounds {
    count: u64,
    okay: bool,
}

impl Document {
    pub(super) fn new(config: Config, results: Vec<Row>) -> Self {
        let count = results.iter().filter_map(|row| row.nwrong).sum();
        Self {
            config,
            results,
            out_of_bounds: OutOfBounds {
                count,
                okay: count == 0,
            },
        }
    }

    /// Elements that were wrong, over all rows and ranks.
    pub(super) fn wrong(&self) -> u64 {
        self.out_of_bounds.count
    }

    /// The line below the table.
    pub(super) fn footer(&self, checked: bool) -> String {
        match self.wrong() {
            _ if !checked => "# check: not checked (-c 0)\n".into(),
            0 => "# check: every element of every rank is right\n".into(),
            count => format!("# check: {count} WRONG ELEMENTS\n"),
        }
    }
}

/// The lines above the table.
pub(super) fn header(config: &Config) -> String {
    let Config {
        ranks,
        backups,
        fabric,
        iterations,
        warmup,
        clock,
        round_trip,
        ..
    } = config;
    let trip = round_trip.map_or("unknown: ranks share cores".into(), |trip| {
        format!("{} us", decimals(trip))
    });
    let needed = ranks - backups;
    let mut text = format!(
        "# backup-barrier: {ranks} ranks, {needed} needed, fabric {fabric}, {iterations} timed steps and {warmup} to warm \
         up, everyone on time; times in us\n\
         # seal and result: from the last arrival that was needed to the seal, and to the last rank's result. all-reduce: of as \
         many bytes, from its last arrival, in turns with the barrier\n\
         # a cache line's round trip: {trip}. ratio is result / (all-reduce + 3 round trips), of medians. Reading the clock \
         costs {clock:.3} us\n#\n"
    );
    let group = |name: &str| format!(" {name:^30}");
    let head = format!(
        "#{:36}{}{}{:8}{}",
        "",
        group("seal"),
        group("result"),
        "",
        group("all-reduce")
    );
    text.push_str(head.trim_end());
    let spread = ["p50", "p99", "max"].map(|name| format!(" {name:>9}")).concat();
    text.push_str(&format!(
        "\n#{:>11} {:>11} {:>7} {:>4} {spread} {spread} {:>7} {spread} {:>7}\n",
        "size(B)", "count", "way", "b", "#wrong", "ratio"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(round_trip: Option<f64>) -> Row {
        let times = |scale: f64| Spread::new((1..=100).rev().map(|time| scale * f64::from(time)).collect());
        let spreads = (times(0.5), times(1.0), times(0.8));
        Row::new(8, 2, Way::Flat, 1, spreads, round_trip, Some(0))
    }

    fn config() -> Config {
        Config {
            collective: "backup-barrier",
            ranks: 4,
            backups: 1,
            fabric: "shm".into(),
            iterations: 100,
            warmup: 20,
            clock: 0.02,
            round_trip: Some(0.2),
        }
    }

    #[test]
    fn the_ratio_is_of_medians_and_three_round_trips() {
        assert_eq!(row(Some(4.0)).ratio, Some(50.0 / 52.0));
        let value = serde_json::to_value(Document::new(config(), vec![row(None)])).unwrap();
        assert_eq!(value["results"][0]["ratio"], serde_json::Value::Null);
        assert_eq!(value["results"][0]["seal"]["p99"], 49.5);
        assert_eq!(value["out_of_bounds"]["okay"], true);
    }

    #[test]
    fn lines_stand_under_their_heads() {
        let head = header(&config());
        let columns = head.lines().last().unwrap();
        let line = row(Some(0.2)).line();
        assert_eq!(
            columns.chars().count(),
            line.trim_end_matches('\n').chars().count(),
            "{head}{line}"
        );
        assert_eq!(
            columns.find("#wrong").map(|at| at + 6),
            line.find(" 0 ").map(|at| at + 2)
        );
    }
}
