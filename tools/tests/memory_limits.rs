//! What a limit on memory gets from the real command: one line before anything is allocated or started, with the limit
//! and what raises it. Where the limit leaves room, the command works. And what one on open files gets.

mod support;

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};
use support::{run, sapwood, text};

/// Has the command start with at most so much of a resource.
fn limited(mut command: Command, resource: Resource, most: u64) -> Command {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    // SAFETY: between fork and exec the closure makes one system call and touches no memory but its own.
    unsafe { command.pre_exec(move || Ok(setrlimit(resource, limit)?)) };
    command
}

fn refused(mut command: Command, parts: &[&str]) {
    let output = run(&mut command);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
    assert!(output.stdout.is_empty(), "{command:?}: {}", text(&output.stdout));
    assert_eq!(said.lines().count(), 1, "{command:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{command:?}: {said}");
    }
}

const BENCH: [&str; 8] = ["bench", "all-reduce", "-b", "8G", "-e", "8G", "-n", "1"];

#[test]
#[cfg_attr(
    sanitized,
    ignore = "the address sanitizer reserves more address space than the limit"
)]
fn an_address_space_limit_is_named_with_what_raises_it() {
    let limit = 4_000_000_000;
    let parts = ["34359738368 bytes", "4000000000 bytes", "ulimit -v unlimited"];
    refused(limited(sapwood(&BENCH), Resource::As, limit), &parts);
}

#[test]
fn a_file_size_limit_holds_for_shared_memory_and_is_named() {
    let parts = ["34359738368 bytes", "1000000 bytes", "ulimit -f unlimited"];
    refused(limited(sapwood(&BENCH), Resource::Fsize, 1_000_000), &parts);
}

#[test]
fn a_shortage_of_open_files_says_what_raises_it() {
    for (limit, ranks) in [(16, "32"), (64, "64"), (160, "64")] {
        let arguments = [
            "bench",
            "all-reduce",
            "--ranks",
            ranks,
            "-b",
            "8",
            "-e",
            "8",
            "-n",
            "1",
        ];
        let output = run(&mut limited(sapwood(&arguments), Resource::Nofile, limit));
        let said = text(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{limit} files, {ranks} ranks: {said}"
        );
        assert!(said.contains("ulimit -n"), "{limit} files, {ranks} ranks: {said}");
    }
}

#[test]
#[cfg_attr(
    sanitized,
    ignore = "the address sanitizer reserves more address space than the limit"
)]
fn a_demo_that_does_not_fit_is_refused_before_a_worker_is_started() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let report = folder.path().join("report");
    let demo = || {
        let path = report.to_str().expect("a path in UTF-8");
        sapwood(&["demo", "--epochs", "1", "--report", path])
    };
    let parts = ["--workers 4", "20000000 bytes", "ulimit -v unlimited"];
    refused(limited(demo(), Resource::As, 20_000_000), &parts);
    assert!(!report.exists(), "nothing was written");
    // What is left by a limit that is large enough is enough.
    let output = run(&mut limited(demo(), Resource::As, 400_000_000));
    assert!(output.status.success(), "{}", text(&output.stderr));
}
