//! What becomes of the ranks' output on its way through `sapwood run --prefix`.

mod support;

use std::io::Read;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use support::{finish, sapwood, state, text, until};

fn script(options: &[&str], script: &str) -> Command {
    sapwood(&[&["run"], options, &["--", "sh", "-c", script]].concat())
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: takes plain numbers; the child has not been waited for, so the number is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

/// Until as much waits to be read as the pipe holds: how much that is depends on the lengths of the writes, so what counts
/// is that it gets no more.
fn until_nobody_can_write(child: &Child) {
    let stdout = child.stdout.as_ref().expect("a pipe");
    let (mut most, mut since) = (0, Instant::now());
    until("a full pipe", || {
        let waiting = rustix::io::ioctl_fionread(stdout).expect("a pipe");
        if waiting != most {
            (most, since) = (waiting, Instant::now());
        }
        (most != 0 && since.elapsed() >= Duration::from_secs(1)).then_some(())
    });
}

#[test]
fn a_signal_ends_the_job_though_nobody_reads_its_output() {
    let mut child = script(&["-n", "2", "-l"], "yes").spawn().expect("it starts");
    until_nobody_can_write(&child);
    signal(&child, libc::SIGTERM);
    let status = until("the launcher's end", || child.try_wait().expect("a child"));
    assert_eq!(status.code(), Some(143));
    let said = text(&finish(child).stderr);
    assert!(
        said.contains("ended by SIGTERM") && said.contains("bytes of output were not read and are lost"),
        "{said}"
    );
}

#[test]
fn a_death_is_noticed_though_nobody_reads_the_output() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display();
    let printing = format!(
        "[ $SAPWOOD_RANK = 1 ] || exec sh -c 'echo $$ > {place}/new; mv {place}/new {place}/pid; exec yes'; \
         while [ ! -e {place}/go ]; do sleep 0.05; done; echo the last words >&2; exit 7"
    );
    let child = script(&["-n", "2", "-l"], &printing).spawn().expect("it starts");
    until_nobody_can_write(&child);
    let pid = std::fs::read_to_string(folder.path().join("pid")).expect("a number");
    let pid = pid.trim().parse().expect("a number");
    std::fs::write(folder.path().join("go"), "").expect("a file");
    until("the end of the rank that prints", || {
        matches!(state(pid), None | Some('Z')).then_some(())
    });
    // Now somebody reads.
    let output = finish(child);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(
        said.contains("[1] the last words") && said.contains("rank 1 (process"),
        "{said}"
    );
    assert!(!said.contains("lost"), "{said}");
}

#[test]
fn who_reads_late_gets_everything() {
    let mut child = script(&["-n", "1", "-l"], "seq 1 100000")
        .spawn()
        .expect("it starts");
    until_nobody_can_write(&child);
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut first = [0; 1000];
    stdout.read_exact(&mut first).expect("a pipe");
    std::thread::sleep(Duration::from_millis(300));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    assert!(finish(child).status.success());
    let all = text(&first) + &rest;
    let wanted: String = (1..=100_000).map(|line| format!("[0] {line}\n")).collect();
    assert!(all == wanted, "{} bytes of {}", all.len(), wanted.len());
}

#[test]
fn half_a_line_is_not_lost_where_somebody_else_holds_the_output_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display();
    let half = format!(
        "echo $$ > {place}/new; mv {place}/new {place}/pid; while [ ! -e {place}/go ]; do sleep 0.05; done; printf half"
    );
    let child = script(&["-n", "1", "-l"], &half).spawn().expect("it starts");
    let pid = until("the rank", || {
        std::fs::read_to_string(folder.path().join("pid")).ok()
    });
    let held = std::fs::File::options()
        .write(true)
        .open(format!("/proc/{}/fd/1", pid.trim()))
        .expect("the rank's output");
    std::fs::write(folder.path().join("go"), "").expect("a file");
    let output = finish(child);
    drop(held);
    assert_eq!(text(&output.stdout), "[0] half\n");
}
