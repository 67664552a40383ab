//! `sapwood demo`: trains a real model with gradients exchanged between processes, and checks what came out.
//!
//! Orchestrates only: arguments, workers, the comparison with one process, findings, report.

mod arguments;
mod dataset;
mod exchanged;
mod findings;
mod gradients;
mod launcher;
mod messages;
mod model;
mod random;
mod report;
mod schedule;
mod spans;
mod trainer;
pub mod worker;
mod workers;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub use arguments::DemoArguments;

use crate::output::{Failure, Output, report_folder};
use arguments::timeout;
use dataset::Dataset;
use findings::{Findings, batches_to_count};
use gradients::Alone;
use messages::{Assignment, WorkerReport};
use schedule::Schedule;
use trainer::{Training, train};

/// Steps drawn in the timeline.
const DRAWN_STEPS: usize = 3;

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
    let bar = progress_bar((main_steps + count_steps + main_steps) as u64);

    bar.set_message(format!("{} workers train", arguments.workers));
    let reports = run_workers(arguments, main_steps, &count_batches, timeout, &bar)?;
    bar.set_message("one process repeats it");
    let training = Training {
        epochs: arguments.epochs,
        batch: arguments.batch,
        seed: arguments.seed,
        slow: Duration::ZERO,
        kept_steps: 0..0,
        test: true,
    };
    let at = |step| bar.set_position((main_steps + count_steps + step) as u64);
    let alone = train(&mut Alone::new(), &data, &training, &mut { at })
        .map_err(|error| Failure::Check(format!("the single process: {error}")))?;
    bar.finish_and_clear();

    let mut findings = Findings::new(arguments, &data, &reports, &alone, &count_batches);
    findings.seconds = begun.elapsed().as_secs_f64();
    let page = report::write(&arguments.report, &findings, &reports)
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
    main_steps: usize,
    count_batches: &[usize],
    timeout: Duration,
    bar: &ProgressBar,
) -> Result<Vec<WorkerReport>, Failure> {
    let first_drawn = (main_steps / 2).min(main_steps.saturating_sub(DRAWN_STEPS));
    let assignment = Assignment {
        data: arguments.data.clone(),
        epochs: arguments.epochs,
        batch: arguments.batch,
        seed: arguments.seed,
        slow: arguments
            .slow
            .map(|slow| (slow.rank, slow.delay.as_millis() as u64)),
        kept_steps: (first_drawn, DRAWN_STEPS),
        count_batches: count_batches.to_vec(),
        plan: arguments.plan.clone(),
    };
    let workers = arguments.workers as u32;
    launcher::run(workers, arguments.fabric, timeout, &assignment, &mut |steps| {
        bar.set_position(steps as u64);
    })
}

/// On standard error, and only where that is a terminal.
fn progress_bar(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("  {bar:30} {percent:>3} %  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr()).with_style(style)
}
