//! A worker process (`sapwood demo-worker`, started by the demo): one rank's training, told and reported in JSON lines.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sapwood::bootstrap::Job;

use super::dataset::Dataset;
use super::gradients::{ExchangeError, GradientExchange, Traffic};
use super::messages::{Assignment, Message, WorkerReport};
use super::trainer::{Training, train};
use super::workers;
use crate::output::Failure;

/// Between two lines that say how far it is: rare enough to cost nothing, often enough for a bar.
const BETWEEN_LINES: Duration = Duration::from_millis(100);

/// Does what `assignment` says, as a rank of the job that the environment describes, and reports on standard output.
pub fn run(assignment: Option<&str>) -> Result<ExitCode, Failure> {
    let stray = |reason: &str| {
        Failure::Arguments(format!(
            "demo-worker is started by 'sapwood demo', which tells it what to do: {reason}"
        ))
    };
    let assignment = assignment.ok_or_else(|| stray("there is no assignment"))?;
    let assignment: Assignment =
        serde_json::from_str(assignment).map_err(|error| stray(&error.to_string()))?;
    let job = Job::from_environment()
        .map_err(|error| stray(&error.to_string()))?
        .ok_or_else(|| stray("it is not in a job"))?;
    match work(&job, &assignment) {
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

fn say(message: &Message) -> Result<(), Failure> {
    let mut line =
        serde_json::to_vec(message).map_err(|error| Failure::Check(format!("demo-worker: {error}")))?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    let written = output.write_all(&line).and_then(|()| output.flush());
    written.map_err(|error| Failure::Check(format!("demo-worker: the launcher does not listen: {error}")))
}

fn work(job: &Job, assignment: &Assignment) -> Result<WorkerReport, ExchangeError> {
    let data = Dataset::load(assignment.data.as_deref(), assignment.seed)?;
    let slow = assignment.slow.filter(|&(rank, _)| rank == job.rank);
    let workers::Carried {
        mut exchange,
        plan,
        fabric,
        staged,
    } = workers::exchange(job, &assignment.plan)?;
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
        slow: slow.map_or(Duration::ZERO, |(_, delay)| Duration::from_millis(delay)),
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
        rank: job.rank,
        plan,
        fabric,
        staged,
        weights: trained.model.weights().map(f32::to_bits).collect(),
        epochs: trained.epochs,
        steps: trained.steps,
        waited: trained.waited,
        spans: trained.spans,
        traffic,
        counted,
    })
}
