//! Backup workers whose dead come back: real processes that are stopped, resumed and killed at random moments, where a
//! killed one is started again and takes its place while the others go on; also when several are dead at a time, when one
//! dies again and when it is rank 0. Every result is the mean of its members' gradients, all steps end, and at the end every
//! worker has the weights that the parent computes from the recorded members.
//! 20 rounds, 4 over queue pairs, 2 over verbs; `SAPWOOD_RETURN_ROUNDS=100` for a longer campaign.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::{Pid, Signal, kill_process};
use sapwood::backup::protocol::Way;
use sapwood::backup::{Barrier, How};
use sapwood::bootstrap::Job;
use sapwood::communicator::Communicator;
use sapwood::fabric::shm::Shm;
use sapwood::fabric::verbs::inventory;
use serde::{Deserialize, Serialize};

mod killing;
mod replaying;

use killing::{below, secret};
use replaying::{Record, digest, learn, value};

const MODE: &str = "SAPWOOD_TEST_RETURNS_MODE";
/// Where set: the step in which the last rank waits for its input, and the others in the next; and whether it asks meanwhile.
const HOLD: &str = "SAPWOOD_TEST_RETURNS_HOLD";
/// What the workers' memory lies in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Reach {
    Mapped,
    /// Of shared memory.
    QueuePairs,
    /// Of devices.
    Verbs,
}

/// M, b, elements, and children of a node of the tree (0: none).
type Mode = (u32, u32, usize, u16, Reach);

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

const VERBS: [Mode; 2] = [(4, 1, 1_000, 2, Reach::Verbs), (5, 2, 20_000, 4, Reach::Verbs)];

impl Reach {
    /// Emulated devices are slow.
    fn is_real(self) -> bool {
        self == Self::Verbs
    }

    fn steps(self) -> u64 {
        if self.is_real() { 40 } else { 150 }
    }

    /// After this long something hangs.
    fn patience(self) -> Duration {
        Duration::from_secs(if self.is_real() { 400 } else { 100 })
    }
}

fn main() -> ExitCode {
    if let Ok(mode) = std::env::var(MODE) {
        return match work(&mode) {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                println!("failed: {problem}");
                ExitCode::FAILURE
            }
        };
    }
    let asked: Option<u32> = std::env::var("SAPWOOD_RETURN_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok());
    let rounds = asked.unwrap_or(20);
    // The same again elsewhere takes fewer, unless somebody has the time.
    let fewer = asked.unwrap_or(4);
    let present = inventory().is_ok_and(|inventory| !inventory.devices.is_empty());
    if !present {
        eprintln!("SKIPPED: a test needs a verbs device; `tools/rig/run backup` brings two.");
    }
    let trials = vec![
        Trial::test("who_died_comes_back", move || campaign(&MAPPED, rounds)),
        Trial::test("over_queue_pairs_too", move || campaign(&QUEUE_PAIRS, fewer)),
        Trial::test("over_verbs_too", move || campaign(&VERBS, asked.unwrap_or(2)))
            .with_ignored_flag(!present),
        Trial::test("who_comes_back_after_the_last_step_is_let_in", || {
            after_the_last_step(QUEUE_PAIRS[0])?;
            after_the_last_step(QUEUE_PAIRS[3])?;
            Ok(())
        }),
        Trial::test("who_comes_back_after_the_last_step_is_let_in_over_verbs", || {
            after_the_last_step(VERBS[0])?;
            after_the_last_step(VERBS[1])?;
            Ok(())
        })
        .with_ignored_flag(!present),
        Trial::test("who_is_behind_those_who_came_back_copies_their_state", || {
            behind_the_returned(QUEUE_PAIRS[1], true, 1)?;
            behind_the_returned(QUEUE_PAIRS[1], false, 1)?;
            behind_the_returned(QUEUE_PAIRS[1], false, 2)?;
            Ok(())
        }),
        Trial::test(
            "who_is_behind_those_who_came_back_copies_their_state_over_verbs",
            || {
                behind_the_returned((3, 1, 1_000, 1, Reach::Verbs), true, 1)?;
                Ok(())
            },
        )
        .with_ignored_flag(!present),
        Trial::test("who_asks_for_other_settings_is_refused", || {
            strange_settings(Reach::Mapped, 0)?;
            strange_settings(Reach::QueuePairs, 1)?;
            Ok(())
        }),
    ];
    let mut arguments = Arguments::from_args();
    // One after the other: each wants the machine.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What weights begin with: no zeroes, so that whoever began without them is found out.
fn beginning(index: usize) -> f32 {
    (index % 17) as f32 + 1.0
}

/// One worker, in any of its lives.
fn work(mode: &str) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (size, backups, count, children, reach): Mode = serde_json::from_str(mode).map_err(|e| text(&e))?;
    let job = Job::from_environment().map_err(|e| text(&e))?.ok_or("no job")?;
    let mut communicator = Communicator::builder();
    if reach == Reach::QueuePairs {
        communicator = communicator.fabric(Arc::new(Shm::without_reach().map_err(|e| text(&e))?));
    }
    let communicator = communicator.join(&job).map_err(|e| text(&e))?;
    let rank = communicator.rank();
    let way = match children {
        0 => Way::Flat,
        children => Way::Tree { children },
    };
    let builder = Barrier::<f32>::builder(&communicator, count)
        .backups(backups)
        .state(count);
    let builder = builder
        .way(way)
        .suspicion(Duration::from_millis(if reach.is_real() { 500 } else { 30 }));
    let mut barrier = builder.build().map_err(|e| text(&e))?;
    if !communicator.has_returned() {
        barrier.update(|_, weights| {
            let weights = weights.iter_mut().enumerate();
            weights.for_each(|(index, weight)| *weight = beginning(index));
        });
    } else if communicator.barrier().is_ok() || communicator.all_gather_bytes("all", &[]).is_ok() {
        return Err("who has come back was let into a collective".into());
    }
    let hold = std::env::var(HOLD).ok();
    let hold = hold.map(|hold| serde_json::from_str::<(u64, bool)>(&hold).expect("two values"));
    println!("working {} from step {}", job.attempt, barrier.step());
    while barrier.step() <= reach.steps() {
        let step = barrier.step();
        // If it lies where somebody still adds up, that shows.
        barrier.gradient().fill(f32::NAN);
        std::thread::sleep(Duration::from_micros(below(300)));
        if let Some((at, asks)) = hold
            && step == at + u64::from(rank + 1 < size)
        {
            println!("held {}", job.attempt);
            wait_for_input(&mut barrier, asks);
        }
        let wanted = !barrier.sealed();
        if wanted {
            let gradient = barrier.gradient().iter_mut().enumerate();
            gradient.for_each(|(index, x)| *x = value(rank, step, index));
        }
        let ended = barrier.finish().map_err(|e| text(&e))?;
        if let How::CaughtUp { from } = ended.how {
            if wanted && ended.step < from {
                return Err(format!(
                    "step {from}: a whole gradient was dropped, and the step begins again"
                ));
            }
            continue;
        }
        let members = barrier.members().to_vec();
        for (index, x) in barrier.result().iter().enumerate() {
            let sum = members.iter().map(|rank| value(*rank, step, index)).sum::<f32>();
            if *x != sum / members.len() as f32 {
                return Err(format!("step {step}: [{index}] is {x}, members {members:?}"));
            }
        }
        let mask = members.iter().fold(0u32, |mask, rank| mask | 1 << rank);
        println!("step {step} {mask}");
        barrier.update(|result, weights| learn(weights, result));
    }
    println!("weights {:x}", digest(barrier.state()));
    // Somebody may still come back: its peers stay until all are done, and look now and then what has become of the others.
    wait_for_input(&mut barrier, true);
    Ok(())
}

/// For a byte or the end. `asks`: whether the step is sealed, meanwhile.
fn wait_for_input(barrier: &mut Barrier<f32>, asks: bool) {
    let input = std::thread::spawn(|| std::io::stdin().read(&mut [0]));
    while !input.is_finished() {
        if asks {
            barrier.sealed();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A rank, in one life after the other.
struct Worker {
    child: Child,
    /// Closed to let it go.
    input: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<std::thread::JoinHandle<()>>,
    attempt: u32,
    stopped: bool,
    /// Killed, and when it is started again.
    dead: Option<Instant>,
}

/// What is the same for all ranks of a round.
struct Round {
    mode: Mode,
    secret: OwnedFd,
    place: String,
    /// See [`HOLD`].
    hold: Option<(u64, bool)>,
}

impl Round {
    fn new(mode: Mode) -> Self {
        Self {
            mode,
            secret: secret(),
            place: format!("@sapwood-returns-{:016x}", below(u64::MAX)),
            hold: None,
        }
    }

    fn command(&self, rank: u32, attempt: u32) -> std::process::Command {
        let mut command = killing::rank(rank, self.mode.0, &self.place, &self.secret);
        command
            .env(MODE, serde_json::to_string(&self.mode).expect("plain data"))
            .env(
                "SAPWOOD_TIMEOUT",
                if self.mode.4.is_real() { "200" } else { "60" },
            )
            .env(
                "SAPWOOD_FABRIC",
                if self.mode.4.is_real() { "verbs" } else { "auto" },
            )
            .env("SAPWOOD_RETURNS", "1")
            .env("SAPWOOD_ATTEMPT", attempt.to_string())
            .stdin(Stdio::piped());
        if let Some(hold) = self.hold {
            command.env(HOLD, serde_json::to_string(&hold).expect("plain data"));
        }
        command
    }

    fn start(&self, rank: u32, attempt: u32, lines: Arc<Mutex<Vec<String>>>) -> Worker {
        let mut child = self.command(rank, attempt).spawn().expect("a child");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let said = lines.clone();
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                said.lock().expect("nobody panics").push(line);
            }
        });
        Worker {
            input: child.stdin.take(),
            child,
            lines,
            reader: Some(reader),
            attempt,
            stopped: false,
            dead: None,
        }
    }
}

impl Worker {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a child's number");
        // It may have ended.
        let _ = kill_process(pid, signal);
    }

    fn said(&self, what: &str) -> bool {
        let lines = self.lines.lock().expect("nobody panics");
        lines.iter().any(|line| line.starts_with(what))
    }

    /// It has got its place, or got it back.
    fn is_back(&self) -> bool {
        self.said(&format!("working {} ", self.attempt))
    }

    /// It has arrived in a step in this life, as it has if it was a member: before, it may have less than it had when it died.
    fn is_well(&self, rank: usize) -> bool {
        let lines = self.lines.lock().expect("nobody panics");
        let working = format!("working {} ", self.attempt);
        let mut of_this_life = lines.iter().rev().take_while(|line| !line.starts_with(&working));
        let mask = |line: &String| {
            line.strip_prefix("step ")?
                .split_once(' ')?
                .1
                .trim()
                .parse::<u32>()
                .ok()
        };
        self.attempt == 0 || of_this_life.any(|line| mask(line).is_some_and(|mask| mask >> rank & 1 != 0))
    }

    /// Kills it; what it has said is read to the end.
    fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.stopped = false;
        self.dead = Some(Instant::now() + Duration::from_micros(below(30_000)));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug, Default)]
struct Seen {
    stops: u32,
    kills: u32,
    more_than_spare: u32,
    again: u32,
    rank_0: u32,
}

fn report(workers: &[Worker]) -> String {
    let last = |worker: &Worker| {
        let lines = worker.lines.lock().expect("nobody panics");
        lines[lines.len().saturating_sub(3)..].join("; ")
    };
    let lines = workers.iter().enumerate().map(|(rank, worker)| {
        let (attempt, stopped, dead) = (worker.attempt, worker.stopped, worker.dead.is_some());
        format!(
            "rank {rank}, attempt {attempt}, stopped {stopped}, dead {dead}: {}",
            last(worker)
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Stops, resumes, kills and starts again until all have the last weights.
fn disturb(round: &Round, workers: &mut [Worker], seen: &mut Seen) -> Result<(), String> {
    let patience = round.mode.4.patience();
    let until = Instant::now() + patience;
    let backups = round.mode.1 as usize;
    let mapped = round.mode.4 == Reach::Mapped;
    // Where words go with their owner they are there in its first life only.
    let spared = below(workers.len() as u64) as usize;
    while !workers
        .iter()
        .all(|worker| worker.dead.is_none() && worker.said("weights"))
    {
        if Instant::now() > until {
            return Err(format!("after {patience:?} it is not over:\n{}", report(workers)));
        }
        if let Some(failed) = workers.iter().position(|worker| worker.said("failed")) {
            return Err(format!("rank {failed} failed:\n{}", report(workers)));
        }
        std::thread::sleep(Duration::from_micros(below(8_000)));
        for (rank, worker) in workers.iter_mut().enumerate() {
            if worker.dead.is_some_and(|again| Instant::now() >= again) {
                let (attempt, lines) = (worker.attempt + 1, worker.lines.clone());
                *worker = round.start(rank as u32, attempt, lines);
            }
        }
        let over = workers.iter().any(|worker| worker.said("weights"));
        let rank = below(workers.len() as u64) as usize;
        let up = |worker: &Worker| worker.dead.is_none() && worker.is_back();
        // Where memory goes with its owner.
        let whole = |(rank, worker): &(usize, &Worker)| up(worker) && (mapped || worker.is_well(*rank));
        let spent = workers
            .iter()
            .enumerate()
            .filter(|one| one.1.stopped || !whole(one))
            .count();
        let established = workers.iter().filter(|worker| up(worker)).count();
        let worker = &mut workers[rank];
        if worker.stopped {
            if over || below(4) == 0 {
                worker.signal(Signal::CONT);
                worker.stopped = false;
            }
            continue;
        }
        if over || worker.dead.is_some() {
            continue;
        }
        // One that keeps the memory must always be there; and now and then more die than can be spared, where what they had
        // does not go with them.
        let most = if mapped && below(6) == 0 {
            workers.len() - 1
        } else {
            backups
        };
        let worker = &mut workers[rank];
        if spent >= most || (up(worker) && established < 2) {
            continue;
        }
        let may_die = mapped || rank != spared;
        if may_die && below(if mapped { 8 } else { 3 }) == 0 {
            seen.kills += 1;
            seen.again += u32::from(worker.attempt > 0);
            seen.rank_0 += u32::from(rank == 0);
            seen.more_than_spare += u32::from(spent >= backups);
            worker.kill();
        } else if up(worker) && spent < backups {
            seen.stops += 1;
            worker.signal(Signal::STOP);
            worker.stopped = true;
        }
    }
    Ok(())
}

fn run(mode: Mode, seen: &mut Seen) -> Result<(), String> {
    let round = Round::new(mode);
    let mut workers = (0..mode.0)
        .map(|rank| round.start(rank, 0, Arc::default()))
        .collect::<Vec<_>>();
    let until = Instant::now() + mode.4.patience();
    while !workers.iter().all(|worker| worker.said("working")) {
        if Instant::now() > until {
            return Err(format!("they do not begin:\n{}", report(&workers)));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    disturb(&round, &mut workers, seen)?;
    for worker in &mut workers {
        worker.signal(Signal::CONT);
        drop(worker.input.take());
    }
    for (rank, worker) in workers.iter_mut().enumerate() {
        let status = worker.child.wait().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("rank {rank} ended with {status}"));
        }
    }
    judge(mode, &workers)
}

fn judge(mode: Mode, workers: &[Worker]) -> Result<(), String> {
    let (size, backups, count, _, reach) = mode;
    let mut record = Record::new(reach.steps());
    for (rank, worker) in workers.iter().enumerate() {
        let lines = worker.lines.lock().expect("nobody panics");
        lines.iter().try_for_each(|line| record.take_down(rank, line))?;
    }
    let weights = record.replay((size, size - backups), (0..count).map(beginning).collect())?;
    let expected = format!("weights {:x}", digest(&weights));
    for (rank, worker) in workers.iter().enumerate() {
        let lines = worker.lines.lock().expect("nobody panics");
        let mut said = lines.iter().filter(|line| line.starts_with("weights"));
        if said.next_back() != Some(&expected) {
            return Err(format!(
                "rank {rank} should have {expected}:\n{}",
                lines.join("\n")
            ));
        }
    }
    Ok(())
}

fn campaign(modes: &[Mode], rounds: u32) -> Result<(), Failed> {
    let mut seen = Seen::default();
    for number in 0..rounds {
        let mode = modes[number as usize % modes.len()];
        run(mode, &mut seen).map_err(|problem| format!("round {number} {mode:?}: {problem}"))?;
    }
    let steps = modes[0].4.steps();
    println!("{rounds} rounds of {steps} steps: {seen:?}");
    Ok(())
}

/// A rank that comes back with other settings changes nothing, and is told which; as it should be it is let in.
fn strange_settings(reach: Reach, children: u16) -> Result<(), String> {
    let round = Round::new((4, 1, 30, children, reach));
    let mut workers = (0..4)
        .map(|rank| round.start(rank, 0, Arc::default()))
        .collect::<Vec<_>>();
    while !workers.iter().all(|worker| worker.said("working")) {
        std::thread::sleep(Duration::from_millis(1));
    }
    workers[2].kill();
    let other: Mode = (4, 1, 31, children, reach);
    let mut command = round.command(2, 1);
    command.env(MODE, serde_json::to_string(&other).expect("plain data"));
    let refused = command.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&refused.stdout);
    if refused.status.success() || !said.contains("30 elements") || !said.contains("31 elements") {
        return Err(format!("it said: {said}"));
    }
    workers[2] = round.start(2, 2, workers[2].lines.clone());
    let until = Instant::now() + round.mode.4.patience();
    while !workers.iter().all(|worker| worker.said("weights")) {
        if Instant::now() > until {
            return Err(report(&workers));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    workers.iter_mut().for_each(|worker| drop(worker.input.take()));
    for worker in &mut workers {
        let _ = worker.child.wait();
    }
    judge(round.mode, &workers)
}

/// Three workers, of which two make step T, one of the two after the other dies, and the first of them is back with the state
/// after T alone: the third, which has not done T, gets it from there. `first`: which of the two that are left looks first.
fn behind_the_returned(mode: Mode, asks: bool, first: usize) -> Result<(), String> {
    let round = Round {
        hold: Some((1, asks)),
        ..Round::new(mode)
    };
    let mut workers = (0..3)
        .map(|rank| round.start(rank, 0, Arc::default()))
        .collect::<Vec<_>>();
    let until = Instant::now() + mode.4.patience();
    let wait = |workers: &[Worker], what: &str| {
        while !workers.iter().all(|worker| worker.said(what)) {
            if Instant::now() > until {
                return Err(format!("not all said '{what}':\n{}", report(workers)));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    let release = |worker: &mut Worker| worker.input.as_mut().expect("kept").write_all(b"!");
    wait(&workers, "held 0")?;
    workers[1].kill();
    workers[1] = round.start(1, 1, workers[1].lines.clone());
    wait(&workers[1..2], "held 1")?;
    let pause = || std::thread::sleep(Duration::from_millis(200));
    if first == 1 {
        // It arrives in step T + 1.
        release(&mut workers[1]).map_err(|error| error.to_string())?;
        pause();
    }
    workers[0].kill();
    // For as long as the third only asks it is there for the others.
    pause();
    release(&mut workers[2]).map_err(|error| error.to_string())?;
    if first == 2 {
        // Nobody tells it what to continue from.
        pause();
        release(&mut workers[1]).map_err(|error| error.to_string())?;
    }
    wait(&workers[1..], "weights")?;
    workers.iter_mut().for_each(|worker| drop(worker.input.take()));
    for (rank, worker) in workers.iter_mut().enumerate().skip(1) {
        let status = worker.child.wait().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("rank {rank} ended with {status}:\n{}", report(&workers)));
        }
    }
    judge(mode, &workers[1..])
}

/// Who comes back when all others have their last result, and the words are gone with whose they were, is told what the next
/// home continues from by workers that are in no step: they look whether the next one is sealed.
fn after_the_last_step(mode: Mode) -> Result<(), String> {
    let round = Round::new(mode);
    let mut workers = (0..mode.0)
        .map(|rank| round.start(rank, 0, Arc::default()))
        .collect::<Vec<_>>();
    let until = Instant::now() + mode.4.patience();
    let wait = |workers: &[Worker], there: &dyn Fn(&Worker) -> bool| {
        while !workers.iter().all(there) {
            if Instant::now() > until {
                return Err(report(workers));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    wait(&workers, &|worker| worker.said("weights"))?;
    let dead = 0..mode.1 as usize;
    workers[dead.clone()].iter_mut().for_each(Worker::kill);
    for rank in dead.clone() {
        workers[rank] = round.start(rank as u32, 1, workers[rank].lines.clone());
    }
    wait(&workers[dead], &Worker::is_back)?;
    workers.iter_mut().for_each(|worker| drop(worker.input.take()));
    for (rank, worker) in workers.iter_mut().enumerate() {
        let status = worker.child.wait().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("rank {rank} ended with {status}"));
        }
    }
    judge(mode, &workers)
}
