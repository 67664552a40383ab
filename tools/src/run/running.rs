//! A job that runs: waits for its ranks, passes signals on, and ends the whole job when one rank fails.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use sapwood::bootstrap::Rank;

use super::RunError;
use super::death::{Again, Consequence, OnDeath};
use super::ends::{JobEnd, RankEnd};
use super::guardian::Guardian;
use super::signals::{self, Forwarding, Meaning};
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
    /// How often the rank has been started anew.
    attempt: u32,
}

impl Process {
    /// How it ended.
    fn end(&self, status: ExitStatus) -> RankEnd {
        RankEnd {
            pid: self.child.id(),
            status,
            killed_by_launcher: self.killed,
        }
    }
}

/// A job whose ranks have been started. Dropping it kills them, and whatever they have started.
pub struct Running {
    processes: Vec<Process>,
    outputs: Vec<Tagged>,
    first_failure: Option<Rank>,
    /// When the ranks that are left are killed.
    kill_at: Option<Instant>,
    interrupted: Option<i32>,
    on_death: OnDeath,
    again: Option<Again>,
    tagged: bool,
    guardian: Guardian,
    forwarding: Forwarding,
}

impl Running {
    pub(super) fn new(guardian: Guardian, forwarding: Forwarding, on_death: OnDeath) -> Self {
        Self {
            processes: Vec::new(),
            outputs: Vec::new(),
            first_failure: None,
            kill_at: None,
            interrupted: None,
            on_death,
            again: None,
            tagged: false,
            guardian,
            forwarding,
        }
    }

    pub(super) fn group(&self) -> i32 {
        self.guardian.group()
    }

    /// How ranks are started anew.
    pub(super) fn set_again(&mut self, again: Again) {
        self.again = Some(again);
    }

    /// Takes a rank in that was just started; the next one in order.
    pub(super) fn add(&mut self, child: Child, tagged: bool) -> Result<(), RunError> {
        self.tagged = tagged;
        let process = self.watch(self.processes.len(), child, 0)?;
        self.processes.push(process);
        Ok(())
    }

    fn watch(&mut self, rank: usize, mut child: Child, attempt: u32) -> Result<Process, RunError> {
        let failed = |problem: std::io::Error| RunError::System {
            doing: "watching a rank's process",
            problem,
        };
        let pid = Pid::from_child(&child);
        let outputs = if self.tagged {
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
        if let Some(stdout) = outputs.0 {
            self.outputs
                .push(Tagged::new(rank, stdout.into(), false).map_err(failed)?);
        }
        if let Some(stderr) = outputs.1 {
            self.outputs
                .push(Tagged::new(rank, stderr.into(), true).map_err(failed)?);
        }
        Ok(Process {
            child,
            pidfd,
            status: None,
            killed: false,
            attempt,
        })
    }

    /// The ranks that had not ended when last looked at.
    pub fn alive(&self) -> impl Iterator<Item = Rank> {
        (0..)
            .zip(&self.processes)
            .filter_map(|(rank, process)| process.status.is_none().then_some(rank))
    }

    /// The ranks' processes, by rank.
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().map(|process| process.child.id())
    }

    /// What a rank prints, if its command had its standard output piped and nobody has taken it yet.
    pub fn take_stdout(&mut self, rank: Rank) -> Option<ChildStdout> {
        self.processes.get_mut(rank as usize)?.child.stdout.take()
    }

    /// Waits until all ranks have ended. When one fails the others have two seconds to say so before they are
    /// killed; or what `--on-death` says. Signals to this process are passed on; the second that is to end the job, or
    /// five seconds, kills.
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
        for signal in self.forwarding.take() {
            match signals::meaning(signal) {
                Meaning::Other => self.guardian.signal(signal),
                Meaning::Stop => {
                    self.guardian.signal(signal);
                    let stopped = Instant::now();
                    signals::stop_here();
                    self.guardian.signal(libc::SIGCONT);
                    // What had a while to end in has it still.
                    self.kill_at = self.kill_at.map(|kill_at| kill_at + stopped.elapsed());
                }
                Meaning::End if self.interrupted.replace(signal).is_some() => self.kill(),
                Meaning::End => {
                    self.guardian.signal(signal);
                    self.kill_at = Some(Instant::now() + GRACE_AFTER_SIGNAL);
                }
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
        for rank in 0..self.processes.len() {
            let process = &mut self.processes[rank];
            if process.status.is_some() {
                continue;
            }
            let status = process.child.try_wait();
            process.status = status.map_err(|problem| RunError::System {
                doing: "waiting for a rank",
                problem,
            })?;
            if let Some(status) = process.status {
                self.bury(rank, status)?;
            }
        }
        Ok(())
    }

    /// A rank has ended.
    fn bury(&mut self, rank: usize, status: ExitStatus) -> Result<(), RunError> {
        let Process { attempt, killed, .. } = self.processes[rank];
        let ending = killed || self.interrupted.is_some() || self.kill_at.is_some();
        let consequence = self.on_death.consequence(status, attempt, ending);
        if let (Some(Consequence::Anew(attempt)), Some(again)) = (&consequence, &mut self.again) {
            let end = self.processes[rank].end(status);
            let child = again(rank as Rank, *attempt)?;
            eprintln!(
                "sapwood run: rank {rank} {end}; started anew as process {}, attempt {attempt}",
                child.id()
            );
            self.processes[rank] = self.watch(rank, child, *attempt)?;
            return Ok(());
        }
        match consequence {
            None => {}
            Some(Consequence::TheOthersGoOn) => {
                let end = self.processes[rank].end(status);
                eprintln!("sapwood run: rank {rank} {end}; the other ranks go on");
                self.first_failure.get_or_insert(rank as Rank);
            }
            Some(_) if self.first_failure.is_some() => {}
            Some(_) => {
                self.first_failure = Some(rank as Rank);
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
        let ranks = self
            .processes
            .iter()
            .filter_map(|process| Some(process.end(process.status?)));
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
