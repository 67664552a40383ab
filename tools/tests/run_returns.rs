//! `sapwood run --on-death restart` with backup workers: a rank that is killed comes back, and ends with the others' weights.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use sapwood::communicator::Communicator;
use sapwood::exchange::Exchange;
use support::{run, sapwood, text};

const FOLDER: &str = "SAPWOOD_TEST_RETURNS_FOLDER";
const STEPS: u64 = 60;
/// Those that are killed, once each, and from which step on.
const VICTIMS: [(u32, u64); 2] = [(0, 10), (2, 25)];

/// Until all victims have come back.
fn wait_for_victims(folder: &Path) {
    let until = Instant::now() + Duration::from_secs(40);
    for (victim, _) in VICTIMS {
        while !folder.join(format!("back-{victim}")).exists() {
            assert!(Instant::now() < until, "rank {victim} does not come back");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
#[ignore = "a rank of the other test"]
fn a_rank() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let communicator = Communicator::from_environment().unwrap();
    let (rank, returned) = (communicator.rank(), communicator.has_returned());
    assert_eq!(returned, std::env::var("SAPWOOD_ATTEMPT").unwrap() != "0");
    if returned {
        let error = communicator.barrier().unwrap_err().to_string();
        assert!(error.contains("come back"), "{error}");
    }
    let builder = Exchange::builder(communicator)
        .bucket("layer", 10)
        .state("weights", 10);
    let mut exchange = builder.backups(1).build().unwrap();
    let folder = Path::new(&folder);
    if returned {
        std::fs::write(folder.join(format!("back-{rank}")), "").unwrap();
    } else {
        exchange.set_state(|mut state| state.of("weights").fill(1.0));
    }
    let mut next = exchange.next_step();
    while next < STEPS {
        let mut step = exchange.begin().unwrap();
        next = step.number() + 1;
        // One that was slow may have jumped over that step.
        let dies = |(victim, step)| victim == rank && next >= step;
        if !returned && VICTIMS.into_iter().any(dies) {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
        if next == STEPS - 10 {
            wait_for_victims(folder);
        }
        if !step.sealed() {
            let mut gradient = step.take("layer").unwrap();
            gradient.fill((rank + 1) as f32 * next as f32);
            gradient.ready().unwrap();
        }
        let mut outcome = step.finish().unwrap();
        if let Some(step) = outcome.caught_up() {
            next = step + 1;
            continue;
        }
        outcome.update(|means, mut state| {
            let weights = state.of("weights").iter_mut().zip(means.of("layer"));
            weights.for_each(|(weight, mean)| *weight = *weight * 0.9 + mean);
        });
    }
    println!("weights of rank {rank}: {:?}", exchange.state("weights"));
}

#[test]
fn who_is_killed_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let mut command = sapwood(&["run", "-n", "4", "--on-death", "restart", "--restarts", "1", "--"]);
    command
        .arg(program)
        .args(["--exact", "a_rank", "--ignored", "--nocapture"])
        .env(FOLDER, folder.path());
    let output = run(&mut command);
    let (said, complaints) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}\n{complaints}");
    assert_eq!(
        complaints.matches("started anew").count(),
        VICTIMS.len(),
        "{complaints}"
    );
    let weights = said
        .lines()
        .filter_map(|line| Some(line.split_once("weights of rank ")?.1.split_once(':')?.1));
    let weights = weights.collect::<Vec<_>>();
    assert_eq!(weights.len(), 4, "{said}");
    assert!(weights.iter().all(|one| *one == weights[0]), "{said}");
}
