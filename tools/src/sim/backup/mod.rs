//! `sapwood sim backup`: how many backup workers? The experiment of Chen et al., arXiv 1604.00981, in virtual time.
//! Reads arguments, draws steps, hands on; all knowledge of laws is the library's.

mod arrivals;
mod findings;
mod report;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sapwood::memory::check_allocation;
use sapwood::simulator::Random;
use sapwood::simulator::backup::{paper, seal_times};

use crate::output::{Failure, Output, report_folder};
use arrivals::{Arrivals, Distribution};
use findings::{Findings, Simulated};

/// Rows are tried up to so many backup workers, unless the command line says otherwise.
const MOST_BACKUPS: u32 = 10;
/// From so many arrivals on, progress is shown: they take some seconds.
const MANY_ARRIVALS: u64 = 100_000_000;
const EXAMPLE: &str = "\
Examples:
  sapwood sim backup --distribution long-tail --report backup
  sapwood sim backup --workers 50 --json - | jq .best_backups
  sapwood sim backup --distribution times.csv

When gradients arrive:
  exponential  independent times of mean 1, checked against the known formula
  long-tail    seconds, fitted to what the paper measured of 100 workers
  FILE         measured seconds: CSV with the header step,worker,seconds

Exits with 0 when the simulation agrees with what is known of its law; with 1
when it does not; with 2 on bad arguments. docs/simulating.md says more.";

/// Backup workers: of M = N + b workers the first N gradients seal a step. How long steps take, and time to convergence,
/// for each b
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct BackupArguments {
    /// All workers, M = N + b; 100 as in the paper, or those of the file
    #[arg(long, value_name = "M", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=4096))]
    workers: Option<u32>,
    /// When gradients arrive: exponential, long-tail, or a file of measured times (see below)
    #[arg(long, value_name = "NAME|FILE", default_value = "exponential")]
    distribution: Distribution,
    /// The most backup workers to try; 10, or as many as leave one to wait for
    #[arg(long, value_name = "B", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..=4095))]
    max_backups: Option<u32>,
    /// Steps to simulate; 76000, the paper's way to convergence with 100 workers, or those of the file
    #[arg(long, value_name = "K", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    steps: Option<u32>,
    /// Decides the random numbers; 1 where it is left out
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Writes a report there: index.html, and its two pictures as SVG
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Writes the figures as JSON; '-' for standard output
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
}

/// What is simulated, once all arguments are known to fit together.
struct Plan {
    workers: usize,
    most_backups: usize,
    steps: usize,
    seed: u64,
}

/// Runs the experiment: everything that can be refused is refused before the first step.
pub fn run(arguments: &BackupArguments) -> Result<ExitCode, Failure> {
    let arrivals = Arrivals::open(&arguments.distribution)?;
    let plan = arguments.plan(&arrivals)?;
    let mut output = Output::open(arguments.json.as_deref())?;
    if let Some(folder) = &arguments.report {
        report_folder(folder)?;
    }

    let bar = progress_bar(&plan);
    let mut random = Random::new(plan.seed);
    let times = seal_times(plan.workers, plan.most_backups, plan.steps, |step, times| {
        arrivals.draw(step, &mut random, times);
        if step % 1024 == 0 {
            bar.set_position(step as u64);
        }
    });
    bar.finish_and_clear();

    let simulated = Simulated {
        workers: plan.workers,
        steps: plan.steps,
        seed: plan.seed,
        times,
    };
    let findings = Findings::new(&arguments.distribution, &arrivals, &simulated);
    output.text(&table::text(&findings));
    if let Some(folder) = &arguments.report {
        let page = report::write(folder, &findings)
            .map_err(|error| Failure::Check(format!("--report {}: {error}", folder.display())))?;
        output.text(&format!("report: {}\n", page.display()));
    }
    output.json(&findings.document)?;
    match findings.broken().as_slice() {
        [] => Ok(ExitCode::SUCCESS),
        broken => Err(Failure::Check(broken.join("; "))),
    }
}

impl BackupArguments {
    fn plan(&self, arrivals: &Arrivals) -> Result<Plan, Failure> {
        let refuse = |sentence: String| Err(Failure::Arguments(sentence));
        let asked = self.workers.map(|workers| workers as usize);
        let (workers, steps) = match arrivals {
            Arrivals::Measured(times) => {
                let file = self.distribution.name();
                if let Some(asked) = asked.filter(|asked| *asked != times.workers()) {
                    return refuse(format!(
                        "--workers {asked}: {file} has times of {} workers; leave --workers out to take these",
                        times.workers()
                    ));
                }
                for (flag, given) in [("--steps", self.steps.is_some()), ("--seed", self.seed.is_some())] {
                    if given {
                        return refuse(format!(
                            "{flag}: all {} steps of {file} are taken as they were measured; leave it out",
                            times.steps()
                        ));
                    }
                }
                (times.workers(), times.steps())
            }
            _ => (
                asked.unwrap_or(paper::WORKERS),
                self.steps
                    .map_or(paper::ITERATIONS as usize, |steps| steps as usize),
            ),
        };
        if let Some(most) = self.max_backups.filter(|most| *most as usize >= workers) {
            return refuse(format!(
                "--max-backups {most}: a step waits for at least one of the {workers} workers; at most {} can be backups",
                workers - 1
            ));
        }
        let most_backups = (self.max_backups.unwrap_or(MOST_BACKUPS) as usize).min(workers - 1);
        check_allocation((most_backups + 1) * steps * size_of::<f64>()).map_err(|error| {
            Failure::Arguments(format!(
                "{steps} steps with 0 to {most_backups} backup workers: {error}"
            ))
        })?;
        Ok(Plan {
            workers,
            most_backups,
            steps,
            seed: self.seed.unwrap_or(1),
        })
    }
}

/// On standard error, where that is a terminal and there is something to wait for.
fn progress_bar(plan: &Plan) -> ProgressBar {
    let long = plan.workers as u64 * plan.steps as u64 >= MANY_ARRIVALS;
    let target = if long {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("  {bar:30} {pos}/{len} steps  {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(plan.steps as u64), target).with_style(style)
}
