//! Waiting is polite (invariant 7): a rank that waits leaves the processor to others, whichever way it waits, and more
//! ranks than cores still get on.

use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use sapwood::communicator::{Builder, Communicator};
use sapwood::engine::reduce::Operation;
use sapwood::exchange::Exchange;

/// How long the others keep a rank waiting.
const KEPT_WAITING: Duration = Duration::from_secs(3);
/// What it may use of the processor meanwhile: 1 % of a core.
const ALLOWED: Duration = KEPT_WAITING.checked_div(100).expect("100 is not 0");

#[path = "ranks/mod.rs"]
mod support;

use support::{Reach, over_both, with};

fn ranks<T: Send>(size: u32, builder: Builder, rank: impl Fn(Communicator) -> T + Sync) -> Vec<T> {
    with(size, builder.timeout(Duration::from_secs(60)), rank)
}

/// Processor time of the calling thread so far.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Processor time so far of every progress thread of this process.
fn used_by_progress_threads() -> Vec<Duration> {
    let threads = std::fs::read_dir("/proc/self/task").expect("procfs").flatten();
    let ours = threads.filter(|thread| {
        // The kernel keeps 15 characters of a name.
        let name = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        !name.trim().is_empty() && "sapwood-progress".starts_with(name.trim())
    });
    ours.map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).expect("the scheduler's figures");
        let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
        Duration::from_nanos(nanoseconds.expect("nanoseconds on a processor"))
    })
    .collect()
}

/// What each rank but the last used of the processor in `wait`, which the last one enters later than the others.
fn waiting(builder: Builder, what: &str, wait: impl Fn(&Communicator) + Sync) {
    let size = 4;
    let costs = ranks(size, builder, |communicator| {
        wait(&communicator);
        if communicator.rank() == size - 1 {
            std::thread::sleep(KEPT_WAITING);
            wait(&communicator);
            return None;
        }
        let (before, began) = (used(), Instant::now());
        wait(&communicator);
        let cost = used() - before;
        assert!(began.elapsed() > KEPT_WAITING / 2, "{what}: it did not wait");
        Some(cost)
    });
    println!("{what}: {costs:?} in {KEPT_WAITING:?}");
    for cost in costs.into_iter().flatten() {
        assert!(
            cost < ALLOWED,
            "{what}: {cost:?} of the processor in {KEPT_WAITING:?}"
        );
    }
}

fn a_rank_in_a_barrier_sleeps(reach: Reach) {
    waiting(reach.builder(), "barrier", |communicator| {
        communicator.barrier().expect("a barrier");
    });
}

fn a_rank_in_a_planned_collective_sleeps(reach: Reach) {
    for plan in ["double-binary-tree", "ring"] {
        waiting(reach.builder().plan(plan), plan, |communicator| {
            let mut slice = vec![1.0f32; 100_000];
            communicator
                .all_reduce_slice(&mut slice, Operation::Sum)
                .expect("a sum");
        });
    }
}

fn a_progress_thread_sleeps_when_idle_and_when_a_rank_is_late(reach: Reach) {
    // Threads are found by their name: one test at a time.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    ranks(2, reach.builder(), |communicator| {
        let rank = communicator.rank();
        let mut exchange = Exchange::builder(communicator)
            .bucket("layer", 100_000)
            .build()
            .expect("an exchange");
        assert!(exchange.has_progress_thread());
        // A thread has its name once it has run.
        let until = Instant::now() + Duration::from_secs(20);
        while used_by_progress_threads().len() < 2 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        for late in [false, true] {
            exchange.communicator().barrier().expect("a barrier");
            let before = used_by_progress_threads();
            let caller = used();
            if rank == 1 || !late {
                // A computation that leaves the processor alone.
                std::thread::sleep(KEPT_WAITING);
            }
            let mut step = exchange.begin().expect("a step");
            step.take("layer").expect("a bucket").ready().expect("it starts");
            step.finish().expect("a mean");
            let after = used_by_progress_threads();
            let caller = used() - caller;
            println!(
                "rank {rank}, late: {late}: caller {caller:?}, progress threads {before:?} to {after:?}"
            );
            // Those of both ranks, unless the other's was already gone, or not there yet.
            assert!(!before.is_empty() && !after.is_empty());
            let spent = after.iter().sum::<Duration>().saturating_sub(before.iter().sum());
            assert!(
                spent < 2 * ALLOWED,
                "{spent:?} by the progress threads, late: {late}"
            );
            assert!(caller < ALLOWED, "{caller:?} by the caller, late: {late}");
            exchange.communicator().barrier().expect("a barrier");
        }
    });
}

fn eight_ranks_on_two_cores_get_on(reach: Reach) {
    let all = sched_getaffinity(None).expect("the cores that this thread may use");
    let mut two = CpuSet::new();
    (0..CpuSet::MAX_CPU)
        .filter(|core| all.is_set(*core))
        .take(2)
        .for_each(|core| two.set(core));
    // Of this thread and of those that it starts.
    sched_setaffinity(None, &two).expect("a subset of them");
    ranks(8, reach.builder(), |communicator| {
        let began = Instant::now();
        for _ in 0..2_000 {
            communicator.barrier().expect("a barrier");
        }
        let barriers = began.elapsed();
        let mut window = communicator.window::<f32>(100_000).expect("a window");
        let began = Instant::now();
        for _ in 0..200 {
            window.fill(1.0);
            communicator
                .all_reduce(&mut window, Operation::Sum)
                .expect("a sum");
            assert!(window.iter().all(|x| *x == 8.0));
        }
        if communicator.rank() == 0 {
            let (barrier, sum) = (barriers / 2_000, began.elapsed() / 200);
            println!("8 ranks on 2 cores: {barrier:?} a barrier, {sum:?} an all-reduce of 100,000 floats");
        }
    });
    sched_setaffinity(None, &all).expect("the cores from before");
}

over_both! {
    a_rank_in_a_barrier_sleeps,
    a_rank_in_a_planned_collective_sleeps,
    a_progress_thread_sleeps_when_idle_and_when_a_rank_is_late,
    eight_ranks_on_two_cores_get_on,
}
