//! Runs a case: every rank a thread of this process, or every rank a process of its own (this program, started again).
//! No rank outlives the run.

use std::cell::RefCell;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::AssertUnwindSafe;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sapwood::fabric::Rank;

use crate::link::Link;
use crate::member::Member;
use crate::{case, providers};

/// How many times slower than a computer of today this one is (an emulated one, say): all patience is multiplied by it.
fn slowness() -> u32 {
    let factor = std::env::var("SAPWOOD_CONFORMANCE_SLOWNESS").ok();
    factor.map_or(1, |factor| {
        factor
            .parse()
            .expect("SAPWOOD_CONFORMANCE_SLOWNESS is a whole number")
    })
}

const ROLE: &str = "SAPWOOD_CONFORMANCE_ROLE";

/// What a rank is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Threads,
    Processes,
}

#[derive(Clone, Copy)]
pub struct Run {
    provider: &'static str,
    case: &'static str,
    mode: Mode,
    patience: Duration,
}

/// A rank of a run, as the environment tells a child.
pub struct Role {
    provider: String,
    case: String,
    rank: Rank,
    patience: Duration,
    /// By peer; -1 for itself.
    sockets: Vec<RawFd>,
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps panics of ranks quiet until it is known whether they were expected.
pub fn record_panics() {
    std::panic::set_hook(Box::new(|info| {
        LAST_PANIC.with(|last| *last.borrow_mut() = info.to_string());
    }));
}

fn body(
    provider: &str,
    name: &str,
    rank: Rank,
    patience: Duration,
    sockets: Vec<Option<OwnedFd>>,
) -> Result<(), String> {
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let case = case(name);
        let provider = providers::find(provider);
        let mut member = Member {
            rank,
            ranks: sockets.len() as Rank,
            fabric: provider.open_for(rank, &case),
            patience,
            last_words: provider.last_words,
            links: sockets
                .into_iter()
                .map(|socket| socket.map(|socket| Link::new(socket, patience)))
                .collect(),
            generation: 0,
        };
        (case.run)(&mut member);
    }));
    outcome.map_err(|_| format!("rank {rank}: {}", LAST_PANIC.with(|last| last.borrow().clone())))
}

/// A socket between each two ranks.
fn mesh(ranks: usize) -> Vec<Vec<Option<OwnedFd>>> {
    let mut mesh: Vec<Vec<Option<OwnedFd>>> = Vec::new();
    for rank in 0..ranks {
        // Its ends to earlier ranks, whose own ends were appended to their lists.
        let mut own = Vec::new();
        for earlier in &mut mesh {
            let (one, other) = Link::pair();
            earlier.push(Some(one));
            own.push(Some(other));
        }
        own.resize_with(rank + 1, || None);
        mesh.push(own);
    }
    mesh
}

impl Run {
    pub fn new(provider: &'static str, case: &'static str, mode: Mode) -> Self {
        let patience = Duration::from_secs(20) * slowness();
        Self {
            provider,
            case,
            mode,
            patience,
        }
    }

    /// For runs that are expected to fail, perhaps by waiting in vain.
    pub fn impatient(self) -> Self {
        let patience = Duration::from_secs(3);
        Self { patience, ..self }
    }

    pub fn run(self) -> Result<(), String> {
        match self.mode {
            Mode::Threads => self.as_threads(),
            Mode::Processes => self.as_processes(),
        }
    }

    fn as_threads(self) -> Result<(), String> {
        let ranks: Vec<_> = mesh(case(self.case).ranks)
            .into_iter()
            .enumerate()
            .map(|(rank, sockets)| {
                std::thread::spawn(move || {
                    body(self.provider, self.case, rank as Rank, self.patience, sockets)
                })
            })
            .collect();
        let outcomes: Vec<_> = ranks
            .into_iter()
            .map(|rank| rank.join().expect("panics are caught"))
            .collect();
        collect(outcomes)
    }

    fn as_processes(self) -> Result<(), String> {
        let case = case(self.case);
        let children: Vec<_> = mesh(case.ranks)
            .into_iter()
            .enumerate()
            .map(|(rank, sockets)| self.spawn(rank, sockets))
            .collect();
        let mut children = Children(children);
        // Ranks have deadlines of their own; this is for one that does not keep them, or was stopped.
        let deadline = Instant::now() + self.patience * 3;
        let outcomes = (0..case.ranks)
            .map(|rank| {
                let child = &mut children.0[rank];
                let status = loop {
                    if let Some(status) = child.try_wait().expect("waiting for a child") {
                        break status;
                    }
                    if Instant::now() > deadline {
                        return Err(format!("rank {rank} did not end"));
                    }
                    std::thread::sleep(Duration::from_millis(2));
                };
                let mut said = String::new();
                child.stderr.take().expect("piped").read_to_string(&mut said).ok();
                if status.success()
                    || (case.victims.contains(&(rank as Rank)) && status.signal() == Some(libc::SIGKILL))
                {
                    Ok(())
                } else {
                    Err(format!("rank {rank} ended with {status}: {said}"))
                }
            })
            .collect();
        collect(outcomes)
    }

    fn spawn(&self, rank: usize, sockets: Vec<Option<OwnedFd>>) -> Child {
        let numbers: Vec<RawFd> = sockets
            .iter()
            .map(|socket| socket.as_ref().map_or(-1, AsRawFd::as_raw_fd))
            .collect();
        let list: Vec<_> = numbers.iter().map(ToString::to_string).collect();
        let patience = self.patience.as_millis();
        let role = format!(
            "{}|{}|{rank}|{patience}|{}",
            self.provider,
            self.case,
            list.join(",")
        );
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .env(ROLE, role)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // SAFETY: the closure only makes system calls on descriptors that are open until `spawn` returns.
        unsafe {
            command.pre_exec(move || {
                for socket in numbers.iter().filter(|socket| **socket >= 0) {
                    libc::fcntl(*socket, libc::F_SETFD, 0);
                }
                // A rank must not outlive a suite that was killed.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().expect("starting a rank");
        drop(sockets);
        child
    }

    /// What this process is to do, if it is a rank.
    pub fn from_environment() -> Option<Role> {
        let text = std::env::var(ROLE).ok()?;
        let mut fields = text.split('|');
        let mut field = || fields.next().expect("five fields");
        Some(Role {
            provider: field().into(),
            case: field().into(),
            rank: field().parse().expect("a rank"),
            patience: Duration::from_millis(field().parse().expect("milliseconds")),
            sockets: field()
                .split(',')
                .map(|socket| socket.parse().expect("a descriptor"))
                .collect(),
        })
    }
}

impl Role {
    /// Runs the rank's part; the exit status.
    pub fn play(self) -> i32 {
        let sockets = self
            .sockets
            .iter()
            .map(|socket| {
                // SAFETY: the parent passed this descriptor on for this use, and nothing else here knows its number.
                (*socket >= 0).then(|| unsafe { OwnedFd::from_raw_fd(*socket) })
            })
            .collect();
        match body(&self.provider, &self.case, self.rank, self.patience, sockets) {
            Ok(()) => 0,
            Err(message) => {
                eprintln!("{message}");
                1
            }
        }
    }
}

/// Kills what is left of the ranks.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn collect(outcomes: Vec<Result<(), String>>) -> Result<(), String> {
    let mut failures: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    // What a rank says about another's early end explains nothing: show it last.
    failures.sort_by_key(|failure| failure.contains("ended early"));
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures.join("\n"))
    }
}
