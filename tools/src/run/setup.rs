//! What a rank's process does before it becomes the program: it joins the job's group, inherits the secret, is bound,
//! and ties its life to the launcher's. A failure here is not the program's, and the launcher is told which it is.

use std::io::Error;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::pipe::PipeFlags;
use rustix::thread::CpuSet;

use super::{RunError, signals};

/// What can fail; the number is what travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    Group = 1,
    Secret,
    Life,
    Places,
}

impl Step {
    const ALL: [Self; 4] = [Self::Group, Self::Secret, Self::Life, Self::Places];

    fn doing(self) -> &'static str {
        match self {
            Self::Group => "putting a rank into the job's process group (is the job's guardian gone?)",
            Self::Secret => "handing the job's secret to a rank",
            Self::Life => "tying a rank's life to the launcher's",
            Self::Places => "binding a rank to its CPUs (--bind none leaves it unbound)",
        }
    }
}

/// What a rank's process is to be.
pub(super) struct Setup {
    pub(super) group: i32,
    pub(super) secret: RawFd,
    pub(super) mask: Option<CpuSet>,
}

/// Where it is told what has failed.
pub(super) struct Report(OwnedFd);

impl Setup {
    /// Has a command's process do this before it becomes the program.
    pub(super) fn prepare(self, command: &mut Command) -> Result<Report, RunError> {
        let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
        let (report, told) = pipe.map_err(|problem| RunError::System {
            doing: "preparing a rank's process",
            problem: problem.into(),
        })?;
        let launcher = std::process::id();
        let steps = move || {
            self.run(launcher).map_err(|(step, error)| {
                let _ = rustix::io::write(&told, &[step as u8]);
                error
            })
        };
        // SAFETY: `run` and what tells of its failure make only system calls that are safe between fork and exec.
        unsafe { command.pre_exec(steps) };
        Ok(Report(report))
    }

    fn run(&self, launcher: u32) -> Result<(), (Step, Error)> {
        let check = |step, code: i32| match code {
            -1 => Err((step, Error::last_os_error())),
            _ => Ok(()),
        };
        // SAFETY: the calls take plain numbers; the secret is open in the child, which is a copy of the launcher.
        unsafe {
            check(Step::Group, libc::setpgid(0, self.group))?;
            check(
                Step::Secret,
                libc::fcntl(self.secret.as_raw_fd(), libc::F_SETFD, 0),
            )?;
            check(Step::Life, libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        }
        signals::let_stop();
        if let Some(mask) = &self.mask {
            rustix::thread::sched_setaffinity(None, mask).map_err(|error| (Step::Places, error.into()))?;
        }
        // The launcher may have died before its death was of interest.
        if std::os::unix::process::parent_id() != launcher {
            return Err((Step::Life, Error::from_raw_os_error(libc::ESRCH)));
        }
        Ok(())
    }
}

impl Report {
    /// Whose failure it was that the command could not be started.
    pub(super) fn blame(&self, problem: Error, command: &Command) -> RunError {
        let mut byte = [0];
        let told = rustix::io::read(&self.0, &mut byte).unwrap_or(0);
        let step = Step::ALL
            .into_iter()
            .find(|step| told == 1 && *step as u8 == byte[0]);
        match step {
            Some(step) => RunError::System {
                doing: step.doing(),
                problem,
            },
            None => RunError::Program {
                program: command.get_program().to_string_lossy().into_owned(),
                problem,
            },
        }
    }
}
