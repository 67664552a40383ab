//! A small process that outlives a killed launcher by a moment, to end what the launcher had started.
//!
//! It leads the process group that all ranks are in, and sleeps on a pipe whose other end only the launcher holds.
//! When the launcher is gone, however it went, the pipe ends and the guardian kills whoever was started for this job,
//! wherever it has gone since, and then the group, itself included.

use std::io::Error;
use std::os::fd::{AsRawFd, OwnedFd};

use super::RunError;
use super::processes::{self, GUARDIAN};

/// The guardian goes after so many looks at what is left, one every [`PAUSE`].
const LOOKS: u32 = 500;
const PAUSE: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};
/// Where the limit on descriptors is no help, and there is no list of them.
const MOST_DESCRIPTORS: u64 = 65_536;

/// The guardian of one job.
pub(super) struct Guardian {
    pid: libc::pid_t,
    /// Held open as long as the launcher lives.
    _lifeline: OwnedFd,
}

impl Guardian {
    /// `mark` is the variable that every rank is started with, and no process of another job.
    pub(super) fn start(mark: &[u8]) -> Result<Self, RunError> {
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
            0 => watch(end.as_raw_fd(), lifeline.as_raw_fd(), mark),
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

    /// The process group of the job, and the guardian's own number.
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
fn watch(end: i32, lifeline: i32, mark: &[u8]) -> ! {
    // SAFETY: only system calls on plain numbers and on local memory; `GUARDIAN` ends with a zero.
    unsafe {
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_NAME, GUARDIAN.as_ptr());
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
        // Its own copy of it would keep it waiting for ever.
        libc::close(lifeline);
        libc::dup2(end, 0);
    }
    close_all_but_input();
    let mut byte = 0u8;
    // SAFETY: only system calls on plain numbers and on local memory.
    unsafe {
        while libc::read(0, (&raw mut byte).cast(), 1) == -1 && *libc::__errno_location() == libc::EINTR {}
    }
    let own = std::process::id() as i32;
    for _ in 0..LOOKS {
        let mut left = false;
        processes::each_number(c"/proc", |pid, _| {
            // Another job's guardian was started by a rank of this one, and has its own job to end.
            if pid != own && processes::has_mark(pid, mark) && !processes::is_guardian(pid) {
                left = true;
                // SAFETY: takes plain numbers; the process was there a moment ago.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        });
        if !left {
            break;
        }
        // SAFETY: the pause is valid, and nothing is written back.
        unsafe { libc::nanosleep(&PAUSE, std::ptr::null_mut()) };
    }
    // SAFETY: plain numbers.
    unsafe {
        libc::kill(0, libc::SIGKILL);
        libc::_exit(0)
    }
}

/// The guardian must not hold anybody's pipe or socket open. Sandboxes and old kernels refuse the call that does this.
fn close_all_but_input() {
    // SAFETY: nothing in this process, which has no other thread, uses any of these descriptors again.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 1u32, u32::MAX, 0u32) } == 0;
    if closed {
        return;
    }
    let listed = processes::each_number(c"/proc/self/fd", |descriptor, directory| {
        if descriptor > 0 && descriptor != directory {
            // SAFETY: as above.
            unsafe { libc::close(descriptor) };
        }
    });
    if !listed {
        let mut limit = libc::rlimit {
            rlim_cur: MOST_DESCRIPTORS,
            rlim_max: MOST_DESCRIPTORS,
        };
        // SAFETY: the structure is valid; and as above.
        unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
            for descriptor in 1..limit.rlim_cur.min(MOST_DESCRIPTORS) {
                libc::close(descriptor as i32);
            }
        }
    }
}
