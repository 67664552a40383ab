//! One all-reduce between two ranks that are threads of this process, back to back, from 8 B to 1 MiB.
//!
//! For work on the data path, where criterion's comparison with the run before counts. What users see, with processes
//! and checks, is timed by `sapwood bench`.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sapwood::bootstrap::Job;
use sapwood::communicator::{Communicator, Window};
use sapwood::engine::reduce::Operation;

const LARGEST: usize = 1 << 20;

/// One rank's end, with one window for all sizes.
struct Rank {
    communicator: Communicator,
    window: Window<f32>,
}

impl Rank {
    fn join(job: &Job) -> Self {
        let communicator = Communicator::builder()
            .timeout(Duration::from_secs(60))
            .join(job)
            .expect("both ranks join");
        let window = communicator
            .window(LARGEST / size_of::<f32>())
            .expect("a window of 1 MiB");
        Self { communicator, window }
    }

    /// The time of `calls` all-reduces of `count` elements; both ranks call it alike.
    fn run(&mut self, count: usize, calls: u64) -> Duration {
        self.communicator.barrier().expect("both ranks are there");
        let start = Instant::now();
        for _ in 0..calls {
            self.communicator
                .all_reduce_range(&mut self.window, 0..count, Operation::Sum)
                .expect("both ranks reduce");
        }
        start.elapsed()
    }
}

fn all_reduce(criterion: &mut Criterion) {
    let mut jobs = Job::local(2).expect("two ranks").into_iter();
    let (first, second) = (jobs.next().expect("rank 0"), jobs.next().expect("rank 1"));
    let (send, receive) = mpsc::channel::<(usize, u64)>();
    let partner = thread::spawn(move || {
        let mut rank = Rank::join(&second);
        for (count, calls) in receive {
            rank.run(count, calls);
        }
    });
    let mut rank = Rank::join(&first);
    let mut group = criterion.benchmark_group("all-reduce, 2 threads, f32 sum");
    for bytes in [8, 128, 2 << 10, 8 << 10, 64 << 10, LARGEST] {
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(BenchmarkId::from_parameter(bytes), &bytes, |bencher, bytes| {
            let count = bytes / size_of::<f32>();
            bencher.iter_custom(|calls| {
                send.send((count, calls)).expect("the partner listens");
                rank.run(count, calls)
            });
        });
    }
    group.finish();
    drop(send);
    partner
        .join()
        .expect("the partner ends when nothing more is asked of it");
}

criterion_group!(benches, all_reduce);
criterion_main!(benches);
