//! What a simulation of backup workers showed: the rows, the best of them, and how near it is to what is known of its
//! law. Prints nothing.

use sapwood::simulator::backup::{LongTail, SealTimes, StragglerRates, best, exponential, iterations, paper};
use serde::Serialize;

use super::arrivals::{Arrivals, Distribution};

/// A simulation that is right is further off than is tolerated in less than one of a million runs: −ln(10⁻⁶ / 2).
const RARITY: f64 = 14.5;

/// Steps, and how long they took.
pub struct Simulated {
    pub workers: usize,
    pub steps: usize,
    pub seed: u64,
    /// By number of backup workers.
    pub times: Vec<SealTimes>,
}

/// What `--json` writes. The names are the contract's.
#[derive(Debug, Serialize)]
pub struct Document {
    pub workers: usize,
    pub distribution: String,
    pub best_backups: usize,
    pub best_is_edge: bool,
    pub rows: Vec<Row>,
}

/// One number of backup workers.
#[derive(Debug, Serialize)]
pub struct Row {
    pub backups: usize,
    pub mean_time_to_seal: f64,
    pub p50: f64,
    pub p99: f64,
    pub iterations: u64,
    pub time_to_converge: f64,
}

/// Everything that is shown.
pub struct Findings {
    pub document: Document,
    pub steps: usize,
    pub law: Law,
}

/// What is known of where the times came from.
pub enum Law {
    /// The seed, and the mean time to seal by number of backup workers.
    Exponential { seed: u64, means: Vec<f64> },
    /// The seed, and the fit.
    LongTail { seed: u64, fit: Fit },
    /// Nothing: they were measured.
    Measured,
}

/// The law of the long tail beside the paper's measurements.
pub struct Fit {
    pub law: LongTail,
    /// The measurements first, then laws, then the simulation if it is of as many workers.
    pub lines: Vec<FitLine>,
    shares: Vec<Share>,
}

/// One law, or what was measured.
pub struct FitLine {
    pub name: &'static str,
    /// The share of steps whose 98th of 100 gradients is there within 2 s.
    pub next_to_last: f64,
    /// The share of steps whose last one is.
    pub last: f64,
    /// In seconds, of 76,000 steps; a law's is the median.
    pub longest: Option<f64>,
}

/// A share of steps that are sealed within 2 s: what the law says, and what was simulated.
struct Share {
    backups: usize,
    expected: f64,
    found: f64,
}

impl Findings {
    /// From the times of at least one number of backup workers.
    pub fn new(distribution: &Distribution, arrivals: &Arrivals, simulated: &Simulated) -> Self {
        let Simulated { workers, seed, .. } = *simulated;
        let row = |(backups, times): (usize, &SealTimes)| {
            let iterations = iterations(workers - backups);
            Row {
                backups,
                mean_time_to_seal: times.mean(),
                p50: times.quantile(0.5),
                p99: times.quantile(0.99),
                iterations,
                time_to_converge: times.mean() * iterations as f64,
            }
        };
        let rows: Vec<Row> = simulated.times.iter().enumerate().map(row).collect();
        let best_backups = best(rows.iter().map(|row| row.time_to_converge));
        let law = match arrivals {
            Arrivals::Exponential => Law::Exponential {
                seed,
                means: rows
                    .iter()
                    .map(|row| exponential::mean(workers, row.backups))
                    .collect(),
            },
            Arrivals::LongTail(law) => Law::LongTail {
                seed,
                fit: Fit::new(*law, simulated),
            },
            Arrivals::Measured(_) => Law::Measured,
        };
        let document = Document {
            workers,
            distribution: distribution.name(),
            best_backups,
            best_is_edge: best_backups + 1 == rows.len(),
            rows,
        };
        Self {
            document,
            steps: simulated.steps,
            law,
        }
    }

    /// The row with the least time to convergence.
    pub fn best(&self) -> &Row {
        &self.document.rows[self.document.best_backups]
    }

    /// The row that the paper chose, if this is its number of workers and the row was tried.
    pub fn paper(&self) -> Option<&Row> {
        let rows = (self.document.workers == paper::WORKERS).then_some(&self.document.rows)?;
        rows.get(paper::BACKUPS)
    }

    /// Sentences about what the simulation contradicts.
    pub fn broken(&self) -> Vec<String> {
        let Self { document, steps, .. } = self;
        match &self.law {
            Law::Exponential { means, .. } => {
                let pairs = document.rows.iter().zip(means);
                let broken = pairs.filter(|(row, mean)| {
                    let off = (row.mean_time_to_seal - **mean).abs();
                    off > mean_tolerance(document.workers, row.backups, *steps)
                });
                let sentence = |(row, mean): (&Row, &f64)| {
                    format!(
                        "{} backup workers: the mean time to seal is {}, and {mean} by the formula",
                        row.backups, row.mean_time_to_seal
                    )
                };
                broken.map(sentence).collect()
            }
            Law::LongTail { fit, .. } => {
                let shares = fit.shares.iter();
                let broken =
                    shares.filter(|share| (share.found - share.expected).abs() > share_tolerance(*steps));
                let sentence = |share: &Share| {
                    format!(
                        "{} backup workers: {} of the steps are sealed within {} s, and {} by the law",
                        share.backups,
                        share.found,
                        paper::ON_TIME,
                        share.expected
                    )
                };
                broken.map(sentence).collect()
            }
            Law::Measured => Vec::new(),
        }
    }
}

impl Fit {
    fn new(law: LongTail, simulated: &Simulated) -> Self {
        let line = |name, rates: StragglerRates, longest| FitLine {
            name,
            next_to_last: rates.at_most(paper::NEXT_TO_LAST_BACKUPS, paper::WORKERS),
            last: rates.at_most(0, paper::WORKERS),
            longest,
        };
        let independent = |backups, share| StragglerRates::with_share(0.0, backups, paper::WORKERS, share);
        let mut lines = vec![
            FitLine {
                name: "measured in the paper",
                next_to_last: paper::NEXT_TO_LAST,
                last: paper::LAST,
                longest: Some(paper::LONGEST),
            },
            line(
                "independent, fitted to the 98th",
                independent(paper::NEXT_TO_LAST_BACKUPS, paper::NEXT_TO_LAST),
                None,
            ),
            line(
                "independent, fitted to the last",
                independent(0, paper::LAST),
                None,
            ),
            line(
                "rates differing by step",
                law.rates,
                Some(law.median_longest(paper::ITERATIONS)),
            ),
        ];
        let times = &simulated.times;
        if let (paper::WORKERS, Some(next_to_last)) =
            (simulated.workers, times.get(paper::NEXT_TO_LAST_BACKUPS))
        {
            lines.push(FitLine {
                name: "this simulation",
                next_to_last: next_to_last.share_within(paper::ON_TIME),
                last: times[0].share_within(paper::ON_TIME),
                longest: (simulated.steps == paper::ITERATIONS as usize).then(|| times[0].longest()),
            });
        }
        let share = |(backups, times): (usize, &SealTimes)| Share {
            backups,
            expected: law.share_on_time(simulated.workers, backups),
            found: times.share_within(paper::ON_TIME),
        };
        Self {
            law,
            lines,
            shares: times.iter().enumerate().map(share).collect(),
        }
    }
}

/// How far the mean of so many exponential seal times may be from the formula. (Bernstein's bound: a seal time is a sum of
/// independent waits, of which the last is on average the longest.)
pub fn mean_tolerance(workers: usize, backups: usize, steps: usize) -> f64 {
    let steps = steps as f64;
    (2.0 * exponential::variance(workers, backups) * RARITY / steps).sqrt()
        + RARITY / ((backups + 1) as f64 * steps)
}

/// How far a share of so many steps may be from its probability (Hoeffding's bound).
pub fn share_tolerance(steps: usize) -> f64 {
    (RARITY / (2.0 * steps as f64)).sqrt()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use sapwood::simulator::Random;
    use sapwood::simulator::backup::seal_times;

    /// Of 20,000 steps whose times are all multiplied by a factor.
    pub fn findings(distribution: &str, workers: usize, factor: f64) -> Findings {
        let distribution: Distribution = distribution.parse().unwrap();
        let arrivals = Arrivals::open(&distribution).unwrap();
        let (steps, seed) = (20_000, 1);
        let mut random = Random::new(seed);
        let times = seal_times(workers, 10.min(workers - 1), steps, |step, times| {
            arrivals.draw(step, &mut random, times);
            times.iter_mut().for_each(|time| *time *= factor);
        });
        let simulated = Simulated {
            workers,
            steps,
            seed,
            times,
        };
        Findings::new(&distribution, &arrivals, &simulated)
    }

    #[test]
    fn a_simulation_that_is_off_is_found_out() {
        for (distribution, workers, factor) in [
            ("exponential", 2, 1.05),
            ("exponential", 100, 0.98),
            ("long-tail", 2, 1.2),
            ("long-tail", 100, 0.9),
        ] {
            assert_eq!(findings(distribution, workers, 1.0).broken(), [""; 0]);
            let broken = findings(distribution, workers, factor).broken();
            assert!(
                !broken.is_empty(),
                "{distribution} times {factor}, {workers} workers"
            );
            assert!(broken[0].contains("backup workers: "), "{broken:?}");
        }
    }

    #[test]
    fn the_best_is_an_edge_only_where_it_was_tried_last() {
        let exponential = findings("exponential", 100, 1.0).document;
        assert_eq!((exponential.best_backups, exponential.best_is_edge), (10, true));
        let long_tail = findings("long-tail", 100, 1.0).document;
        assert!([4, 5].contains(&long_tail.best_backups) && !long_tail.best_is_edge);
    }

    #[test]
    fn more_backup_workers_never_make_a_step_longer_and_always_need_more_iterations() {
        for distribution in ["exponential", "long-tail"] {
            for pair in findings(distribution, 100, 1.0).document.rows.windows(2) {
                let (fewer, more) = (&pair[0], &pair[1]);
                assert!(
                    fewer.mean_time_to_seal > more.mean_time_to_seal
                        && fewer.p50 > more.p50
                        && fewer.p99 > more.p99
                );
                assert!(fewer.iterations < more.iterations);
                let product = more.mean_time_to_seal * more.iterations as f64;
                assert_eq!(more.time_to_converge, product);
            }
        }
    }
}
