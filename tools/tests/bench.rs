//! `sapwood bench` with real processes: the check, the columns, the document. No time is judged.

mod support;

use serde_json::Value;
use support::{run, sapwood, text};

/// Runs the benchmark with `--json -`; the document, and what people saw.
fn bench(arguments: &[&str]) -> (Value, String) {
    bench_of("all-reduce", arguments)
}

fn bench_of(collective: &str, arguments: &[&str]) -> (Value, String) {
    let output = run(&mut sapwood(
        &[
            &["bench", collective, "--json", "-", "--timeout", "60"],
            arguments,
        ]
        .concat(),
    ));
    let said = text(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    (
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout))),
        said,
    )
}

#[test]
fn every_type_and_operation_is_right_on_three_ranks() {
    let (document, said) = bench(&[
        "--ranks", "3", "-b", "16K", "-e", "256K", "-f", "16", "-n", "2", "-w", "1", "-d", "all", "-o", "all",
    ]);
    let results = document["results"].as_array().unwrap();
    assert_eq!(
        results.len(),
        (10 * 5 + 4) * 2,
        "types, operations, sizes; mulsum for floats"
    );
    for row in results {
        for placement in ["out_of_place", "in_place"] {
            assert_eq!(row[placement]["nwrong"], 0, "{row}");
            assert_eq!(row[placement]["batch"], Value::Null, "{row}");
            assert!(row[placement]["min"].as_f64() > Some(0.0), "{row}");
        }
    }
    assert_eq!(
        document["out_of_bounds"],
        serde_json::json!({"count": 0, "okay": true})
    );
    assert_eq!(document["config"]["ranks"], 3);
    assert_eq!(document["config"]["iterations"], 2);
    assert!(said.contains("every element of every rank is right"), "{said}");
}

#[test]
fn every_collective_is_right_on_three_ranks() {
    for (collective, bus_factor) in [
        ("reduce", 1.0),
        ("broadcast", 1.0),
        ("reduce-scatter", 2.0 / 3.0),
        ("all-gather", 2.0 / 3.0),
        ("gather", 2.0 / 3.0),
        ("scatter", 2.0 / 3.0),
        ("all-to-all", 2.0 / 3.0),
        ("send-receive", 1.0),
    ] {
        let (document, _) = bench_of(
            collective,
            &[
                "--ranks", "3", "-b", "24", "-e", "393216", "-f", "128", "-n", "2", "-w", "1", "-c", "2",
                "-r", "1", "-d", "int8",
            ],
        );
        let results = document["results"].as_array().unwrap();
        assert_eq!(results.len(), 3, "{collective}");
        assert_eq!(document["config"]["collective"], collective);
        for row in results {
            let combines = collective.starts_with("reduce");
            assert_eq!(row["redop"], if combines { "sum" } else { "none" }, "{row}");
            let figures = &row["out_of_place"];
            assert_eq!(figures["nwrong"], 0, "{collective}: {row}");
            let ratio = figures["bus_bw"].as_f64().unwrap() / figures["alg_bw"].as_f64().unwrap();
            assert!((ratio - bus_factor).abs() < 1e-9, "{collective}: {row}");
            match collective {
                "all-to-all" | "send-receive" => assert_eq!(row["in_place"], Value::Null),
                _ => assert_eq!(row["in_place"]["nwrong"], 0, "{collective}: {row}"),
            }
        }
    }
    let (document, _) = bench_of("barrier", &["--ranks", "3", "-n", "5"]);
    let results = document["results"].as_array().unwrap();
    assert_eq!((results.len(), &results[0]["size"]), (1, &0.into()), "{document}");
    assert!(results[0]["out_of_place"]["batch"].as_f64() > Some(0.0));
}

#[test]
fn the_backup_barrier_s_results_are_right_with_and_without_backups_along_every_way() {
    for (backups, way) in [("0", "flat"), ("1", "flat"), ("0", "tree:2"), ("1", "tree:1")] {
        let (document, said) = bench_of(
            "backup-barrier",
            &[
                "--ranks",
                "3",
                "--backups",
                backups,
                "--way",
                way,
                "-b",
                "8",
                "-e",
                "2M",
                "-f",
                "512",
                "-n",
                "3",
                "-w",
                "1",
                "-c",
                "2",
            ],
        );
        let results = document["results"].as_array().unwrap();
        assert_eq!(results.len(), 3, "{document}");
        for row in results {
            assert_eq!((&row["nwrong"], &row["way"]), (&0.into(), &way.into()), "{row}");
            assert!(
                row["result"]["p50"].as_f64() >= row["seal"]["p50"].as_f64(),
                "{row}"
            );
            assert!(row["all_reduce"]["max"].as_f64() > Some(0.0), "{row}");
        }
        assert!(said.contains("every element of every rank is right"), "{said}");
    }
}

#[test]
fn a_worker_that_is_stopped_finds_the_others_again() {
    let (document, said) = bench_of(
        "backup-barrier",
        &["--ranks", "3", "--stop", "0.3", "--compute", "500", "-n", "10"],
    );
    // Three rounds, each as long as it takes.
    assert_eq!(document["one_stopped"]["steps"], 2700, "{document}");
    assert_eq!(document["replicas_identical"], true, "{document}");
    let told = ["applied", "jumped"].map(|name| document[name].as_u64().unwrap());
    assert!(told[0] > 0 && told[0] + told[1] == 2700, "{document}");
    assert!(said.contains("all replicas are identical"), "{said}");
}

#[test]
fn every_plan_can_be_forced_and_is_named() {
    for plan in [
        "binomial-tree",
        "k-ary-tree:3",
        "double-binary-tree",
        "ring",
        "direct",
    ] {
        let size = ["-b", "300004", "-e", "300004", "-n", "2", "-w", "1", "-c", "3"];
        let (document, _) = bench(&[&["--ranks", "5", "--plan", plan], &size[..]].concat());
        let row = &document["results"][0];
        assert_eq!(
            (&row["plan"], &row["count"], &row["in_place"]["nwrong"]),
            (&plan.into(), &75001.into(), &0.into())
        );
    }
}

#[test]
fn small_sizes_are_timed_in_batches_and_nothing_is_checked_when_told_so() {
    let (document, said) = bench(&["-b", "8", "-e", "8", "-n", "10", "-c", "0"]);
    let figures = &document["results"][0]["out_of_place"];
    assert!(figures["batch"].as_f64() > Some(0.0), "{figures}");
    assert_eq!(figures["nwrong"], Value::Null, "{figures}");
    assert!(said.contains("not checked"), "{said}");
}

#[test]
fn one_rank_alone_is_a_job_too() {
    let (document, _) = bench(&["--ranks", "1", "-b", "64K", "-e", "64K", "-n", "2"]);
    assert_eq!(document["results"][0]["in_place"]["nwrong"], 0);
    assert_eq!(document["results"][0]["in_place"]["bus_bw"], 0.0);
}

#[test]
fn people_get_the_columns_of_nccl_tests_and_programs_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.json");
    let arguments = [
        "bench",
        "all-reduce",
        "-b",
        "16K",
        "-e",
        "32K",
        "-i",
        "8K",
        "-n",
        "2",
        "--json",
    ];
    let output = run(sapwood(&arguments).arg(&file));
    let table = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        output.stderr.is_empty(),
        "no progress without a terminal: {}",
        text(&output.stderr)
    );
    let head = table
        .lines()
        .find(|line| line.contains("size(B)"))
        .expect("column heads");
    let names: Vec<_> = head.split_whitespace().collect();
    assert_eq!(
        names[1..6],
        ["size(B)", "count", "type", "redop", "plan"],
        "{head}"
    );
    assert_eq!(names[6..10], ["time", "algbw", "busbw", "#wrong"], "{head}");
    assert_eq!(names[14..], ["min", "p50", "p99", "max", "batch"], "{head}");
    let rows: Vec<_> = table.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(rows.len(), 3, "16K, 24K, 32K: {table}");
    let document: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(document["results"][1]["size"], 24 << 10);
}
