//! What bad input gets from the real command: one line, the right status, nothing left running. And what ranks that do
//! not fit together get: an error on each of them that says who and what.

mod support;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;

use support::{finish, meeting, rank, refused, run, sapwood, text, until, write_secret};

const SMALL: [&str; 8] = ["-b", "16K", "-e", "16K", "-n", "2", "-w", "0"];

fn bench<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["bench", "all-reduce"], &SMALL[..], arguments].concat()
}

#[test]
fn arguments_that_cannot_be_used_are_refused_in_one_line() {
    for (arguments, parts) in [
        (&["--ranks", "0"][..], &["'0'", "1..=4096"][..]),
        (&["--ranks", "4097"], &["4097", "1..=4096"]),
        (&["--ranks", "two"], &["'two'", "--ranks"]),
        (&["-e", "99999999999999999999"], &["--maxbytes", "64M"]),
        (&["-e", "8388607T"], &["-e", "address space"]),
        (&["-e", "8K"], &["-e 8192", "-b 16384"]),
        (&["-f", "1"], &["-f 1", "at least 2"]),
        (&["-i", "0"], &["-i 0", "at least 1"]),
        (&["-n", "0"], &["--iters"]),
        (&["-b", "4", "-d", "double"], &["-b 4", "8 bytes"]),
        (&["-d", "quad"], &["-d quad", "bfloat16"]),
        (&["-o", "mean"], &["-o mean", "avg"]),
        (&["-r", "2"], &["-r 2", "0 to 1"]),
        (&["--plan", "spiral"], &["spiral", "double-binary-tree", "ring"]),
        (&["--plan", "k-ary-tree:1"], &["k-ary-tree:1"]),
        (&["--fabric", "pigeon"], &["pigeon", "auto, shm, verbs or tcp"]),
        (&["--timeout", "0"], &["'0' for '--timeout", "above 0"]),
        (&["--timeout", "NaN"], &["'NaN' for '--timeout", "above 0"]),
        (&["--json", "/nonexistent/out.json"], &["/nonexistent/out.json"]),
    ] {
        // The last one of a repeated argument would be refused as a repetition.
        let defaults: Vec<&str> = SMALL
            .chunks(2)
            .filter(|pair| !arguments.contains(&pair[0]))
            .flatten()
            .copied()
            .collect();
        refused(
            &mut sapwood(&[&["bench", "all-reduce"], &defaults[..], arguments].concat()),
            parts,
        );
    }
    refused(&mut sapwood(&["bench", "some-gather"]), &["some-gather"]);
    for (name, value) in [("--timeout", "0"), ("--timeout", "nan"), ("--fabric", "pigeon")] {
        refused(
            &mut sapwood(&["run", "-n", "2", name, value, "--", "true"]),
            &[name, value],
        );
    }
    for count in ["0", "4097", "-1", "x"] {
        refused(&mut sapwood(&["run", "-n", count, "--", "true"]), &[count]);
    }
}

#[test]
fn an_environment_that_makes_no_sense_is_refused_by_name() {
    let folder = meeting();
    let arguments = bench(&[]);
    for (variable, value) in [
        ("SAPWOOD_RANK", "2"),
        ("SAPWOOD_RANK", "first"),
        ("SAPWOOD_SIZE", "0"),
        ("SAPWOOD_SIZE", "5000"),
        ("SAPWOOD_RENDEZVOUS", "nowhere"),
        ("SAPWOOD_SECRET_FILE", "/nonexistent"),
        ("SAPWOOD_TIMEOUT", "soon"),
    ] {
        refused(
            rank(folder.path(), 0, 2, &arguments).env(variable, value),
            &[variable, value],
        );
    }
    refused(
        rank(folder.path(), 0, 2, &arguments).env_remove("SAPWOOD_SIZE"),
        &["SAPWOOD_SIZE"],
    );
    refused(
        &mut rank(folder.path(), 0, 2, &bench(&["--ranks", "3"])),
        &["--ranks 3", "2 ranks"],
    );
    write_secret(&folder.path().join("secret"), b"short");
    refused(
        &mut rank(folder.path(), 0, 2, &arguments),
        &["SAPWOOD_SECRET_FILE"],
    );
}

#[test]
#[cfg_attr(
    sanitized,
    ignore = "the address sanitizer reserves more address space than the limit"
)]
fn a_memory_limit_is_named_before_anything_is_allocated() {
    let mut command = Command::new("sh");
    let inner = sapwood(&bench(&[]));
    command
        .args(["-c", "ulimit -v 4000000 && exec \"$@\"", "sh"])
        .arg(inner.get_program())
        .args(["bench", "all-reduce", "-e", "1G", "--ranks", "4"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    refused(&mut command, &["8589934592 bytes", "address", "ulimit -v"]);
}

/// Runs two ranks with these arguments each; their standard errors. Both must fail with 1.
fn both_fail(first: &[&str], second: &[&str]) -> [String; 2] {
    let folder = meeting();
    let start = |number, arguments: &[&str]| {
        let deadline = ["--timeout", "20"];
        let arguments = [arguments, &deadline[..]].concat();
        rank(folder.path(), number, 2, &arguments)
            .spawn()
            .expect("it starts")
    };
    let ranks = [start(0, first), start(1, second)];
    ranks.map(|child| {
        let output = finish(child);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    })
}

#[test]
fn ranks_that_differ_in_count_type_or_operation_all_hear_it() {
    let reference = bench(&["-d", "float"]);
    let other_count = [
        "bench",
        "all-reduce",
        "-b",
        "32K",
        "-e",
        "32K",
        "-n",
        "2",
        "-w",
        "0",
    ];
    for (other, what) in [
        (other_count.to_vec(), "bytes"),
        (bench(&["-d", "int32"]), "int32"),
        (bench(&["-o", "max"]), "max"),
    ] {
        for (number, said) in both_fail(&reference, &other).iter().enumerate() {
            assert!(
                said.contains(&format!("rank {}", 1 - number)),
                "{other:?}, rank {number}: {said}"
            );
            assert!(said.contains(what), "{other:?}, rank {number}: {said}");
        }
    }
}

#[test]
fn a_rank_that_never_comes_is_named_at_the_deadline() {
    let folder = meeting();
    let output = run(&mut rank(folder.path(), 0, 3, &bench(&["--timeout", "1"])));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains('1') && said.contains('2') && said.contains("rank"),
        "{said}"
    );
}

#[test]
fn a_wrong_secret_opens_nothing() {
    let folder = meeting();
    let other = folder.path().join("other");
    write_secret(&other, b"not the secret of the other rank");
    let arguments = bench(&["--timeout", "3"]);
    let right = rank(folder.path(), 0, 2, &arguments).spawn().expect("it starts");
    let wrong = rank(folder.path(), 1, 2, &arguments)
        .env("SAPWOOD_SECRET_FILE", &other)
        .spawn()
        .expect("it starts");
    let (right, wrong) = (finish(right), finish(wrong));
    assert_eq!((right.status.code(), wrong.status.code()), (Some(1), Some(1)));
    let said = text(&wrong.stderr);
    assert!(said.contains("secret"), "{said}");
    assert!(text(&right.stderr).contains("rank 1"), "{}", text(&right.stderr));
}

#[test]
fn garbage_on_the_rendezvous_socket_disturbs_nobody() {
    let folder = meeting();
    let arguments = bench(&[]);
    let first = rank(folder.path(), 0, 2, &arguments).spawn().expect("it starts");
    let strangers: Vec<UnixStream> = ["GET / HTTP/1.1\r\n\r\n", "\0\u{1}", ""]
        .iter()
        .map(|garbage| {
            let mut stream = until("the rendezvous socket", || {
                UnixStream::connect(folder.path().join("meet")).ok()
            });
            // It may be hung up on at once.
            let _ = stream.write_all(garbage.as_bytes());
            stream
        })
        .collect();
    let second = rank(folder.path(), 1, 2, &arguments).spawn().expect("it starts");
    for child in [first, second] {
        let output = finish(child);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    drop(strangers);
}
