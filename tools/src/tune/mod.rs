//! `sapwood tune`: measures plans between real ranks, fits the cost model's parameters to what it has measured, and writes
//! them for communicators to choose by. Arguments and order of events here; times are taken in `probe`, parameters found in
//! `fit`, figures printed in `report`.

mod check;
mod fit;
mod probe;
mod report;
mod settling;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use sapwood::bootstrap::Job;
use sapwood::communicator::Communicator;
use sapwood::memory::check_allocation;
use sapwood::plan::Collective;
use sapwood::plan::cost::Tuning;

use crate::arguments::{parse_size, parse_timeout};
use crate::bench::progress_bar;
use crate::binding;
use crate::output::{Failure, Output};
use crate::run::{Fabric, Launcher, Running};
use probe::Probes;

const EXAMPLE: &str = "\
Examples:
  sapwood tune --ranks 4 -o tuning.toml
  SAPWOOD_TUNING=tuning.toml sapwood bench all-reduce --ranks 4 --predict
  sapwood tune --ranks 4 --check -o tuning.toml

Under a launcher (sapwood run) leave --ranks out. The file holds for the ranks, hosts and fabric that it was measured with;
others are predicted from the same parameters. --check measures anew, at sizes in between, how good a file that is there is:
it exits with 1 where the chosen plan takes more than 1.1 times what the best one takes, or a prediction of 64 KiB or more
is more than 20 % off.";

/// Measures latency, overhead and bandwidth between the ranks and writes what plans are chosen from
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct TuneArguments {
    /// Ranks to start on this host, each a process [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=64))]
    ranks: Option<u32>,
    /// What carries the bytes: auto, shm, verbs or tcp
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = Fabric::parse)]
    fabric: Fabric,
    /// The file to write; with --check, to read
    #[arg(short = 'o', long, value_name = "FILE", default_value = "tuning.toml")]
    output: PathBuf,
    /// Measures how good the choices and predictions of a file are, and writes nothing
    #[arg(long)]
    check: bool,
    /// Collectives to measure, separated by commas
    #[arg(long = "collective", value_name = "NAMES", value_delimiter = ',', value_parser = parse_collective,
        default_value = "all-reduce,reduce,broadcast,reduce-scatter,all-gather")]
    collectives: Vec<Collective>,
    /// Smallest size in bytes; where ranks share memory, those up to 8K run no plan
    #[arg(short = 'b', long = "minbytes", value_name = "SIZE", default_value = "1K", value_parser = parse_size)]
    smallest: usize,
    /// Largest size in bytes
    #[arg(short = 'e', long = "maxbytes", value_name = "SIZE", default_value = "16M", value_parser = parse_size)]
    largest: usize,
    /// Timed calls of each plan, size and placement, three in each round of all [default: 15, with --check 27]
    #[arg(short = 'n', long = "iters", value_name = "CALLS", value_parser = clap::value_parser!(u32).range(3..=100_000))]
    iterations: Option<u32>,
    /// Also writes the figures as JSON to a file, or to standard output with '-'
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// How long a call may wait for the other ranks [default: 60, or SAPWOOD_TIMEOUT]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = parse_timeout)]
    timeout: Option<Duration>,
}

fn parse_collective(word: &str) -> Result<Collective, String> {
    let every = Collective::every(0);
    let can = || {
        every
            .into_iter()
            .filter(|collective| *collective != Collective::Barrier)
    };
    can().find(|collective| collective.name() == word).ok_or_else(|| {
        let names = can().map(Collective::name).collect::<Vec<_>>().join(", ");
        format!("a collective with bytes is needed: {names}")
    })
}

/// Runs `sapwood tune`: starts its ranks, or is one of them under a launcher.
pub fn run(arguments: &TuneArguments) -> Result<ExitCode, Failure> {
    let job = Job::from_environment().map_err(|error| Failure::Arguments(error.to_string()))?;
    let ranks = arguments.check(job.as_ref())?;
    match job {
        None => start_ranks(arguments, ranks),
        Some(job) => take_part(arguments, &job),
    }
}

impl TuneArguments {
    /// Refuses what can be refused before anything is started; how many ranks there are.
    fn check(&self, job: Option<&Job>) -> Result<u32, Failure> {
        let refuse = |sentence: String| Err(Failure::Arguments(sentence));
        let ranks = match (job, self.ranks) {
            (Some(job), Some(ranks)) if job.size != ranks => {
                return refuse(format!(
                    "--ranks {ranks}: the launcher has started {} ranks; leave --ranks out under a launcher",
                    job.size
                ));
            }
            (Some(job), _) if !(2..=64).contains(&job.size) => {
                return refuse(format!("a job of {} ranks: 2 to 64 can be measured", job.size));
            }
            (Some(job), _) => job.size,
            (None, ranks) => ranks.unwrap_or(2),
        };
        if self.largest < self.smallest {
            return refuse(format!(
                "-e {} is below -b {}; give an -e that is not below it",
                self.largest, self.smallest
            ));
        }
        // Each rank holds an input and a result of the largest size.
        let bytes = self.largest.saturating_mul(2 * ranks as usize);
        if let Err(error) = check_allocation(bytes) {
            return refuse(format!(
                "-e {}: for an input and a result on {ranks} ranks {error}",
                self.largest
            ));
        }
        // What cannot be read or written is refused before anything is measured.
        if self.check && job.is_none_or(|job| job.rank == 0) {
            Tuning::read(&self.output).map_err(|error| Failure::Arguments(format!("-o: {error}")))?;
        } else if !self.check && job.is_none() {
            let opened = std::fs::File::options()
                .create(true)
                .append(true)
                .open(&self.output);
            let path = self.output.display();
            opened.map_err(|error| {
                Failure::Arguments(format!("-o {path}: {error}; name a file that can be written"))
            })?;
        }
        Ok(ranks)
    }

    /// Calls of each plan: a check looks at few sizes, each of which counts.
    fn iterations(&self) -> u32 {
        self.iterations.unwrap_or(if self.check { 27 } else { 15 })
    }

    /// A size, twice that, and so on to the largest.
    fn doublings(&self, shares_memory: bool) -> impl Iterator<Item = usize> {
        // Up to 8 KiB no plan is run there.
        let first = match shares_memory {
            true => self.smallest.max(16 << 10),
            false => self.smallest.max(64),
        };
        let next = |size: &usize| size.checked_mul(2).filter(|size| *size <= self.largest);
        std::iter::successors(Some(first.min(self.largest)), next)
    }

    /// What is tuned at: every doubling and some sizes on the way to the next one, the last of them just before it, because
    /// engine and choice change their ways at powers of two.
    fn tuned_sizes(&self, shares_memory: bool) -> Vec<usize> {
        let on_the_way = |size: usize| [0, 8, 20, 31].map(|part| size.saturating_add(size / 32 * part));
        let sizes = self.doublings(shares_memory).flat_map(on_the_way);
        sizes.filter(|size| *size <= self.largest).collect()
    }

    /// What is checked at: half way from one doubling to the next, where nothing was tuned.
    fn checked_sizes(&self, shares_memory: bool) -> Vec<usize> {
        let half_way = |size: usize| size.saturating_add(size / 2);
        let sizes: Vec<usize> = self.doublings(shares_memory).map(half_way).collect();
        let in_between = sizes.iter().copied().filter(|size| *size <= self.largest);
        match in_between.collect::<Vec<_>>() {
            none if none.is_empty() => vec![self.largest],
            some => some,
        }
    }
}

/// Starts `ranks` processes of this same command, which then find themselves under a launcher.
fn start_ranks(arguments: &TuneArguments, ranks: u32) -> Result<ExitCode, Failure> {
    Output::open(arguments.json.as_deref())?;
    let program =
        std::env::current_exe().map_err(|error| broken(format!("this program's own file: {error}")))?;
    let launcher = Launcher::new(ranks).map_err(broken)?.fabric(arguments.fabric);
    let running = launcher.start(|_| {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1));
        // What is measured must not depend on what was measured before.
        command.env_remove(sapwood::bootstrap::variable::TUNING);
        command
    });
    let end = running.and_then(Running::wait).map_err(broken)?;
    if let Some(failure) = end.failure() {
        eprintln!("sapwood tune: {failure}");
    }
    Ok(end.exit_code())
}

/// One rank's part; rank 0 prints and writes.
fn take_part(arguments: &TuneArguments, job: &Job) -> Result<ExitCode, Failure> {
    let output = (job.rank == 0)
        .then(|| Output::open(arguments.json.as_deref()))
        .transpose()?;
    let cores = cores();
    binding::bind(job.local_rank, job.size);
    let started = Instant::now();
    let mut job = job.clone();
    job.tuning = None;
    let mut builder = Communicator::builder();
    if let Some(timeout) = arguments.timeout {
        builder = builder.timeout(timeout);
    }
    let communicator = builder.join(&job).map_err(broken)?;
    let shares_memory = communicator.has_load_store();
    let sizes = match arguments.check {
        true => arguments.checked_sizes(shares_memory),
        false => arguments.tuned_sizes(shares_memory),
    };
    let rows = arguments.collectives.len() as u32 * sizes.len() as u32;
    let steps = rows * probe::rounds(arguments.iterations());
    let bar = progress_bar(steps.into(), communicator.rank() == 0);
    let mut probes = Probes::new(&communicator, arguments.iterations(), bar).map_err(broken)?;
    if arguments.check {
        return check::run(&mut probes, arguments, &sizes, output);
    }
    let measured = settling::measure(&mut probes, &arguments.collectives, &sizes).map_err(broken)?;
    let fitted = (communicator.rank() == 0).then(|| fit::fit(communicator.setting(), cores, &measured));
    let settled =
        settling::settle(&mut probes, fitted, &arguments.collectives, &sizes, &measured).map_err(broken)?;
    probes.done();
    let Some(mut output) = output else {
        return Ok(ExitCode::SUCCESS);
    };
    std::fs::write(&arguments.output, settled.tuning.to_text())
        .map_err(|error| Failure::Check(format!("-o {}: {error}", arguments.output.display())))?;
    let report = report::Report {
        fabric: communicator.fabric_name(),
        setting: communicator.setting(),
        measured: &measured,
        settled: &settled,
        seconds: started.elapsed().as_secs_f64(),
        file: &arguments.output,
    };
    output.text(&report.text());
    output.json(&report.json())?;
    Ok(ExitCode::SUCCESS)
}

/// Cores that the ranks of this host may use together.
fn cores() -> u32 {
    let allowed = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(allowed).unwrap_or(u32::MAX).clamp(1, 65536)
}

fn broken(error: impl Display) -> Failure {
    Failure::Check(error.to_string())
}
