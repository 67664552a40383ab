//! Real processes, of which any number is killed at random moments, also while the others come together again: nothing
//! hangs, nobody who lives is left out, errors name who is dead, also where nobody waits for an operation, no sum is
//! wrong, and everything is given back. How long it took is printed, and judged by no test.
//! 20 rounds; `SAPWOOD_SHRINK_ROUNDS=300` for the long campaign.

use std::io::{BufRead, BufReader};
use std::process::{Child, ExitCode};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use sapwood::bootstrap::Job;
use sapwood::communicator::{Communicator, CommunicatorError, Window};
use sapwood::engine::reduce::Operation;
use sapwood::fabric::shm::Shm;

mod killing;

use killing::{below, secret};

const MODE: &str = "SAPWOOD_TEST_SHRINK_MODE";
/// Set where ranks with an odd number ask for failures, and do nothing else.
const WATCH: &str = "SAPWOOD_TEST_SHRINK_WATCH";
/// In so many rounds one is such.
const WATCHED: u32 = 4;
/// How many are left at last.
const SURVIVORS: &str = "SAPWOOD_TEST_SHRINK_SURVIVORS";
const RANKS: u32 = 8;
/// Operations of the last communicator.
const LAST: usize = 8;
/// After this long something hangs: much longer than any machine that does other things besides needs for a round.
const PATIENCE: Duration = Duration::from_secs(100);
/// How much more memory a rank may use after all that than before.
const GROWTH_KIB: u64 = 64 << 10;

fn main() -> ExitCode {
    if let Ok(mode) = std::env::var(MODE) {
        return match work(&mode) {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                println!("problem {problem}");
                ExitCode::FAILURE
            }
        };
    }
    let rounds: u32 = std::env::var("SAPWOOD_SHRINK_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(20);
    // Each in its share of the rounds.
    let shares = [
        ("survivors_come_together", "mapped", rounds * 2 / 5),
        ("survivors_come_together_over_messages", "messages", rounds / 4),
        ("survivors_come_together_over_tcp", "tcp", rounds / 4),
        (
            "survivors_come_together_over_two_hosts",
            "hosts",
            rounds.div_ceil(10),
        ),
    ];
    let trials = shares.map(|(name, mode, rounds)| Trial::test(name, move || campaign(mode, rounds)));
    let mut arguments = Arguments::from_args();
    // One after the other: each looks whether sockets were left behind.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

fn value(id: u32, step: usize, index: usize) -> f32 {
    ((index * 3 + id as usize * 17 + step * 5) % 64) as f32 * 4.0
}

/// One rank. It says on its standard output what it comes to.
fn work(mode: &str) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let survivors: u32 = std::env::var(SURVIVORS)
        .ok()
        .and_then(|n| n.parse().ok())
        .ok_or("how many?")?;
    let job = Job::from_environment().map_err(|e| text(&e))?.ok_or("no job")?;
    let id = job.rank;
    let before = (memory(), descriptors());
    let mut builder = Communicator::builder();
    if mode == "messages" {
        builder = builder.fabric(Arc::new(Shm::without_reach().map_err(|e| text(&e))?));
    }
    let mut communicator = builder.join(&job).map_err(|e| text(&e))?;
    println!("working");
    let mut generation = 0;
    loop {
        let (mut ids, mut window) = (Vec::new(), None);
        let watch = generation == 0 && id % 2 == 1 && std::env::var_os(WATCH).is_some();
        let failure = match generation_of(&communicator, (id, watch), survivors, &mut ids, &mut window) {
            Ok(None) => break,
            Ok(Some(wrong)) => return Err(wrong),
            Err(failure) => failure,
        };
        if let Some(&dead) = failure.culprit().and_then(|rank| ids.get(rank as usize)) {
            println!("named {dead}");
        } else if !ids.is_empty() {
            println!("unnamed {failure}");
        }
        let began = Instant::now();
        let next = communicator.shrink().map_err(|e| format!("shrink: {e}"))?;
        println!("shrunk {} {}", next.size(), began.elapsed().as_millis());
        if let Some(window) = &mut window {
            communicator
                .abort(&[&*window])
                .map_err(|e| format!("abort: {e}"))?;
            // It would panic if it were in custody.
            window.fill(0.0);
        }
        if communicator.async_error().is_none() {
            return Err("the old communicator does not say that it has failed".into());
        }
        generation += 1;
        if next.generation() != generation {
            return Err(format!(
                "generation {} instead of {generation}",
                next.generation()
            ));
        }
        communicator = next;
    }
    if communicator.async_error().is_some() {
        return Err(format!("{:?}", communicator.async_error()));
    }
    communicator.finalize().map_err(|e| format!("finalize: {e}"))?;
    // A hub's thread ends when all have left, some time after that.
    let until = Instant::now() + PATIENCE;
    loop {
        let after = (memory(), descriptors());
        // One descriptor is the process's for ever: what a forked child gets in the place of a connection.
        if after.0 <= before.0 + GROWTH_KIB && after.1 <= before.1 + 1 {
            break;
        }
        if Instant::now() >= until {
            return Err(format!(
                "memory and descriptors: {before:?} before, {after:?} after"
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    match std::fs::read_to_string("/proc/self/maps") {
        Ok(maps) => match maps.lines().find(|line| line.contains("/memfd:sapwood")) {
            Some(kept) => Err(format!("still mapped: {kept}")),
            None => Ok(()),
        },
        Err(error) => Err(format!("/proc/self/maps: {error}")),
    }
}

/// Works with one communicator until it fails, a sum is wrong, or it is the last one.
fn generation_of(
    communicator: &Communicator,
    (id, watch): (u32, bool),
    survivors: u32,
    ids: &mut Vec<u32>,
    place: &mut Option<Window<f32>>,
) -> Result<Option<String>, CommunicatorError> {
    let all = communicator.all_gather_bytes("who is left", &id.to_le_bytes())?;
    let number = |bytes: &Vec<u8>| u32::from_le_bytes(bytes[..].try_into().expect("four bytes"));
    *ids = all.iter().map(number).collect();
    if !ids.is_sorted() || ids[communicator.rank() as usize] != id {
        return Ok(Some(format!("rank {} of {ids:?} is {id}", communicator.rank())));
    }
    let window = place.insert(communicator.window::<f32>(10_000)?);
    if watch {
        loop {
            match communicator.async_error() {
                Some(failure) => return Err(failure),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
    for step in 0.. {
        // Small ones and large ones.
        let count = if step % 3 == 0 { 50 } else { 10_000 };
        let part = &mut window[..count];
        part.iter_mut()
            .enumerate()
            .for_each(|(i, x)| *x = value(id, step, i));
        communicator.all_reduce_range(window, 0..count, Operation::Sum)?;
        let right = |i: usize| ids.iter().map(|id| value(*id, step, i)).sum::<f32>();
        if let Some(at) = (0..count).find(|&i| window[i] != right(i)) {
            return Ok(Some(format!("wrong sum in step {step} at {at}")));
        }
        if communicator.size() == survivors && step >= LAST {
            break;
        }
    }
    Ok(None)
}

/// What this process has in memory, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn campaign(mode: &'static str, rounds: u32) -> Result<(), Failed> {
    let before = leftovers();
    let (mut together, mut longest) = (Vec::new(), 0);
    for round in 0..rounds {
        let watch = round % WATCHED == WATCHED - 1;
        let (took, shrink) =
            self::round(mode, watch).map_err(|problem| format!("round {round} ({mode}): {problem}"))?;
        together.push(took);
        longest = longest.max(shrink);
    }
    let after = leftovers();
    if before != after {
        return Err(format!("left behind: {after:?}, before: {before:?}").into());
    }
    together.sort();
    if let (Some(median), Some(worst)) = (together.get(together.len() / 2), together.last()) {
        println!(
            "{mode}: {rounds} rounds; from the last kill until the last survivor had its communicator: {median:.0?} in \
             the median, {worst:.0?} at most; a call took at most {longest} ms"
        );
    }
    Ok(())
}

/// What a rank has said, and whether it is the last.
type Line = (usize, Option<String>);

/// Answers how long after the last kill all survivors were together, and how long a call took at most, in ms.
fn round(mode: &str, watch: bool) -> Result<(Duration, u64), String> {
    // Between hosts rank 0 lives: its process carries what the others say.
    let first = u64::from(mode == "hosts");
    let kills = 1 + below(u64::from(RANKS) - 1);
    let mut alive: Vec<usize> = (first as usize..RANKS as usize).collect();
    let victims: Vec<usize> = (0..kills)
        .map(|_| alive.swap_remove(below(alive.len() as u64) as usize))
        .collect();
    let left = RANKS as usize - victims.len();
    let (secret, name) = (secret(), format!("{}{:016x}", prefix(), below(u64::MAX)));
    let mut place = name;
    if mode == "hosts" {
        // A port that was free a moment ago.
        let probe = std::net::TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
        place = probe.local_addr().map_err(|e| e.to_string())?.to_string();
    }
    let (sender, lines) = channel::<Line>();
    let mut children: Vec<Child> = (0..RANKS)
        .map(|rank| {
            let mut command = killing::rank(rank, RANKS, &place, &secret);
            match mode {
                "tcp" => command.env("SAPWOOD_FABRIC", "tcp"),
                "hosts" => command.env("SAPWOOD_HOST", ["left", "right"][rank as usize % 2]),
                _ => &mut command,
            };
            if watch {
                command.env(WATCH, "1");
            }
            let mut child = command
                .env(MODE, mode)
                .env(SURVIVORS, left.to_string())
                .env("SAPWOOD_TIMEOUT", "60")
                .spawn()
                .expect("a child");
            let (output, sender) = (child.stdout.take().expect("piped"), sender.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = sender.send((rank as usize, Some(line)));
                }
                let _ = sender.send((rank as usize, None));
            });
            child
        })
        .collect();
    let outcome = witness(&mut children, &victims, &lines, left);
    for child in &mut children {
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome
}

fn witness(
    children: &mut [Child],
    victims: &[usize],
    lines: &Receiver<Line>,
    left: usize,
) -> Result<(Duration, u64), String> {
    let until = Instant::now() + PATIENCE;
    let next = |what: &str| {
        let left = until.saturating_duration_since(Instant::now());
        lines
            .recv_timeout(left)
            .map_err(|_| format!("{what} has not happened within {PATIENCE:?}: it hangs"))
    };
    let mut working = 0;
    while working < children.len() {
        match next("the join")? {
            (_, Some(line)) if line == "working" => working += 1,
            (rank, line) => return Err(format!("rank {rank} in the join: {line:?}")),
        }
    }
    // At once, or while the others are at work, find out, or come together again.
    for victim in victims {
        std::thread::sleep(Duration::from_micros(below(2) * below(200_000)));
        children[*victim].kill().expect("it has not ended by itself");
    }
    let killed = Instant::now();
    let (mut together, mut longest, mut ended, mut last) = (0, 0, 0, Duration::ZERO);
    while ended < left {
        let (rank, line) = next("the end of all survivors")?;
        if victims.contains(&rank) {
            // Whatever it came to before it was killed; but it must not have failed.
            match line {
                Some(line) if line.starts_with("problem") => {
                    return Err(format!("rank {rank}, a victim: {line}"));
                }
                _ => continue,
            }
        }
        let Some(line) = line else {
            ended += 1;
            continue;
        };
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["named", dead] if victims.iter().any(|victim| victim.to_string() == dead) => {}
            ["shrunk", size, took] => {
                longest = longest.max(took.parse::<u64>().unwrap_or(0));
                if size == left.to_string() {
                    together += 1;
                    last = killed.elapsed();
                }
            }
            _ => {
                return Err(format!(
                    "rank {rank} of {left} survivors ({victims:?} were killed): {line}"
                ));
            }
        }
    }
    for (rank, child) in children.iter_mut().enumerate() {
        let status = child.wait().map_err(|e| e.to_string())?;
        if !victims.contains(&rank) && !status.success() {
            return Err(format!("rank {rank} ended with {status}"));
        }
    }
    match together == left {
        true => Ok((last, longest)),
        false => Err(format!("{together} of {left} survivors have come together")),
    }
}

/// How the sockets of this process's jobs are called, and nobody else's.
fn prefix() -> String {
    format!("@sapwood-shrink-{}-", std::process::id())
}

/// What could be left behind in the places where programs leave things.
fn leftovers() -> Vec<String> {
    let entries = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path().display().to_string());
    let mut found: Vec<String> = paths.filter(|path| path.contains("sapwood")).collect();
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let ours = sockets.lines().filter(|line| line.contains(&prefix()));
    found.extend(ours.map(str::to_owned));
    found
}
