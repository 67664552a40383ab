//! What tests of the real command share: starting it, listening to it, finding what it left behind.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod sides;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// No wait in these tests is longer: only a hang gets here.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The command, outside of any job.
pub fn sapwood(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sapwood"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SAPWOOD_") {
            command.env_remove(name);
        }
    }
    // Who runs the tests in the background, or by nohup, has them inherit that these signals are ignored, and what they
    // start, too.
    // SAFETY: between fork and exec only calls that are allowed there and touch no memory.
    unsafe {
        command.pre_exec(|| {
            for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        });
    }
    command
}

/// The same, as rank `rank` of `size` that meet at `folder` and know the secret in the file there.
pub fn rank(folder: &Path, rank: u32, size: u32, arguments: &[&str]) -> Command {
    let mut command = sapwood(arguments);
    command
        .env("SAPWOOD_RANK", rank.to_string())
        .env("SAPWOOD_SIZE", size.to_string())
        .env("SAPWOOD_RENDEZVOUS", folder.join("meet"))
        .env("SAPWOOD_SECRET_FILE", folder.join("secret"));
    command
}

/// A folder to meet in, with a secret that only this user can read.
pub fn meeting() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_secret(
        &folder.path().join("secret"),
        b"a secret of this test, long enough",
    );
    folder
}

/// Writes a secret's file as the library wants it.
pub fn write_secret(path: &Path, secret: &[u8]) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .expect("a file");
    file.write_all(secret).expect("a file that can be written");
}

/// Waits for a child's end and its output; panics after [`PATIENCE`].
pub fn finish(child: Child) -> Output {
    let pid = child.id();
    let (done, ended) = std::sync::mpsc::channel();
    let watchdog = std::thread::spawn(move || {
        let in_time = ended.recv_timeout(PATIENCE).is_ok();
        if !in_time {
            // SAFETY: takes plain numbers; the child has not been waited for, so the number is still its own.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        }
        in_time
    });
    let output = child.wait_with_output().expect("a child can be waited for");
    let _ = done.send(());
    assert!(
        watchdog.join().expect("it does not panic"),
        "hung: {}",
        text(&output.stderr)
    );
    output
}

/// Starts and finishes.
pub fn run(command: &mut Command) -> Output {
    finish(command.spawn().expect("it starts"))
}

/// Exit status 2, nothing on standard output, and one line with all of `parts`.
pub fn refused(command: &mut Command, parts: &[&str]) {
    let output = run(command);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
    assert!(output.stdout.is_empty(), "{command:?}: {}", text(&output.stdout));
    assert_eq!(said.lines().count(), 1, "{command:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{command:?}: {said}");
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Looks until there is something, for at most [`PATIENCE`].
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// 'R', 'S', 'T' and so on; none when it is gone.
pub fn state(pid: u32) -> Option<char> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    status.rsplit_once(") ")?.1.chars().next()
}

/// Has the kernel refuse a system call to a command and whatever it starts, as sandboxes do.
pub fn refuse_call(command: &mut Command, call: libc::c_long, error: i32) {
    let filter = |code: u32, jt, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf: 0,
        k,
    };
    // The number of the call is the first word of what a filter sees.
    let filters = [
        filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, call as u32),
        filter(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        filter(
            libc::BPF_RET | libc::BPF_K,
            0,
            libc::SECCOMP_RET_ERRNO | error as u32,
        ),
    ];
    let install = move || {
        let mut filters = filters;
        let program = libc::sock_fprog {
            len: filters.len() as u16,
            filter: filters.as_mut_ptr(),
        };
        // SAFETY: system calls that are safe between fork and exec; the program is valid while they read it.
        let code = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            )
        };
        match code {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: as above; nothing in it takes memory.
    unsafe { command.pre_exec(install) };
}

/// Processes that have `mark` in the environment that they were started with.
pub fn marked(mark: &str) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("procfs").filter_map(Result::ok);
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
    })
    .collect()
}

/// The demo's workers whose parent is this process.
pub fn workers_of(parent: u32) -> Vec<u32> {
    let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let parent_of = |stat: String| stat.rsplit(") ").next()?.split(' ').nth(1)?.parse::<u32>().ok();
    let processes = std::fs::read_dir("/proc").expect("procfs").filter_map(Result::ok);
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| stat(pid).and_then(parent_of) == Some(parent))
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1) == Some(b"demo-worker")
        })
        .collect()
}

/// Gone, or dead and not yet collected by whoever inherited it.
pub fn dead(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X "))
}
