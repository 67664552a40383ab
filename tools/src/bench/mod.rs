//! `sapwood bench`: times collectives as nccl-tests does, and checks every element. Arguments and order of events
//! here; times are taken in `measure`, results judged in `check`, figures printed in `report`.

mod backup;
pub(crate) mod case;
mod check;
mod measure;
mod report;
mod sweep;
mod tuning;

use std::fmt::Display;
use std::process::{Command, ExitCode};
use std::time::Duration;

use half::{bf16, f16};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sapwood::bootstrap::Job;
use sapwood::communicator::Communicator;
use sapwood::memory::{DataType, check_allocation};
use sapwood::plan::{Collective, builders};

use crate::arguments::{parse_size, parse_timeout};
use crate::binding;
use crate::output::{Failure, Output};
use crate::run::{Fabric, Launcher, Running};
use case::{Kind, Redop};
use measure::{Bench, Method, clock_cost};
use report::{Config, Document, header};
use sweep::{Sizes, Step, parse_operations, parse_types};

const EXAMPLE: &str = "\
Example:
  sapwood bench all-reduce --ranks 4 -b 8 -e 64M -f 4 -n 100 -w 20 -d float -o sum --json out.json

Under a launcher (sapwood run) leave --ranks out: the benchmark runs on the launcher's ranks.
Exits with 0 if every checked element was right, 1 if one was wrong or the job broke off, 2 on bad arguments.";

/// Times collectives between ranks and checks every element of their results.
#[derive(Debug, clap::Args)]
pub struct BenchArguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, clap::Subcommand)]
enum Benchmark {
    /// Combines what all ranks contribute; every rank gets the result. The columns are those of nccl-tests
    #[command(after_help = EXAMPLE)]
    AllReduce(SweepArguments),
    /// Combines what all ranks contribute; the root (-r) gets the result
    #[command(after_help = EXAMPLE)]
    Reduce(SweepArguments),
    /// Brings what the root (-r) has to every rank
    #[command(after_help = EXAMPLE)]
    Broadcast(SweepArguments),
    /// Combines what all ranks contribute; every rank gets its part of the result. Sizes are of the whole
    #[command(after_help = EXAMPLE)]
    ReduceScatter(SweepArguments),
    /// Brings the parts of all ranks to every rank. Sizes are of the whole
    #[command(after_help = EXAMPLE)]
    AllGather(SweepArguments),
    /// Brings the parts of all ranks to the root (-r). Sizes are of the whole
    #[command(after_help = EXAMPLE)]
    Gather(SweepArguments),
    /// Brings to every rank its part of what the root (-r) has. Sizes are of the whole
    #[command(after_help = EXAMPLE)]
    Scatter(SweepArguments),
    /// Brings from every rank to every rank what the one has for the other. Sizes are of what a rank has for all
    #[command(after_help = EXAMPLE)]
    AllToAll(SweepArguments),
    /// Waits until every rank has come. One row; sizes, types and operations are ignored
    #[command(after_help = EXAMPLE)]
    Barrier(SweepArguments),
    /// Sends to the next rank while it receives from the one before
    #[command(after_help = EXAMPLE)]
    SendReceive(SweepArguments),
    /// Averages what the first ranks bring, without waiting for the last (--backups): how long from the arrival that was
    /// still needed to the seal and to the result, beside the all-reduce. Ranks on one host
    #[command(after_help = backup::EXAMPLE)]
    BackupBarrier(backup::BackupArguments),
}

impl Benchmark {
    /// What is timed, and with which arguments; those of the one that is no collective apart.
    fn parts(&self) -> Result<(Kind, &SweepArguments), &backup::BackupArguments> {
        let of = |arguments, collective| (Kind::Collective(collective), arguments);
        Ok(match self {
            Self::AllReduce(it) => of(it, Collective::AllReduce),
            Self::Reduce(it) => of(it, Collective::Reduce { root: it.root }),
            Self::Broadcast(it) => of(it, Collective::Broadcast { root: it.root }),
            Self::ReduceScatter(it) => of(it, Collective::ReduceScatter),
            Self::AllGather(it) => of(it, Collective::AllGather),
            Self::Gather(it) => of(it, Collective::Gather { root: it.root }),
            Self::Scatter(it) => of(it, Collective::Scatter { root: it.root }),
            Self::AllToAll(it) => of(it, Collective::AllToAll),
            Self::Barrier(it) => of(it, Collective::Barrier),
            Self::SendReceive(it) => (Kind::SendReceive, it),
            Self::BackupBarrier(it) => return Err(it),
        })
    }
}

#[derive(Debug, clap::Args)]
struct SweepArguments {
    /// Ranks to start on this host, each a process [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    ranks: Option<u32>,
    /// Smallest size in bytes (8, 4K, 64M, 1G)
    #[arg(short = 'b', long = "minbytes", value_name = "SIZE", default_value = "8", value_parser = parse_size)]
    smallest: usize,
    /// Largest size in bytes
    #[arg(short = 'e', long = "maxbytes", value_name = "SIZE", default_value = "32M", value_parser = parse_size)]
    largest: usize,
    /// Multiplies one size to get the next
    #[arg(
        short = 'f',
        long = "stepfactor",
        value_name = "FACTOR",
        default_value_t = 4,
        conflicts_with = "step"
    )]
    factor: usize,
    /// Adds to one size to get the next, instead of -f
    #[arg(short = 'i', long = "stepbytes", value_name = "SIZE", value_parser = parse_size)]
    step: Option<usize>,
    /// Timed calls of each size
    #[arg(short = 'n', long = "iters", value_name = "CALLS", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    iterations: u32,
    /// Calls of each size before those that are timed
    #[arg(
        short = 'w',
        long = "warmup_iters",
        value_name = "CALLS",
        default_value_t = 20
    )]
    warmup: u32,
    /// Element type: float, double, half, bfloat16, int8, uint8, int32, uint32, int64, uint64, or all
    #[arg(short = 'd', long = "datatype", value_name = "TYPE", default_value = "float")]
    types: String,
    /// Operation: sum, prod, min, max, avg, mulsum (each rank's contribution times a factor of its own, then summed;
    /// floating-point types), or all. Ignored where nothing is combined
    #[arg(short = 'o', long = "op", value_name = "OPERATION", default_value = "sum")]
    operations: String,
    /// Root of the collective, where it has one
    #[arg(short = 'r', long = "root", value_name = "RANK", default_value_t = 0)]
    root: u32,
    /// How often each row is checked on random data, beside the timed calls; 0 checks nothing
    #[arg(short = 'c', long = "check", value_name = "TIMES", default_value_t = 1)]
    checks: u32,
    /// Forces a plan ('sapwood plan show --help' names them), instead of the one chosen for the size
    #[arg(long, value_name = "NAME")]
    plan: Option<String>,
    /// What carries the bytes: auto, shm, verbs or tcp
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = Fabric::parse)]
    fabric: Fabric,
    /// Adds what each plan is predicted to take by the file that SAPWOOD_TUNING names ('sapwood tune' writes one)
    #[arg(long)]
    predict: bool,
    /// Also writes the figures as JSON to a file, or to standard output with '-'
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// How long a call may wait for the other ranks [default: 60, or SAPWOOD_TIMEOUT]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = parse_timeout)]
    timeout: Option<Duration>,
}

/// The arguments after everything that can be refused has been refused.
struct Request {
    /// What a launcher has given this process to do; `None` where the ranks are still to be started.
    job: Option<Job>,
    ranks: u32,
    sizes: Sizes,
    types: Vec<DataType>,
    redops: Vec<Redop>,
    method: Method,
}

/// Runs a benchmark: starts its ranks, or is one of them under a launcher.
pub fn run(arguments: &BenchArguments) -> Result<ExitCode, Failure> {
    let (kind, arguments) = match arguments.benchmark.parts() {
        Ok(parts) => parts,
        Err(arguments) => return backup::run(arguments),
    };
    let job = Job::from_environment().map_err(|error| Failure::Arguments(error.to_string()))?;
    let request = arguments.check(kind, job)?;
    match &request.job {
        None => start_ranks(arguments.json.as_deref(), arguments.fabric, request.ranks),
        Some(job) => take_part(kind, arguments, &request, job),
    }
}

impl SweepArguments {
    fn check(&self, kind: Kind, job: Option<Job>) -> Result<Request, Failure> {
        let refuse = |sentence: String| Err(Failure::Arguments(sentence));
        let ranks = match (&job, self.ranks) {
            (Some(job), Some(ranks)) if job.size != ranks => {
                return refuse(format!(
                    "--ranks {ranks}: the launcher has started {} ranks; leave --ranks out under a launcher",
                    job.size
                ));
            }
            (Some(job), _) => job.size,
            (None, ranks) => ranks.unwrap_or(2),
        };
        let step = self.step.map_or(Step::Multiply(self.factor), Step::Add);
        let sizes = Sizes::new(self.smallest, self.largest, step).map_err(Failure::Arguments)?;
        // A barrier has one row.
        let sizes = match kind.moves() {
            true => sizes,
            false => Sizes {
                largest: sizes.smallest,
                ..sizes
            },
        };
        let mut types = parse_types(&self.types)
            .map_err(|expected| Failure::Arguments(format!("-d {}: {expected}", self.types)))?;
        let mut redops = parse_operations(&self.operations)
            .map_err(|expected| Failure::Arguments(format!("-o {}: {expected}", self.operations)))?;
        if !kind.combines() {
            redops = vec![Redop::None];
        }
        if !kind.moves() {
            types.truncate(1);
        }
        if redops == [Redop::PreMultiplied]
            && let Some(integer) = types.iter().find(|element| !element.is_float())
        {
            return refuse(format!(
                "-o mulsum: {integer} has no pre-multiplied sum; give -d float, double, half or bfloat16"
            ));
        }
        if let Some(large) = types.iter().find(|element| element.size() > self.smallest) {
            return refuse(format!(
                "-b {}: an element of type {large} has {} bytes; give at least -b {}",
                self.smallest,
                large.size(),
                large.size()
            ));
        }
        if self.root >= ranks {
            return refuse(format!(
                "-r {}: with {ranks} ranks the root is 0 to {}",
                self.root,
                ranks - 1
            ));
        }
        if let (Some(name), Some(collective)) = (&self.plan, kind.collective()) {
            builders::find(name)
                .and_then(|found| found.build(collective, ranks))
                .map_err(|error| Failure::Arguments(format!("--plan: {error}")))?;
        }
        // Each rank holds an input and a result of the largest size, and all of them share this host's memory.
        let bytes = self
            .largest
            .checked_mul(2)
            .and_then(|bytes| bytes.checked_mul(ranks as usize));
        let bytes = bytes
            .filter(|bytes| isize::try_from(*bytes).is_ok())
            .ok_or_else(|| {
                Failure::Arguments(format!(
                    "-e {}: 2 x {ranks} windows of this size do not fit an address space",
                    self.largest
                ))
            })?;
        check_allocation(bytes).map_err(|error| {
            Failure::Arguments(format!(
                "-e {}: for an input and a result on {ranks} ranks {error}",
                self.largest
            ))
        })?;
        tuning::check(self.predict, job.as_ref())?;
        let method = Method {
            iterations: self.iterations as usize,
            warmup: self.warmup as usize,
            checks: self.checks as usize,
            predict: self.predict,
        };
        Ok(Request {
            job,
            ranks,
            sizes,
            types,
            redops,
            method,
        })
    }
}

/// Starts `ranks` processes of this same command, which then find themselves under a launcher.
fn start_ranks(json: Option<&str>, fabric: Fabric, ranks: u32) -> Result<ExitCode, Failure> {
    // A file that cannot be written is refused before a process is started; rank 0 opens it again.
    Output::open(json)?;
    let program =
        std::env::current_exe().map_err(|error| broken(format!("this program's own file: {error}")))?;
    let launcher = Launcher::new(ranks).map_err(broken)?.fabric(fabric);
    let running = launcher.start(|_| {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1));
        command
    });
    let end = running.and_then(Running::wait).map_err(broken)?;
    if let Some(failure) = end.failure() {
        eprintln!("sapwood bench: {failure}");
    }
    Ok(end.exit_code())
}

/// One rank's part; rank 0 prints.
fn take_part(
    kind: Kind,
    arguments: &SweepArguments,
    request: &Request,
    job: &Job,
) -> Result<ExitCode, Failure> {
    let mut output = (job.rank == 0)
        .then(|| Output::open(arguments.json.as_deref()))
        .transpose()?;
    binding::bind(job.local_rank, request.ranks);
    let mut builder = Communicator::builder();
    if let Some(timeout) = arguments.timeout {
        builder = builder.timeout(timeout);
    }
    if let Some(plan) = &arguments.plan {
        builder = builder.plan(plan);
    }
    let communicator = builder.join(job).map_err(broken)?;
    if kind == Kind::SendReceive {
        let (rank, ranks) = (communicator.rank(), communicator.size());
        let peers = [(rank + 1) % ranks, (rank + ranks - 1) % ranks];
        communicator.connect(&peers).map_err(broken)?;
    }
    let config = Config {
        collective: kind.name(),
        ranks: request.ranks,
        fabric: communicator.fabric_name().to_owned(),
        iterations: request.method.iterations,
        warmup: request.method.warmup,
        predict: arguments.predict,
        clock: clock_cost(),
    };
    let rows = request.types.len() * request.redops.len() * request.sizes.iter().count();
    let bar = progress_bar(rows as u64, job.rank == 0);
    if let Some(output) = &output {
        bar.suspend(|| output.text(&header(&config)));
    }

    let mut results = Vec::new();
    let mut finished = |row: report::Row| {
        if let Some(output) = &output {
            bar.inc(1);
            bar.suspend(|| output.text(&row.line(arguments.predict)));
        }
        results.push(row);
    };
    let mut bench = Bench::new(&communicator, request.method).map_err(broken)?;
    for element in &request.types {
        let (sizes, redops) = (request.sizes, &request.redops);
        match element {
            DataType::F32 => bench.sweep::<f32>(kind, sizes, redops, &mut finished),
            DataType::F64 => bench.sweep::<f64>(kind, sizes, redops, &mut finished),
            DataType::F16 => bench.sweep::<f16>(kind, sizes, redops, &mut finished),
            DataType::Bf16 => bench.sweep::<bf16>(kind, sizes, redops, &mut finished),
            DataType::I32 => bench.sweep::<i32>(kind, sizes, redops, &mut finished),
            DataType::I64 => bench.sweep::<i64>(kind, sizes, redops, &mut finished),
            DataType::I8 => bench.sweep::<i8>(kind, sizes, redops, &mut finished),
            DataType::U8 => bench.sweep::<u8>(kind, sizes, redops, &mut finished),
            DataType::U32 => bench.sweep::<u32>(kind, sizes, redops, &mut finished),
            DataType::U64 => bench.sweep::<u64>(kind, sizes, redops, &mut finished),
        }
        .map_err(broken)?;
    }
    bar.finish_and_clear();

    let wrong_here = bench.wrong_here();
    let document = Document::new(config, results);
    let wrong = document.wrong();
    if let Some(output) = &mut output {
        output.text(&document.footer(request.method.checks > 0));
        output.json(&document)?;
    }
    match (wrong_here, wrong) {
        (0, 0) => Ok(ExitCode::SUCCESS),
        (0, wrong) => Err(Failure::Check(format!(
            "{wrong} elements are wrong on other ranks"
        ))),
        (here, _) => Err(Failure::Check(format!(
            "{here} elements are wrong on rank {}",
            job.rank
        ))),
    }
}

fn broken(error: impl Display) -> Failure {
    Failure::Check(error.to_string())
}

/// On standard error, and only where that is a terminal.
pub(crate) fn progress_bar(rows: u64, shown: bool) -> ProgressBar {
    let target = if shown {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("  {bar:30} {pos}/{len} sizes  {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(rows), target).with_style(style);
    bar.tick();
    bar
}
