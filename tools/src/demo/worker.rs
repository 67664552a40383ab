//! A worker process (`sapwood demo-worker`, started by the demo): one rank's training, told and reported in JSON lines.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sapwood::bootstrap::Job;

use super::dataset::Dataset;
use super::exchanged::Exchanged;
use super::gradients::{ExchangeError, GradientExchange, Traffic};
use super::messages::{Assignment, GO_ON, Message, RunReport, THAT_IS_ALL, WorkerReport};
use super::schedule::Schedule;
use super::trainer::{Test, Training, train};
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
    let slow = assignment.slow.iter().find(|(rank, _)| *rank == job.rank);
    let workers::Carried {
        exchange,
        with_backups,
        plan,
        fabric,
        staged,
    } = workers::exchanges(job, &assignment.plan, assignment.backups)?;
    let training = Training {
        epochs: assignment.epochs,
        batch: assignment.batch,
        seed: assignment.seed,
        slow: slow.map_or(Duration::ZERO, |(_, delay)| Duration::from_millis(*delay)),
        kept_steps: assignment.kept_steps.clone(),
        test: Test::Share,
    };
    let mut bar = Bar::new();
    let mut report = WorkerReport {
        rank: job.rank,
        plan,
        fabric,
        staged,
        ..WorkerReport::default()
    };
    let Some(mut spared) = with_backups else {
        wait_for_all(exchange, &data, (assignment, &training), &mut bar, &mut report)?;
        return Ok(report);
    };
    let training_spared = Training {
        kept_steps: assignment.kept_with_backups.clone(),
        // Who is late may jump over the end of an epoch: no share of the images must depend on that.
        test: Test::Whole,
        ..training.clone()
    };
    let trained = train(&mut spared, &data, &training_spared, &mut |step| bar.at(step))?;
    say(&Message::Main(Box::new(RunReport::new(trained))))?;
    bar.done(steps(&data, &training));
    // The slowest may still be reading the others' weights. Where memory goes with its process, the exchange waits for that
    // itself, and is of use to the others while it does.
    let staged = report.staged;
    let kept = (!staged).then_some(spared);
    let goes_on = told()?;
    drop(kept);
    // Whoever dies from here on ends this run, as every run that waits for all; the other one is over and has been told of.
    let waited = match goes_on {
        true => wait_for_all(exchange, &data, (assignment, &training), &mut bar, &mut report),
        false => Err("a worker had died before it".into()),
    };
    report.broken_off = waited.err().map(|error| error.to_string());
    Ok(report)
}

fn steps(data: &Dataset, training: &Training) -> usize {
    let schedule = Schedule {
        training: data.training(),
        batch: training.batch,
        seed: training.seed,
    };
    training.epochs * schedule.steps()
}

/// Waits until the launcher has said whether to go on.
fn told() -> Result<bool, ExchangeError> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    match line.trim_end() {
        GO_ON => Ok(true),
        THAT_IS_ALL => Ok(false),
        "" => Err("the launcher has gone".into()),
        other => Err(format!("the launcher said {other:?}").into()),
    }
}

/// The run in which each step waits for every worker, and the epochs in which bytes are counted.
fn wait_for_all(
    mut exchange: Exchanged,
    data: &Dataset,
    (assignment, training): (&Assignment, &Training),
    bar: &mut Bar,
    report: &mut WorkerReport,
) -> Result<(), ExchangeError> {
    let trained = train(&mut exchange, data, training, &mut |step| bar.at(step))?;
    bar.done(steps(data, training));
    let traffic = exchange.traffic();
    let mut counted = Vec::new();
    for &batch in &assignment.count_batches {
        let before = exchange.traffic();
        let one_epoch = Training {
            epochs: 1,
            batch,
            slow: Duration::ZERO,
            kept_steps: 0..0,
            test: Test::Nothing,
            ..training.clone()
        };
        train(&mut exchange, data, &one_epoch, &mut |step| bar.at(step))?;
        bar.done(steps(data, &one_epoch));
        let after = exchange.traffic();
        counted.push(Traffic {
            exchanged: after.exchanged - before.exchanged,
            copied: after.copied - before.copied,
        });
    }
    (report.waiting, report.traffic, report.counted) = (RunReport::new(trained), traffic, counted);
    Ok(())
}

/// Tells the launcher now and then how far this worker is.
struct Bar {
    /// Steps of the trainings that have ended.
    before: usize,
    last_line: Instant,
}

impl Bar {
    fn new() -> Self {
        Self {
            before: 0,
            last_line: Instant::now(),
        }
    }

    fn at(&mut self, step: usize) {
        if self.last_line.elapsed() >= BETWEEN_LINES {
            self.last_line = Instant::now();
            // A launcher that does not listen has died, and this process dies with it.
            let _ = say(&Message::Steps(self.before + step + 1));
        }
    }

    fn done(&mut self, steps: usize) {
        self.before += steps;
    }
}
