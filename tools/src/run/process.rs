//! One rank's process, and how it ended.

use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};

use rustix::process::{Pid, PidfdFlags};

use super::RunError;
use super::ends::RankEnd;

/// One rank's process.
pub(super) struct Process {
    pub(super) child: Child,
    /// Ready when the process has ended.
    pub(super) pidfd: OwnedFd,
    pub(super) status: Option<ExitStatus>,
    pub(super) killed: bool,
    /// How often the rank has been started anew.
    pub(super) attempt: u32,
}

impl Process {
    /// Looks after a process that was just started; one that cannot be is ended.
    pub(super) fn watch(mut child: Child, attempt: u32) -> Result<Self, RunError> {
        match rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self {
                child,
                pidfd,
                status: None,
                killed: false,
                attempt,
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(RunError::System {
                    doing: "watching a rank's process",
                    problem: error.into(),
                })
            }
        }
    }

    /// How it ended.
    pub(super) fn end(&self, status: ExitStatus) -> RankEnd {
        RankEnd {
            pid: self.child.id(),
            status,
            killed_by_launcher: self.killed,
        }
    }
}
