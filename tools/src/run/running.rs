//! A job that runs: waits for its ranks, passes signals on, and ends the whole job when one rank fails.

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use sapwood::bootstrap::Rank;

use super::RunError;
use super::death::{Again, Consequence, OnDeath};
use super::descendants::{self, Descendants};
use super::ends::{JobEnd, RankEnd};
use super::guardian::Guardian;
use super::outputs::Outputs;
use super::process::Process;
use super::signals::{self, Forwarding, Meaning};

/// How long the other ranks have to report after one has failed.
const GRACE: Duration = Duration::from_secs(2);
/// How long a rank that was asked to end has before it is killed.
const GRACE_AFTER_SIGNAL: Duration = Duration::from_secs(5);
/// What one key or one command sends may come as several signals: within this time they are one. Those that only a
/// person sends by hand are not.
const ONE_WISH: Duration = Duration::from_secs(1);
/// How long a killed rank may take to be gone. One that waits in the kernel for a broken disk can take for ever.
const GRACE_AFTER_KILL: Duration = Duration::from_secs(10);
/// How long who reads the launcher's output may take nothing of what is left of a job that a signal has ended, and of
/// one that has failed. Of one that has ended well he reads the rest when he likes, as of any program, or goes.
const PATIENCE_AFTER_SIGNAL: Duration = Duration::from_secs(2);
const PATIENCE_AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Signals are looked at this often; most of them interrupt the wait anyway.
const SLICE: Duration = Duration::from_millis(100);

/// A job whose ranks have been started. Dropping it kills them, and whatever they have started.
pub struct Running {
    processes: Vec<Process>,
    outputs: Outputs,
    first_failure: Option<Rank>,
    /// When the ranks that are left are killed.
    kill_at: Option<Instant>,
    /// When those that are still there although they were killed are left behind.
    leave_at: Option<Instant>,
    /// Since when the job is stopped.
    stopped: Option<Instant>,
    /// The first signal that was to end the job, and when it came.
    interrupted: Option<(i32, Instant)>,
    /// Nothing of the job is left.
    over: bool,
    on_death: OnDeath,
    again: Option<Again>,
    tagged: bool,
    descendants: Descendants,
    guardian: Guardian,
    forwarding: Forwarding,
}

impl Running {
    pub(super) fn new(
        guardian: Guardian,
        forwarding: Forwarding,
        descendants: Descendants,
        on_death: OnDeath,
    ) -> Self {
        Self {
            processes: Vec::new(),
            outputs: Outputs::new(),
            first_failure: None,
            kill_at: None,
            leave_at: None,
            stopped: None,
            interrupted: None,
            over: false,
            on_death,
            again: None,
            tagged: false,
            descendants,
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
        let outputs = if self.tagged {
            (child.stdout.take(), child.stderr.take())
        } else {
            (None, None)
        };
        let process = Process::watch(child, attempt)?;
        if let Some(stdout) = outputs.0 {
            self.outputs.add(rank, stdout.into(), false)?;
        }
        if let Some(stderr) = outputs.1 {
            self.outputs.add(rank, stderr.into(), true)?;
        }
        Ok(process)
    }

    /// The ranks that had not ended when last looked at.
    pub fn alive(&self) -> impl Iterator<Item = Rank> {
        (0..)
            .zip(&self.processes)
            .filter_map(|(rank, process)| process.status.is_none().then_some(rank))
    }

    /// The ranks that had failed when last looked at, and how.
    pub fn failed(&self) -> impl Iterator<Item = (Rank, RankEnd)> {
        (0..).zip(&self.processes).filter_map(|(rank, process)| {
            let status = process.status.filter(|status| !status.success())?;
            Some((rank, process.end(status)))
        })
    }

    /// Has the ranks that are left killed in two seconds, as when one has failed: until then they can say why they do not go on.
    pub fn end_soon(&mut self) {
        self.kill_in(GRACE);
    }

    /// The ranks' processes, by rank.
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().map(|process| process.child.id())
    }

    /// What a rank prints, if its command had its standard output piped and nobody has taken it yet.
    pub fn take_stdout(&mut self, rank: Rank) -> Option<ChildStdout> {
        self.processes.get_mut(rank as usize)?.child.stdout.take()
    }

    /// What a rank reads, as [`Self::take_stdout`]; if its command had its standard input piped.
    pub fn take_stdin(&mut self, rank: Rank) -> Option<ChildStdin> {
        self.processes.get_mut(rank as usize)?.child.stdin.take()
    }

    /// Waits until all ranks have ended. When one fails the others have two seconds to say so before they are
    /// killed; or what `--on-death` says. Signals to this process are passed on; the second wish to end the job, or five
    /// seconds, kills.
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
            // What is stopped has as long to end in as it had.
            let kill_at = self.kill_at.filter(|_| self.stopped.is_none());
            if kill_at.is_some_and(|kill_at| now >= kill_at) {
                self.kill();
            }
            if self.leave_at.is_some_and(|leave_at| now >= leave_at) {
                self.leave_behind();
                continue;
            }
            if now >= until {
                return Ok(None);
            }
            self.sleep(until.min(now + SLICE).min(kill_at.unwrap_or(until)))?;
        }
    }

    fn pass_signals_on(&mut self) {
        self.pass_noted_on();
        // What has come before the stop is not to wait for its end.
        if self.forwarding.is_to_stop() {
            self.guardian.signal(libc::SIGTSTP);
            self.stopped.get_or_insert_with(Instant::now);
            self.forwarding.stop_here();
            self.pass_noted_on();
        }
    }

    fn pass_noted_on(&mut self) {
        for signal in self.forwarding.take() {
            match signals::meaning(signal) {
                Meaning::Other => self.guardian.signal(signal),
                Meaning::GoOn => self.go_on(),
                Meaning::End => match self.interrupted {
                    Some((_, first)) if signals::is_by_hand(signal) || first.elapsed() > ONE_WISH => {
                        self.kill();
                    }
                    Some(_) => self.ask_to_end(signal),
                    None => {
                        self.interrupted = Some((signal, Instant::now()));
                        self.ask_to_end(signal);
                        self.kill_at = Some(Instant::now() + GRACE_AFTER_SIGNAL);
                    }
                },
            }
        }
    }

    fn ask_to_end(&mut self, signal: i32) {
        self.guardian.signal(signal);
        if self.stopped.is_some() {
            // Who is stopped does not hear it.
            self.go_on();
        }
    }

    fn go_on(&mut self) {
        self.guardian.signal(libc::SIGCONT);
        if let Some(since) = self.stopped.take() {
            // What had a while to end in has it still.
            self.kill_at = self.kill_at.map(|kill_at| kill_at + since.elapsed());
        }
    }

    /// Unless they are to be killed anyway. What is stopped has that long when it goes on.
    fn kill_in(&mut self, grace: Duration) {
        let from = self.stopped.unwrap_or_else(Instant::now);
        self.kill_at.get_or_insert(from + grace);
    }

    fn kill(&mut self) {
        self.kill_at = None;
        self.leave_at
            .get_or_insert_with(|| Instant::now() + GRACE_AFTER_KILL);
        for process in self
            .processes
            .iter_mut()
            .filter(|process| process.status.is_none())
        {
            process.killed = true;
            let _ = process.child.kill();
        }
    }

    /// Gives up on ranks that do not end though they were killed.
    fn leave_behind(&mut self) {
        self.leave_at = None;
        for rank in 0..self.processes.len() {
            let process = &mut self.processes[rank];
            if process.status.is_some() {
                continue;
            }
            process.status = Some(ExitStatus::from_raw(libc::SIGKILL));
            let pid = process.child.id();
            let state = descendants::state(pid).unwrap_or('?');
            self.first_failure.get_or_insert(rank as Rank);
            self.outputs.say(&format!(
                "rank {rank} (process {pid}) is still there {} s after SIGKILL, in state {state} ('man ps' says which \
                 that is), and is left behind: kill it with the rights of who runs it, or see what its host waits for",
                GRACE_AFTER_KILL.as_secs()
            ));
        }
    }

    fn reap(&mut self) -> Result<(), RunError> {
        let mut ended = Vec::new();
        for (rank, process) in self.processes.iter_mut().enumerate() {
            if process.status.is_none() {
                process.status = process.child.try_wait().map_err(|problem| RunError::System {
                    doing: "waiting for a rank",
                    problem,
                })?;
                ended.extend(process.status.map(|status| (rank, status)));
            }
        }
        // Of those that have ended together the one that was killed is to blame: the others have lost it.
        ended.sort_by_key(|(rank, status)| (status.signal().is_none(), *rank));
        for (rank, status) in ended {
            self.bury(rank, status)?;
        }
        let (processes, guardian) = (&self.processes, &self.guardian);
        self.descendants.reap(|pid| is_ours(processes, guardian, pid));
        Ok(())
    }

    /// Ends what a dead rank had started, so that it is in nobody's way.
    fn end_descendants_of(&mut self, rank: usize) {
        if let Err(left) = self.descendants.end_of(rank as Rank) {
            self.outputs.say(&left);
        }
    }

    /// A rank has ended.
    fn bury(&mut self, rank: usize, status: ExitStatus) -> Result<(), RunError> {
        let Process { attempt, killed, .. } = self.processes[rank];
        let ending = killed || self.interrupted.is_some() || self.kill_at.is_some();
        let consequence = self.on_death.consequence(status, attempt, ending);
        if let (Some(Consequence::Anew(attempt)), Some(again)) = (&consequence, &mut self.again) {
            let end = self.processes[rank].end(status);
            if let Err(left) = self.descendants.end_of(rank as Rank) {
                self.outputs.say(&left);
            }
            let child = again(rank as Rank, *attempt)?;
            self.outputs.say(&format!(
                "rank {rank} {end}; started anew as process {}, attempt {attempt}",
                child.id()
            ));
            self.processes[rank] = self.watch(rank, child, *attempt)?;
            return Ok(());
        }
        match consequence {
            None => {}
            Some(consequence @ (Consequence::TheOthersGoOn | Consequence::Silence)) => {
                if consequence == Consequence::TheOthersGoOn {
                    let end = self.processes[rank].end(status);
                    self.outputs
                        .say(&format!("rank {rank} {end}; the other ranks go on"));
                }
                self.end_descendants_of(rank);
                self.first_failure.get_or_insert(rank as Rank);
            }
            Some(_) if self.first_failure.is_some() => {}
            Some(_) => {
                self.first_failure = Some(rank as Rank);
                self.kill_in(GRACE);
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
        entries.extend(self.outputs.entries());
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
        self.outputs.pass_on();
        Ok(())
    }

    /// All ranks have ended: ends what they left behind, and hands on the last of what they printed.
    fn finish(&mut self) -> JobEnd {
        self.end_descendants();
        self.guardian.signal(libc::SIGKILL);
        self.over = true;
        self.outputs.begin_to_end();
        loop {
            self.pass_signals_on();
            let patience = match (self.interrupted, self.first_failure) {
                (Some(_), _) => Some(PATIENCE_AFTER_SIGNAL),
                (None, Some(_)) => Some(PATIENCE_AFTER_FAILURE),
                (None, None) => None,
            };
            if self.outputs.is_over(patience) || self.sleep(Instant::now() + SLICE).is_err() {
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
            interrupted: self.interrupted.map(|(signal, _)| signal),
        }
    }

    /// Ends whatever the ranks have started.
    fn end_descendants(&mut self) {
        let (processes, guardian) = (&self.processes, &self.guardian);
        let ended = self.descendants.end_all(|pid| is_ours(processes, guardian, pid));
        if let Err(left) = ended {
            self.outputs.say(&left);
        }
    }
}

/// Whether a process is a rank that has not been waited for, or the guardian.
fn is_ours(processes: &[Process], guardian: &Guardian, pid: i32) -> bool {
    let mut ranks = processes.iter().filter(|process| process.status.is_none());
    pid == guardian.group() || ranks.any(|process| process.child.id() as i32 == pid)
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        self.kill();
        let until = Instant::now() + GRACE_AFTER_KILL;
        for process in &mut self.processes {
            while process.status.is_none() && Instant::now() < until {
                process.status = process.child.try_wait().unwrap_or(Some(ExitStatus::default()));
                if process.status.is_none() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        self.end_descendants();
    }
}
