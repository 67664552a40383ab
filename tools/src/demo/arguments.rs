//! The demo's command line: read, bounded, refused with a sentence. Starts nothing.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use sapwood::memory::check_allocation;
use sapwood::plan::lowered::Rank;

use crate::output::Failure;
use crate::run::Fabric;

const WORKERS: RangeInclusive<usize> = 1..=64;
const EPOCHS: RangeInclusive<usize> = 1..=10_000;
const BATCH: RangeInclusive<usize> = 1..=1 << 20;
/// The deadline of every wait, unless `SAPWOOD_TIMEOUT` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);
const EXAMPLE: &str = "\
Examples:
  sapwood demo
  sapwood demo --slow 3:50 --report slow
  sapwood demo --workers 8 --plan ring --json - | jq .step_ms

Exits with 0 when the replicas agree, the result matches one process and nothing was copied; with 1 when one of
these does not hold; with 2 on bad arguments.";

/// Trains a classifier of handwritten digits on worker processes of this host that exchange their gradients, checks
/// the result against one process, and writes a report with pictures.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct DemoArguments {
    /// Worker processes, 1 to 64
    #[arg(long, value_name = "M", default_value = "4", allow_negative_numbers = true, value_parser = |text: &str| whole(text, WORKERS))]
    pub workers: usize,
    /// Workers that need not be waited for; only 0 is built
    #[arg(long, value_name = "B", default_value = "0", allow_negative_numbers = true, value_parser = |text: &str| whole(text, 0..=64))]
    pub backups: usize,
    /// Slows a worker: the given rank sleeps so many milliseconds in every step
    #[arg(long, value_name = "RANK:MS", value_parser = Slow::parse)]
    pub slow: Option<Slow>,
    /// Passes over the training images
    #[arg(long, value_name = "N", default_value = "25", allow_negative_numbers = true, value_parser = |text: &str| whole(text, EPOCHS))]
    pub epochs: usize,
    /// Images of a step, all workers together
    #[arg(long, value_name = "B", default_value = "128", allow_negative_numbers = true, value_parser = |text: &str| whole(text, BATCH))]
    pub batch: usize,
    /// Decides the first weights and the order of the images
    #[arg(long, value_name = "S", default_value_t = 1, allow_negative_numbers = true, value_parser = seed)]
    pub seed: u64,
    /// What carries the gradients: auto, shm, verbs or tcp
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = Fabric::parse)]
    pub fabric: Fabric,
    /// How the gradients are reduced
    #[arg(long, value_name = "NAME", default_value = super::workers::DEFAULT_PLAN)]
    pub plan: String,
    /// Where the report goes, as index.html
    #[arg(long, value_name = "DIR", default_value = "./report")]
    pub report: PathBuf,
    /// Writes the figures as JSON; '-' for standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<String>,
    /// Other images: CSV or gzipped CSV, per line 64 pixels from 0 to 16 and the digit
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
}

/// A worker that sleeps in every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// Which.
    pub rank: Rank,
    /// How long.
    pub delay: Duration,
}

impl Slow {
    fn parse(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once(':')
            .and_then(|(rank, delay)| Some((rank.parse().ok()?, delay.parse().ok()?)));
        let (rank, delay) = parsed.ok_or("RANK:MS is needed, a rank and whole milliseconds, as in 3:50")?;
        Ok(Self {
            rank,
            delay: Duration::from_millis(delay),
        })
    }
}

fn whole(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let needed = || {
        format!(
            "a whole number from {} to {} is needed",
            range.start(),
            range.end()
        )
    };
    text.parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(needed)
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("a whole number from 0 to {} is needed", u64::MAX))
}

impl DemoArguments {
    /// Refuses what each argument alone does not show.
    pub fn check(&self) -> Result<(), Failure> {
        let refuse = |sentence: String| Err(Failure::Arguments(sentence));
        let workers = self.workers;
        if self.backups != 0 {
            return refuse(format!(
                "--backups {}: the backup-worker barrier is not built yet; --backups 0 waits for every worker",
                self.backups
            ));
        }
        if let Some(Slow { rank, delay }) = self.slow {
            if rank as usize >= workers {
                return refuse(format!(
                    "--slow {rank}:{}: there is no rank {rank} among {workers} workers; 0 to {} can be slowed",
                    delay.as_millis(),
                    workers - 1
                ));
            }
            let limit = timeout()? / 2;
            if delay > limit {
                return refuse(format!(
                    "--slow {rank}:{}: at most {} ms, half of the deadline of a wait (SAPWOOD_TIMEOUT)",
                    delay.as_millis(),
                    limit.as_millis()
                ));
            }
        }
        if self.batch < workers {
            return refuse(format!(
                "--batch {}: fewer images than the {workers} workers; at least {workers} are needed",
                self.batch
            ));
        }
        super::workers::check_plan(&self.plan, workers as u32)
            .map_err(|sentence| Failure::Arguments(format!("--plan {}: {sentence}", self.plan)))?;
        check_allocation(memory_of(workers))
            .map_err(|error| Failure::Arguments(format!("--workers {workers}: {error}")))
    }
}

/// Bytes that a demo of so many workers needs, a fifth more than was measured: this process, the workers, and what
/// every two of them share (its page tables, in each worker, most of all).
fn memory_of(workers: usize) -> usize {
    (8 << 20) + workers * (5 << 20) + workers * workers * (128 << 10)
}

/// How long a wait may take: `SAPWOOD_TIMEOUT` in seconds.
pub fn timeout() -> Result<Duration, Failure> {
    let Some(text) = std::env::var_os("SAPWOOD_TIMEOUT") else {
        return Ok(TIMEOUT);
    };
    let seconds = text
        .to_str()
        .and_then(|text| text.parse().ok())
        .filter(|&seconds: &f64| (0.1..=1e6).contains(&seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        Failure::Arguments(format!(
            "SAPWOOD_TIMEOUT={}: seconds from 0.1 to 1000000 are needed",
            text.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        demo: DemoArguments,
    }

    fn parse(line: &str) -> DemoArguments {
        Only::try_parse_from(std::iter::once("demo").chain(line.split_whitespace()))
            .unwrap()
            .demo
    }

    fn refused(line: &str) -> String {
        match Only::try_parse_from(std::iter::once("demo").chain(line.split_whitespace())) {
            Ok(only) => only.demo.check().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_left_out_has_a_default_that_passes() {
        let arguments = parse("");
        assert_eq!(
            (arguments.workers, arguments.backups, arguments.epochs),
            (4, 0, 25)
        );
        arguments.check().unwrap();
    }

    #[test]
    fn a_slow_worker() {
        let slow = parse("--slow 3:50").slow.unwrap();
        assert_eq!((slow.rank, slow.delay), (3, Duration::from_millis(50)));
        parse("--slow 3:0").check().unwrap();
    }

    #[test]
    fn bad_values_get_sentences_that_say_what_would_be_right() {
        for (line, sentence) in [
            ("--workers 0", "a whole number from 1 to 64 is needed"),
            ("--workers 65", "a whole number from 1 to 64 is needed"),
            (
                "--workers 99999999999999999999",
                "a whole number from 1 to 64 is needed",
            ),
            ("--epochs -1", "a whole number from 1 to 10000 is needed"),
            ("--epochs 0", "a whole number from 1 to 10000 is needed"),
            (
                "--seed -1",
                "a whole number from 0 to 18446744073709551615 is needed",
            ),
            ("--slow 3", "as in 3:50"),
            ("--slow x:50", "as in 3:50"),
            ("--slow 3:-1", "as in 3:50"),
            (
                "--slow 4:50",
                "there is no rank 4 among 4 workers; 0 to 3 can be slowed",
            ),
            ("--slow 0:40000", "at most 30000 ms"),
            ("--backups 1", "--backups 0 waits for every worker"),
            (
                "--fabric pigeon",
                "no such fabric; auto, shm, verbs or tcp is needed",
            ),
            ("--batch 3", "at least 4 are needed"),
            ("--plan oak", "--plan oak: "),
        ] {
            let said = refused(line);
            assert!(said.contains(sentence), "{line}: {said}");
        }
    }
}
