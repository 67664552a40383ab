//! Nothing that a rank has started outlives the job, wherever it has gone; and what a rank inherits.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use support::{finish, marked, refuse_call, run, sapwood, state, text, until};

fn script(options: &[&str], script: &str) -> Command {
    let mut command = sapwood(&[&["run"], options, &["--", "sh", "-c", script]].concat());
    command.env("SAPWOOD", env!("CARGO_BIN_EXE_sapwood"));
    command
}

/// Processes can be found again that were started with this; what is left of them is killed when it is dropped.
struct Mark(String);

impl Mark {
    fn new(name: &str) -> Self {
        Self(format!("SAPWOOD_TEST_MARK={name}-{}", std::process::id()))
    }

    fn start(&self, mut command: Command) -> Child {
        let (name, value) = self.0.split_once('=').expect("a variable");
        command.env(name, value).spawn().expect("it starts")
    }

    fn found(&self) -> Vec<u32> {
        marked(&self.0)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        for pid in self.found() {
            // SAFETY: takes plain numbers; the process was there a moment ago.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        }
    }
}

/// A process that leaves the job's group and session, with a child that has left it once more.
const FAR: &str = "setsid sh -c 'setsid sleep 1000 & echo $! > \"$0\"; exec sleep 1000' \"$PLACE\" \
                   </dev/null >/dev/null 2>&1 & while [ ! -s \"$PLACE\" ]; do sleep 0.05; done";

#[test]
fn what_has_left_the_group_ends_with_the_job() {
    let folder = tempfile::tempdir().expect("a folder");
    let mark = Mark::new("left");
    for (end, status) in [("exit 0", 0), ("exit 4", 4), ("kill -9 $$", 137)] {
        let place = folder.path().join(end.replace(' ', "-"));
        let start = format!("PLACE={}-$SAPWOOD_RANK; {FAR}; {end}", place.display());
        let output = finish(mark.start(script(&["-n", "2"], &start)));
        assert_eq!(output.status.code(), Some(status), "{}", text(&output.stderr));
        let left = mark.found();
        assert!(left.is_empty(), "{end}: {left:?} of {}", std::process::id());
    }
}

#[test]
fn what_was_started_without_an_environment_ends_with_the_job_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("pid");
    let start = format!(
        "env -i setsid sh -c 'echo $$ > \"$0\"; exec sleep 1000' {place} </dev/null >/dev/null 2>&1 & \
         while [ ! -s {place} ]; do sleep 0.05; done",
        place = place.display()
    );
    let output = run(&mut script(&["-n", "1"], &start));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let pid = std::fs::read_to_string(place).expect("a number").trim().parse();
    let pid: u32 = pid.expect("a number");
    let left = state(pid);
    // SAFETY: takes plain numbers; if it is there, it is the sleeper.
    left.is_some()
        .then(|| unsafe { libc::kill(pid as i32, libc::SIGKILL) });
    assert!(matches!(left, None | Some('Z')), "{left:?}");
}

#[test]
fn what_has_left_the_group_ends_with_a_killed_launcher() {
    let folder = tempfile::tempdir().expect("a folder");
    let mark = Mark::new("killed");
    let place = folder.path().join("far");
    let start = format!(
        "PLACE={}-$SAPWOOD_RANK; {FAR}; echo > $PLACE-done; sleep 1000",
        place.display()
    );
    let mut launcher = mark.start(script(&["-n", "2"], &start));
    let done = |rank: u32| folder.path().join(format!("far-{rank}-done")).exists();
    until("both ranks", || (done(0) && done(1)).then_some(()));
    launcher.kill().expect("it runs");
    launcher.wait().expect("a child");
    until("the end of all processes", || {
        mark.found().is_empty().then_some(())
    });
}

#[test]
fn the_guardian_goes_where_descriptors_must_be_closed_one_by_one() {
    let mark = Mark::new("one-by-one");
    let mut command = script(&["-n", "2"], "sleep 1000");
    refuse_call(&mut command, libc::SYS_close_range, libc::ENOSYS);
    let mut launcher = mark.start(command);
    until("all processes", || (mark.found().len() >= 4).then_some(()));
    launcher.kill().expect("it runs");
    launcher.wait().expect("a child");
    until("the end of all processes", || {
        mark.found().is_empty().then_some(())
    });
}

#[test]
fn a_dead_rank_leaves_nobody_to_its_successor() {
    let folder = tempfile::tempdir().expect("a folder");
    let mark = Mark::new("dead-rank");
    let far = folder.path().join("far");
    // The successor, or the rank that goes on, looks whether the dead one's sleepers are still there.
    let gone = "for pid in $(cat \"$PLACE\"); do case $(cut -d ' ' -f 3 /proc/$pid/stat 2>/dev/null) in ''|Z|X) ;; \
                *) echo $pid is there >&2; exit 9 ;; esac; done";
    let start = format!(
        "PLACE={far}-1; [ $SAPWOOD_RANK = 1 ] || exit 0; [ $SAPWOOD_ATTEMPT = 1 ] && {{ {gone}; exit 0; }}; {FAR}; \
         kill -9 $$",
        far = far.display()
    );
    let options = ["-n", "2", "--on-death", "restart", "--restarts", "1"];
    let output = finish(mark.start(script(&options, &start)));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));

    let _ = std::fs::remove_file(folder.path().join("far-1"));
    let start = format!(
        "PLACE={far}-1; if [ $SAPWOOD_RANK = 1 ]; then {FAR}; echo > $PLACE-done; exit 3; fi; \
         while [ ! -e $PLACE-done ]; do sleep 0.05; done; for try in 1 2 3 4 5 6 7 8 9 10; do sleep 1; \
         ({gone}) 2>/dev/null && exit 0; done; exit 9",
        far = far.display()
    );
    let output = finish(mark.start(script(&["-n", "2", "--on-death", "keep"], &start)));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(!said.contains("status 9"), "{said}");
}

#[test]
fn scripts_may_use_small_descriptors_and_programs_hand_the_secret_on_to_nobody() {
    let start =
        "exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-; exec \"$SAPWOOD\" bench all-reduce -b 16K -e 16K -n 2";
    let output = run(&mut script(&["-n", "2"], start));
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn what_goes_wrong_before_the_program_is_not_blamed_on_it() {
    let mut command = sapwood(&["run", "-n", "2", "--bind", "core", "--", "true"]);
    refuse_call(&mut command, libc::SYS_sched_setaffinity, libc::EPERM);
    let output = run(&mut command);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("binding a rank to its CPUs") && !said.contains("true:"),
        "{said}"
    );
}

#[test]
fn a_launcher_whose_parent_ignores_its_childrens_ends_waits_all_the_same() {
    let mut command = script(&["-n", "2"], "exit 3");
    // SAFETY: one system call, which is safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            Ok(())
        });
    }
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
}

#[test]
fn a_slip_is_warned_about_once() {
    let bench = "exec \"$SAPWOOD\" bench all-reduce -b 16K -e 16K -n 2";
    for command in [
        script(&["-n", "2"], bench),
        sapwood(&[
            "bench",
            "all-reduce",
            "--ranks",
            "2",
            "-b",
            "16K",
            "-e",
            "16K",
            "-n",
            "2",
        ]),
    ] {
        let mut command = command;
        let output = run(command.env("SAPWOOD_TIMOUT", "5"));
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(said.matches("SAPWOOD_TIMOUT").count(), 1, "{said}");
    }
}

#[test]
#[ignore = "only root can make a rank that its launcher may not kill: run it as root with --ignored"]
fn a_rank_that_cannot_be_killed_is_named_and_left_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let shell = folder.path().join("shell");
    let pid = folder.path().join("pid");
    std::fs::copy("/bin/bash", &shell).expect("a shell");
    std::fs::write(&pid, "").expect("a file");
    for (path, mode) in [(folder.path(), 0o755), (&shell, 0o4755), (&pid, 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("an own file");
    }
    let start = format!(
        "[ $SAPWOOD_RANK = 1 ] && exec {} -p -c 'echo $$ > {pid}; exec setpriv --reuid 0 --clear-groups sleep 60 </dev/null >/dev/null 2>&1'; \
         while [ ! -s {pid} ]; do sleep 0.05; done; sleep 1; exit 4",
        shell.display(),
        pid = pid.display()
    );
    let output = run(script(&["-n", "2"], &start).uid(65_534).gid(65_534));
    let pid = std::fs::read_to_string(&pid).expect("a number");
    let pid: i32 = pid.trim().parse().expect("a number");
    // SAFETY: takes plain numbers; the sleeper has a minute.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(
        said.contains(&format!("rank 1 (process {pid}) is still there")),
        "{said}"
    );
}
