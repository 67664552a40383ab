//! The training loop's exchange between ranks that are threads: overlap, copies, misuse, trace.

use std::time::{Duration, Instant};

use sapwood::bootstrap::Job;
use sapwood::communicator::Communicator;
use sapwood::engine::reduce::Operation;
use sapwood::exchange::{Builder, Exchange, ExchangeError};
use sapwood::observe::{CopySite, Event, Kind};

#[path = "ranks/mod.rs"]
mod support;

use support::{Reach, over_both, with};

fn ranks<T: Send>(
    reach: Reach,
    size: u32,
    plan: Option<&str>,
    rank: impl Fn(Communicator) -> T + Sync,
) -> Vec<T> {
    let builder = plan
        .iter()
        .fold(reach.builder(), |builder, plan| builder.plan(*plan));
    // Many threads take long to come together on few cores.
    let patience = Duration::from_secs(20.max(u64::from(size)));
    with(size, builder.timeout(patience), rank)
}

fn exchange(communicator: Communicator, shape: impl FnOnce(Builder) -> Builder) -> Exchange {
    shape(Exchange::builder(communicator))
        .build()
        .expect("an exchange")
}

fn every_rank_gets_the_mean_and_nothing_is_copied(reach: Reach) {
    for plan in ["double-binary-tree", "ring", "direct", "binomial-tree"] {
        ranks(reach, 4, Some(plan), |communicator| {
            let rank = communicator.rank();
            let mut exchange = exchange(communicator, |b| {
                b.bucket("bias", 3).bucket("weights", 70_000).bucket("tail", 17)
            });
            for number in 0..10 {
                let mut step = exchange.begin().unwrap();
                for (name, factor) in [("tail", 1.0), ("weights", 2.0), ("bias", 3.0)] {
                    let mut bucket = step.take(name).unwrap();
                    bucket.fill(factor * (rank as f32 + number as f32));
                    bucket.ready().unwrap();
                }
                let outcome = step.finish().unwrap();
                assert_eq!(
                    (outcome.contributors(), outcome.divisor()),
                    (&[0, 1, 2, 3][..], 4)
                );
                for (name, factor) in [("tail", 1.0), ("weights", 2.0), ("bias", 3.0)] {
                    let mean = factor * (1.5 + number as f32);
                    assert!(outcome.mean(name).iter().all(|x| *x == mean), "{plan}: {name}");
                }
            }
            let counters = exchange.communicator().counters();
            let staged = counters.copies[&CopySite::StageIn].bytes;
            assert_eq!(counters.bytes_copied, staged, "{plan}: {counters:?}");
            assert!(reach == Reach::Messages || staged == 0, "{plan}: {counters:?}");
            assert!(counters.bytes_exchanged > 0);
        });
    }
}

fn a_copy_is_counted(reach: Reach) {
    ranks(reach, 2, None, |communicator| {
        let count = 50_000;
        let mut window = communicator.window::<f32>(count).unwrap();
        communicator.all_reduce(&mut window, Operation::Sum).unwrap();
        // Each of the two ranks reduces one half; where it cannot look into the other's window, from staging slots.
        let staged = if reach == Reach::Messages {
            2 * count as u64
        } else {
            0
        };
        assert_eq!(
            communicator.counters().bytes_copied,
            staged,
            "a registered window is not copied"
        );
        // The same, but from memory that is not registered: in and out.
        let mut slice = vec![1.0f32; count];
        communicator.all_reduce_slice(&mut slice, Operation::Sum).unwrap();
        assert_eq!(
            communicator.counters().bytes_copied,
            2 * staged + 2 * 4 * count as u64
        );
    });
}

fn what_was_started_before_a_computation_is_done_when_it_ends(reach: Reach) {
    // On a busy machine the progress thread has its turn late: then a longer computation must do.
    let mut finished = Vec::new();
    for milliseconds in [200, 1_000, 5_000, 20_000] {
        finished = during_a_computation(reach, Duration::from_millis(milliseconds));
        if finished
            .iter()
            .all(|(exchange, computation)| exchange > computation)
        {
            return;
        }
    }
    panic!("since the ends of exchange and computation, in the longest attempt: {finished:?}");
}

/// How long ago the exchange and the computation beside it ended, on each rank.
fn during_a_computation(reach: Reach, computation: Duration) -> Vec<(Duration, Duration)> {
    ranks(reach, 2, None, |communicator| {
        let count = (8 << 20) / 4;
        let mut exchange = exchange(communicator, |b| b.bucket("layer", count));
        exchange.communicator().barrier().unwrap();
        let mut step = exchange.begin().unwrap();
        let mut bucket = step.take("layer").unwrap();
        bucket.fill(1.0);
        bucket.ready().unwrap();
        // A computation that makes no library call.
        let until = Instant::now() + computation;
        let mut x = 0u64;
        while Instant::now() < until {
            x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(1));
        }
        let outcome = step.finish().unwrap();
        assert_eq!(outcome.mean("layer")[count - 1], 1.0);
        let ended = exchange
            .communicator()
            .events()
            .iter()
            .rev()
            .find(|e| e.kind == Kind::End)
            .map(|e| e.ticks);
        let clock = exchange.communicator().recorder().clock();
        // The exchange's last event is older than the end of the computation.
        (clock.elapsed(ended.expect("an end")), until.elapsed())
    })
}

fn buckets_may_be_ready_in_any_order_and_on_any_thread(reach: Reach) {
    ranks(reach, 3, None, |communicator| {
        let rank = communicator.rank() as usize;
        let names = ["a", "b", "c", "d"];
        let mut exchange = exchange(communicator, |builder| {
            names.iter().fold(builder, |b, name| b.bucket(*name, 30_000))
        });
        for _ in 0..20 {
            let mut step = exchange.begin().unwrap();
            // Each rank in an order of its own.
            let mut buckets = (0..4)
                .map(|i| step.take(names[(i + rank) % 4]).unwrap())
                .collect::<Vec<_>>();
            std::thread::scope(|scope| {
                for mut bucket in buckets.drain(..) {
                    scope.spawn(move || {
                        bucket.fill(rank as f32);
                        bucket.ready().unwrap();
                    });
                }
            });
            let outcome = step.finish().unwrap();
            assert!(
                names
                    .iter()
                    .all(|name| outcome.mean(name).iter().all(|x| *x == 1.0))
            );
        }
    });
}

/// However many ranks there are on one host.
#[test]
fn many_ranks_may_have_buckets_ready_in_any_order() {
    ranks(Reach::Mapped, 66, None, |communicator| {
        let (rank, size) = (communicator.rank() as usize, communicator.size() as f32);
        let names = ["a", "b", "c"];
        let mut exchange = exchange(communicator, |builder| {
            names.iter().fold(builder, |b, name| b.bucket(*name, 30_000))
        });
        let mut step = exchange.begin().unwrap();
        for index in 0..names.len() {
            let mut bucket = step.take(names[(index + rank) % names.len()]).unwrap();
            bucket.fill(rank as f32);
            bucket.ready().unwrap();
        }
        let outcome = step.finish().unwrap();
        let mean = (size - 1.0) / 2.0;
        assert!(
            names
                .iter()
                .all(|name| outcome.mean(name).iter().all(|x| *x == mean))
        );
    });
}

fn a_step_that_is_finished_too_early_fails_on_every_rank(reach: Reach) {
    let errors = ranks(reach, 2, None, |communicator| {
        let rank = communicator.rank();
        let mut exchange = exchange(communicator, |b| {
            b.bucket("first", 20_000).bucket("second", 20_000)
        });
        let mut step = exchange.begin().unwrap();
        step.take("first").unwrap().ready().unwrap();
        if rank == 0 {
            step.take("second").unwrap().ready().unwrap();
        } else {
            drop(step.take("second").unwrap());
        }
        let error = step.finish().unwrap_err();
        assert!(
            matches!(exchange.begin(), Err(ExchangeError::Communicator(_))),
            "it is over"
        );
        error.to_string()
    });
    assert!(errors[0].contains("rank 1"), "{}", errors[0]);
    assert!(
        errors[1].contains("before these buckets were ready: second"),
        "{}",
        errors[1]
    );
}

#[test]
fn bad_buckets_are_refused() {
    let builder = || Exchange::builder(Communicator::builder().join(&Job::local(1).unwrap()[0]).unwrap());
    let text = |builder: Builder| builder.build().unwrap_err().to_string();
    assert!(text(builder()).contains("at least one bucket"));
    assert!(text(builder().bucket("x", 0)).contains("no elements"));
    assert!(text(builder().bucket("x", 1).bucket("x", 2)).contains("used twice"));
    assert!(text(builder().bucket("x", usize::MAX / 2)).contains("do not fit"));
    let mut exchange = builder().bucket("x", 1).build().unwrap();
    let mut step = exchange.begin().unwrap();
    assert!(step.take("y").unwrap_err().to_string().contains("there is none"));
    let _bucket = step.take("x").unwrap();
    assert!(
        step.take("x")
            .unwrap_err()
            .to_string()
            .contains("taken in this step already")
    );
}

/// When a rank ended chunk `chunk` of its last task of the kind.
fn at(events: &[Event], kind: Kind, chunk: u32) -> Option<u64> {
    events
        .iter()
        .filter(|e| e.kind == kind && e.chunk == chunk)
        .map(|e| e.ticks)
        .max()
}

fn a_chunk_comes_down_before_the_eighth_after_it_has_gone_up(reach: Reach) {
    // A leaf pulls chunk k down while its parent, the root, still reduces later ones up. The ranks must run at the
    // same time to show it, and a busy machine stops one or the other now and then: each chunk in some attempt.
    let until = Instant::now() + Duration::from_secs(100);
    let mut late: Option<Vec<u32>> = None;
    while late.as_ref().is_none_or(|late| !late.is_empty()) && Instant::now() < until {
        let events = ranks(reach, 2, Some("binomial-tree"), |communicator| {
            let mut window = communicator.window::<f32>(8 << 20).unwrap();
            communicator.barrier().unwrap();
            communicator.all_reduce(&mut window, Operation::Sum).unwrap();
            communicator.events()
        });
        let (up, down) = if at(&events[0], Kind::Reduce, 0).is_some() {
            (0, 1)
        } else {
            (1, 0)
        };
        let chunks = events[up].iter().filter(|e| e.kind == Kind::Reduce).count() as u32;
        assert!(chunks > 16, "{chunks} chunks");
        late.get_or_insert_with(|| (0..chunks - 8).collect()).retain(|k| {
            let came_down = at(&events[down], Kind::Pull, *k).expect("every chunk comes down");
            came_down >= at(&events[up], Kind::Reduce, k + 8).expect("every chunk goes up")
        });
    }
    assert_eq!(late, Some(vec![]), "chunks that came down late in every attempt");
}

over_both! {
    every_rank_gets_the_mean_and_nothing_is_copied,
    a_copy_is_counted,
    what_was_started_before_a_computation_is_done_when_it_ends,
    buckets_may_be_ready_in_any_order_and_on_any_thread,
    a_step_that_is_finished_too_early_fails_on_every_rank,
    a_chunk_comes_down_before_the_eighth_after_it_has_gone_up,
}
