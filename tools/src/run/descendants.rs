//! What the ranks have started, wherever it has gone since: into another process group or session, or to another parent.
//!
//! Two things are known of such a process: the environment that it was started with, unless it was started without, and
//! that it becomes this process's child when its parent has gone, where this process does nothing but run the job.

use std::io::Error;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use sapwood::bootstrap::{Rank, Rendezvous, variable};

use super::RunError;
use super::processes;

/// How long what was killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// Guardians of jobs that a rank had started end by themselves, after their jobs.
const PATIENCE_WITH_GUARDIANS: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(2);

/// The variable that every rank of a job is started with, and no process of another job.
pub(super) fn mark(rendezvous: &Rendezvous) -> Vec<u8> {
    format!("{}={rendezvous}\0", variable::RENDEZVOUS).into_bytes()
}

/// One process, as the kernel lists it.
struct Process {
    pid: i32,
    parent: i32,
    ended: bool,
}

/// What the ranks of one job have started.
pub(super) struct Descendants {
    mark: Vec<u8>,
    /// The children that this process had before the job: none where it may not have the job's orphans.
    before: Option<Vec<i32>>,
}

impl Descendants {
    pub(super) fn new(mark: Vec<u8>) -> Self {
        Self { mark, before: None }
    }

    /// From now on every orphan of the job becomes a child of this process, which must have no children of its own
    /// beside those that it has now.
    pub(super) fn adopt(&mut self) -> Result<(), RunError> {
        let own = std::process::id() as i32;
        let children = list().into_iter().filter(|process| process.parent == own);
        self.before = Some(children.map(|process| process.pid).collect());
        // SAFETY: plain numbers.
        if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) } == -1 {
            return Err(RunError::System {
                doing: "preparing to end what the ranks start",
                problem: Error::last_os_error(),
            });
        }
        Ok(())
    }

    /// Lets orphans go that have ended. `ours` are waited for elsewhere.
    pub(super) fn reap(&self, ours: impl Fn(i32) -> bool) {
        while self.before.is_some() {
            // SAFETY: the structure is made of integers, for which zero is a value, and is valid for the call, which
            // leaves it as it is where nobody has ended. Its number is set in what is said of a child.
            let ended = unsafe {
                let mut said: libc::siginfo_t = std::mem::zeroed();
                let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
                match libc::waitid(libc::P_ALL, 0, &mut said, how) {
                    0 => said.si_pid(),
                    _ => 0,
                }
            };
            if ended == 0 || ours(ended) {
                break;
            }
            wait(ended);
        }
    }

    /// Ends all of them; the ranks themselves have ended. What is left after a while is named.
    ///
    /// # Errors
    /// In words: what is left.
    pub(super) fn end_all(&self, ours: impl Fn(i32) -> bool) -> Result<(), String> {
        let own = std::process::id() as i32;
        self.end(|process| {
            if processes::has_mark(process.pid, &self.mark) {
                return true;
            }
            let adopted = |before: &Vec<i32>| process.parent == own && !before.contains(&process.pid);
            self.before.as_ref().is_some_and(adopted) && !ours(process.pid)
        })
    }

    /// Ends those that one rank had started, and what those have; the rank itself has ended.
    ///
    /// # Errors
    /// As [`Self::end_all`].
    pub(super) fn end_of(&self, rank: Rank) -> Result<(), String> {
        let number = format!("{}={rank}\0", variable::RANK);
        self.end(|process| {
            processes::has_mark(process.pid, &self.mark)
                && processes::has_mark(process.pid, number.as_bytes())
        })
    }

    fn end(&self, is_meant: impl Fn(&Process) -> bool) -> Result<(), String> {
        let begun = Instant::now();
        let own = std::process::id() as i32;
        // What is being killed shows no environment any more, and holds what it held for a moment yet.
        let mut killed: Vec<i32> = Vec::new();
        loop {
            let all = list();
            let mut meant = killed.clone();
            let new = |process: &&Process| process.pid != own && !killed.contains(&process.pid);
            for process in all.iter().filter(new).filter(|process| is_meant(process)) {
                meant.push(process.pid);
            }
            // Their children with them: those might be nobody's in a moment.
            let mut at = 0;
            while at < meant.len() {
                let children = all.iter().filter(|process| process.parent == meant[at]);
                let new: Vec<i32> = children
                    .map(|process| process.pid)
                    .filter(|pid| *pid != own && !meant.contains(pid))
                    .collect();
                meant.extend(new);
                at += 1;
            }
            let waits_for_guardians = begun.elapsed() < PATIENCE_WITH_GUARDIANS;
            for process in all.iter().filter(|process| meant.contains(&process.pid)) {
                if process.ended && process.parent == own && self.before.is_some() {
                    wait(process.pid);
                } else if !(waits_for_guardians && processes::is_guardian(process.pid)) {
                    kill(process.pid);
                }
            }
            let is_there = |pid: &i32| all.iter().any(|process| process.pid == *pid && !process.ended);
            meant.retain(is_there);
            killed.clone_from(&meant);
            if meant.is_empty() {
                return Ok(());
            }
            if begun.elapsed() >= PATIENCE {
                let pids: Vec<String> = meant.iter().map(i32::to_string).collect();
                return Err(format!(
                    "started by the ranks and still there {} s after SIGKILL: process {}",
                    PATIENCE.as_secs(),
                    pids.join(", ")
                ));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Descendants {
    fn drop(&mut self) {
        if self.before.is_some() {
            // SAFETY: plain numbers.
            unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 0) };
        }
    }
}

fn list() -> Vec<Process> {
    let mut all = Vec::new();
    processes::each_number(c"/proc", |pid, _| all.extend(look_at(pid)));
    all
}

fn look_at(pid: i32) -> Option<Process> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in parentheses, may hold anything.
    let mut words = status.rsplit_once(") ")?.1.split(' ');
    let ended = matches!(words.next()?, "Z" | "X");
    let parent = words.next()?.parse().ok()?;
    Some(Process { pid, parent, ended })
}

/// How a process is, in the kernel's letter.
pub(super) fn state(pid: u32) -> Option<char> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    status.rsplit_once(") ")?.1.chars().next()
}

fn wait(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

fn kill(pid: i32) {
    let Some(pid) = Pid::from_raw(pid) else { return };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => drop(rustix::process::pidfd_send_signal(&process, Signal::KILL)),
        Err(Errno::NOSYS) => drop(rustix::process::kill_process(pid, Signal::KILL)),
        Err(_) => {}
    }
}
