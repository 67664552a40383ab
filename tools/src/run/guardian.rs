//! A small process that outlives a killed launcher by a moment, to end what the launcher had started.
//!
//! It leads the process group that all ranks are in, and sleeps on a pipe whose other end only the launcher holds.
//! When the launcher is gone, however it went, the pipe ends and the guardian kills the group, itself included: the
//! ranks and whatever they have started.

use std::io::Error;
use std::os::fd::{AsRawFd, OwnedFd};

use super::RunError;

/// The guardian of one job.
pub(super) struct Guardian {
    pid: libc::pid_t,
    /// Held open as long as the launcher lives.
    _lifeline: OwnedFd,
}

impl Guardian {
    pub(super) fn start() -> Result<Self, RunError> {
        let failed = |problem: Error| RunError::System {
            doing: "starting the job's guardian",
            problem,
        };
        let (end, lifeline) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        // SAFETY: the child makes only system calls that are safe after a fork of a program with threads, and never
        // returns from `watch`.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => Err(failed(Error::last_os_error())),
            0 => watch(end.as_raw_fd()),
            _ => {
                // Both sides do this, so that the group exists for whichever comes first.
                // SAFETY: takes plain numbers; fails harmlessly if the child has done it.
                unsafe { libc::setpgid(pid, pid) };
                Ok(Self {
                    pid,
                    _lifeline: lifeline,
                })
            }
        }
    }

    /// The process group of the job.
    pub(super) fn group(&self) -> libc::pid_t {
        self.pid
    }

    /// Sends a signal to all ranks and what they have started. The guardian ignores all but SIGKILL.
    pub(super) fn signal(&self, signal: i32) {
        // SAFETY: takes plain numbers. The guardian has not been waited for, so the group's number is still its own.
        unsafe { libc::kill(-self.pid, signal) };
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
        let mut status = 0;
        // SAFETY: `pid` is this process's child, waited for only here, and `status` is a valid place. A wait that a
        // signal interrupts is repeated.
        while unsafe { libc::waitpid(self.pid, &mut status, 0) } == -1
            && Error::last_os_error().raw_os_error() == Some(libc::EINTR)
        {}
    }
}

/// The guardian's whole life.
fn watch(end: i32) -> ! {
    // SAFETY: only system calls on plain numbers and on local memory. Closing every descriptor but the pipe's is
    // what the guardian needs: it must not hold anybody's pipe, socket or lifeline open.
    unsafe {
        libc::setpgid(0, 0);
        for signal in [
            libc::SIGINT,
            libc::SIGTERM,
            libc::SIGHUP,
            libc::SIGQUIT,
            libc::SIGTSTP,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGPIPE,
        ] {
            libc::signal(signal, libc::SIG_IGN);
        }
        libc::dup2(end, 0);
        libc::syscall(libc::SYS_close_range, 1u32, u32::MAX, 0u32);
        let mut byte = 0u8;
        while libc::read(0, (&raw mut byte).cast(), 1) == -1 && *libc::__errno_location() == libc::EINTR {}
        libc::kill(0, libc::SIGKILL);
        libc::_exit(0)
    }
}
