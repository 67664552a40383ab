//! A worker process (`sapwood demo-worker`, started by the demo): one rank's training, told and reported in JSON lines.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::dataset::Dataset;
use super::gradients::{GradientExchange, Traffic};
use super::messages::{Assignment, Message, WorkerReport};
use super::trainer::{Training, train};
use super::workers;
use crate::output::Failure;

/// Between two lines that say how far it is: rare enough to cost nothing, often enough for a bar.
const BETWEEN_LINES: Duration = Duration::from_millis(100);

/// Reads the assignment from standard input, does it, and reports on standard output.
pub fn run() -> Result<ExitCode, Failure> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::Check(format!("standard input: {error}")))?;
    let assignment: Assignment = serde_json::from_str(&line).map_err(|error| {
        Failure::Arguments(format!(
            "demo-worker is started by 'sapwood demo', which tells it what to do: {error}"
        ))
    })?;
    stay_with_launcher(assignment.launcher)?;
    match work(&assignment) {
        Ok(report) => {
            say(&Message::Done(Box::new(report)))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            say(&Message::Failed(error.to_string()))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Dies with the launcher, however that ends: a worker alone would wait for its peers until the deadline.
fn stay_with_launcher(launcher: u32) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::Check(format!("demo-worker: cannot follow its launcher: {error}")))?;
    // It may have died before the line above.
    match getppid() {
        Some(parent) if parent.as_raw_nonzero().get().unsigned_abs() == launcher => Ok(()),
        _ => Err(Failure::Check(
            "demo-worker: the process that started it has gone".to_owned(),
        )),
    }
}

fn say(message: &Message) -> Result<(), Failure> {
    let mut line =
        serde_json::to_vec(message).map_err(|error| Failure::Check(format!("demo-worker: {error}")))?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    let written = output.write_all(&line).and_then(|()| output.flush());
    written.map_err(|error| Failure::Check(format!("demo-worker: the launcher does not listen: {error}")))
}

fn work(assignment: &Assignment) -> Result<WorkerReport, Box<dyn std::error::Error + Send + Sync>> {
    let data = Dataset::load(assignment.data.as_deref(), assignment.seed)?;
    let timeout = Duration::from_millis(assignment.timeout_ms);
    let (mut exchange, plan) =
        workers::join(&assignment.meeting, assignment.rank, assignment.ranks, timeout)?;
    let mut begun = 0;
    let mut last_line = Instant::now();
    let mut progress = |_| {
        begun += 1;
        if last_line.elapsed() >= BETWEEN_LINES {
            last_line = Instant::now();
            // A launcher that does not listen has died, and this process dies with it.
            let _ = say(&Message::Steps(begun));
        }
    };
    let (first, kept) = assignment.kept_steps;
    let training = Training {
        epochs: assignment.epochs,
        batch: assignment.batch,
        seed: assignment.seed,
        slow: Duration::from_millis(assignment.slow_ms),
        kept_steps: first..first + kept,
        test: true,
    };
    let trained = train(&mut exchange, &data, &training, &mut progress)?;
    let traffic = exchange.traffic();
    let mut counted = Vec::new();
    for &batch in &assignment.count_batches {
        let before = exchange.traffic();
        let one_epoch = Training {
            epochs: 1,
            batch,
            slow: Duration::ZERO,
            kept_steps: 0..0,
            test: false,
            ..training.clone()
        };
        train(&mut exchange, &data, &one_epoch, &mut progress)?;
        let after = exchange.traffic();
        counted.push(Traffic {
            exchanged: after.exchanged - before.exchanged,
            copied: after.copied - before.copied,
        });
    }
    Ok(WorkerReport {
        rank: assignment.rank,
        plan,
        weights: trained.model.weights().map(f32::to_bits).collect(),
        epochs: trained.epochs,
        steps: trained.steps,
        waited: trained.waited,
        spans: trained.spans,
        traffic,
        counted,
    })
}
