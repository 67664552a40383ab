//! `sapwood perf`: perftest's tests over any fabric. Order of events here; what a test is lies in `setup`, how the two
//! sides meet in `meeting`, what is timed in `latency` and `bandwidth`.

mod arguments;
mod bandwidth;
mod figures;
mod lane;
mod latency;
mod meeting;
mod memory;
mod peak;
mod provider;
mod report;
mod session;
mod setup;
mod test;
mod validation;
mod watch;
mod window;

use std::fmt::Display;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use sapwood::bootstrap::{BootstrapError, DEFAULT_TIMEOUT, Job, PairRole, Secret, variable};
use sapwood::observe::Clock;

pub use arguments::PerfArguments;

use crate::arguments::parse_timeout;
use crate::binding;
use crate::output::{Failure, Output};
use crate::run::{Launcher, Running};
use figures::Row;
use meeting::Meeting;
use provider::Provider;
use session::Session;
use setup::Setup;
use watch::Side;

/// Runs one side of a test, or starts both.
pub fn run(arguments: &PerfArguments) -> Result<ExitCode, Failure> {
    let setup = Setup::new(arguments, timeout(arguments)?).map_err(Failure::Arguments)?;
    let job = Job::from_environment().map_err(|error| Failure::Arguments(error.to_string()))?;
    match job {
        Some(job) if job.size != 2 => Err(Failure::Arguments(format!(
            "a test has two sides, but the launcher has started {} ranks; start 2",
            job.size
        ))),
        Some(_) if arguments.host.is_some() => Err(Failure::Arguments(
            "HOST is not for a test under a launcher: its ranks 0 and 1 are the two sides".into(),
        )),
        Some(mut job) => {
            job.timeout = setup.timeout;
            let side = if job.rank == 0 { Side::Server } else { Side::Client };
            // One of the two is enough where both write to one terminal.
            let output = match side {
                Side::Server => None,
                Side::Client => Some(Output::open(arguments.json_target())?),
            };
            take_part(arguments, setup, &job, side, "here", output)
        }
        None if arguments.local => start_both(arguments, &setup),
        None => {
            sapwood::bootstrap::warn_of_unknown_variables();
            let output = Output::open(arguments.json_target())?;
            let (job, side, place) = pair(arguments, &setup)?;
            take_part(arguments, setup, &job, side, &place, Some(output))
        }
    }
}

fn timeout(arguments: &PerfArguments) -> Result<Duration, Failure> {
    let Some(value) = std::env::var_os(variable::TIMEOUT).filter(|_| arguments.timeout.is_none()) else {
        return Ok(arguments.timeout.unwrap_or(DEFAULT_TIMEOUT));
    };
    let value = value.to_string_lossy();
    parse_timeout(&value)
        .map_err(|expected| Failure::Arguments(format!("{}={value}: {expected}", variable::TIMEOUT)))
}

/// Where the two sides of a test without a launcher meet.
fn pair(arguments: &PerfArguments, setup: &Setup) -> Result<(Job, Side, String), Failure> {
    let refuse = |error: BootstrapError| Failure::Arguments(error.to_string());
    let secret = arguments
        .secret_file
        .as_deref()
        .map(Secret::from_file)
        .transpose()
        .map_err(refuse)?;
    let (role, side) = match arguments.host {
        None => (PairRole::Server, Side::Server),
        Some(_) => (PairRole::Client, Side::Client),
    };
    let (port, here_only) = (arguments.port, secret.is_none());
    let mut job = Job::pair(port, role, arguments.host.as_deref(), secret).map_err(refuse)?;
    job.timeout = setup.timeout;
    let place = match &arguments.host {
        Some(host) => format!("at {host}, port {port}"),
        None if here_only => format!("on port {port} (this user on this host; others need --secret-file)"),
        None => format!("on port {port}"),
    };
    Ok((job, side, place))
}

/// Starts two processes of this same command, which then find themselves under a launcher.
fn start_both(arguments: &PerfArguments, setup: &Setup) -> Result<ExitCode, Failure> {
    // What cannot be opened is refused before a process is started; the client opens it again.
    Output::open(arguments.json_target())?;
    for local_rank in 0..2 {
        let provider = Provider::open(arguments, setup, local_rank)?;
        session::fit(
            &mut setup.clone(),
            provider.fabrics[0].capabilities(),
            &mut Vec::new(),
        )?;
    }
    let program =
        std::env::current_exe().map_err(|error| broken(format!("this program's own file: {error}")))?;
    let launcher = Launcher::new(2).map_err(broken)?.timeout(setup.timeout);
    let running = launcher.start(|_| {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1));
        command
    });
    let end = running.and_then(Running::wait).map_err(broken)?;
    if let Some(failure) = end.failure() {
        eprintln!("sapwood perf: rank 0 is the server, rank 1 the client: {failure}");
    }
    Ok(end.exit_code())
}

/// One side's part.
fn take_part(
    arguments: &PerfArguments,
    setup: Setup,
    job: &Job,
    side: Side,
    place: &str,
    mut output: Option<Output>,
) -> Result<ExitCode, Failure> {
    let say = |output: &Option<Output>, text: &str| {
        if let Some(output) = output {
            output.text(text);
        }
    };
    let mut provider = Provider::open(arguments, &setup, job.local_rank)?;
    if side == Side::Server && arguments.host.is_none() {
        say(&output, &report::waiting(place));
    }
    let meeting = Meeting::join(job, side, place, output.is_some())?;
    if meeting.one_host() {
        binding::bind(side.rank(), 2);
    }
    let mut session = Session::connect(meeting, &mut provider, setup)?;
    for remark in &provider.remarks {
        say(&output, &format!(" {remark}\n"));
    }
    let (fabric, clock) = (provider.name(), clock_cost(&session.clock));
    say(&output, &report::header(&session, &provider.facts, fabric, clock));
    let mut rows = Vec::new();
    for size in session.setup.sizes.clone() {
        let row = one_size(&mut session, size).map_err(|failure| session.meeting.named(failure))?;
        if let Some(row) = row {
            say(&output, &report::line(&session.setup, &row));
            rows.push(row);
        }
    }
    session.together("done")?;
    say(&output, &report::footer(&rows));
    let wrong: u64 = rows.iter().filter_map(|row| row.checked().wrong_bytes).sum();
    if let Some(output) = &mut output {
        output.json(&report::Document::new(
            &session,
            &provider.facts,
            fabric,
            clock,
            rows,
        ))?;
    }
    match wrong {
        0 => Ok(ExitCode::SUCCESS),
        wrong => Err(Failure::Check(format!(
            "{}: {wrong} bytes are wrong",
            side.name()
        ))),
    }
}

/// Checks and measures one size. A side that measured nothing itself prints what the other did, where perftest does.
fn one_size(session: &mut Session, size: usize) -> Result<Option<Row>, Failure> {
    let checked = match session.setup.validate {
        true => Some(validation::check(session, size)?),
        false => None,
    };
    let own = if session.setup.test.is_latency() {
        let measured = latency::measure(session, size)?;
        measured.map(|measured| Row::of_latency(&session.setup, size, &measured))
    } else {
        let measured = bandwidth::measure(session, size)?;
        measured.map(|measured| Row::of_bandwidth(&session.setup, size, &measured))
    };
    let patience = session.patience(size);
    let theirs = session.exchange("results", &own, patience)?;
    let row = match (own, theirs) {
        (Some(own), Some(theirs)) if session.setup.bidirectional => Some(own.plus(&theirs)),
        (Some(own), _) => Some(own),
        (None, theirs) if !session.setup.test.is_latency() => theirs,
        // The server of a read or atomic latency test has nothing to say but whether the data was right.
        (None, theirs) => theirs.filter(|_| session.setup.validate),
    };
    Ok(row.map(|row| row.with(checked)))
}

/// What one reading of the clock costs, in microseconds: the median of several runs of many.
fn clock_cost(clock: &Clock) -> f64 {
    const READINGS: u32 = 1000;
    let mut runs: Vec<f64> = (0..21)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..READINGS {
                std::hint::black_box(clock.now());
            }
            start.elapsed().as_nanos() as f64 / 1e3 / f64::from(READINGS)
        })
        .collect();
    runs.sort_unstable_by(f64::total_cmp);
    runs[runs.len() / 2]
}

fn broken(error: impl Display) -> Failure {
    Failure::Check(error.to_string())
}
