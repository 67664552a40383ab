//! `sapwood demo` as a person meets it: real processes, its exit status, its files, its words.

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::Duration;

use support::{dead, finish, refused, run, sapwood, text, until, workers_of};

/// A demo that trains for longer than any test waits, and its four workers' processes.
fn endless_demo(report: &Path, backups: &str) -> (Child, Vec<u32>) {
    let endless = ["demo", "--slow", "0:20", "--epochs", "1000", "--backups", backups];
    let demo = sapwood(&endless)
        .arg("--report")
        .arg(report)
        .spawn()
        .expect("it starts");
    let workers = until("four workers", || {
        Some(workers_of(demo.id())).filter(|workers| workers.len() == 4)
    });
    // They have met by now, or are about to: both must work.
    thread::sleep(Duration::from_millis(300));
    (demo, workers)
}

#[test]
fn workers_train_agree_and_match_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("deep/report");
    let json = folder.path().join("out.json");
    let (report_text, json_text) = (report.to_str().unwrap(), json.to_str().unwrap());
    let arguments = [
        "demo",
        "--workers",
        "3",
        "--epochs",
        "6",
        "--batch",
        "64",
        "--backups",
        "0",
        "--slow",
        "1:2",
    ];
    let output = run(&mut sapwood(
        &[&arguments[..], &["--report", report_text, "--json", json_text]].concat(),
    ));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        output.stderr.is_empty(),
        "no bar where there is no terminal: {}",
        text(&output.stderr)
    );
    let table = text(&output.stdout);
    let mut lines = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let agree = lines.any(|words| words.starts_with(&["replicas", "identical", "yes"]));
    assert!(agree && table.contains("index.html"), "{table}");

    let figures: serde_json::Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(figures["dataset"], "digits");
    assert_eq!(
        (figures["workers"].as_u64(), figures["backups"].as_u64()),
        (Some(3), Some(0))
    );
    assert!(figures["accuracy"].as_f64().unwrap() >= 0.95, "{figures:#}");
    assert_eq!(figures["steps"], 6 * 23);
    assert_eq!(figures["bytes_copied"], 0);
    assert!(figures["bytes_exchanged"].as_u64().unwrap() > 0);
    assert_eq!(figures["replicas_identical"], true);
    assert_eq!(figures["matches_single_process"], true);
    assert!(figures["max_weight_difference"].as_f64().unwrap() <= 1e-5);
    assert_eq!(figures["dropped_gradients"], 0);
    assert!(figures["step_ms"]["p50"].as_f64().unwrap() >= 2.0);
    assert!(figures["step_ms"]["p99"].as_f64().unwrap() >= figures["step_ms"]["p50"].as_f64().unwrap());
    assert!(figures["step_ms_waiting_for_all"].is_null());
    let counts = figures["bytes_per_epoch"].as_array().unwrap();
    let bytes: Vec<u64> = counts
        .iter()
        .map(|count| count["bytes"].as_u64().unwrap())
        .collect();
    assert_eq!(counts.len(), 3);
    assert!(bytes[0] > bytes[1] && bytes[1] > bytes[2], "{bytes:?}");

    let page = fs::read_to_string(report.join("index.html")).unwrap();
    assert!(page.contains("waits for rank 1") && page.contains("slowed on purpose"));
    assert!(!page.contains("http://") && !page.contains("https://"));
    assert_eq!(
        fs::read_dir(&report).unwrap().count(),
        2,
        "the page, the times, and nothing beside them"
    );
}

#[test]
fn the_same_seed_gives_the_same_result_on_any_number_of_workers() {
    let folder = tempfile::tempdir().unwrap();
    let accuracy = |workers: &str| {
        let report = folder.path().to_str().unwrap();
        let output = run(&mut sapwood(&[
            "demo",
            "--backups",
            "0",
            "--workers",
            workers,
            "--epochs",
            "2",
            "--seed",
            "9",
            "--report",
            report,
            "--json",
            "-",
        ]));
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(
            text(&output.stderr).contains("test accuracy"),
            "the table makes way for the JSON"
        );
        let figures: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        figures["accuracy"].as_f64().unwrap()
    };
    let (alone, together) = (accuracy("1"), accuracy("4"));
    // Rounding may move one image across a border.
    assert!((alone - together).abs() < 1.5 / 360.0, "{alone} and {together}");
}

#[test]
fn bad_arguments_get_one_line_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let report_text = report.to_str().unwrap();
    for (arguments, part) in [
        (
            &["demo", "--workers", "0"][..],
            "a whole number from 1 to 64 is needed",
        ),
        (&["demo", "--backups", "4"], "at most 3 can be backups"),
        (
            &["demo", "--backups", "-1"],
            "a whole number from 0 to 63 is needed",
        ),
        (
            &["demo", "--backups", "1", "--fabric", "tcp"],
            "--backups 0 waits for every worker",
        ),
        (&["demo", "--slow", "1"], "as in 3:50"),
        (
            &["demo", "--slow", "1:5", "--slow", "1:6"],
            "rank 1 is slowed twice",
        ),
        (&["demo", "--slow", "9:50"], "there is no rank 9 among 4 workers"),
        (
            &["demo", "--fabric", "pigeon"],
            "auto, shm, verbs or tcp is needed",
        ),
        (&["demo", "--plan", "oak"], "--plan oak"),
        (&["demo", "--epoch", "3"], "'--epochs'"),
        (&["demo", "--data", "/nonexistent.csv"], "/nonexistent.csv"),
    ] {
        refused(
            &mut sapwood(&[arguments, &["--report", report_text]].concat()),
            &[part],
        );
    }
    assert!(!report.exists(), "refused before anything is made");
    refused(
        &mut sapwood(&["demo", "--report", "/proc/report"]),
        &["--report /proc/report"],
    );
    refused(
        &mut sapwood(&["demo", "--report", report_text, "--json", "/nonexistent/out.json"]),
        &["--json /nonexistent/out.json"],
    );
    refused(&mut sapwood(&[]), &["a command is needed"]);
    refused(&mut sapwood(&["dem"]), &["'demo'"]);
    for stray in [&["demo-worker"][..], &["demo-worker", "{}"]] {
        refused(&mut sapwood(stray), &["is started by 'sapwood demo'"]);
    }
}

#[test]
fn bad_data_names_file_line_and_expectation() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("digits.csv");
    let refused_for = |content: &[u8], part: &str| {
        fs::write(&file, content).unwrap();
        refused(sapwood(&["demo", "--data"]).arg(&file), &[part]);
    };
    refused_for(
        b"1,2,3\n",
        "digits.csv, line 1: 3 fields; expected 64 pixels from 0 to 16 and a digit",
    );
    refused_for(b"", "0 images; at least 50 are needed");
    let whole = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/digits.csv.gz")).unwrap();
    refused_for(&whole[..20_000], "damaged or truncated gzip data after line");
    refused(
        sapwood(&["demo", "--data"]).arg(folder.path()),
        &["Is a directory"],
    );
}

#[test]
fn without_backups_a_killed_worker_is_named_and_takes_the_others_along() {
    let folder = tempfile::tempdir().unwrap();
    let (demo, workers) = endless_demo(folder.path(), "0");
    let killed = rustix::process::Pid::from_raw(workers[2] as i32).unwrap();
    rustix::process::kill_process(killed, rustix::process::Signal::KILL).unwrap();
    let output = finish(demo);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("process {}", workers[2])) && said.contains("was killed by SIGKILL"),
        "{said}"
    );
    assert!(workers.iter().all(|&worker| dead(worker)));
}

#[test]
fn workers_do_not_outlive_a_killed_demo() {
    let folder = tempfile::tempdir().unwrap();
    let (mut demo, workers) = endless_demo(folder.path(), "1");
    demo.kill().unwrap();
    assert_eq!(finish(demo).status.signal(), Some(9));
    until("the workers' end", || {
        workers.iter().all(|&worker| dead(worker)).then_some(())
    });
}

#[test]
fn an_interrupted_demo_ends_its_workers_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (demo, workers) = endless_demo(folder.path(), "1");
    let pid = rustix::process::Pid::from_child(&demo);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = finish(demo);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("ended by SIGINT"), "{said}");
    assert!(workers.iter().all(|&worker| dead(worker)));
}

#[test]
fn help_and_version_go_to_standard_output() {
    for (arguments, part) in [
        (&["--version"][..], "sapwood "),
        (&["--help"], "demo"),
        (&["demo", "--help"], "sapwood demo --slow 3:50"),
    ] {
        let output = run(&mut sapwood(arguments));
        assert!(output.status.success() && output.stderr.is_empty());
        let said = text(&output.stdout);
        assert!(said.contains(part), "{said}");
        assert!(!said.contains("demo-worker"));
    }
}
