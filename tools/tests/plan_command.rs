//! `sapwood plan`: what it writes, and the status with which it answers bad arguments.

mod support;

use std::process::Command;

use sapwood::plan::{Collective, builders};

use support::{refused, run, sapwood, text};

fn plan(words: &[&str]) -> Command {
    sapwood(&[&["plan"], words].concat())
}

fn succeeds(words: &[&str]) {
    let output = run(&mut plan(words));
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
}

#[test]
fn show_writes_a_picture_and_the_lowered_plan() {
    let folder = tempfile::tempdir().unwrap();
    let (svg, json) = (folder.path().join("plan.svg"), folder.path().join("plan.json"));
    let (svg_name, json_name) = (svg.to_str().unwrap(), json.to_str().unwrap());
    let words = [
        "show", "--ranks", "9", "--size", "4M", "--output", svg_name, "--json", json_name,
    ];
    succeeds(&words);
    let picture = std::fs::read_to_string(svg).unwrap();
    assert!(
        picture.contains("double-binary-tree: all-reduce, 9 ranks"),
        "{picture}"
    );
    let document: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(document["programs"].as_array().unwrap().len(), 9);
    assert_eq!(document["programs"][3]["rank"], 3);
}

#[test]
fn verify_proves_every_plan_and_writes_one_row_for_each() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("proofs.json");
    let words = [
        "verify",
        "--ranks",
        "1-6",
        "--root",
        "2",
        "--json",
        json.to_str().unwrap(),
    ];
    succeeds(&words);
    let document: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let rows = document["results"].as_array().unwrap();
    let pairs = builders::ALL.iter().flat_map(|builder| {
        let every = Collective::every(0).into_iter();
        let supported = every.filter(|collective| (builder.supports)(*collective));
        supported.map(|_| builder.name)
    });
    // Six numbers of ranks; three reaches.
    assert_eq!(rows.len(), pairs.count() * 6 * 3);
    assert!(
        rows.iter()
            .all(|row| row["proved"] == true && row["time_ms"].is_f64())
    );
    assert_eq!(document["failed"], 0);
}

#[test]
fn bad_arguments_are_refused_in_one_line() {
    for (words, part) in [
        (&["show", "--ranks", "0"][..], "1 to 65536"),
        (&["show", "--ranks", "70000"], "1 to 65536"),
        (&["show", "--collective", "reduce", "--root", "8"], "root 8"),
        (&["show", "--collective", "all"], "verify"),
        (&["show", "--size", "4Q"], "64M"),
        (&["verify", "--plan", "star"], "double-binary-tree"),
        (&["verify", "--plan", "k-ary-tree:1"], "k-ary-tree:3"),
        (
            &["show", "--plan", "hierarchical:0,0,1", "--ranks", "4"],
            "3 ranks",
        ),
        (&["show", "--plan", "hierarchical:x"], "hierarchical:4"),
        (
            &["verify", "--plan", "ring", "--collective", "barrier"],
            "have one",
        ),
        (&["verify", "--slots", "0", "--ranks", "2"], "slots"),
        (&["verify", "--root", "16"], "root 16"),
        (&["verify", "--ranks", "9-3"], "1-64"),
        (&["verify", "--ranks", "x"], "1-64"),
        (
            &["verify", "--ranks", "2", "--json", "/nonexistent/out.json"],
            "/nonexistent/out.json",
        ),
    ] {
        refused(&mut plan(words), &[part]);
    }
}

#[test]
fn a_picture_that_cannot_be_written_is_a_failure() {
    let output = run(&mut plan(&["show", "--output", "/nowhere/at/all.svg"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nowhere/at/all.svg"));
}
