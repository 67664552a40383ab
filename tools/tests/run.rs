//! `sapwood run` with real programs: statuses, a rank that dies in the middle of a collective, a killed launcher.

mod support;

use support::{finish, marked, run, sapwood, text, until};

/// Small all-reduces for longer than any test waits.
const ENDLESS: &str = "bench all-reduce -b 16K -e 16K -n 10000000 -w 0 --timeout 20";

fn script(ranks: &str, script: &str) -> std::process::Command {
    let mut command = sapwood(&["run", "-n", ranks, "--", "sh", "-c", script]);
    command.env("SAPWOOD", env!("CARGO_BIN_EXE_sapwood"));
    command
}

#[test]
fn the_program_s_status_is_handed_on() {
    for (code, ended) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("[ $SAPWOOD_RANK != 2 ] || exit 3", 3),
        ("kill -9 $$", 137),
    ] {
        let output = run(&mut script("3", code));
        assert_eq!(
            output.status.code(),
            Some(ended),
            "{code}: {}",
            text(&output.stderr)
        );
    }
    let output = run(&mut sapwood(&["run", "-n", "2", "--", "/nonexistent/program"]));
    assert_eq!(output.status.code(), Some(127));
    assert!(text(&output.stderr).contains("/nonexistent/program"));
}

#[test]
fn every_rank_knows_who_it_is_and_the_secret_is_not_in_its_environment() {
    let output = run(&mut script(
        "3",
        "echo $SAPWOOD_RANK of $SAPWOOD_SIZE, $SAPWOOD_SECRET_FILE",
    ));
    let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (rank, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("{rank} of 3, /dev/fd/")), "{line}");
    }
}

#[test]
fn a_benchmark_runs_on_the_launcher_s_ranks() {
    let program = env!("CARGO_BIN_EXE_sapwood");
    let output = run(&mut sapwood(&[
        "run",
        "-n",
        "3",
        "--",
        program,
        "bench",
        "all-reduce",
        "-b",
        "16K",
        "-e",
        "16K",
        "-n",
        "2",
    ]));
    let (table, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(
        table.contains("3 ranks") && table.contains("every element of every rank is right"),
        "{table}"
    );
    assert_eq!(table.matches("size(B)").count(), 1, "one rank prints: {table}");
}

#[test]
fn the_others_name_a_rank_that_dies_in_the_middle_of_a_collective() {
    // After two seconds rank 1 is in the middle of a call, or, on a busy machine, has not joined yet: it is named either way.
    let death = format!(
        "if [ $SAPWOOD_RANK = 1 ]; then \"$SAPWOOD\" {ENDLESS} & sleep 2; kill -9 $!; wait; exit 9; \
         else exec \"$SAPWOOD\" {ENDLESS}; fi"
    );
    let program = env!("CARGO_BIN_EXE_sapwood");
    let mut command = sapwood(&["run", "-n", "3", "--prefix", "--", "sh", "-c", &death]);
    let output = run(command.env("SAPWOOD", program));
    let said = text(&output.stderr);
    assert!(!output.status.success(), "{said}");
    for rank in [0, 2] {
        let named = said
            .lines()
            .any(|line| line.starts_with(&format!("[{rank}] ")) && line.contains("rank 1"));
        assert!(named, "rank {rank} must name rank 1: {said}");
    }
}

#[test]
fn a_killed_launcher_leaves_no_process() {
    let mark = format!("SAPWOOD_TEST_MARK={}", std::process::id());
    let (name, value) = mark.split_once('=').expect("a variable");
    // The ranks have children of their own: those must go, too.
    let endless = format!("sleep 1000 & exec \"$SAPWOOD\" {ENDLESS}");
    let mut launcher = script("3", &endless).env(name, value).spawn().expect("it starts");
    // The launcher, its guardian, three ranks, three sleepers.
    until("all processes", || (marked(&mark).len() >= 8).then_some(()));
    launcher.kill().expect("it runs");
    let output = finish(launcher);
    assert_eq!(output.status.code(), None, "killed: {}", text(&output.stderr));
    until("the end of all processes", || {
        marked(&mark).is_empty().then_some(())
    });
}
