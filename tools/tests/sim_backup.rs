//! `sapwood sim backup`: its figures for people and programs, and what it refuses.

mod support;

use std::fs;
use std::process::Command;

use serde_json::Value;
use support::{refused, run, sapwood, text};

fn backup(words: &[&str]) -> Command {
    sapwood(&[&["sim", "backup"], words].concat())
}

/// The JSON document on standard output.
fn document(words: &[&str]) -> Value {
    let output = run(&mut backup(&[words, &["--json", "-"]].concat()));
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

#[test]
fn the_document_has_what_was_promised_and_the_papers_figures() {
    let document = document(&[]);
    assert_eq!(
        keys(&document),
        ["best_backups", "best_is_edge", "distribution", "rows", "workers"]
    );
    assert_eq!(
        (&document["workers"], &document["distribution"]),
        (&100.into(), &"exponential".into())
    );
    assert_eq!(
        (&document["best_backups"], &document["best_is_edge"]),
        (&10.into(), &true.into())
    );
    let rows = document["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 11);
    for (backups, row) in rows.iter().enumerate() {
        assert_eq!(
            keys(row),
            [
                "backups",
                "iterations",
                "mean_time_to_seal",
                "p50",
                "p99",
                "time_to_converge"
            ]
        );
        assert_eq!(row["backups"], backups);
        assert!(row["iterations"].is_u64());
    }
    for (backups, expected) in [(0, 5.19), (4, 3.10)] {
        let mean = rows[backups]["mean_time_to_seal"].as_f64().unwrap();
        assert!((mean / expected - 1.0).abs() < 0.01, "{backups}: {mean}");
    }
    assert_eq!(rows[0]["iterations"], 76_000);
}

#[test]
fn a_seed_decides_everything() {
    let with = |seed| document(&["--distribution", "long-tail", "--steps", "500", "--seed", seed]);
    assert_eq!(with("7"), with("7"));
    assert_ne!(with("7"), with("8"));
}

#[test]
fn a_report_has_a_page_and_two_pictures_and_nothing_is_said_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("deep/report");
    let output = run(&mut backup(&[
        "--distribution",
        "long-tail",
        "--report",
        report.to_str().unwrap(),
    ]));
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        text(&output.stderr)
    );
    let table = text(&output.stdout);
    for part in [
        "residual",
        "measured in the paper",
        "The paper chose 96 + 4",
        "index.html",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let mut files: Vec<String> = fs::read_dir(&report)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["index.html", "time-per-step.svg", "time-to-converge.svg"]);
}

#[test]
fn measured_times_are_taken_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("times.csv");
    fs::write(
        &path,
        "step,worker,seconds\n0,0,1\n0,1,2\n0,2,9\n1,0,2\n1,1,3\n1,2,4\n",
    )
    .unwrap();
    let file = path.to_str().unwrap();
    let document = document(&["--distribution", file]);
    assert_eq!(
        (&document["workers"], &document["distribution"]),
        (&3.into(), &file.into())
    );
    let means: Vec<f64> = document["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["mean_time_to_seal"].as_f64().unwrap())
        .collect();
    assert_eq!(means, [6.5, 2.5, 1.5]);

    for (words, parts) in [
        (&["--workers", "4"][..], &["--workers 4", "3 workers", file][..]),
        (&["--steps", "5"], &["--steps", "2 steps"]),
        (&["--seed", "5"], &["--seed", "leave it out"]),
        (&["--max-backups", "3"], &["--max-backups 3", "at most 2"]),
    ] {
        refused(&mut backup(&[&["--distribution", file], words].concat()), parts);
    }
    for (lines, part) in [
        ("0,0,NaN\n", "line 2: the time \"NaN\""),
        ("0,0,1\n0,1,-1\n", "line 3: the time \"-1\""),
        ("0,0,1\n0,1,1\n1,1,1\n", "line 4: step 1 has no time of worker 0"),
    ] {
        fs::write(&path, format!("step,worker,seconds\n{lines}")).unwrap();
        refused(&mut backup(&["--distribution", file]), &[file, part]);
    }
    fs::write(&path, [0xff, 0xfe]).unwrap();
    refused(&mut backup(&["--distribution", file]), &[file, "UTF-8"]);
}

#[test]
fn bad_arguments_are_refused_in_one_line() {
    for (words, parts) in [
        (&["--workers", "0"][..], &["'0' for '--workers", "1..=4096"][..]),
        (&["--workers", "-4"], &["'-4' for '--workers"]),
        (&["--workers", "4097"], &["4097"]),
        (
            &["--max-backups", "100"],
            &["--max-backups 100", "100 workers", "at most 99"],
        ),
        (&["--workers", "4", "--max-backups", "4"], &["at most 3"]),
        (&["--steps", "0"], &["'0' for '--steps"]),
        (&["--seed", "-1"], &["'-1' for '--seed"]),
        (
            &["--distribution", "pareto"],
            &["--distribution pareto", "long-tail", "step,worker,seconds"],
        ),
        (&["--distribution", "/"], &["--distribution /", "directory"]),
        (&["--report", "/dev/null/report"], &["--report /dev/null/report"]),
        (&["--json", "/nonexistent/out.json"], &["/nonexistent/out.json"]),
        (
            &["extra"],
            &["unexpected argument 'extra'", "sapwood sim backup --help"],
        ),
    ] {
        refused(&mut backup(words), parts);
    }
    refused(&mut sapwood(&["sim", "weather"]), &["'weather'"]);
}

#[test]
fn one_worker_and_no_backups_are_enough() {
    for words in [&["--workers", "1"][..], &["--max-backups", "0"]] {
        let document = document(&[words, &["--steps", "1"]].concat());
        assert_eq!(document["rows"].as_array().unwrap().len(), 1);
        assert_eq!(document["best_is_edge"], true);
    }
}
