//! Signals to the launcher: noticed by it, to be passed on to the ranks.

use std::io::Error;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::RunError;

/// What a person or a scheduler says to a whole job, beside SIGTSTP. SIGSTOP cannot be noticed: it stops the launcher alone.
const NOTED: [i32; 7] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGCONT,
];

/// The signals that have not been passed on, a bit each. A signal's handler has nowhere else to write to.
static PENDING: AtomicU64 = AtomicU64::new(0);
/// Jobs that are being run by this process; the first installs the handlers and the last restores what was there.
static INSTALLED: Mutex<Installed> = Mutex::new(Installed {
    jobs: 0,
    previous: Vec::new(),
    stops: false,
});

struct Installed {
    jobs: usize,
    previous: Vec<(i32, libc::sigaction)>,
    /// SIGTSTP is held back; else who started the launcher had it ignored.
    stops: bool,
}

impl Installed {
    fn lock() -> MutexGuard<'static, Self> {
        INSTALLED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn restore(&mut self) {
        for (signal, previous) in self.previous.drain(..) {
            // SAFETY: restores an action that the system itself gave.
            unsafe { libc::sigaction(signal, &previous, std::ptr::null_mut()) };
        }
    }
}

extern "C" fn note(signal: libc::c_int) {
    PENDING.fetch_or(1 << signal, Ordering::Relaxed);
}

/// What a signal to a job asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The job is to end.
    End,
    /// It is to go on after a stop.
    GoOn,
    /// The program's own affair.
    Other,
}

pub(super) fn meaning(signal: i32) -> Meaning {
    match signal {
        libc::SIGCONT => Meaning::GoOn,
        libc::SIGUSR1 | libc::SIGUSR2 => Meaning::Other,
        _ => Meaning::End,
    }
}

/// Whether only a person sends it, by a key: twice is meant twice.
pub(super) fn is_by_hand(signal: i32) -> bool {
    matches!(signal, libc::SIGINT | libc::SIGQUIT)
}

/// While it lives, signals that would end this process are noted instead, and SIGTSTP waits for [`Forwarding::stop_here`]. It
/// is held back and not noted: which of SIGTSTP and SIGCONT came last the kernel alone knows, where each takes the other back.
pub(super) struct Forwarding {
    stops: bool,
    /// SIGTSTP was not held back before.
    lets_stop: bool,
    /// What is held back is so for one thread, in which this stays.
    _here: PhantomData<*const ()>,
}

impl Forwarding {
    pub(super) fn install() -> Result<Self, RunError> {
        let mut installed = Installed::lock();
        if installed.jobs == 0 {
            PENDING.store(0, Ordering::Relaxed);
            match install_all(&mut installed.previous) {
                Ok(stops) => installed.stops = stops,
                Err(problem) => {
                    installed.restore();
                    return Err(RunError::System {
                        doing: "preparing to pass signals on",
                        problem,
                    });
                }
            }
        }
        installed.jobs += 1;
        let stops = installed.stops;
        Ok(Self {
            stops,
            lets_stop: stops && !hold_stops_back(libc::SIG_BLOCK),
            _here: PhantomData,
        })
    }

    /// Whether the job is to stop: SIGTSTP has come, and no SIGCONT since.
    pub(super) fn is_to_stop(&self) -> bool {
        // SAFETY: an all-zero set is a valid one, and it is this function's own.
        self.stops
            && unsafe {
                let mut set: libc::sigset_t = std::mem::zeroed();
                libc::sigpending(&mut set) == 0 && libc::sigismember(&set, libc::SIGTSTP) == 1
            }
    }

    /// Stops this process until somebody continues it, unless somebody has already. In an orphaned process group (a daemon's) the
    /// kernel lets SIGTSTP stop nobody, and this returns at once: then SIGCONT is yet to come.
    pub(super) fn stop_here(&self) {
        let_stop();
        hold_stops_back(libc::SIG_BLOCK);
    }

    /// The signals that have come since the last call; of each kind one, as the kernel holds it too.
    pub(super) fn take(&self) -> impl Iterator<Item = i32> + use<> {
        let pending = PENDING.swap(0, Ordering::Relaxed);
        NOTED
            .into_iter()
            .filter(move |signal| pending & (1 << signal) != 0)
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if self.lets_stop {
            let_stop();
        }
        let mut installed = Installed::lock();
        installed.jobs -= 1;
        if installed.jobs == 0 {
            installed.restore();
        }
    }
}

/// Says whether SIGTSTP is to be held back.
fn install_all(previous: &mut Vec<(i32, libc::sigaction)>) -> Result<bool, Error> {
    for signal in NOTED {
        let before = set(signal, note as extern "C" fn(libc::c_int) as usize)?;
        // What the user had told the launcher to ignore (nohup) stays ignored. By SIGCONT a process goes on all the same, and so
        // do its ranks.
        if before.sa_sigaction == libc::SIG_IGN && signal != libc::SIGCONT {
            set(signal, libc::SIG_IGN)?;
        } else {
            previous.push((signal, before));
        }
    }
    // Who started the launcher may not want to hear of its own children's ends. Whoever waits for ranks does.
    previous.push((libc::SIGCHLD, set(libc::SIGCHLD, libc::SIG_DFL)?));
    let before = set(libc::SIGTSTP, libc::SIG_DFL)?;
    previous.push((libc::SIGTSTP, before));
    let ignored = before.sa_sigaction == libc::SIG_IGN;
    if ignored {
        set(libc::SIGTSTP, libc::SIG_IGN)?;
    }
    Ok(!ignored)
}

/// No longer has SIGTSTP wait, and does what has waited. Only makes a system call, so that ranks may do it which inherit that.
pub(super) fn let_stop() {
    hold_stops_back(libc::SIG_UNBLOCK);
}

/// Changes whether SIGTSTP waits. Says whether it did before.
fn hold_stops_back(how: i32) -> bool {
    // SAFETY: all-zero sets are valid, and these are this function's own; only this thread's mask changes.
    unsafe {
        let (mut set, mut before): (libc::sigset_t, libc::sigset_t) =
            (std::mem::zeroed(), std::mem::zeroed());
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTSTP);
        libc::pthread_sigmask(how, &set, &mut before);
        libc::sigismember(&before, libc::SIGTSTP) == 1
    }
}

/// Sets what a signal does, and gives what it did.
fn set(signal: i32, handler: usize) -> Result<libc::sigaction, Error> {
    // SAFETY: an all-zero `sigaction` is a valid one (default action, no flags, empty mask), and the only handler that
    // it is given stores to an atomic alone. Both structures are valid for the call.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let mut previous: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        match libc::sigaction(signal, &action, &mut previous) {
            0 => Ok(previous),
            _ => Err(Error::last_os_error()),
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
