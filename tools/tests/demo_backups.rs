//! `sapwood demo` with backup workers: whoever is slow, the weights are one process's that repeats the recorded members.

mod support;

use std::fs;

use serde_json::Value;
use support::{run, sapwood, text};

/// A demo's figures and its table; its report is in the folder.
fn demo(folder: &std::path::Path, arguments: &[&str]) -> (Value, String) {
    let report = folder.join("report");
    let fixed = ["demo", "--json", "-", "--report", report.to_str().expect("UTF-8")];
    let output = run(&mut sapwood(&[&fixed[..], arguments].concat()));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let figures = serde_json::from_slice(&output.stdout).expect("JSON");
    (figures, text(&output.stderr).to_owned())
}

#[test]
fn a_slow_worker_is_not_waited_for_be_it_the_first_or_in_the_middle() {
    for slow in [0, 2] {
        let folder = tempfile::tempdir().unwrap();
        let flag = format!("{slow}:60");
        let (figures, table) = demo(
            folder.path(),
            &["--epochs", "4", "--batch", "256", "--slow", &flag],
        );
        let steps = 4 * 6;
        assert_eq!(
            (&figures["steps"], &figures["backups"]),
            (&steps.into(), &1.into())
        );
        assert_eq!(figures["replicas_identical"], true);
        assert_eq!(figures["matches_single_process"], true);
        assert_eq!(figures["dropped_gradients"], steps, "one a step");
        let of = |worker: &Value, name: &str| worker[name].as_u64().unwrap();
        let participation = figures["participation"].as_array().unwrap();
        let mut dropped = Vec::new();
        for worker in participation {
            let lost: u64 = ["too_late", "stopped", "jumped_over"]
                .map(|name| of(worker, name))
                .iter()
                .sum();
            assert_eq!(of(worker, "in_the_mean") + lost, steps, "{figures:#}");
            dropped.push(lost);
        }
        // It sleeps for longer than a step of the others takes on a machine that does much else.
        assert!(dropped[slow] > steps / 2, "{dropped:?}");
        assert_eq!(dropped.iter().sum::<u64>(), steps);
        assert!(
            table.contains(&format!("{} of rank {slow}", dropped[slow])),
            "{table}"
        );
        let hardly = figures["hardly_heard"].as_array().unwrap();
        assert_eq!(
            hardly.contains(&slow.into()),
            10 * (steps - dropped[slow]) < steps
        );
        assert_eq!(
            table.contains("biased towards the others' data"),
            !hardly.is_empty()
        );
        assert!(figures["step_ms_waiting_for_all"]["p50"].as_f64().unwrap() >= 60.0);
        assert!(figures["training_s_waiting_for_all"].as_f64().unwrap() >= 0.06 * steps as f64);
        assert!(figures["accuracy_waiting_for_all"].as_f64().unwrap() > 0.5);
        assert!(figures["accuracy"].as_f64().unwrap() > 0.5);

        let times = fs::read_to_string(folder.path().join("report/arrivals.csv")).unwrap();
        let mut lines = times.lines();
        assert_eq!(lines.next(), Some("step,worker,seconds"));
        let rows: Vec<Vec<f64>> = lines
            .map(|line| line.split(',').map(|field| field.parse().unwrap()).collect())
            .collect();
        assert_eq!(rows.len() as u64, 4 * steps);
        let slowed = rows.iter().filter(|row| row[1] == slow as f64);
        assert!(slowed.clone().count() as u64 == steps && slowed.clone().all(|row| row[2] >= 0.06));

        let page = fs::read_to_string(folder.path().join("report/index.html")).unwrap();
        for part in [
            "Step time with backup workers and without",
            "Whose gradients were used",
            "waiting for all: p50",
            &format!("Rank {slow} was slowed by 60 ms"),
        ] {
            assert!(page.contains(part), "{part}");
        }
    }
}

#[test]
fn several_backups_and_several_slow_ones() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = "--workers 5 --backups 2 --slow 4:30 --slow 1:20 --epochs 2 --batch 256";
    let (figures, _) = demo(folder.path(), &arguments.split(' ').collect::<Vec<_>>());
    assert_eq!(figures["dropped_gradients"], 2 * 12);
    assert_eq!(figures["matches_single_process"], true);
    assert_eq!(figures["slow"].as_array().unwrap().len(), 2);
}

#[test]
fn without_backups_there_is_one_run_and_nobody_is_dropped() {
    for (arguments, said) in [
        ("--backups 0 --workers 4", false),
        ("--fabric tcp --workers 3", true),
        ("--fabric tcp --workers 4 --hosts 2", true),
        ("--workers 2", false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<_> = arguments.split(' ').chain(["--epochs", "1"]).collect();
        let (figures, table) = demo(folder.path(), &arguments);
        assert_eq!(
            (&figures["backups"], &figures["dropped_gradients"]),
            (&0.into(), &0.into())
        );
        assert!(
            figures["step_ms_waiting_for_all"].is_null() && figures["accuracy_waiting_for_all"].is_null()
        );
        assert_eq!(
            figures["slow"],
            Value::Array(Vec::new()),
            "nobody is slowed unasked"
        );
        let line = "over tcp every step waits for every worker";
        assert_eq!(
            (table.contains(line), !figures["without_backups"].is_null()),
            (said, said),
            "{table}"
        );
    }
}
