//! Signals to the launcher: noticed by it, to be passed on to the ranks.

use std::io::Error;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::RunError;

/// What a person or a scheduler says to a whole job. SIGSTOP cannot be noticed: it stops the launcher alone.
const FORWARDED: [i32; 8] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTSTP,
    libc::SIGCONT,
];

/// The signals that have not been passed on, a bit each. A signal's handler has nowhere else to write to.
static PENDING: AtomicU64 = AtomicU64::new(0);
/// Jobs that are being run by this process; the first installs the handlers and the last restores what was there.
static JOBS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note(signal: libc::c_int) {
    PENDING.fetch_or(1 << signal, Ordering::Relaxed);
}

/// What a signal to a job asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The job is to end.
    End,
    /// It is to stop for a while, and the launcher with it.
    Stop,
    /// The program's own affair.
    Other,
}

pub(super) fn meaning(signal: i32) -> Meaning {
    match signal {
        libc::SIGTSTP => Meaning::Stop,
        libc::SIGUSR1 | libc::SIGUSR2 | libc::SIGCONT => Meaning::Other,
        _ => Meaning::End,
    }
}

/// Stops this process until somebody continues it.
pub(super) fn stop_here() {
    // SAFETY: sends a signal to this process itself; takes plain numbers.
    unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
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

    /// The signals that have come since the last call; of each kind one, as the kernel holds it too.
    pub(super) fn take(&self) -> impl Iterator<Item = i32> + use<> {
        let pending = PENDING.swap(0, Ordering::Relaxed);
        FORWARDED
            .into_iter()
            .filter(move |signal| pending & (1 << signal) != 0)
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
        libc::SIGTSTP => "SIGTSTP",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.into()
}
