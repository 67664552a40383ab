//! Communicators made from communicators, and without a launcher: independent of each other, whatever becomes of the
//! others; and how each of them ends.

mod at_once;
mod dividing;
mod ending;
mod identified;
mod shrinking;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use sapwood::bootstrap::Job;
use sapwood::communicator::{Builder, Communicator};
use sapwood::engine::reduce::Operation;
use sapwood::fabric::select::Choice;

#[path = "../ranks/mod.rs"]
mod support;

use support::Reach;

/// How ranks reach each other's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By load and store.
    Mapped,
    /// By messages through shared memory.
    Messages,
    /// By messages through sockets.
    Tcp,
}

const WAYS: [Way; 3] = [Way::Mapped, Way::Messages, Way::Tcp];

impl Way {
    /// The fabric, where the job does not choose it.
    fn builder(self) -> Builder {
        match self {
            Self::Messages => Reach::Messages.builder(),
            Self::Mapped | Self::Tcp => Reach::Mapped.builder(),
        }
    }

    /// These jobs, with the fabric, where they choose it.
    fn of(self, mut jobs: Vec<Job>) -> Vec<Job> {
        if self == Self::Tcp {
            jobs.iter_mut().for_each(|job| job.fabric = Choice::Tcp);
        }
        jobs
    }
}

/// Runs `rank` on every rank of a job of threads and returns what they return, by rank.
fn with<T: Send>(size: u32, way: Way, rank: impl Fn(Communicator) -> T + Sync) -> Vec<T> {
    with_patience(size, way, Duration::from_secs(20), rank)
}

/// As [`with`], with a deadline.
fn with_patience<T: Send>(
    size: u32,
    way: Way,
    timeout: Duration,
    rank: impl Fn(Communicator) -> T + Sync,
) -> Vec<T> {
    let jobs = way.of(Job::local(size).expect("a job"));
    support::with_jobs(jobs, way.builder().timeout(timeout), rank)
}

/// A job over the network on one host, whose ranks say that they are on as many hosts as there are names.
fn networked(size: u32, hosts: &[&str]) -> Vec<Job> {
    let mut jobs = Job::networked(size, "127.0.0.1").unwrap();
    for (job, host) in jobs.iter_mut().zip(hosts.iter().cycle()) {
        job.host = Some((*host).to_owned());
    }
    jobs
}

fn on_threads<T: Send>(jobs: &[Job], rank: impl Fn(&Job) -> T + Sync) -> Vec<T> {
    let rank = &rank;
    std::thread::scope(|scope| {
        let threads: Vec<_> = jobs.iter().map(|job| scope.spawn(move || rank(job))).collect();
        threads
            .into_iter()
            .map(|one| one.join().expect("no rank panics"))
            .collect()
    })
}

/// The sum of what all ranks of a communicator bring.
fn sum(communicator: &Communicator, mine: i64) -> i64 {
    let mut window = communicator.window::<i64>(3000).unwrap();
    window.fill(mine);
    communicator.all_reduce(&mut window, Operation::Sum).unwrap();
    assert!(window.iter().all(|one| *one == window[0]));
    window[0]
}

/// What comes of looking again and again.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: nothing in 30 s");
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Where so many threads wait for each other, once: with a deadline, since one of them may have panicked.
struct Gathering {
    threads: usize,
    here: AtomicUsize,
}

impl Gathering {
    fn of(threads: usize) -> Self {
        let here = AtomicUsize::new(0);
        Self { threads, here }
    }

    fn wait(&self) {
        self.here.fetch_add(1, SeqCst);
        wait_for("all threads of the gathering", || {
            (self.here.load(SeqCst) >= self.threads).then_some(())
        });
    }
}
