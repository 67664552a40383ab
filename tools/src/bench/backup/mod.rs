//! `sapwood bench backup-barrier`: from the N-th arrival to the seal and to the last rank's result, beside the all-reduce;
//! and a training loop in which one worker is stopped. Arguments and order of events here; times are taken in `measure`
//! and `stopping`.

mod measure;
mod report;
mod shared;
mod stopping;

use std::process::ExitCode;
use std::time::Duration;

use sapwood::backup::protocol::{Reach, Shape, Way};
use sapwood::bootstrap::Job;
use sapwood::communicator::Communicator;

use super::measure::clock_cost;
use super::sweep::{Sizes, Step};
use super::{broken, progress_bar, start_ranks};
use crate::arguments::{parse_size, parse_timeout};
use crate::binding;
use crate::output::{Failure, Output};
use crate::run::Fabric;
use measure::{Bench, Method};
use report::{Config, Document, header};

pub(super) const EXAMPLE: &str = "\
Examples:
  sapwood bench backup-barrier --ranks 4 --backups 1 -b 8 -e 1M -n 1000
  sapwood bench backup-barrier --ranks 4 --backups 1 --stop 2 -n 2000
  sapwood bench backup-barrier --ranks 4 --backups 1 --fabric verbs

Under a launcher (sapwood run) leave --ranks out: the benchmark runs on the launcher's ranks, all on one host.
Exits with 0 if every checked element was right (with --stop: if all replicas were the same at the end), 1 if not or if
the job broke off, 2 on bad arguments.";

#[derive(Debug, clap::Args)]
pub(super) struct BackupArguments {
    /// Ranks to start on this host, each a process [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    ranks: Option<u32>,
    /// How many ranks a step need not wait for
    #[arg(long, value_name = "B", default_value_t = 1)]
    backups: u32,
    /// Smallest size in bytes (8, 4K, 64M, 1G)
    #[arg(short = 'b', long = "minbytes", value_name = "SIZE", default_value = "8", value_parser = parse_size)]
    smallest: usize,
    /// Largest size in bytes
    #[arg(short = 'e', long = "maxbytes", value_name = "SIZE", default_value = "32M", value_parser = parse_size)]
    largest: usize,
    /// Multiplies one size to get the next
    #[arg(short = 'f', long = "stepfactor", value_name = "FACTOR", default_value_t = 4)]
    factor: usize,
    /// Timed steps of each size; with --stop, of each round at least
    #[arg(short = 'n', long = "iters", value_name = "STEPS", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    iterations: u32,
    /// Steps of each size before those that are timed
    #[arg(
        short = 'w',
        long = "warmup_iters",
        value_name = "STEPS",
        default_value_t = 20
    )]
    warmup: u32,
    /// How often each row is checked on random data, beside the timed steps; 0 checks nothing
    #[arg(short = 'c', long = "check", value_name = "TIMES", default_value_t = 1)]
    checks: u32,
    /// How sums are made: flat (everybody for itself) or tree:K (along a tree with K children, 1 to 4), instead of by size
    #[arg(long, value_name = "NAME", value_parser = parse_way)]
    way: Option<Way>,
    /// Stops the last rank (SIGSTOP) at a random moment for so long, and times the others' steps of -b bytes beside those of
    /// the others alone
    #[arg(long, value_name = "SECONDS", value_parser = parse_stop)]
    stop: Option<Duration>,
    /// With --stop: how long each rank computes in a step, in microseconds
    #[arg(long, value_name = "US", default_value_t = 1000, requires = "stop",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    compute: u32,
    /// What carries the bytes: auto, shm or verbs
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = Fabric::parse)]
    fabric: Fabric,
    /// Also writes the figures as JSON to a file, or to standard output with '-'
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// How long a step may wait for the other ranks [default: 60, or SAPWOOD_TIMEOUT]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = parse_timeout)]
    timeout: Option<Duration>,
}

fn parse_way(word: &str) -> Result<Way, String> {
    match word.split_once(':') {
        None if word == "flat" => Ok(Way::Flat),
        Some(("tree", children)) => match children.parse() {
            Ok(children @ 1..=4) => Ok(Way::Tree { children }),
            _ => Err("a tree's nodes have 1 to 4 children, as in tree:2".into()),
        },
        _ => Err("flat or tree:K is needed, K from 1 to 4".into()),
    }
}

/// Seconds, `2` or `2s`.
fn parse_stop(word: &str) -> Result<Duration, String> {
    parse_timeout(word.strip_suffix('s').unwrap_or(word))
}

/// Starts the ranks, or is one of them under a launcher.
pub(super) fn run(arguments: &BackupArguments) -> Result<ExitCode, Failure> {
    let job = Job::from_environment().map_err(|error| Failure::Arguments(error.to_string()))?;
    let ranks = match (&job, arguments.ranks) {
        (Some(job), Some(ranks)) if job.size != ranks => {
            return Err(Failure::Arguments(format!(
                "--ranks {ranks}: the launcher has started {} ranks; leave --ranks out under a launcher",
                job.size
            )));
        }
        (Some(job), _) => job.size,
        (None, ranks) => ranks.unwrap_or(2),
    };
    let sizes = arguments.check(ranks)?;
    match &job {
        None => start_ranks(arguments.json.as_deref(), arguments.fabric, ranks),
        Some(job) => arguments.take_part(sizes, job),
    }
}

impl BackupArguments {
    fn check(&self, ranks: u32) -> Result<Sizes, Failure> {
        let refuse = |sentence: String| Err(Failure::Arguments(sentence));
        let (reach, way) = match self.fabric {
            Fabric::Auto | Fabric::Shm => (Reach::LoadStore, self.way.unwrap_or(Way::Flat)),
            Fabric::Verbs => (Reach::Reads, self.way.unwrap_or(Way::Tree { children: 1 })),
            Fabric::Tcp => {
                return refuse(
                    "--fabric tcp: it reaches no rank's memory while that is slow or stopped, as the barrier must; give \
                     --fabric shm or verbs"
                        .into(),
                );
            }
        };
        if let Err(error) = Shape::new(ranks, self.backups, 2, reach, way) {
            return refuse(format!("--backups {}: {error}", self.backups));
        }
        if self.stop.is_some() && self.backups == 0 {
            return refuse(
                "--stop: with --backups 0 all wait for the one that is stopped; give --backups 1".into(),
            );
        }
        let least = size_of::<f32>();
        if self.smallest < least {
            return refuse(format!(
                "-b {}: an element has {least} bytes; give at least -b {least}",
                self.smallest
            ));
        }
        let sizes = Sizes::new(self.smallest, self.largest, Step::Multiply(self.factor));
        let sizes = sizes.map_err(Failure::Arguments)?;
        // Each rank holds up to four gradients and a result, an input and an output of the largest size.
        let bytes = self
            .largest
            .checked_mul(7)
            .and_then(|bytes| bytes.checked_mul(ranks as usize));
        let bytes = bytes.filter(|bytes| isize::try_from(*bytes).is_ok());
        let fits = bytes
            .ok_or_else(|| "they do not fit an address space".to_owned())
            .and_then(|bytes| sapwood::memory::check_allocation(bytes).map_err(|error| error.to_string()));
        fits.map_err(|error| {
            Failure::Arguments(format!(
                "-e {}: for gradients and results on {ranks} ranks {error}",
                self.largest
            ))
        })?;
        Ok(sizes)
    }

    /// One rank's part; rank 0 prints.
    fn take_part(&self, sizes: Sizes, job: &Job) -> Result<ExitCode, Failure> {
        let output = (job.rank == 0)
            .then(|| Output::open(self.json.as_deref()))
            .transpose()?;
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        binding::bind(job.local_rank, job.size);
        let mut builder = Communicator::builder();
        if let Some(timeout) = self.timeout {
            builder = builder.timeout(timeout);
        }
        let communicator = builder.join(job).map_err(broken)?;
        let ended = match self.stop {
            Some(stop) => self.stop_one(stop, &communicator, output),
            None => self.sweep(sizes, cores, &communicator, output),
        };
        // Others may still look at this rank's memory.
        communicator.finalize().map_err(broken)?;
        ended
    }

    fn sweep(
        &self,
        sizes: Sizes,
        cores: usize,
        communicator: &Communicator,
        mut output: Option<Output>,
    ) -> Result<ExitCode, Failure> {
        let method = Method {
            backups: self.backups,
            way: self.way,
            iterations: self.iterations as usize,
            warmup: self.warmup as usize,
            checks: self.checks as usize,
            cores,
        };
        let mut bench = Bench::new(communicator, method).map_err(broken)?;
        let config = Config {
            collective: "backup-barrier",
            ranks: communicator.size(),
            backups: self.backups,
            fabric: communicator.fabric_name().to_owned(),
            iterations: method.iterations,
            warmup: method.warmup,
            clock: clock_cost(),
            round_trip: bench.round_trip,
        };
        let counts = sizes
            .iter()
            .map(|size| size / size_of::<f32>())
            .collect::<Vec<_>>();
        let bar = progress_bar(counts.len() as u64, output.is_some());
        if let Some(output) = &output {
            bar.suspend(|| output.text(&header(&config)));
        }
        let mut rows = Vec::new();
        for count in counts {
            let row = bench.row(count).map_err(broken)?;
            if let Some(output) = &output {
                bar.inc(1);
                bar.suspend(|| output.text(&row.line()));
            }
            rows.push(row);
        }
        bar.finish_and_clear();
        let document = Document::new(config, rows);
        if let Some(output) = &mut output {
            output.text(&document.footer(self.checks > 0));
            output.json(&document)?;
        }
        match (bench.wrong_here, document.wrong()) {
            (0, 0) => Ok(ExitCode::SUCCESS),
            (0, wrong) => Err(Failure::Check(format!(
                "{wrong} elements are wrong on other ranks"
            ))),
            (here, _) => Err(Failure::Check(format!(
                "{here} elements are wrong on rank {}",
                communicator.rank()
            ))),
        }
    }

    fn stop_one(
        &self,
        stop: Duration,
        communicator: &Communicator,
        mut output: Option<Output>,
    ) -> Result<ExitCode, Failure> {
        let compute = Duration::from_micros(self.compute.into());
        // Stopped in the first quarter of that time at the latest, the rank still has some steps when it goes on.
        let enough = (stop.mul_f64(1.5).as_secs_f64() / compute.as_secs_f64()).ceil();
        let plan = stopping::Plan {
            backups: self.backups,
            count: self.smallest / size_of::<f32>(),
            stop,
            compute,
            steps: (self.iterations as usize).max(enough as usize),
            warmup: self.warmup as usize,
        };
        let stopped = stopping::run(communicator, plan).map_err(broken)?;
        if let Some(output) = &mut output {
            output.text(&stopped.text());
            output.json(&stopped)?;
        }
        match stopped.holds() {
            true => Ok(ExitCode::SUCCESS),
            false => Err(Failure::Check("replicas differ at the end".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_named_as_in_the_table() {
        assert_eq!(parse_way("flat"), Ok(Way::Flat));
        assert_eq!(parse_way("tree:3"), Ok(Way::Tree { children: 3 }));
        for bad in ["tree", "tree:0", "tree:5", "chain"] {
            assert!(parse_way(bad).unwrap_err().contains("1 to 4"), "{bad}");
        }
        assert_eq!(parse_stop("2s"), Ok(Duration::from_secs(2)));
    }
}
