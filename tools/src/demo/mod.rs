//! `sapwood demo`: trains a real model with gradients exchanged between processes, and checks what came out.
//!
//! Orchestrates only: arguments, workers, the comparison with one process, findings, report.

mod arguments;
mod dataset;
mod exchanged;
mod findings;
mod gradients;
mod launcher;
mod members;
mod messages;
mod model;
mod outcome;
mod random;
mod record;
#[cfg(test)]
mod replay_tests;
mod report;
mod schedule;
mod spans;
mod trainer;
pub mod worker;
mod workers;

use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub use arguments::DemoArguments;

use crate::output::{Failure, Output, report_folder};
use arguments::timeout;
use dataset::Dataset;
use findings::{Findings, Singles, batches_to_count, members_of_steps};
use gradients::Alone;
use launcher::Start;
use members::Members;
use messages::Assignment;
use outcome::Outcome;
use schedule::Schedule;
use trainer::{Test, Trained, Training, train};

/// Steps drawn in the timeline of a run that waits for all.
const DRAWN_STEPS: usize = 3;
/// Likewise with backup workers, where steps are short and a slow worker is far behind.
const DRAWN_WITH_BACKUPS: usize = 10;

/// Runs the demo: everything that can be refused is refused before a process is started.
pub fn run(arguments: &DemoArguments) -> Result<ExitCode, Failure> {
    let begun = Instant::now();
    arguments.check()?;
    let timeout = timeout()?;
    let data = Dataset::load(arguments.data.as_deref(), arguments.seed)
        .map_err(|error| Failure::Arguments(format!("the images cannot be used: {error}")))?;
    report_folder(&arguments.report)?;
    let mut output = Output::open(arguments.json.as_deref())?;

    let steps = Schedule {
        training: data.training(),
        batch: arguments.batch,
        seed: arguments.seed,
    };
    let main_steps = arguments.epochs * steps.steps();
    let count_batches = batches_to_count(arguments.batch, arguments.workers, data.training());
    let count_steps: usize = count_batches
        .iter()
        .map(|&batch| Schedule { batch, ..steps }.steps())
        .sum();
    let runs = 1 + usize::from(arguments.backups() > 0);
    let bar = progress_bar((2 * runs * main_steps + count_steps) as u64);

    bar.set_message(format!("{} workers train", arguments.workers));
    let outcome = run_workers(arguments, steps.steps(), count_batches, timeout, &bar)?;
    let members = members_of_steps(&outcome.reports, main_steps).map_err(Failure::Check)?;
    bar.set_message("one process repeats it");
    bar.set_position((runs * main_steps + count_steps) as u64);
    let singles = Singles {
        with_backups: (arguments.backups() > 0)
            .then(|| repeat(arguments, &data, members.clone(), &bar))
            .transpose()?,
        waiting: outcome
            .waited
            .then(|| repeat(arguments, &data, Vec::new(), &bar))
            .transpose()?,
    };
    bar.finish_and_clear();

    let mut findings = Findings::new(arguments, &data, &outcome, &members, &singles);
    findings.seconds = begun.elapsed().as_secs_f64();
    let page = report::write(&arguments.report, &findings, &outcome.reports)
        .map_err(|error| Failure::Check(format!("--report {}: {error}", arguments.report.display())))?;
    output.text(&format!("{}\n  report: {}\n", findings.table(), page.display()));
    output.json(&findings)?;
    match findings.broken().as_slice() {
        [] => Ok(ExitCode::SUCCESS),
        broken => Err(Failure::Check(broken.join("; "))),
    }
}

fn run_workers(
    arguments: &DemoArguments,
    steps_of_epoch: usize,
    count_batches: Vec<usize>,
    timeout: Duration,
    bar: &ProgressBar,
) -> Result<Outcome, Failure> {
    let slow = arguments.slow();
    let assignment = Assignment {
        data: arguments.data.clone(),
        epochs: arguments.epochs,
        batch: arguments.batch,
        seed: arguments.seed,
        backups: arguments.backups() as u32,
        slow: slow
            .iter()
            .map(|slow| (slow.rank, slow.delay.as_millis() as u64))
            .collect(),
        kept_steps: drawn(arguments.epochs, steps_of_epoch, DRAWN_STEPS),
        kept_with_backups: drawn(arguments.epochs, steps_of_epoch, DRAWN_WITH_BACKUPS),
        count_batches,
        plan: arguments.plan.clone(),
    };
    let several = arguments.hosts > 1;
    let start = Start {
        workers: arguments.workers as u32,
        fabric: arguments.fabric,
        host: &|rank| several.then(|| format!("host-{}", arguments.host(rank))),
        timeout,
        assignment: &assignment,
    };
    launcher::run(&start, &mut |steps| bar.set_position(steps as u64))
}

/// So many steps of an epoch in the middle of a run: after its first, so that no test is between them.
fn drawn(epochs: usize, steps_of_epoch: usize, count: usize) -> Range<usize> {
    let steps = epochs * steps_of_epoch;
    let first = (epochs / 2 * steps_of_epoch + 1).min(steps.saturating_sub(count));
    first..first + count
}

/// What one process makes of the same images, step by step: those of the members, or of all workers where there are none.
fn repeat(
    arguments: &DemoArguments,
    data: &Dataset,
    members: Vec<Members>,
    bar: &ProgressBar,
) -> Result<Trained, Failure> {
    let training = Training {
        epochs: arguments.epochs,
        batch: arguments.batch,
        seed: arguments.seed,
        slow: Duration::ZERO,
        kept_steps: 0..0,
        test: Test::Whole,
    };
    let mut alone = Alone::replaying(arguments.workers as u32, members);
    train(&mut alone, data, &training, &mut |_| bar.inc(1))
        .map_err(|error| Failure::Check(format!("the single process: {error}")))
}

/// On standard error, and only where that is a terminal.
fn progress_bar(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("  {bar:30} {percent:>3} %  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr()).with_style(style)
}
