//! The demo's command line: read, bounded, refused with a sentence. Starts nothing.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use sapwood::fabric::select::has_device;
use sapwood::memory::check_allocation;
use sapwood::plan::lowered::Rank;

use super::members::MOST_WORKERS;
use crate::output::Failure;
use crate::run::Fabric;

const WORKERS: RangeInclusive<usize> = 1..=MOST_WORKERS;
const EPOCHS: RangeInclusive<usize> = 1..=10_000;
const BATCH: RangeInclusive<usize> = 1..=1 << 20;
/// The deadline of every wait, unless `SAPWOOD_TIMEOUT` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Who is slowed where nobody says: a worker in the middle of the tree, by several times what a step takes.
const SLOW: Slow = Slow {
    rank: 1,
    delay: Duration::from_millis(20),
};
const EXAMPLE: &str = "\
Examples:
  sapwood demo
  sapwood demo --slow 3:50 --report slow
  sapwood demo --workers 8 --backups 2 --slow 0:30 --slow 5:10
  sapwood demo --workers 8 --backups 0 --plan ring --json - | jq .step_ms
  sapwood demo --hosts 2

Without --slow, and with backups, rank 1 is slowed by 20 ms in each step; --slow 1:0 slows nobody.

As many workers as there are backups may die (kill -9 one): the others go on, and the table says who died when. \
The run that waits for all, to compare with, needs all of them, and is left out then.

Exits with 0 when the replicas agree, the result matches one process and nothing was copied; with 1 when one of \
these does not hold, or more workers died; with 2 on bad arguments.";

/// Trains a classifier of handwritten digits on worker processes of this host that exchange their gradients, checks
/// the result against one process, and writes a report with pictures.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct DemoArguments {
    /// Worker processes, backups included, 1 to 64
    #[arg(long, value_name = "M", default_value = "4", allow_negative_numbers = true, value_parser = |text: &str| whole(text, WORKERS))]
    pub workers: usize,
    /// Workers that a step does not wait for, 0 to all but one, over verbs fewer than half [default: 1; 0 over tcp, and with
    /// fewer than 3 workers]
    #[arg(long, value_name = "B", allow_negative_numbers = true, value_parser = |text: &str| whole(text, 0..=63))]
    pub backups: Option<usize>,
    /// Slows a worker: the given rank sleeps so many milliseconds in every step; may be given for several
    #[arg(long, value_name = "RANK:MS", value_parser = Slow::parse)]
    pub slow: Vec<Slow>,
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
    /// Hosts that the workers say they are on, in equal parts: fabric auto has shared memory inside of each only
    #[arg(long, value_name = "H", default_value = "1", allow_negative_numbers = true, value_parser = |text: &str| whole(text, WORKERS))]
    pub hosts: usize,
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

/// What bytes between workers go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Shm,
    Verbs,
    Tcp,
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
    /// How many workers a step does not wait for.
    pub fn backups(&self) -> usize {
        let default = usize::from(self.carrier() != Carrier::Tcp && self.workers > 2);
        self.backups.unwrap_or(default)
    }

    /// Who is slowed, and by how much.
    pub fn slow(&self) -> Vec<Slow> {
        if self.slow.is_empty() && self.backups() > 0 {
            vec![SLOW]
        } else {
            let slowed = self.slow.iter().filter(|slow| !slow.delay.is_zero());
            slowed.copied().collect()
        }
    }

    /// A sentence, where backup workers are left out because of the fabric.
    pub fn without_backups(&self) -> Option<String> {
        let left_out = self.backups.is_none() && self.carrier() == Carrier::Tcp;
        left_out.then(|| {
            "over tcp every step waits for every worker: backup workers are for shm and verbs, which reach memory whatever its \
             owner does"
                .to_owned()
        })
    }

    /// What is between workers that do not share a host, if there are any, else what is between all.
    fn carrier(&self) -> Carrier {
        // It does not change, and looking takes a while.
        static DEVICE: OnceLock<bool> = OnceLock::new();
        match self.fabric {
            Fabric::Shm => Carrier::Shm,
            Fabric::Auto if self.hosts == 1 => Carrier::Shm,
            Fabric::Verbs => Carrier::Verbs,
            Fabric::Auto if *DEVICE.get_or_init(has_device) => Carrier::Verbs,
            Fabric::Auto | Fabric::Tcp => Carrier::Tcp,
        }
    }

    /// Which of the hosts a worker says it is on.
    pub fn host(&self, rank: Rank) -> usize {
        rank as usize * self.hosts / self.workers
    }

    /// Refuses what each argument alone does not show.
    pub fn check(&self) -> Result<(), Failure> {
        let refuse = |sentence: String| Err(Failure::Arguments(sentence));
        let workers = self.workers;
        let backups = self.backups();
        if backups >= workers {
            return refuse(format!(
                "--backups {backups}: a step waits for at least one of the {workers} workers; at most {} can be backups",
                workers - 1
            ));
        }
        if self.hosts > 1 && self.fabric == Fabric::Shm {
            return refuse(format!(
                "--hosts {}: shared memory is for workers of one host; leave --fabric to auto",
                self.hosts
            ));
        }
        if self.hosts > workers {
            return refuse(format!(
                "--hosts {}: there are {workers} workers; at most so many hosts can be said to have one",
                self.hosts
            ));
        }
        match self.carrier() {
            Carrier::Tcp if backups > 0 => {
                return refuse(format!(
                    "--backups {backups}: the workers would be connected by tcp, which reaches no worker's memory while that \
                     is slow or stopped; --fabric shm and verbs have backup workers, --backups 0 waits for every worker"
                ));
            }
            Carrier::Verbs if backups > 0 && 2 * backups >= workers => {
                return refuse(format!(
                    "--backups {backups}: over verbs a worker's memory goes with its process, so a step needs more than half of \
                     the {workers} workers; at most {} can be backups",
                    (workers - 1) / 2
                ));
            }
            _ => {}
        }
        self.check_slow()?;
        if self.batch < workers {
            return refuse(format!(
                "--batch {}: fewer images than the {workers} workers; at least {workers} are needed",
                self.batch
            ));
        }
        super::workers::check_plan(&self.plan, workers as u32)
            .map_err(|sentence| Failure::Arguments(format!("--plan {}: {sentence}", self.plan)))?;
        check_allocation(memory_of(workers, backups))
            .map_err(|error| Failure::Arguments(format!("--workers {workers}: {error}")))
    }

    fn check_slow(&self) -> Result<(), Failure> {
        let refuse = |slow: &Slow, what: String| {
            let sentence = format!("--slow {}:{}: {what}", slow.rank, slow.delay.as_millis());
            Err(Failure::Arguments(sentence))
        };
        let limit = timeout()? / 2;
        for (index, slow) in self.slow.iter().enumerate() {
            if slow.rank as usize >= self.workers {
                let what = format!(
                    "there is no rank {} among {} workers; 0 to {} can be slowed",
                    slow.rank,
                    self.workers,
                    self.workers - 1
                );
                return refuse(slow, what);
            }
            if slow.delay > limit {
                let what = format!(
                    "at most {} ms, half of the deadline of a wait (SAPWOOD_TIMEOUT)",
                    limit.as_millis()
                );
                return refuse(slow, what);
            }
            if self.slow[..index].iter().any(|earlier| earlier.rank == slow.rank) {
                return refuse(
                    slow,
                    format!("rank {} is slowed twice; once is needed", slow.rank),
                );
            }
        }
        Ok(())
    }
}

/// Bytes that a demo of so many workers needs, a fifth more than was measured: this process, the workers, and what
/// every two of them share (its page tables, in each worker, most of all). With backups gradients and results of several
/// steps are kept.
fn memory_of(workers: usize, backups: usize) -> usize {
    let kept = if backups > 0 { 4 << 20 } else { 0 };
    (8 << 20) + workers * ((5 << 20) + kept) + workers * workers * (128 << 10)
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
            (arguments.workers, arguments.backups(), arguments.epochs),
            (4, 1, 25)
        );
        assert_eq!(arguments.slow(), [SLOW]);
        arguments.check().unwrap();
    }

    #[test]
    fn where_there_are_no_backups_nobody_is_slow_unasked() {
        for line in [
            "--fabric tcp",
            "--workers 2",
            "--backups 0",
            "--fabric tcp --hosts 2",
        ] {
            let arguments = parse(line);
            assert_eq!(arguments.backups(), 0, "{line}");
            assert!(arguments.slow().is_empty(), "{line}");
            assert_eq!(
                arguments.without_backups().is_some(),
                line.contains("fabric"),
                "{line}"
            );
            arguments.check().unwrap();
        }
        assert!(parse("--slow 1:0").slow().is_empty());
        let verbs = parse("--fabric verbs --hosts 2");
        assert_eq!((verbs.backups(), verbs.without_backups()), (1, None));
        assert_eq!([0, 1, 2, 3].map(|rank| verbs.host(rank)), [0, 0, 1, 1]);
        verbs.check().unwrap();
    }

    #[test]
    fn a_slow_worker() {
        let slow = parse("--slow 3:50 --slow 0:7").slow();
        let slow: Vec<_> = slow
            .iter()
            .map(|slow| (slow.rank, slow.delay.as_millis()))
            .collect();
        assert_eq!(slow, [(3, 50), (0, 7)]);
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
            ("--slow 1:5 --slow 1:6", "rank 1 is slowed twice"),
            (
                "--backups 4",
                "at least one of the 4 workers; at most 3 can be backups",
            ),
            ("--workers 1 --backups 1", "at most 0 can be backups"),
            ("--backups 64", "a whole number from 0 to 63 is needed"),
            (
                "--backups 1 --fabric tcp",
                "--fabric shm and verbs have backup workers, --backups 0 waits for every worker",
            ),
            ("--backups 2 --fabric verbs", "at most 1 can be backups"),
            ("--hosts 2 --fabric shm", "leave --fabric to auto"),
            ("--hosts 5 --backups 0", "there are 4 workers"),
            ("--hosts 0", "a whole number from 1 to 64 is needed"),
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
