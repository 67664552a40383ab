//! What goes wrong with `sapwood perf`: arguments, settings that differ, nobody comes, somebody dies. No time is judged.

mod support;

use support::sides::{measures, port, side};
use support::{finish, refused, run, sapwood, text, write_secret};

#[test]
fn arguments_that_cannot_be_used_are_refused_in_one_line() {
    for (arguments, parts) in [
        (&["write-lat", "-s", "0"][..], &["'0'", "1 to 2147483647"][..]),
        (&["write-lat", "-s", "4G"], &["4G", "1 to 2147483647"]),
        (&["write-latency"], &["write-latency", "write-lat, write-bw"]),
        (&["atomic-lat", "-s", "7"], &["-s", "8 bytes"]),
        (&["write-lat", "-x", "256"], &["256", "--gid-index"]),
        (&["write-lat", "-x", "-1"], &["--gid-index"]),
        (&["write-lat", "-n", "4"], &["'4'", "5.."]),
        (&["write-lat", "-q", "2"], &["-q 2", "bandwidth"]),
        (
            &["write-bw", "-m", "1500"],
            &["1500", "256, 512, 1024, 2048 or 4096"],
        ),
        (&["write-bw", "-S", "16"], &["16", "0..=15"]),
        (&["write-bw", "-u", "32"], &["32", "0..=31"]),
        (&["write-bw", "-p", "0"], &["'0'", "--port"]),
        (&["write-bw", "-D", "0"], &["'0'", "--duration"]),
        (&["write-bw", "-D", "5", "-n", "5"], &["--duration", "--iters"]),
        (&["write-bw", "-a", "-s", "8"], &["--all", "--size"]),
        (&["write-bw", "--flow_label", "1048576"], &["1048576", "20 bits"]),
        (&["write-bw", "--tclass", "256"], &["256", "--tclass"]),
        (
            &["atomic-bw", "-A", "ADD"],
            &["ADD", "FETCH_AND_ADD or CMP_AND_SWAP"],
        ),
        (
            &[
                "write-bw", "-l", "512", "-n", "5120", "--local", "--fabric", "shm",
            ],
            &["-l 512", "256"],
        ),
        (
            &["write-lat", "--use_cuda", "0"],
            &["--use_cuda", "not built yet"],
        ),
        (
            &["write-lat", "--use_cuda_dmabuf"],
            &["--use_cuda", "not built yet"],
        ),
        (
            &["write-lat", "--fabric", "pigeon"],
            &["pigeon", "auto, shm, verbs or tcp"],
        ),
        (&["write-lat", "--local", "elsewhere"], &["--local", "HOST"]),
        (
            &["write-lat", "--json", "/nonexistent/out.json"],
            &["/nonexistent/out.json"],
        ),
        (
            &["write-lat", "--secret-file", "/nonexistent"],
            &["/nonexistent", "cannot be opened"],
        ),
        (
            &["write-lat", "192.0.2.1", "--fabric", "shm"],
            &["192.0.2.1", "secret"],
        ),
        (
            &["write-bw", "--timeout", "0"],
            &["'0' for '--timeout", "above 0"],
        ),
    ] {
        refused(&mut sapwood(&[&["perf"], arguments].concat()), parts);
    }
    refused(
        sapwood(&["perf", "write-lat"]).env("SAPWOOD_TIMEOUT", "soon"),
        &["SAPWOOD_TIMEOUT=soon", "above 0"],
    );
}

#[test]
fn settings_that_differ_are_an_error_on_both_sides() {
    for (ours, theirs, parts) in [
        (
            &["write-lat", "-s", "8"][..],
            &["write-lat", "-s", "64"][..],
            ["-s is", "8", "64"],
        ),
        (
            &["write-lat", "-n", "10"],
            &["write-lat", "-n", "20"],
            ["-n is", "10", "20"],
        ),
        (
            &["write-lat"],
            &["send-lat"],
            ["the test is", "write-lat", "send-lat"],
        ),
        (
            &["write-bw", "-b"],
            &["write-bw"],
            ["-b is", "given", "not given"],
        ),
    ] {
        let port = port();
        let server = side(&[ours, &["-p", &port]].concat()).spawn().expect("it starts");
        let client = run(&mut side(&[theirs, &["-p", &port, "localhost"]].concat()));
        for output in [finish(server), client] {
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            for part in parts.iter().chain(&["server", "client"]) {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
    }
}

#[test]
fn who_waits_in_vain_says_so_after_a_second_and_gives_up_at_the_deadline() {
    for (arguments, other) in [
        (&["write-lat"][..], "client"),
        (&["write-lat", "localhost"], "server"),
    ] {
        let output = run(&mut side(
            &[arguments, &["--timeout", "2", "-p", &port()]].concat(),
        ));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("is waiting for the {other}")), "{said}");
        assert!(
            said.contains(&format!("no {other}")) && said.contains("within 2.0 s"),
            "{said}"
        );
    }
}

#[test]
fn a_wrong_secret_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    write_secret(&one, b"the secret of the server, long enough");
    write_secret(&two, b"another one that it does not know");
    let port = port();
    let start = |file: &std::path::Path, arguments: &[&str]| {
        side(&[&["write-lat", "--timeout", "3", "-p", &port][..], arguments].concat())
            .arg("--secret-file")
            .arg(file)
            .spawn()
            .expect("it starts")
    };
    let (server, client) = (start(&one, &[]), start(&two, &["127.0.0.1"]));
    let (server, client) = (finish(server), finish(client));
    assert_eq!((server.status.code(), client.status.code()), (Some(1), Some(1)));
    assert!(
        text(&client.stderr).contains("secret"),
        "{}",
        text(&client.stderr)
    );
}

#[test]
fn a_killed_side_is_named_by_the_other() {
    for test in ["write-lat", "send-bw", "read-bw"] {
        for victim in [0, 1] {
            let port = port();
            let start = |host: &[&str]| {
                side(&[&[test, "-D", "600", "-p", &port][..], host].concat())
                    .spawn()
                    .expect("it starts")
            };
            let mut sides = [start(&[]), start(&["localhost"])];
            sides.iter_mut().for_each(measures);
            std::thread::sleep(std::time::Duration::from_millis(200));
            let [server, client] = sides;
            let (mut killed, survivor, name) = if victim == 0 {
                (server, client, "server")
            } else {
                (client, server, "client")
            };
            let process = killed.id();
            killed.kill().expect("it runs");
            killed.wait().expect("it was killed");
            let output = finish(survivor);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{test}: {said}");
            assert!(
                said.contains(&format!("the {name} (process {process}) died")),
                "{test}: {said}"
            );
        }
    }
}

#[test]
fn an_interrupt_ends_both_sides_of_a_local_test() {
    let mut child = sapwood(&["perf", "write-bw", "--local", "--fabric", "shm", "-D", "600"])
        .spawn()
        .expect("it starts");
    measures(&mut child);
    // SAFETY: takes plain numbers; the child has not been waited for, so the number is still its own.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let output = finish(child);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("SIGINT"), "{said}");
}
