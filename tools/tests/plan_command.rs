//! `sapwood plan`: what it writes, and the status with which it answers bad arguments.

#[path = "../src/plan/mod.rs"]
mod plan;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    plan: plan::PlanArguments,
}

fn run(words: &[&str]) -> Result<ExitCode, plan::PlanCommandError> {
    let line = Line::try_parse_from(["plan"].iter().chain(words)).unwrap_or_else(|error| panic!("{error}"));
    plan::run(line.plan)
}

fn refused(words: &[&str]) -> String {
    match run(words) {
        Ok(_) => panic!("{words:?} is accepted"),
        Err(error) => {
            assert_eq!(error.exit_code(), ExitCode::from(2), "{error}");
            let text = error.to_string();
            assert!(!text.contains('\n'), "{text}");
            text
        }
    }
}

#[test]
fn show_writes_a_picture_and_the_lowered_plan() {
    let folder = tempfile::tempdir().unwrap();
    let (svg, json) = (folder.path().join("plan.svg"), folder.path().join("plan.json"));
    let (svg_name, json_name) = (svg.to_str().unwrap(), json.to_str().unwrap());
    let words = [
        "show", "--ranks", "9", "--size", "4M", "--output", svg_name, "--json", json_name,
    ];
    assert_eq!(run(&words).unwrap(), ExitCode::SUCCESS);
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
    assert_eq!(run(&words).unwrap(), ExitCode::SUCCESS);
    let document: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let rows = document["results"].as_array().unwrap();
    // Five builders with four collectives, less the ring's barrier; six numbers of ranks; two reaches.
    assert_eq!(rows.len(), (5 * 4 - 1) * 6 * 2);
    assert!(
        rows.iter()
            .all(|row| row["proved"] == true && row["time_ms"].is_f64())
    );
    assert_eq!(document["failed"], 0);
}

#[test]
fn bad_arguments_are_refused_in_one_line() {
    assert!(refused(&["show", "--ranks", "0"]).contains("1 to 4096"));
    assert!(refused(&["show", "--ranks", "5000"]).contains("1 to 4096"));
    assert!(refused(&["show", "--collective", "reduce", "--root", "8"]).contains("root 8"));
    assert!(refused(&["show", "--collective", "all"]).contains("verify"));
    assert!(refused(&["verify", "--plan", "star"]).contains("double-binary-tree"));
    assert!(refused(&["verify", "--plan", "k-ary-tree:1"]).contains("k-ary-tree:3"));
    assert!(refused(&["verify", "--plan", "ring", "--collective", "barrier"]).contains("have one"));
    assert!(refused(&["verify", "--slots", "0", "--ranks", "2"]).contains("slots"));
    assert!(refused(&["verify", "--root", "16"]).contains("root 16"));
    for words in [
        ["verify", "--ranks", "9-3"],
        ["verify", "--ranks", "x"],
        ["show", "--size", "4Q"],
    ] {
        assert!(
            Line::try_parse_from(["plan"].iter().chain(&words)).is_err(),
            "{words:?}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_written_is_a_failure() {
    let error = run(&["show", "--output", "/nowhere/at/all.svg"]).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::from(1));
    assert!(error.to_string().contains("/nowhere/at/all.svg"));
}
