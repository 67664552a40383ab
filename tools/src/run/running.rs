//! A job that runs: waits for its ranks, passes signals on, and ends the whole job when one rank fails.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use sapwood::bootstrap::Rank;

use super::RunError;
use super::guardian::Guardian;
use super::signals::{self, Forwarding};
use super::tagging::Tagged;

/// How long the other ranks have to report after one has failed.
const GRACE: Duration = Duration::from_secs(2);
/// How long a rank that was asked to end has before it is killed.
const GRACE_AFTER_SIGNAL: Duration = Duration::from_secs(5);
/// Signals are looked at this often; most of them interrupt the wait anyway.
const SLICE: Duration = Duration::from_millis(100);

/// One rank's process.
struct Process {
    child: Child,
    /// Ready when the process has ended.
    pidfd: OwnedFd,
    status: Option<ExitStatus>,
    killed: bool,
}

/// A job whose ranks have been started. Dropping it kills them, and whatever they have started.
pub struct Running {
    processes: Vec<Process>,
    outputs: Vec<Tagged>,
    first_failure: Option<Rank>,
    /// When the ranks that are left are killed.
    kill_at: Option<Instant>,
    interrupted: Option<i32>,
    guardian: Guardian,
    forwarding: Forwarding,
}

impl Running {
    pub(super) fn new(guardian: Guardian, forwarding: Forwarding) -> Self {
        Self {
            processes: Vec::new(),
            outputs: Vec::new(),
            first_failure: None,
            kill_at: None,
            interrupted: None,
            guardian,
            forwarding,
        }
    }

    pub(super) fn group(&self) -> i32 {
        self.guardian.group()
    }

    /// Takes a rank in that was just started; the next one in order.
    pub(super) fn add(&mut self, mut child: Child, tagged: bool) -> Result<(), RunError> {
        let failed = |problem: std::io::Error| RunError::System {
            doing: "watching a rank's process",
            problem,
        };
        let pid = Pid::from_child(&child);
        let outputs = if tagged {
            (child.stdout.take(), child.stderr.take())
        } else {
            (None, None)
        };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(error.into()));
            }
        };
        let rank = self.processes.len();
        self.processes.push(Process {
            child,
            pidfd,
            status: None,
            killed: false,
        });
        if let Some(stdout) = outputs.0 {
            self.outputs
                .push(Tagged::new(rank, stdout.into(), false).map_err(failed)?);
        }
        if let Some(stderr) = outputs.1 {
            self.outputs
                .push(Tagged::new(rank, stderr.into(), true).map_err(failed)?);
        }
        Ok(())
    }

    /// The ranks that had not ended when last looked at.
    pub fn alive(&self) -> impl Iterator<Item = Rank> {
        (0..)
            .zip(&self.processes)
            .filter_map(|(rank, process)| process.status.is_none().then_some(rank))
    }

    #[cfg(test)]
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().map(|process| process.child.id())
    }

    /// What a rank prints, if its command had its standard output piped and nobody has taken it yet.
    pub fn take_stdout(&mut self, rank: Rank) -> Option<ChildStdout> {
        self.processes.get_mut(rank as usize)?.child.stdout.take()
    }

    /// Waits until all ranks have ended. When one fails the others have two seconds to say so before they are
    /// killed. SIGINT, SIGTERM and SIGHUP to this process are passed on; the second of them, or five seconds, kills.
    ///
    /// # Errors
    /// [`RunError::System`] if the ranks cannot be waited for.
    pub fn wait(mut self) -> Result<JobEnd, RunError> {
        loop {
            if let Some(end) = self.poll(Duration::from_secs(3600))? {
                return Ok(end);
            }
        }
    }

    /// As [`Self::wait`], for at most `patience`: `None` if ranks are still running then.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn poll(&mut self, patience: Duration) -> Result<Option<JobEnd>, RunError> {
        let until = Instant::now() + patience;
        loop {
            self.pass_signals_on();
            self.reap()?;
            if self.processes.iter().all(|process| process.status.is_some()) {
                return Ok(Some(self.finish()));
            }
            let now = Instant::now();
            if self.kill_at.is_some_and(|kill_at| now >= kill_at) {
                self.kill();
            }
            if now >= until {
                return Ok(None);
            }
            self.sleep(until.min(now + SLICE).min(self.kill_at.unwrap_or(until)))?;
        }
    }

    fn pass_signals_on(&mut self) {
        if let Some(signal) = self.forwarding.take() {
            if self.interrupted.replace(signal).is_some() {
                self.kill();
            } else {
                self.guardian.signal(signal);
                self.kill_at = Some(Instant::now() + GRACE_AFTER_SIGNAL);
            }
        }
    }

    fn kill(&mut self) {
        self.kill_at = None;
        for process in self
            .processes
            .iter_mut()
            .filter(|process| process.status.is_none())
        {
            process.killed = true;
            let _ = process.child.kill();
        }
    }

    fn reap(&mut self) -> Result<(), RunError> {
        for (rank, process) in (0..).zip(&mut self.processes) {
            if process.status.is_some() {
                continue;
            }
            let status = process.child.try_wait();
            process.status = status.map_err(|problem| RunError::System {
                doing: "waiting for a rank",
                problem,
            })?;
            let failed = process.status.is_some_and(|status| !status.success());
            if failed && self.first_failure.is_none() {
                self.first_failure = Some(rank);
                self.kill_at.get_or_insert(Instant::now() + GRACE);
            }
        }
        Ok(())
    }

    fn sleep(&mut self, until: Instant) -> Result<(), RunError> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let alive = self.processes.iter().filter(|process| process.status.is_none());
        let mut entries: Vec<_> = alive
            .map(|process| PollFd::from_borrowed_fd(process.pidfd.as_fd(), PollFlags::IN))
            .collect();
        let first_output = entries.len();
        let open = || {
            self.outputs
                .iter()
                .enumerate()
                .filter(|(_, output)| !output.ended)
        };
        entries
            .extend(open().map(|(_, output)| PollFd::from_borrowed_fd(output.descriptor(), PollFlags::IN)));
        let places: Vec<usize> = open().map(|(place, _)| place).collect();
        match rustix::event::poll(&mut entries, Some(&timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => {
                return Err(RunError::System {
                    doing: "waiting for the ranks",
                    problem: error.into(),
                });
            }
        }
        let spoke: Vec<usize> = entries[first_output..]
            .iter()
            .zip(places)
            .filter_map(|(entry, place)| (!entry.revents().is_empty()).then_some(place))
            .collect();
        spoke.into_iter().for_each(|place| self.outputs[place].pass_on());
        Ok(())
    }

    /// All ranks have ended: ends what they left behind, and hands on the last of what they printed.
    fn finish(&mut self) -> JobEnd {
        self.guardian.signal(libc::SIGKILL);
        // With every process of the group killed the outputs end, unless one has left the group: not waited for.
        let until = Instant::now() + Duration::from_millis(500);
        while self.outputs.iter().any(|output| !output.ended) && Instant::now() < until {
            if self
                .sleep(until.min(Instant::now() + Duration::from_millis(10)))
                .is_err()
            {
                break;
            }
        }
        let ranks = self.processes.iter().filter_map(|process| {
            Some(RankEnd {
                pid: process.child.id(),
                status: process.status?,
                killed_by_launcher: process.killed,
            })
        });
        JobEnd {
            ranks: ranks.collect(),
            first_failure: self.first_failure,
            interrupted: self.interrupted,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.guardian.signal(libc::SIGKILL);
        for process in self
            .processes
            .iter_mut()
            .filter(|process| process.status.is_none())
        {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

/// How one rank ended.
#[derive(Debug, Clone, Copy)]
pub struct RankEnd {
    /// Its process.
    pub pid: u32,
    /// Its exit status.
    pub status: ExitStatus,
    /// It went on for some time after another had failed or a signal had asked it to end, and was killed.
    pub killed_by_launcher: bool,
}

impl fmt::Display for RankEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(formatter, "(process {}) exited with status {code}", self.pid),
            (None, Some(signal)) => {
                write!(
                    formatter,
                    "(process {}) was killed by {}",
                    self.pid,
                    signals::name(signal)
                )
            }
            (None, None) => write!(formatter, "(process {}) ended: {}", self.pid, self.status),
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct JobEnd {
    /// How each rank ended, by rank.
    pub ranks: Vec<RankEnd>,
    /// The first rank seen to have failed.
    pub first_failure: Option<Rank>,
    /// The signal to the launcher that was passed on.
    pub interrupted: Option<i32>,
}

impl JobEnd {
    /// Which rank failed first, and how, in one line; `None` if all ended well.
    pub fn failure(&self) -> Option<String> {
        let rank = self.first_failure?;
        let end = self.ranks.get(rank as usize)?;
        let others = if self.ranks.iter().any(|end| end.killed_by_launcher) {
            "; ranks that went on after that were killed"
        } else {
            ""
        };
        Some(match self.interrupted {
            Some(signal) => format!("ended by {}; rank {rank} {end}{others}", signals::name(signal)),
            None => format!("rank {rank} {end}{others}"),
        })
    }

    /// The first failing rank's status, 128 and the signal's number where a signal ended it; 0 if none failed.
    pub fn exit_code(&self) -> ExitCode {
        let status = self
            .first_failure
            .and_then(|rank| self.ranks.get(rank as usize))
            .map(|end| end.status);
        let code = status.map_or(0, |status| match (status.code(), status.signal()) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            (None, None) => 1,
        });
        ExitCode::from(u8::try_from(code).unwrap_or(1))
    }
}
