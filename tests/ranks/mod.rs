//! Jobs whose ranks are threads of the test, over a fabric with load/store reach and over one without.

#![allow(dead_code, reason = "not every test file uses all of it")]

pub mod bits;

use std::sync::Arc;
use std::time::Duration;

use sapwood::bootstrap::Job;
use sapwood::communicator::{Builder, Communicator};
use sapwood::fabric::shm::Shm;

/// What ranks can do with each other's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Load and store.
    Mapped,
    /// Send messages.
    Messages,
}

pub const REACHES: [Reach; 2] = [Reach::Mapped, Reach::Messages];

impl Reach {
    /// Settings of a communicator with it.
    pub fn builder(self) -> Builder {
        let builder = Communicator::builder().timeout(Duration::from_secs(20));
        match self {
            Self::Mapped => builder,
            Self::Messages => builder.fabric(Arc::new(Shm::without_reach().expect("a fabric"))),
        }
    }
}

/// Each test over a fabric with load/store reach and over one without. Where it stands there is a name `Reach`.
#[allow(unused_macros, reason = "not every test file uses it")]
macro_rules! over_both {
    ($($test:ident),* $(,)?) => {
        mod mapped {
            $(#[test] fn $test() { super::$test(super::Reach::Mapped); })*
        }
        mod messages {
            $(#[test] fn $test() { super::$test(super::Reach::Messages); })*
        }
    };
}
#[allow(unused_imports, reason = "not every test file uses it")]
pub(crate) use over_both;

/// Runs `rank` on every rank of a job of threads and returns what they return, by rank.
pub fn with<T: Send>(size: u32, builder: Builder, rank: impl Fn(Communicator) -> T + Sync) -> Vec<T> {
    with_jobs(Job::local(size).expect("a job"), builder, rank)
}

/// As [`with`], for jobs that something was changed about.
pub fn with_jobs<T: Send>(
    jobs: Vec<Job>,
    builder: Builder,
    rank: impl Fn(Communicator) -> T + Sync,
) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads = jobs.iter().map(|job| {
            let (builder, rank) = (builder.clone(), &rank);
            scope.spawn(move || rank(builder.join(job).unwrap_or_else(|error| panic!("{error}"))))
        });
        let threads = threads.collect::<Vec<_>>();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no rank panics"))
            .collect()
    })
}
