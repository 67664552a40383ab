//! What `sapwood run` does with signals, with ranks that die, with their output, and with the machine's CPUs.

mod support;

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

use support::{finish, marked, run, sapwood, state, text, until};

fn script(options: &[&str], script: &str) -> Command {
    let arguments = [&["run"], options, &["--", "sh", "-c", script]].concat();
    sapwood(&arguments)
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: takes plain numbers; the child has not been waited for, so the number is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

/// A command whose processes can be found again, and how.
fn with_mark(command: &mut Command, name: &str) -> (Child, String) {
    let mark = format!("SAPWOOD_TEST_MARK={name}-{}", std::process::id());
    let (variable, value) = mark.split_once('=').expect("a variable");
    let child = command.env(variable, value).spawn().expect("it starts");
    (child, mark)
}

#[test]
fn signals_come_to_every_rank_and_its_status_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display();
    let waiting = format!(
        "trap 'echo one > {place}/usr1-$SAPWOOD_RANK' USR1; trap 'echo two > {place}/usr2-$SAPWOOD_RANK' USR2; \
         trap 'exit 5' TERM; echo > {place}/ready-$SAPWOOD_RANK; while :; do sleep 0.05; done"
    );
    let child = script(&["-n", "3"], &waiting).spawn().expect("it starts");
    let all = |what: &str| {
        let said = (0..3).all(|rank| folder.path().join(format!("{what}-{rank}")).exists());
        said.then_some(())
    };
    until("the ranks' traps", || all("ready"));
    for (number, what) in [(libc::SIGUSR1, "usr1"), (libc::SIGUSR2, "usr2")] {
        signal(&child, number);
        until(what, || all(what));
    }
    signal(&child, libc::SIGTERM);
    let output = finish(child);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("ended by SIGTERM"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_signal_that_ends_the_ranks_gives_128_and_its_number() {
    for number in [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
    ] {
        let (child, mark) = with_mark(
            &mut script(&["-n", "2"], "exec sleep 1000"),
            &format!("end{number}"),
        );
        // The launcher, its guardian and two ranks that are what they are to be.
        let sleeping = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
        };
        until("the ranks", || {
            (marked(&mark).iter().filter(|pid| sleeping(pid)).count() == 2).then_some(())
        });
        signal(&child, number);
        let output = finish(child);
        assert_eq!(
            output.status.code(),
            Some(128 + number),
            "{}",
            text(&output.stderr)
        );
        assert!(marked(&mark).is_empty());
    }
}

/// In a process group of its own, as a shell has it: one that is orphaned, as a daemon's, does not stop by SIGTSTP.
#[test]
fn a_job_stops_and_goes_on_with_its_launcher() {
    let mut command = script(&["-n", "2"], "exec sleep 1000");
    // The launcher and two ranks. Not the guardian: it must be awake when the launcher is killed.
    stops_and_goes_on(command.process_group(0), "stop", 3);
}

#[test]
fn a_job_stops_and_goes_on_where_its_launcher_cannot() {
    let mut command = script(&["-n", "2"], "exec sleep 1000");
    // SAFETY: takes nothing.
    // SAFETY: takes nothing.
    let alone = || match unsafe { libc::setsid() } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    };
    // SAFETY: makes one system call that is safe after a fork.
    unsafe { command.pre_exec(alone) };
    stops_and_goes_on(&mut command, "stop-alone", 2);
}

/// So many of the job's four processes stop.
fn stops_and_goes_on(command: &mut Command, name: &str, stopping: usize) {
    let (child, mark) = with_mark(command, name);
    let in_state = |wanted: fn(char) -> bool, count: usize| {
        let states: Vec<_> = marked(&mark).into_iter().filter_map(state).collect();
        (states.iter().filter(|state| wanted(**state)).count() == count).then_some(())
    };
    until("all processes", || (marked(&mark).len() == 4).then_some(()));
    for _ in 0..3 {
        signal(&child, libc::SIGTSTP);
        until("stopped processes", || in_state(|state| state == 'T', stopping));
        signal(&child, libc::SIGCONT);
        until("no stopped process", || in_state(|state| state != 'T', 4));
    }
    signal(&child, libc::SIGTSTP);
    until("stopped processes", || in_state(|state| state == 'T', stopping));
    signal(&child, libc::SIGTERM);
    if stopping == 3 {
        // Its own turn comes when it goes on.
        signal(&child, libc::SIGCONT);
    }
    assert_eq!(finish(child).status.code(), Some(143));
}

#[test]
fn a_launcher_that_is_stopped_and_continued_at_once_goes_on() {
    let mut command = script(&["-n", "1"], "exec sleep 1000");
    let (child, mark) = with_mark(command.process_group(0), "stop-and-go");
    until("all processes", || (marked(&mark).len() >= 3).then_some(()));
    for pause in 0..400 {
        signal(&child, libc::SIGTSTP);
        // It looks for the signal every now and then, and is caught at any point of what it does then.
        std::thread::sleep(Duration::from_micros(pause % 40 * 10));
        signal(&child, libc::SIGCONT);
        std::thread::sleep(Duration::from_micros(pause % 7 * 100));
    }
    signal(&child, libc::SIGTERM);
    assert_eq!(finish(child).status.code(), Some(143));
}

/// Schedulers and systemd send several; a key that is pressed again is meant.
#[test]
fn several_signals_at_once_are_one_wish() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display();
    let waiting = format!(
        "trap '' HUP; trap 'sleep 0.5; exit 5' TERM; echo > {place}/ready-$SAPWOOD_RANK; while :; do sleep 0.05; done"
    );
    let child = script(&["-n", "2"], &waiting).spawn().expect("it starts");
    let ready = |rank: u32| folder.path().join(format!("ready-{rank}")).exists();
    until("the ranks' traps", || (ready(0) && ready(1)).then_some(()));
    signal(&child, libc::SIGTERM);
    signal(&child, libc::SIGHUP);
    let output = finish(child);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
}

/// Of two that have ended when the launcher looks, the one that was killed took the other with it.
#[test]
fn a_death_by_a_signal_goes_before_a_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display();
    let waiting = format!(
        "echo $$ > {place}/new-$SAPWOOD_RANK; mv {place}/new-$SAPWOOD_RANK {place}/pid-$SAPWOOD_RANK; \
         while [ ! -e {place}/go ]; do sleep 0.05; done; [ $SAPWOOD_RANK = 0 ] && exit 1; kill -SEGV $$"
    );
    let child = script(&["-n", "2"], &waiting).spawn().expect("it starts");
    let pids = [0, 1].map(|rank: u32| {
        let file = folder.path().join(format!("pid-{rank}"));
        let pid = until("the ranks", || std::fs::read_to_string(&file).ok());
        pid.trim().parse::<u32>().expect("a number")
    });
    signal(&child, libc::SIGSTOP);
    until("the launcher to stop", || {
        (state(child.id()) == Some('T')).then_some(())
    });
    std::fs::write(folder.path().join("go"), "").expect("a file");
    until("the ranks' ends", || {
        pids.iter().all(|pid| state(*pid) == Some('Z')).then_some(())
    });
    signal(&child, libc::SIGCONT);
    let output = finish(child);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(128 + libc::SIGSEGV), "{said}");
    assert!(
        said.contains("rank 1 (process") && said.contains("SIGSEGV"),
        "{said}"
    );
}

#[test]
fn the_others_go_on_where_they_are_to() {
    let output = run(&mut script(
        &["-n", "3", "--on-death", "keep"],
        "[ $SAPWOOD_RANK != 1 ] || exit 3; sleep 3; echo rank $SAPWOOD_RANK is done",
    ));
    let (said, complaints) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(3), "{complaints}");
    assert_eq!(said.matches("is done").count(), 2, "{said}");
    assert!(
        complaints.contains("rank 1 (process") && complaints.contains("exited with status 3; the other"),
        "{complaints}"
    );
}

#[test]
fn the_job_ends_with_a_rank_that_dies_and_says_which_and_how() {
    let output = run(&mut script(
        &["-n", "3"],
        "[ $SAPWOOD_RANK != 1 ] || kill -SEGV $$; sleep 1000",
    ));
    let complaints = text(&output.stderr);
    assert_eq!(output.status.code(), Some(128 + libc::SIGSEGV), "{complaints}");
    assert!(
        complaints.contains("rank 1 (process") && complaints.contains("was killed by SIGSEGV"),
        "{complaints}"
    );
}

#[test]
fn a_rank_is_started_anew_and_counts_its_attempts() {
    let output = run(&mut script(
        &["-n", "3", "--on-death", "restart", "--restarts", "2", "-l"],
        "echo attempt $SAPWOOD_ATTEMPT; [ $SAPWOOD_RANK != 1 ] || [ $SAPWOOD_ATTEMPT = 2 ] || kill -9 $$",
    ));
    let (said, complaints) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{complaints}");
    for line in [
        "[0] attempt 0",
        "[1] attempt 0",
        "[1] attempt 1",
        "[1] attempt 2",
        "[2] attempt 0",
    ] {
        assert_eq!(
            said.lines().filter(|said| *said == line).count(),
            1,
            "{line}: {said}"
        );
    }
    assert!(
        complaints.contains("was killed by SIGKILL; started anew as process"),
        "{complaints}"
    );

    let output = run(&mut script(
        &["-n", "2", "--on-death", "restart", "--restarts", "1"],
        "[ $SAPWOOD_RANK != 1 ] || exit 4; sleep 1000",
    ));
    let complaints = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{complaints}");
    assert_eq!(complaints.matches("started anew").count(), 1, "{complaints}");
}

#[test]
fn restarts_need_to_be_asked_for() {
    support::refused(
        &mut script(&["-n", "2", "--restarts", "1"], "true"),
        &["--restarts", "--on-death restart"],
    );
}

#[test]
fn lines_of_both_outputs_have_their_rank_before_them() {
    let output = run(&mut script(
        &["-n", "2", "--prefix"],
        "printf half; sleep 0.1; echo ' a line'; echo a complaint >&2; printf 'no end'",
    ));
    let mut said: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    said.sort();
    assert_eq!(
        said,
        ["[0] half a line", "[0] no end", "[1] half a line", "[1] no end"]
    );
    let mut complaints: Vec<String> = text(&output.stderr).lines().map(str::to_owned).collect();
    complaints.sort();
    assert_eq!(complaints, ["[0] a complaint", "[1] a complaint"]);
}

/// What each rank may use, by rank, and what the launcher has said of that.
fn bound(bind: &str, ranks: &str, prepare: impl FnOnce(&mut Command)) -> (Vec<String>, String) {
    let mut command = script(
        &["-n", ranks, "--bind", bind, "-v"],
        "echo $SAPWOOD_RANK $(grep Cpus_allowed_list /proc/self/status)",
    );
    prepare(&mut command);
    let output = run(&mut command);
    let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    let cpus = lines
        .iter()
        .filter_map(|line| Some(line.split_whitespace().nth(2)?.to_owned()));
    (cpus.collect(), text(&output.stderr))
}

#[test]
fn ranks_are_bound_to_what_is_said() {
    for bind in ["core", "numa"] {
        let (cpus, said) = bound(bind, "3", |_| {});
        assert_eq!(cpus.len(), 3, "{said}");
        for (rank, cpus) in cpus.iter().enumerate() {
            let wanted = format!("{cpus} of NUMA node");
            let named = said
                .lines()
                .any(|line| line.contains(&format!("rank {rank} is process")) && line.contains(&wanted));
            assert!(named, "rank {rank} on {cpus}: {said}");
        }
    }
}

#[test]
fn nobody_is_bound_to_what_the_launcher_may_not_use() {
    let allowed = rustix::thread::sched_getaffinity(None).expect("a mask");
    let last = (0..1024).rev().find(|cpu| allowed.is_set(*cpu)).expect("a CPU");
    for bind in ["core", "numa", "none"] {
        let (cpus, said) = bound(bind, "2", |command| {
            let mut mask = rustix::thread::CpuSet::new();
            mask.set(last);
            // SAFETY: one system call, which is safe between fork and exec.
            unsafe {
                command.pre_exec(move || Ok(rustix::thread::sched_setaffinity(None, &mask)?));
            }
        });
        assert_eq!(cpus, [last.to_string(), last.to_string()], "{said}");
        assert_eq!(said.contains("2 ranks share 1 cores"), bind == "core", "{said}");
    }
}
