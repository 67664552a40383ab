//! The rows of a benchmark, for people (the columns of nccl-tests) and for programs. Computes bandwidths and medians
//! from times; takes no time itself.

use serde::Serialize;

/// What was asked for, as the JSON document repeats it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Config {
    pub(super) collective: &'static str,
    pub(super) ranks: u32,
    pub(super) fabric: String,
    pub(super) iterations: usize,
    pub(super) warmup: usize,
    /// Whether predictions were asked for.
    #[serde(skip)]
    pub(super) predict: bool,
    /// What reading the clock costs, in microseconds: part of every single time, and of a thousandth of a batch.
    pub(super) clock: f64,
}

/// One size, type and operation.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) size: usize,
    pub(super) count: usize,
    #[serde(rename = "type")]
    pub(super) element: &'static str,
    pub(super) redop: &'static str,
    pub(super) plan: String,
    pub(super) out_of_place: Figures,
    /// `null` where it cannot be done in place.
    pub(super) in_place: Option<Figures>,
}

/// What was measured of a row; times in microseconds, bandwidths in GB/s (10⁹).
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures {
    time: f64,
    alg_bw: f64,
    bus_bw: f64,
    /// Elements, on all ranks together; `null` where nothing was checked.
    nwrong: Option<u64>,
    min: f64,
    p50: f64,
    p99: f64,
    max: f64,
    /// One call in back-to-back batches; `null` above 8 KiB.
    batch: Option<f64>,
    /// By the tuning; `null` where it was not asked for, and where no plan is run.
    predicted: Option<f64>,
}

impl Figures {
    /// From the slowest rank's time of every call and of one call in every batch, in microseconds.
    pub(super) fn new(
        size: usize,
        bus_factor: f64,
        mut times: Vec<f64>,
        mut batches: Vec<f64>,
        nwrong: Option<u64>,
    ) -> Self {
        times.sort_unstable_by(f64::total_cmp);
        batches.sort_unstable_by(f64::total_cmp);
        let p50 = quantile(&times, 0.5);
        let alg_bw = size as f64 / (p50 * 1e3);
        let bus_bw = alg_bw * bus_factor;
        Self {
            time: p50,
            alg_bw,
            bus_bw,
            nwrong,
            min: times[0],
            p50,
            p99: quantile(&times, 0.99),
            max: times[times.len() - 1],
            batch: (!batches.is_empty()).then(|| quantile(&batches, 0.5)),
            predicted: None,
        }
    }

    /// With what it was predicted to take.
    pub(super) fn predicted(mut self, predicted: Option<f64>) -> Self {
        self.predicted = predicted;
        self
    }

    pub(super) fn bus_bandwidth(&self) -> f64 {
        self.bus_bw
    }

    pub(super) fn wrong(&self) -> u64 {
        self.nwrong.unwrap_or(0)
    }
}

/// The nearest-rank quantile of at least one ascending value.
pub(super) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The document that `--json` writes.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    config: Config,
    results: Vec<Row>,
    out_of_bounds: OutOfBounds,
    average_bus_bandwidth: AverageBandwidth,
}

#[derive(Debug, Serialize)]
struct OutOfBounds {
    count: u64,
    okay: bool,
}

#[derive(Debug, Serialize)]
struct AverageBandwidth {
    bandwidth: f64,
}

impl Document {
    pub(super) fn new(config: Config, results: Vec<Row>) -> Self {
        let figures = || {
            let in_place = results.iter().filter_map(|row| row.in_place.as_ref());
            results.iter().map(|row| &row.out_of_place).chain(in_place)
        };
        let count = figures().map(Figures::wrong).sum();
        let bandwidth = figures().map(Figures::bus_bandwidth).sum::<f64>() / figures().count().max(1) as f64;
        Self {
            config,
            out_of_bounds: OutOfBounds {
                count,
                okay: count == 0,
            },
            average_bus_bandwidth: AverageBandwidth { bandwidth },
            results,
        }
    }

    /// Elements that were wrong, over all rows and ranks.
    pub(super) fn wrong(&self) -> u64 {
        self.out_of_bounds.count
    }

    /// The lines below the table.
    pub(super) fn footer(&self, checked: bool) -> String {
        let verdict = match self.out_of_bounds.count {
            _ if !checked => "not checked (-c 0)".into(),
            0 => "every element of every rank is right".into(),
            count => format!("{count} WRONG ELEMENTS"),
        };
        format!(
            "# check: {verdict}\n# average bus bandwidth: {} GB/s\n",
            decimals(self.average_bus_bandwidth.bandwidth)
        )
    }
}

/// The lines above the table.
pub(super) fn header(config: &Config) -> String {
    let Config {
        collective,
        ranks,
        fabric,
        iterations,
        warmup,
        predict,
        clock,
    } = config;
    let mut text = format!(
        "# {collective}: {ranks} ranks, fabric {fabric}, {iterations} timed calls and {warmup} to warm up; \
         times in us, bandwidths in GB/s\n\
         # time is the median; each call is timed after a barrier, on the slowest rank. batch is one call in batches of \
         1,000 without barriers\n\
         # reading the clock costs {clock:.3} us, part of every time. min to batch stand for out-of-place; --json has both\n"
    );
    text.push_str("#\n");
    let group = |name| format!("  {name:^36}");
    text.push_str(format!("#{:58}{}{}", "", group("out-of-place"), group("in-place")).trim_end());
    text.push('\n');
    let group = format!("  {:>10} {:>8} {:>8} {:>7}", "time", "algbw", "busbw", "#wrong");
    let mut spread = ["min", "p50", "p99", "max", "batch"]
        .map(|name| format!(" {name:>9}"))
        .concat();
    if *predict {
        spread.push_str(&predictions("predicted", "in-place"));
    }
    text.push_str(&format!(
        "#{:>11} {:>11} {:>8} {:>5} {:>19}{group}{group} {spread}\n",
        "size(B)", "count", "type", "redop", "plan"
    ));
    text
}

impl Row {
    /// The row as a line of the table, with predictions if they were asked for.
    pub(super) fn line(&self, predict: bool) -> String {
        let group = |figures: Option<&Figures>| {
            let Some(figures) = figures else {
                return format!("  {:>10} {:>8} {:>8} {:>7}", "N/A", "N/A", "N/A", "N/A");
            };
            let wrong = figures.nwrong.map_or("N/A".into(), |count| count.to_string());
            let (time, alg, bus) = (
                decimals(figures.time),
                decimals(figures.alg_bw),
                decimals(figures.bus_bw),
            );
            format!("  {time:>10} {alg:>8} {bus:>8} {wrong:>7}")
        };
        let Figures {
            min,
            p50,
            p99,
            max,
            batch,
            ..
        } = &self.out_of_place;
        let spread = [*min, *p50, *p99, *max]
            .map(|time| format!(" {:>9}", decimals(time)))
            .concat();
        let batch = batch.map_or("-".into(), decimals);
        let predicted = |figures: Option<&Figures>| {
            let predicted = figures.and_then(|figures| figures.predicted);
            predicted.map_or("-".into(), decimals)
        };
        let in_place = predicted(self.in_place.as_ref());
        let predicted = match predict {
            true => predictions(&predicted(Some(&self.out_of_place)), &in_place),
            false => String::new(),
        };
        format!(
            " {:>11} {:>11} {:>8} {:>5} {:>19}{}{} {spread} {batch:>9}{predicted}\n",
            self.size,
            self.count,
            self.element,
            self.redop,
            self.plan,
            group(Some(&self.out_of_place)),
            group(self.in_place.as_ref())
        )
    }
}

/// The columns of predictions: out of place, and in place.
fn predictions(out_of_place: &str, in_place: &str) -> String {
    format!("  {out_of_place:>10} {in_place:>10}")
}

/// As many decimals as the figure is worth.
pub(super) fn decimals(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.3}"),
        value if value < 1000.0 => format!("{value:.2}"),
        value => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(nwrong: Option<u64>) -> Row {
        let times: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let figures = Figures::new(1000, 1.5, times, vec![3.0, 1.0, 2.0], nwrong);
        Row {
            size: 1000,
            count: 250,
            element: "float",
            redop: "sum",
            plan: "ring".into(),
            in_place: Some(figures.clone()),
            out_of_place: figures,
        }
    }

    #[test]
    fn figures_are_quantiles_and_bandwidths() {
        let Figures {
            time,
            alg_bw,
            bus_bw,
            min,
            p50,
            p99,
            max,
            batch,
            ..
        } = row(Some(0)).out_of_place;
        assert_eq!(
            (time, min, p50, p99, max, batch),
            (50.0, 1.0, 50.0, 99.0, 100.0, Some(2.0))
        );
        assert!(
            (alg_bw - 0.02).abs() < 1e-12 && (bus_bw - 0.03).abs() < 1e-12,
            "{alg_bw} {bus_bw}"
        );
    }

    #[test]
    fn the_document_has_the_contract_s_names() {
        let config = Config {
            collective: "all-reduce",
            ranks: 4,
            fabric: "shm".to_owned(),
            iterations: 100,
            warmup: 20,
            predict: false,
            clock: 0.02,
        };
        let document = Document::new(config.clone(), vec![row(Some(2)), row(None)]);
        let value = serde_json::to_value(&document).unwrap();
        assert_eq!(value["config"]["warmup"], 20);
        assert_eq!(
            value["out_of_bounds"],
            serde_json::json!({"count": 4, "okay": false})
        );
        assert_eq!(value["results"][0]["in_place"]["nwrong"], 2);
        assert_eq!(value["results"][1]["in_place"]["nwrong"], serde_json::Value::Null);
        for name in [
            "size",
            "count",
            "type",
            "redop",
            "plan",
            "out_of_place",
            "in_place",
        ] {
            assert!(!value["results"][0][name].is_null(), "{name}");
        }
        for name in [
            "time", "alg_bw", "bus_bw", "nwrong", "min", "p50", "p99", "max", "batch",
        ] {
            assert!(!value["results"][0]["out_of_place"][name].is_null(), "{name}");
        }
        assert!((value["average_bus_bandwidth"]["bandwidth"].as_f64().unwrap() - 0.03).abs() < 1e-12);
        assert!(Document::new(config, vec![]).footer(true).contains("0.000 GB/s"));
    }

    #[test]
    fn lines_stand_under_their_heads() {
        let config = Config {
            collective: "all-reduce",
            ranks: 4,
            fabric: "shm".to_owned(),
            iterations: 100,
            warmup: 20,
            predict: false,
            clock: 0.02,
        };
        let head = header(&config);
        let columns = head.lines().last().unwrap();
        let line = row(Some(0)).line(false);
        assert_eq!(
            columns.chars().count(),
            line.trim_end_matches('\n').chars().count(),
            "{head}{line}"
        );
        let predicting = Config {
            predict: true,
            ..config
        };
        let (head, line) = (header(&predicting), row(Some(0)).line(true));
        let last = head.lines().last().unwrap();
        assert_eq!(
            last.chars().count(),
            line.trim_end_matches('\n').chars().count(),
            "{head}{line}"
        );
        assert_eq!(
            columns.find("redop").map(|at| at + 5),
            line.find("sum").map(|at| at + 3)
        );
    }
}
