//! `sapwood tune` with real processes: what it writes is what plans are chosen from. No time is judged, but that a link
//! which was made slow is measured to be, and changes the choice.

mod support;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;
use support::{refused, run, sapwood, text};

/// Runs it and answers what it says of its figures.
fn tune(command: &mut Command) -> Value {
    let output = run(command);
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

/// One collective, `calls` of each plan.
fn small<'a>(file: &'a Path, calls: &'a str) -> Vec<&'a str> {
    let file = file.to_str().unwrap();
    vec![
        "tune",
        "--collective",
        "all-reduce",
        "-n",
        calls,
        "-o",
        file,
        "--json",
        "-",
        "--timeout",
        "60",
    ]
}

#[test]
fn what_is_measured_is_written_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tuning.toml");
    let arguments = [
        &small(&file, "3")[..],
        &["--ranks", "2", "-b", "16K", "-e", "256K"],
    ]
    .concat();
    let document = tune(&mut sapwood(&arguments));
    assert!(
        document["parameters"]["memory"]["latency"].as_f64().is_some(),
        "{document}"
    );
    let choices = document["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 5, "16K to 256K: {document}");
    assert!(
        choices
            .iter()
            .all(|choice| choice["predicted"].as_f64() > Some(0.0)),
        "{document}"
    );

    let bench = [
        "bench",
        "all-reduce",
        "-b",
        "8",
        "-e",
        "64K",
        "-f",
        "8192",
        "-n",
        "3",
        "-w",
        "1",
        "--json",
        "-",
    ];
    let mut command = sapwood(&[&bench[..], &["--predict"]].concat());
    command.env("SAPWOOD_TUNING", &file);
    let rows = tune(&mut command)["results"].clone();
    assert_eq!(
        rows[0]["out_of_place"]["predicted"],
        Value::Null,
        "no plan is run: {rows}"
    );
    assert_eq!(rows[1]["plan"], choices[2]["plan"], "{rows} {choices:?}");
    assert!(rows[1]["in_place"]["predicted"].as_f64() > Some(0.0), "{rows}");

    let time = [
        "plan",
        "time",
        "--ranks",
        "2",
        "--size",
        "64K",
        "--json",
        "-",
        "--tuning",
        file.to_str().unwrap(),
    ];
    let predicted = tune(&mut sapwood(&time));
    assert_eq!(
        predicted["predicted"], choices[2]["predicted"],
        "{predicted} {choices:?}"
    );
    let tasks = predicted["tasks"].as_array().unwrap();
    assert!(tasks.iter().any(|task| task["critical"] == true), "{predicted}");
}

#[test]
fn a_check_measures_what_was_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tuning.toml");
    let arguments = [
        &small(&file, "3")[..],
        &["--ranks", "2", "-b", "64K", "-e", "128K"],
    ]
    .concat();
    tune(&mut sapwood(&arguments));
    let written = std::fs::read(&file).unwrap();
    // How it ends depends on the machine: whether what the file promises is kept today.
    let output = run(&mut sapwood(&[&arguments[..], &["--check"]].concat()));
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "{}",
        text(&output.stderr)
    );
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = document["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "out of place and in place at 96K: {document}");
    assert!(
        rows.iter()
            .all(|row| row["chosen_over_best"].as_f64() >= Some(1.0)),
        "{document}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), written, "nothing is written");
}

/// All ranks on one core: what counts is then how many messages a plan has, whatever the machine; with every message held
/// back, how many one after the other.
#[test]
fn with_latency_between_ranks_another_plan_is_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tuning.toml");
    let on_one_core = |delay: Option<&str>, calls: &str| {
        let sizes = ["--ranks", "8", "--fabric", "tcp", "-b", "1K", "-e", "1K"];
        let mut command = sapwood(&[&small(&file, calls)[..], &sizes].concat());
        if let Some(delay) = delay {
            command.env("SAPWOOD_DELAY", delay);
        }
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(|| {
                let allowed = sched_getaffinity(None)?;
                let first = (0..CpuSet::MAX_CPU)
                    .find(|core| allowed.is_set(*core))
                    .unwrap_or(0);
                let mut one = CpuSet::new();
                one.set(first);
                Ok(sched_setaffinity(None, &one)?)
            });
        }
        let document = tune(&mut command);
        let latency = document["parameters"]["host"]["latency"].as_f64().unwrap();
        let choice = &document["choices"][0];
        (
            choice["plan"].as_str().unwrap().to_owned(),
            latency,
            choice["predicted"].as_f64().unwrap(),
        )
    };
    let (near, latency, _) = on_one_core(None, "25");
    let (far, slow, whole) = on_one_core(Some("8"), "3");
    println!("latency {latency} us: {near}; latency {slow} us: {far} in {whole} us");
    // How the fit shares out what a message costs is up to the noise of three calls; what a call costs is not.
    assert!(
        slow > latency,
        "8 ms are measured as {slow} us, nothing as {latency} us"
    );
    assert!(whole > 16_000.0, "two rounds of 8 ms are predicted as {whole} us");
    // Two rounds, the fewest that there can be, of 56 messages each, which on one core take about as long as 4 ms; trees have
    // 14 in all, and more rounds.
    assert_eq!(far, "direct");
    assert_ne!(near, "direct");
}

#[test]
fn what_cannot_be_used_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.toml");
    std::fs::write(&bad, "version = 1\ncores = 0\n").unwrap();
    let bad = bad.to_str().unwrap();
    for (arguments, parts) in [
        (vec!["tune", "--ranks", "1"], ["'1' for '--ranks <N>'", "2..=64"]),
        (
            vec!["tune", "--collective", "barrier"],
            ["'barrier'", "a collective with bytes is needed: all-reduce"],
        ),
        (
            vec!["tune", "-b", "1M", "-e", "1K"],
            ["-e 1024 is below -b 1048576", "not below it"],
        ),
        (
            vec!["tune", "-o", "/nowhere/tuning.toml"],
            ["-o /nowhere/tuning.toml", "can be written"],
        ),
        (
            vec!["tune", "--check", "-o", bad],
            [bad, "line 2 (cores = 0): 1 to 65536 cores are needed"],
        ),
        (
            vec!["bench", "all-reduce", "--predict"],
            ["--predict: there is nothing to predict by", "sapwood tune"],
        ),
        (
            vec!["plan", "time"],
            ["--tuning: there is nothing to predict by", "sapwood tune"],
        ),
        (vec!["plan", "time", "--tuning", bad], [bad, "line 2"]),
    ] {
        refused(&mut sapwood(&arguments), &parts);
    }
    let mut bench = sapwood(&["bench", "all-reduce", "--ranks", "2"]);
    refused(bench.env("SAPWOOD_TUNING", bad), &["SAPWOOD_TUNING", "line 2"]);
}
