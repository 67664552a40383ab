//! Signals that end a job: noticed by the launcher, to be passed on to its ranks.

use std::io::Error;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use super::RunError;

const FORWARDED: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// The latest signal that has not been passed on; 0 if none. A signal's handler has nowhere else to write to.
static PENDING: AtomicI32 = AtomicI32::new(0);
/// Jobs that are being run by this process; the first installs the handlers and the last restores what was there.
static JOBS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note(signal: libc::c_int) {
    PENDING.store(signal, Ordering::Relaxed);
}

/// While it lives, signals that would end this process are noted instead.
pub(super) struct Forwarding {
    previous: Vec<(i32, libc::sigaction)>,
}

impl Forwarding {
    pub(super) fn install() -> Result<Self, RunError> {
        let mut forwarding = Self { previous: Vec::new() };
        if JOBS.fetch_add(1, Ordering::AcqRel) > 0 {
            return Ok(forwarding);
        }
        PENDING.store(0, Ordering::Relaxed);
        for signal in FORWARDED {
            // SAFETY: an all-zero `sigaction` is a valid one (default action, no flags, empty mask), and `note` is
            // a handler that only stores to an atomic. Both structures are valid for the calls.
            let code = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                let mut previous: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
                let code = libc::sigaction(signal, &action, &mut previous);
                // What the user had told the launcher to ignore (nohup) stays ignored.
                if code == 0 && previous.sa_sigaction == libc::SIG_IGN {
                    libc::sigaction(signal, &previous, std::ptr::null_mut());
                } else if code == 0 {
                    forwarding.previous.push((signal, previous));
                }
                code
            };
            if code != 0 {
                let problem = Error::last_os_error();
                return Err(RunError::System {
                    doing: "preparing to pass signals on",
                    problem,
                });
            }
        }
        Ok(forwarding)
    }

    /// The signal that has come since the last call.
    pub(super) fn take(&self) -> Option<i32> {
        Some(PENDING.swap(0, Ordering::Relaxed)).filter(|signal| *signal != 0)
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        JOBS.fetch_sub(1, Ordering::AcqRel);
        for (signal, previous) in &self.previous {
            // SAFETY: restores an action that the system itself gave.
            unsafe { libc::sigaction(*signal, previous, std::ptr::null_mut()) };
        }
    }
}

/// "SIGKILL" for 9.
pub(super) fn name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.into()
}
