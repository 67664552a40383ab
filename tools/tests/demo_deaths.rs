//! `sapwood demo` with backup workers, of which some are killed: the others go on, as many as there are backups may die, and
//! what is left is held against one process all the same.

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Output};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{finish, sapwood, text, until, workers_of};

/// All but one are slow, so that a run takes its time on any machine.
const SLOW: &str = "--slow 1:12 --slow 2:12 --slow 3:12 --batch 256";
/// 12 ms in each of 240 steps.
const EPOCHS: &str = "40";
const STEPS: u64 = 240;

struct Demo {
    child: Child,
    log: std::path::PathBuf,
}

impl Demo {
    fn start(folder: &Path, arguments: &str) -> Self {
        let log = folder.join("log");
        let fixed = ["demo", "--json", "-", "--epochs", EPOCHS, "--report"];
        let child = sapwood(&fixed)
            .arg(folder.join("report"))
            .args(SLOW.split(' ').chain(arguments.split_whitespace()))
            .env("SAPWOOD_LOG", "info")
            .stderr(File::create(&log).expect("a file"))
            .spawn()
            .expect("it starts");
        Self { child, log }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).expect("a file")
    }

    fn says(&mut self, what: &str) {
        until(what, || {
            let ended = self.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "{}", self.said());
            self.said().contains(what).then_some(())
        });
    }

    /// Kills a worker; its process.
    fn kill(&self, rank: u32) -> u32 {
        let mark = format!("SAPWOOD_RANK={rank}");
        let worker = workers_of(self.child.id()).into_iter().find(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|one| one == mark.as_bytes())
        });
        let worker = worker.expect("it is at work");
        kill_process(Pid::from_raw(worker as i32).expect("a number"), Signal::KILL).expect("killed");
        worker
    }

    /// Its status, its figures if it printed any, and all else that it said.
    fn end(self) -> (Option<i32>, Value, String) {
        let Output { status, stdout, .. } = finish(self.child);
        let figures = serde_json::from_slice(&stdout).unwrap_or_default();
        let said = fs::read_to_string(&self.log).expect("a file");
        (status.code(), figures, said)
    }
}

/// The only death in a demo's figures, which are else as they must be.
fn one_death(status: Option<i32>, figures: &Value, said: &str) -> Value {
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(figures["replicas_identical"], true, "{figures:#}");
    assert_eq!(figures["matches_single_process"], true, "{figures:#}");
    assert_eq!(
        (&figures["steps"], &figures["dropped_gradients"]),
        (&STEPS.into(), &STEPS.into())
    );
    let deaths = figures["deaths"].as_array().expect("a list");
    assert_eq!(deaths.len(), 1, "{figures:#}");
    deaths[0].clone()
}

#[test]
fn the_others_go_on_without_a_worker_that_dies_whoever_it_is() {
    for rank in [0, 2] {
        let folder = tempfile::tempdir().unwrap();
        let mut demo = Demo::start(folder.path(), "--backups 1");
        demo.says("all workers train");
        thread::sleep(Duration::from_millis(200));
        let process = demo.kill(rank);
        let (status, figures, said) = demo.end();
        let death = one_death(status, &figures, &said);
        let how = format!("(process {process}) was killed by SIGKILL");
        assert_eq!(
            (&death["rank"], &death["how"], &death["run"]),
            (&rank.into(), &how.as_str().into(), &"with backups".into())
        );
        let step = death["step"].as_u64().unwrap();
        assert!(step < STEPS - 1, "{figures:#}");
        for (other, one) in figures["participation"].as_array().unwrap().iter().enumerate() {
            let count = |name: &str| one[name].as_u64().unwrap();
            let all = ["in_the_mean", "too_late", "stopped", "jumped_over", "died"];
            assert_eq!(all.map(count).iter().sum::<u64>(), STEPS, "{figures:#}");
            assert_eq!(count("died") > 0, other as u32 == rank);
        }
        // The run that waits for all is the one that cannot be.
        for absent in ["step_ms_waiting_for_all", "accuracy_waiting_for_all"] {
            assert!(figures[absent].is_null(), "{absent}");
        }
        let why = format!("not run: it would wait for rank {rank}, which had died");
        assert_eq!(figures["without_waiting"], why);
        let sentence = format!("{how} in step {step} or soon after, with backups; the other 3 went on");
        assert!(said.contains(&sentence) && said.contains(&why), "{said}");
        assert!(said.contains("the other workers go on"), "{said}");
        let page = fs::read_to_string(folder.path().join("report/index.html")).unwrap();
        assert!(page.contains(&format!("Rank {rank} {how} in step {step}")));
        assert!(!folder.path().join("report/arrivals.csv").exists());
    }
}

#[test]
fn who_dies_while_all_are_waited_for_ends_that_run_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(folder.path(), "--backups 1");
    demo.says("is over; go on");
    thread::sleep(Duration::from_millis(100));
    demo.kill(1);
    let (status, figures, said) = demo.end();
    let death = one_death(status, &figures, &said);
    assert_eq!(
        (&death["rank"], &death["run"]),
        (&1.into(), &"waiting for all".into())
    );
    assert_eq!(
        figures["without_waiting"],
        "broken off: it waited for rank 1, which died"
    );
    assert_eq!(figures["participation"][1]["died"], 0, "its record is there");
}

#[test]
fn more_deaths_than_backups_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(folder.path(), "--backups 1");
    demo.says("all workers train");
    for rank in [1, 3] {
        demo.kill(rank);
    }
    let (status, _, said) = demo.end();
    assert_eq!(status, Some(1), "{said}");
    let last = text(said.lines().last().unwrap().as_bytes());
    for part in [
        "rank 1 (process ",
        "rank 3 (process ",
        "was killed by SIGKILL",
        "1 worker can be spared (--backups), 2 died",
    ] {
        assert!(last.contains(part), "{said}");
    }
}
