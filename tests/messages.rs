//! Collectives between ranks that reach each other by messages only.

use std::sync::Arc;
use std::time::Duration;

use sapwood::bootstrap::Job;
use sapwood::communicator::{Builder, Communicator};
use sapwood::engine::reduce::Operation;
use sapwood::fabric::shm::Shm;

/// Runs `rank` on every rank of a job of threads and returns what they return, by rank.
fn with<T: Send>(size: u32, builder: Builder, rank: impl Fn(Communicator) -> T + Sync) -> Vec<T> {
    let jobs = Job::local(size).expect("a job");
    std::thread::scope(|scope| {
        let threads = jobs.iter().map(|job| {
            let (builder, rank) = (builder.clone().timeout(Duration::from_secs(20)), &rank);
            scope.spawn(move || rank(builder.join(job).expect("all ranks join")))
        });
        let threads = threads.collect::<Vec<_>>();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no rank panics"))
            .collect()
    })
}

fn messages() -> Builder {
    Communicator::builder().fabric(Arc::new(Shm::without_reach().expect("a fabric")))
}

#[test]
fn smoke() {
    for size in [1, 2, 3, 4] {
        with(size, messages(), |communicator| {
            communicator.barrier().unwrap();
            let mut window = communicator.window::<f32>(100_000).unwrap();
            window.fill(1.0 + communicator.rank() as f32);
            communicator.all_reduce(&mut window, Operation::Sum).unwrap();
            let sum = (0..size).map(|r| 1.0 + r as f32).sum::<f32>();
            assert!(window.iter().all(|x| *x == sum));
            communicator.barrier().unwrap();
            communicator.broadcast(&mut window, size - 1).unwrap();
            communicator.reduce(&mut window, Operation::Sum, 0).unwrap();
        });
    }
}
