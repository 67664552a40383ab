//! What recording costs: `cargo bench --bench observe`. The clock read is included where an event takes the time.

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group};
use sapwood::observe::{Clock, CopySite, Counters, Kind, NONE, Recorder};

fn observe(criterion: &mut Criterion) {
    let (clock, recorder, counters) = (Clock::new(), Recorder::new(), Counters::new());
    let event = recorder_event(&recorder);
    let mut group = criterion.benchmark_group("observe");
    group.bench_function("clock", |b| b.iter(|| clock.now()));
    group.bench_function("record", |b| b.iter(|| recorder.record(black_box(event))));
    group.bench_function("mark", |b| b.iter(|| mark(&recorder, 1)));
    group.bench_function("count a copy", |b| {
        b.iter(|| counters.copied(black_box(CopySite::StageIn), 8))
    });
    group.finish();
}

fn recorder_event(recorder: &Recorder) -> sapwood::observe::Event {
    mark(recorder, 0);
    recorder.snapshot()[0]
}

#[inline(always)]
fn mark(recorder: &Recorder, chunk: u32) {
    recorder.mark(Kind::Reduce, black_box(7), 3, black_box(chunk), NONE, 32_768);
}

/// Nanoseconds a call, the median of rounds of a million calls.
fn nanoseconds(mut call: impl FnMut(u32)) -> f64 {
    const CALLS: u32 = 1_000_000;
    let mut rounds: Vec<f64> = (0..9)
        .map(|_| {
            let start = Instant::now();
            (0..CALLS).for_each(&mut call);
            start.elapsed().as_nanos() as f64 / f64::from(CALLS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[4]
}

fn table() {
    let recorder = Recorder::new();
    let source = if recorder.clock().uses_processor_counter() {
        "rdtsc"
    } else {
        "CLOCK_MONOTONIC"
    };
    let event = nanoseconds(|i| mark(&recorder, i));
    let clock = nanoseconds(|_| {
        black_box(recorder.clock().now());
    });
    println!(
        "\none event, clock read included: {event:.1} ns; the clock read alone ({source}): {clock:.1} ns"
    );
}

criterion_group!(benches, observe);

fn main() {
    benches();
    table();
    Criterion::default().configure_from_args().final_summary();
}
