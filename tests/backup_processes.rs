//! Backup workers as real processes that are stopped, resumed and killed at random moments, in the middle of copies, too:
//! no step that N workers can do fails or hangs, every result is the mean of its members' gradients, and the weights of
//! all that live are the same bits, which the parent computes once more from the recorded members. Where more are killed
//! than can be spared, the error names them.
//! 20 rounds, 8 over queue pairs; `SAPWOOD_BACKUP_ROUNDS=1000` for the long campaign.

use std::io::{BufRead, BufReader};
use std::process::{Child, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::{Pid, Signal, kill_process};
use sapwood::backup::protocol::Way;
use sapwood::backup::{Barrier, How};
use sapwood::bootstrap::Job;
use sapwood::communicator::Communicator;
use sapwood::fabric::mixed::Mixed;
use sapwood::fabric::shm::Shm;
use sapwood::fabric::verbs::inventory;

mod killing;
mod replaying;

use killing::{below, secret};
use replaying::{Record, digest, learn, value};

const MODE: &str = "SAPWOOD_TEST_BACKUP_MODE";
/// With an explained error.
const FAILED: i32 = 10;

/// M, b, elements, children of a node of the tree (0: none), and what the workers reach each other by.
type Mode = (u32, u32, usize, u16, Reach);

#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
enum Reach {
    Mapped,
    /// Shared memory, by one-sided operations only.
    QueuePairs,
    /// The same for every pair, beside shared memory inside of two hosts.
    Hosts,
    Verbs,
    /// Verbs for every pair, beside shared memory inside of two hosts, each worker with the next device.
    VerbsHosts,
}

impl Reach {
    /// How many steps a worker does. (An operation over an emulated device takes a thousand times as long.)
    fn steps(self) -> u64 {
        match self.is_real() {
            false => 150,
            true => 30,
        }
    }

    /// Whether there must be a device.
    fn is_real(self) -> bool {
        matches!(self, Self::Verbs | Self::VerbsHosts)
    }

    /// After this long something hangs: much longer than any machine that does other things besides needs for a round.
    fn patience(self) -> Duration {
        Duration::from_secs(match self.is_real() {
            false => 60,
            true => 300,
        })
    }

    /// What a worker waits at most, in seconds: for the `missing`, or for all that can come.
    fn timeout(self, missing: bool) -> u64 {
        match (self.is_real(), missing) {
            (true, false) => 200,
            (_, false) => 50,
            (_, true) => 20,
        }
    }
}

const MAPPED: [Mode; 6] = [
    (4, 1, 3, 0, Reach::Mapped),
    (4, 1, 30_000, 1, Reach::Mapped),
    (5, 2, 200, 2, Reach::Mapped),
    (3, 1, 200_000, 1, Reach::Mapped),
    (5, 2, 20_000, 0, Reach::Mapped),
    (6, 3, 50, 4, Reach::Mapped),
];

const QUEUE_PAIRS: [Mode; 4] = [
    (4, 1, 3, 1, Reach::QueuePairs),
    (3, 1, 100_000, 1, Reach::QueuePairs),
    (5, 2, 200, 4, Reach::QueuePairs),
    (6, 2, 3_000, 2, Reach::QueuePairs),
];

/// Two hosts have half of the workers each.
const HOSTS: [Mode; 3] = [
    (4, 1, 3, 1, Reach::Hosts),
    (4, 1, 60_000, 2, Reach::Hosts),
    (6, 2, 3_000, 4, Reach::Hosts),
];

const VERBS: [Mode; 2] = [(4, 1, 1_000, 2, Reach::Verbs), (5, 2, 40_000, 4, Reach::Verbs)];

const VERBS_HOSTS: [Mode; 2] = [
    (4, 1, 1_000, 2, Reach::VerbsHosts),
    (4, 1, 30_000, 4, Reach::VerbsHosts),
];

fn main() -> ExitCode {
    if let Ok(mode) = std::env::var(MODE) {
        return match work(&mode) {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                println!("{problem}");
                ExitCode::from(if problem.starts_with("wrong") {
                    1
                } else {
                    FAILED as u8
                })
            }
        };
    }
    let asked: Option<u32> = std::env::var("SAPWOOD_BACKUP_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok());
    // The same again elsewhere takes fewer, unless somebody has the time.
    let (rounds, fewer) = (asked.unwrap_or(20), asked.unwrap_or(8));
    let named = rounds.div_ceil(5);
    let present = inventory().is_ok_and(|inventory| !inventory.devices.is_empty());
    if !present {
        eprintln!("SKIPPED: four tests need a verbs device; `tools/rig/run backup` brings two.");
    }
    let trials = vec![
        Trial::test("stopped_and_killed_workers_hold_up_nobody", move || {
            campaign(&MAPPED, rounds)
        }),
        Trial::test("who_is_missing_is_named", move || too_many(&MAPPED, named)),
        Trial::test("the_same_over_queue_pairs", move || campaign(&QUEUE_PAIRS, fewer)),
        Trial::test("who_is_missing_is_named_over_queue_pairs", move || {
            too_many(&QUEUE_PAIRS, named)
        }),
        Trial::test("the_same_on_two_hosts", move || campaign(&HOSTS, fewer)),
        Trial::test("who_is_missing_is_named_on_two_hosts", move || {
            too_many(&HOSTS, named)
        }),
        Trial::test("the_same_over_verbs", move || campaign(&VERBS, fewer)).with_ignored_flag(!present),
        Trial::test("who_is_missing_is_named_over_verbs", move || {
            too_many(&VERBS, named)
        })
        .with_ignored_flag(!present),
        Trial::test("the_same_over_verbs_on_two_hosts", move || {
            campaign(&VERBS_HOSTS, fewer)
        })
        .with_ignored_flag(!present),
        Trial::test("who_is_missing_is_named_over_verbs_on_two_hosts", move || {
            too_many(&VERBS_HOSTS, named)
        })
        .with_ignored_flag(!present),
    ];
    let mut arguments = Arguments::from_args();
    // One after the other: each wants the machine.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The host that a worker is on, of two.
fn host(rank: u32, workers: u32) -> u32 {
    rank * 2 / workers
}

/// One worker. It says who the members of each step were that it has the result of, and at the end what its weights are.
fn work(mode: &str) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (workers, backups, count, children, reach): Mode =
        serde_json::from_str(mode).map_err(|e| text(&e))?;
    let job = Job::from_environment().map_err(|e| text(&e))?.ok_or("no job")?;
    let mut builder = Communicator::builder();
    let pollable = || Shm::options().without_reach().pollable().open();
    if reach == Reach::QueuePairs {
        builder = builder.fabric(Arc::new(Shm::without_reach().map_err(|e| text(&e))?));
    } else if reach == Reach::Hosts {
        let mates = (0..workers).filter(|mate| host(*mate, workers) == host(job.rank, workers));
        let (near, far) = (
            pollable().map_err(|e| text(&e))?,
            pollable().map_err(|e| text(&e))?,
        );
        builder = builder.fabric(Arc::new(Mixed::new(Arc::new(near), Arc::new(far), mates)));
    }
    let communicator = builder.join(&job).map_err(|e| text(&e))?;
    if matches!(reach, Reach::Hosts | Reach::VerbsHosts) && communicator.fabric_name() != "mixed" {
        return Err(format!(
            "wrong: the workers are connected by {} alone",
            communicator.fabric_name()
        ));
    }
    let rank = communicator.rank();
    let builder = Barrier::<f32>::builder(&communicator, count)
        .backups(backups)
        .state(count);
    let way = match children {
        0 => Way::Flat,
        children => Way::Tree { children },
    };
    let suspicion = Duration::from_millis(if reach.is_real() { 500 } else { 30 });
    let builder = builder.way(way).suspicion(suspicion);
    let mut barrier = builder.build().map_err(|e| text(&e))?;
    println!("working");
    let (mut late, mut jumps) = (0, 0);
    while barrier.step() <= reach.steps() {
        let step = barrier.step();
        std::thread::sleep(Duration::from_micros(below(300)));
        if !barrier.sealed() {
            let gradient = barrier.gradient().iter_mut().enumerate();
            gradient.for_each(|(index, x)| *x = value(rank, step, index));
        }
        let ended = barrier
            .finish()
            .map_err(|e| format!("{e}\nculprits {:?}", e.culprits()))?;
        if let How::CaughtUp { .. } = ended.how {
            jumps += 1;
            continue;
        }
        late += u32::from(ended.how == How::Late);
        let members = barrier.members().to_vec();
        for (index, x) in barrier.result().iter().enumerate() {
            let sum = members.iter().map(|rank| value(*rank, step, index)).sum::<f32>();
            if *x != sum / members.len() as f32 {
                return Err(format!(
                    "wrong: step {step}: [{index}] is {x}, members {members:?}"
                ));
            }
        }
        let mask = members.iter().fold(0u32, |mask, rank| mask | 1 << rank);
        // Before anybody can catch up with it: all others may jump over this step, and this one die.
        println!("step {step} {mask}");
        barrier.update(|result, weights| learn(weights, result));
    }
    println!("late {late}");
    println!("jumps {jumps}");
    println!("weights {:x}", digest(barrier.state()));
    Ok(())
}

struct Worker {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    stopped: bool,
    dead: bool,
}

impl Worker {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a child's number");
        // It may have ended.
        let _ = kill_process(pid, signal);
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        // Nothing more, if it has ended.
        let _ = self.output.read_line(&mut line);
        line.trim().to_owned()
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(mode: Mode, missing: bool) -> Vec<Worker> {
    let secret = secret();
    let name = format!("@sapwood-backup-{:016x}", below(u64::MAX));
    let text = serde_json::to_string(&mode).expect("plain data");
    let mut workers = (0..mode.0)
        .map(|rank| {
            let command = &mut killing::rank(rank, mode.0, &name, &secret);
            let fabric = match mode.4 {
                Reach::Verbs => "verbs",
                Reach::VerbsHosts => "auto",
                _ => "shm",
            };
            if mode.4 == Reach::VerbsHosts {
                command.env("SAPWOOD_HOST", format!("host-{}", host(rank, mode.0)));
            }
            let mut child = command
                .env(MODE, &text)
                .env("SAPWOOD_FABRIC", fabric)
                .env("SAPWOOD_TIMEOUT", mode.4.timeout(missing).to_string())
                .spawn()
                .expect("a child");
            let output = BufReader::new(child.stdout.take().expect("piped"));
            Worker {
                child,
                output,
                stopped: false,
                dead: false,
            }
        })
        .collect::<Vec<_>>();
    for worker in &mut workers {
        assert_eq!(worker.line(), "working");
    }
    workers
}

/// What a round has come to.
#[derive(Debug, Default)]
struct Seen {
    stops: u32,
    kills: u32,
    late: u32,
    jumps: u32,
}

/// Stops, resumes and kills as many as can be spared until all others have ended.
fn disturb(workers: &mut [Worker], mode: Mode, seen: &mut Seen) -> Result<(), String> {
    let (backups, patience) = (mode.1, mode.4.patience());
    let until = Instant::now() + patience;
    while !workers.iter_mut().all(|worker| worker.dead || worker.has_ended()) {
        if Instant::now() > until {
            let running =
                (0..workers.len()).filter(|rank| !workers[*rank].dead && !workers[*rank].has_ended());
            return Err(format!(
                "after {patience:?} these still run: {:?}",
                running.collect::<Vec<_>>()
            ));
        }
        std::thread::sleep(Duration::from_micros(below(8_000)));
        let spent = workers
            .iter()
            .filter(|worker| worker.stopped || worker.dead)
            .count() as u32;
        let rank = below(workers.len() as u64) as usize;
        let over = workers
            .iter_mut()
            .any(|worker| !worker.dead && worker.has_ended());
        let worker = &mut workers[rank];
        if worker.stopped {
            if over || below(4) == 0 {
                worker.signal(Signal::CONT);
                worker.stopped = false;
            }
        } else if spent < backups && !over && !worker.dead && !worker.has_ended() {
            if below(12) == 0 {
                worker.signal(Signal::KILL);
                worker.dead = true;
                seen.kills += 1;
            } else {
                worker.signal(Signal::STOP);
                worker.stopped = true;
                seen.stops += 1;
            }
        }
    }
    Ok(())
}

fn round(mode: Mode, seen: &mut Seen) -> Result<(), String> {
    let mut workers = start(mode, false);
    disturb(&mut workers, mode, seen)?;
    let (size, backups, count, _, reach) = mode;
    let mut record = Record::new(reach.steps());
    let (mut weights, mut failed) = (Vec::new(), Vec::new());
    for (rank, worker) in workers.iter_mut().enumerate() {
        let lines = std::iter::from_fn(|| Some(worker.line()).filter(|line| !line.is_empty()));
        let lines = lines.collect::<Vec<_>>();
        let last = lines[lines.len().saturating_sub(3)..].join("; ");
        lines.iter().try_for_each(|line| record.take_down(rank, line))?;
        if worker.dead {
            failed.push(format!("rank {rank} was killed, and had said: {last}"));
            continue;
        }
        let said = |what: &str| {
            let mut lines = lines.iter();
            lines.find_map(|line| line.strip_prefix(what)).map(str::trim)
        };
        let status = worker.child.wait().map_err(|error| error.to_string())?;
        let (true, Some(digest)) = (status.success(), said("weights")) else {
            failed.push(format!("rank {rank} ended with {status}, and said: {last}"));
            continue;
        };
        let number = |what| said(what).and_then(|n| n.parse::<u32>().ok()).unwrap_or_default();
        seen.late += number("late");
        seen.jumps += number("jumps");
        weights.push((rank, digest.to_owned()));
    }
    if failed.iter().any(|one| one.contains("ended with")) {
        return Err(failed.join("\n"));
    }
    let expected = record.replay((size, size - backups), vec![0f32; count])?;
    let expected = format!("{:x}", digest(&expected));
    match weights.iter().find(|(_, digest)| *digest != expected) {
        Some((rank, digest)) => Err(format!(
            "rank {rank}'s weights are {digest}, and should be {expected}"
        )),
        None if weights.len() as u32 >= size - backups => Ok(()),
        None => Err(format!("only {} are left", weights.len())),
    }
}

fn campaign(modes: &[Mode], rounds: u32) -> Result<(), Failed> {
    let mut seen = Seen::default();
    for number in 0..rounds {
        let mode = modes[number as usize % modes.len()];
        round(mode, &mut seen).map_err(|problem| format!("round {number} {mode:?}: {problem}"))?;
    }
    println!("{rounds} rounds of {} steps: {seen:?}", modes[0].4.steps());
    Ok(())
}

/// Kills one more than can be spared.
fn too_many(modes: &[Mode], rounds: u32) -> Result<(), Failed> {
    for number in 0..rounds {
        let mode = modes[number as usize % modes.len()];
        named(mode).map_err(|problem| format!("round {number} {mode:?}: {problem}"))?;
    }
    Ok(())
}

fn named(mode: Mode) -> Result<(), String> {
    let mut workers = start(mode, true);
    std::thread::sleep(Duration::from_micros(below(40_000)));
    let first = below(u64::from(mode.0)) as u32;
    let victims = (0..=mode.1).map(|k| (first + k) % mode.0).collect::<Vec<_>>();
    for victim in &victims {
        workers[*victim as usize].signal(Signal::KILL);
        workers[*victim as usize].dead = true;
    }
    let until = Instant::now() + mode.4.patience();
    for (rank, worker) in workers.iter_mut().enumerate().filter(|(_, worker)| !worker.dead) {
        while !worker.has_ended() {
            if Instant::now() > until {
                return Err(format!("rank {rank} still runs"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let lines = std::iter::from_fn(|| Some(worker.line()).filter(|line| !line.is_empty()));
        let text = lines.collect::<Vec<_>>().join("\n");
        let status = worker.child.wait().map_err(|error| error.to_string())?;
        let culprits = text.split_once("culprits ").map(|(_, culprits)| culprits.trim());
        let culprits: Vec<u32> = culprits
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let explained =
            status.code() == Some(FAILED) && victims.iter().any(|victim| culprits.contains(victim));
        // It had done the last step before.
        if !explained && !status.success() {
            return Err(format!(
                "rank {rank} ended with {status}; {victims:?} were killed, and it said: {text}"
            ));
        }
    }
    Ok(())
}
