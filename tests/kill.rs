//! Real processes, one of which is killed at a random moment: the others' errors name it, nothing hangs, no sum is
//! wrong, nothing is left behind. 20 rounds; `SAPWOOD_KILL_ROUNDS=300` for the long campaign.

use std::process::{Child, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use sapwood::communicator::Communicator;
use sapwood::engine::reduce::Operation;
use sapwood::exchange::Exchange;
use sapwood::fabric::shm::Shm;

mod killing;

use killing::{below, secret};

const MODE: &str = "SAPWOOD_TEST_KILL_MODE";
/// Before a mode: over a fabric without load/store reach.
const MESSAGES: &str = "messages, ";
const RANKS: u32 = 4;
/// What a child says when it begins to work.
const WORKING: &str = "working";
/// What a child says with its exit code.
const NAMED: i32 = 10;
const WRONG_SUM: i32 = 11;

fn main() -> ExitCode {
    if let Ok(mode) = std::env::var(MODE) {
        return child(&mode);
    }
    let rounds = std::env::var("SAPWOOD_KILL_ROUNDS")
        .ok()
        .and_then(|r| r.parse().ok())
        .unwrap_or(20);
    let trials = vec![
        Trial::test(
            "a_process_killed_at_any_moment_is_named_by_all_others",
            move || campaign("", rounds),
        ),
        Trial::test("the_same_over_messages", move || campaign(MESSAGES, rounds)),
    ];
    let mut arguments = Arguments::from_args();
    // One after the other: each looks whether sockets were left behind.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// One rank: works until something fails, then says whether the failure was explained.
fn child(mode: &str) -> ExitCode {
    let error = work(mode);
    println!("{error}");
    ExitCode::from(if error.starts_with("wrong sum") {
        WRONG_SUM
    } else {
        NAMED
    } as u8)
}

fn work(mode: &str) -> String {
    let run = || -> Result<String, Box<dyn std::error::Error>> {
        let job = sapwood::bootstrap::Job::from_environment()?.ok_or("no job")?;
        let mut builder = Communicator::builder();
        let mode = match mode.strip_prefix(MESSAGES) {
            Some(mode) => {
                builder = builder.fabric(Arc::new(Shm::without_reach()?));
                mode
            }
            None => mode,
        };
        if !matches!(mode, "small" | "exchange") {
            builder = builder.plan(mode);
        }
        let communicator = builder.join(&job)?;
        println!("{WORKING}");
        let (rank, size) = (communicator.rank(), communicator.size());
        let sum = |step: usize, i: usize| (0..size).map(|r| value(r, step, i)).sum::<f32>();
        if mode == "exchange" {
            let mut exchange = Exchange::builder(communicator)
                .bucket("a", 20_000)
                .bucket("b", 50)
                .build()?;
            let mut number = 0;
            loop {
                let mut step = exchange.begin()?;
                for name in ["b", "a"] {
                    let mut bucket = step.take(name)?;
                    bucket
                        .iter_mut()
                        .enumerate()
                        .for_each(|(i, x)| *x = value(rank, number, i));
                    bucket.ready()?;
                }
                let outcome = step.finish()?;
                let right = |(i, x): (usize, &f32)| *x == sum(number, i) / size as f32;
                if !outcome.mean("a").iter().enumerate().all(right) {
                    return Ok(format!("wrong sum in step {number}"));
                }
                number += 1;
            }
        }
        let count = if mode == "small" { 500 } else { 60_000 };
        let mut window = communicator.window::<f32>(count)?;
        let mut number = 0;
        loop {
            window
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = value(rank, number, i));
            communicator.all_reduce(&mut window, Operation::Sum)?;
            if !window.iter().enumerate().all(|(i, x)| *x == sum(number, i)) {
                return Ok(format!("wrong sum in operation {number}"));
            }
            number += 1;
        }
    };
    run().unwrap_or_else(|error| error.to_string())
}

fn value(rank: u32, step: usize, index: usize) -> f32 {
    ((index * 3 + rank as usize * 17 + step * 5) % 64) as f32 * 4.0
}

fn campaign(before_mode: &str, rounds: u32) -> Result<(), Failed> {
    let before = leftovers();
    let modes = [
        "small",
        "exchange",
        "double-binary-tree",
        "ring",
        "direct",
        "binomial-tree",
    ];
    let (mut slowest, mut working) = (None, 0);
    for round in 0..rounds {
        let mode = format!("{before_mode}{}", modes[round as usize % modes.len()]);
        let took = self::round(&mode).map_err(|problem| format!("round {round} ({mode}): {problem}"))?;
        slowest = slowest.max(took);
        working += u32::from(took.is_some());
    }
    let after = leftovers();
    if before != after {
        return Err(format!("left behind: {after:?}, before: {before:?}").into());
    }
    println!(
        "{rounds} rounds: every survivor named the killed rank; in the {working} in which all were at work, the last had \
         ended at most {:.2?} after the kill",
        slowest.unwrap_or_default()
    );
    Ok(())
}

/// Answers how long it took until the last survivor had ended, if all had begun to work before.
fn round(mode: &str) -> Result<Option<Duration>, String> {
    let secret = secret();
    let name = format!("@sapwood-kill-{:016x}", below(u64::MAX));
    let mut children = (0..RANKS)
        .map(|rank| {
            killing::rank(rank, RANKS, &name, &secret)
                .env(MODE, mode)
                .env("SAPWOOD_TIMEOUT", "8")
                .spawn()
                .expect("a child")
        })
        .collect::<Vec<_>>();
    // Any moment: while they start, meet, register or work.
    std::thread::sleep(Duration::from_micros(below(400_000)));
    let victim = below(u64::from(RANKS)) as usize;
    children[victim].kill().expect("it has not ended by itself");
    let killed = Instant::now();
    // A rank that is killed before it has met the others is one that never comes: that takes the whole timeout.
    let until = Instant::now() + Duration::from_secs(20);
    let outcome = (0..RANKS as usize)
        .filter(|rank| *rank != victim)
        .try_fold(true, |working, rank| {
            let survivor = survivor(&mut children[rank], victim, until);
            survivor
                .map(|one| working && one)
                .map_err(|p| format!("rank {rank}: {p}"))
        });
    let took = killed.elapsed();
    for child in &mut children {
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome.map(|working| working.then_some(took))
}

/// Says whether it had begun to work when the other was killed.
fn survivor(child: &mut Child, victim: usize, until: Instant) -> Result<bool, String> {
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        if Instant::now() > until {
            return Err("it still runs 20 s after the kill: it hangs".into());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut said = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().expect("piped"), &mut said)
        .map_err(|e| e.to_string())?;
    match status.code() {
        Some(NAMED) if names(&said, victim) => Ok(said.starts_with(WORKING)),
        // Rank 0 had found the victim dead and gone away before this one was let in: it knows of rank 0 alone.
        Some(NAMED) if said.contains("rank 0 died") && said.contains("while the ranks were joining") => {
            Ok(false)
        }
        // The same, and this one had not even been started then.
        Some(NAMED) if said.contains("rank 0 did not open the rendezvous") => Ok(false),
        code => Err(format!(
            "it should have named rank {victim}, but ended with {code:?} and said: {}",
            said.trim()
        )),
    }
}

/// Whether an error is about this rank: alone, or among several that did not come.
fn names(said: &str, victim: usize) -> bool {
    let number = victim.to_string();
    let missing = said.split_once(" did not come").map_or("", |(ranks, _)| ranks);
    let mut words = missing.split(|c: char| !c.is_ascii_alphanumeric());
    said.contains(&format!("rank {victim} ")) || words.any(|word| word == number)
}

/// What could be left behind in the places where programs leave things.
fn leftovers() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["/dev/shm", "/tmp"] {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        found.extend(
            entries
                .map(|e| e.path().display().to_string())
                .filter(|p| p.contains("sapwood")),
        );
    }
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    found.extend(
        sockets
            .lines()
            .filter(|line| line.contains("@sapwood-kill"))
            .map(str::to_owned),
    );
    found
}
