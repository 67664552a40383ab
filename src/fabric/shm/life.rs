//! Whether a peer's process still lives. A stopped process is not a dead one.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Names a process for as long as the machine runs: a process number is used again, with its start time it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: u32,
    /// In clock ticks since boot; 0 where /proc does not tell.
    pub started: u64,
}

impl Process {
    /// This one.
    pub fn own() -> Self {
        let pid = std::process::id();
        let started = start_time("self").unwrap_or(0);
        Self { pid, started }
    }
}

fn start_time(process: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The command's name, in parentheses, may hold anything: count from its end. Start time is field 22.
    text.rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// A peer's process under watch.
#[derive(Debug)]
pub(super) enum Life {
    /// The peer is a thread of this process and lives as long as it does.
    Own,
    /// Another process.
    Other(OwnedFd),
}

impl Life {
    /// Watches a process.
    ///
    /// # Errors
    /// In words: it is gone, or its number belongs to another process by now.
    pub fn watch(process: Process) -> Result<Self, String> {
        let Process { pid, started } = process;
        let own = Process::own();
        if process == own {
            return Ok(Self::Own);
        }
        let stranger = || {
            format!(
                "process {pid} is not the one that sent it: that one has ended, or it is in another process \
                 namespace (containers of one job must share it: --pid=host)"
            )
        };
        if pid == own.pid {
            return Err(stranger());
        }
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| format!("{pid} is no process number"))?;
        let watch = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(descriptor) => Self::Other(descriptor),
            Err(Errno::SRCH) => return Err(format!("process {pid} has ended")),
            Err(error) => return Err(format!("watching process {pid} failed: {error}")),
        };
        // The number could have been given to another process before the watch was set: compare start times, then
        // make sure that what is watched has not ended, so that /proc spoke of it.
        let now = start_time(&pid.to_string());
        if watch.ended() {
            return Err(format!("process {pid} has ended"));
        }
        if started != 0 && now.is_some_and(|now| now != started) {
            return Err(stranger());
        }
        Ok(watch)
    }

    /// What poll(2) can wait on.
    pub fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Own => None,
            Self::Other(descriptor) => Some(descriptor.as_raw_fd()),
        }
    }

    /// Whether the process is gone with all its threads: nothing of it runs, or will ever store, any more.
    pub fn ended(&self) -> bool {
        let Some(descriptor) = self.descriptor() else {
            return false;
        };
        let mut poll = libc::pollfd {
            fd: descriptor,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid entry, and no waiting.
        let ready = unsafe { libc::poll(&mut poll, 1, 0) };
        ready == 1 && poll.revents != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_process_and_a_reused_number_are_told_apart_from_a_living_one() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let started = start_time(&child.id().to_string()).unwrap();
        let process = Process {
            pid: child.id(),
            started,
        };
        let life = Life::watch(process).unwrap();
        assert!(!life.ended());
        let reused = Process {
            started: started + 1,
            ..process
        };
        assert!(Life::watch(reused).unwrap_err().contains("not the one"));
        child.kill().unwrap();
        // Dead but not waited for is dead.
        while !life.ended() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(Life::watch(process).unwrap_err().contains("ended"));
        assert!(matches!(Life::watch(Process::own()), Ok(Life::Own)));
    }
}
