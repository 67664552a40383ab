//! What a careless caller can do in safe code, and what a collective must do about it: refuse, or say so on every
//! rank; never a wrong sum.

use std::future::Future;
use std::time::{Duration, Instant};

use sapwood::bootstrap::Job;
use sapwood::communicator::Communicator;
use sapwood::engine::reduce::Operation;
use sapwood::exchange::Exchange;

#[path = "ranks/mod.rs"]
mod support;

use support::{Reach, over_both, with};

fn ranks<T: Send>(reach: Reach, size: u32, rank: impl Fn(Communicator) -> T + Sync) -> Vec<T> {
    with(size, reach.builder().timeout(Duration::from_secs(5)), rank)
}

fn text<T, E: std::fmt::Display>(outcome: Result<T, E>) -> String {
    outcome.err().expect("an error").to_string()
}

fn a_step_that_is_dropped_does_not_hand_out_buckets_in_flight(reach: Reach) {
    for forget in [false, true] {
        ranks(reach, 2, |communicator| {
            let rank = communicator.rank();
            let mut exchange = Exchange::builder(communicator)
                .bucket("x", 1 << 20)
                .build()
                .unwrap();
            if rank == 1 {
                std::thread::sleep(Duration::from_millis(300));
                // The other rank has given up, or will.
                let mut step = exchange.begin().ok()?;
                step.take("x").unwrap().ready().ok()?;
                return Some(text(step.finish()));
            }
            let mut step = exchange.begin().unwrap();
            step.take("x").unwrap().ready().unwrap();
            if forget {
                std::mem::forget(step);
            } else {
                drop(step);
            }
            // Rank 1 is going to read the bucket: it cannot be had again.
            let error = text(exchange.begin());
            assert!(error.contains("not finished"), "{error}");
            None
        });
    }
}

/// What the ranks say to an exchange of so many buckets, over 20 steps: nothing, if all means are right.
fn with_buckets(reach: Reach, count: usize) -> Vec<String> {
    ranks(reach, 2, |communicator| {
        let rank = communicator.rank();
        let names = (0..count).map(|i| format!("layer {i}")).collect::<Vec<_>>();
        let builder = names
            .iter()
            .fold(Exchange::builder(communicator), |builder, name| {
                builder.bucket(name, 2_000)
            });
        let mut exchange = match builder.build() {
            Ok(exchange) => exchange,
            Err(error) => return error.to_string(),
        };
        for number in 0..20 {
            let mut step = exchange.begin().unwrap();
            // As a backward pass does: the last one first.
            for name in names.iter().rev() {
                let mut bucket = step.take(name).unwrap();
                bucket.fill((number * (rank + 1)) as f32);
                bucket.ready().unwrap();
            }
            let outcome = step.finish().unwrap();
            for name in &names {
                assert_eq!(outcome.mean(name)[0], number as f32 * 1.5);
            }
        }
        String::new()
    })
}

fn an_exchange_of_more_buckets_than_boards_tell_apart_is_refused(reach: Reach) {
    assert_eq!(with_buckets(reach, 192), ["", ""], "as many as there may be");
    let errors = with_buckets(reach, 193);
    assert!(errors.iter().all(|error| error.contains("at most")), "{errors:?}");
}

fn a_small_operation_moves_started_ones_on(reach: Reach) {
    let took = ranks(reach, 2, |communicator| {
        let mut window = communicator.window::<f32>(100_000).unwrap();
        window.fill(1.0);
        communicator.barrier().unwrap();
        let began = Instant::now();
        let pending = communicator.start_all_reduce(window, Operation::Sum).unwrap();
        if communicator.rank() == 0 {
            communicator.barrier().unwrap();
            assert_eq!(pending.wait().unwrap()[0], 2.0);
        } else {
            // Ends only if rank 0 takes part, which is in the barrier.
            assert_eq!(pending.wait().unwrap()[0], 2.0);
            communicator.barrier().unwrap();
        }
        began.elapsed()
    });
    assert!(took.iter().all(|took| *took < Duration::from_secs(4)), "{took:?}");
}

fn a_small_or_slow_collective_after_a_started_one_does_not_hold_it_up(reach: Reach) {
    ranks(reach, 2, |communicator| {
        let window = communicator.window::<f32>(100_000).unwrap();
        let pending = communicator.start_all_reduce(window, Operation::Sum).unwrap();
        if communicator.rank() == 0 {
            communicator.all_gather_bytes("a note", b"0").unwrap();
            pending.wait().unwrap();
        } else {
            pending.wait().unwrap();
            communicator.all_gather_bytes("a note", b"1").unwrap();
        }
    });
}

fn different_windows_or_ranges_are_a_mismatch(reach: Reach) {
    let errors = ranks(reach, 2, |communicator| {
        let mut one = communicator.window::<f32>(100_000).unwrap();
        let mut two = communicator.window::<f32>(100_000).unwrap();
        let window = if communicator.rank() == 0 {
            &mut one
        } else {
            &mut two
        };
        text(communicator.all_reduce(window, Operation::Sum))
    });
    assert!(
        errors.iter().all(|error| error.contains("disagree")),
        "{errors:?}"
    );
    let errors = ranks(reach, 2, |communicator| {
        let mut window = communicator.window::<f32>(200_000).unwrap();
        let first = communicator.rank() as usize * 1000;
        text(communicator.all_reduce_range(&mut window, first..first + 100_000, Operation::Sum))
    });
    assert!(
        errors.iter().all(|error| error.contains("disagree")),
        "{errors:?}"
    );
}

/// The same where one rank calls what it has called before, and the other does not.
fn what_one_rank_alone_calls_again_is_a_mismatch(reach: Reach) {
    // Where a small vector lies is nobody else's affair.
    for (count, how) in [
        (2, "operation"),
        (500, "operation"),
        (30_000, "operation"),
        (30_000, "window"),
        (30_000, "range"),
    ] {
        let errors = ranks(reach, 2, |communicator| {
            let mut one = communicator.window::<f32>(2 * count).unwrap();
            let mut two = communicator.window::<f32>(2 * count).unwrap();
            let sum = Operation::Sum;
            for _ in 0..3 {
                communicator.all_reduce_range(&mut one, 0..count, sum).unwrap();
            }
            text(match (communicator.rank(), how) {
                (1, "window") => communicator.all_reduce_range(&mut two, 0..count, sum),
                (1, "range") => communicator.all_reduce_range(&mut one, count..2 * count, sum),
                (1, _) => communicator.all_reduce_range(&mut one, 0..count, Operation::Max),
                _ => communicator.all_reduce_range(&mut one, 0..count, sum),
            })
        });
        let found = errors.iter().all(|error| error.contains("disagree"));
        assert!(found, "{how} of {count}: {errors:?}");
    }
}

/// Each rank's factor is its own: one that changes it calls something new, and the others do not.
fn a_factor_that_one_rank_alone_changes_counts(reach: Reach) {
    for count in [2, 500, 30_000] {
        ranks(reach, 2, |communicator| {
            let mut window = communicator.window::<f32>(count).unwrap();
            for factor in [2.0, 2.0, 3.0, 3.0, 2.0] {
                let own = if communicator.rank() == 0 { 2.0 } else { factor };
                window.fill(1.0);
                let operation = Operation::pre_multiplied_sum(own);
                communicator.all_reduce(&mut window, operation).unwrap();
                assert!(window.iter().all(|x| f64::from(*x) == 2.0 + factor), "{count}");
            }
        });
    }
}

fn exchanges_of_different_buckets_are_refused(reach: Reach) {
    let errors = ranks(reach, 3, |communicator| {
        let names = if communicator.rank() == 1 {
            ["b", "a"]
        } else {
            ["a", "b"]
        };
        let builder = Exchange::builder(communicator)
            .bucket(names[0], 10)
            .bucket(names[1], 10);
        text(builder.build())
    });
    assert!(
        errors.iter().all(|error| error.contains("disagree")),
        "{errors:?}"
    );
}

fn slices_of_different_lengths_are_a_mismatch_at_once(reach: Reach) {
    let errors = ranks(reach, 2, |communicator| {
        let began = Instant::now();
        let mut slice = vec![1.0f32; if communicator.rank() == 0 { 2 } else { 100_000 }];
        let error = text(communicator.all_reduce_slice(&mut slice, Operation::Sum));
        assert!(began.elapsed() < Duration::from_secs(4), "{error}");
        error
    });
    assert!(
        errors
            .iter()
            .all(|error| error.contains("disagree") && error.contains("100000 float")),
        "{errors:?}"
    );
}

fn a_forked_child_that_drops_everything_disturbs_nobody(reach: Reach) {
    ranks(reach, 2, |communicator| {
        let rank = communicator.rank();
        let mut exchange = Exchange::builder(communicator)
            .bucket("x", 100_000)
            .build()
            .unwrap();
        if rank == 0 {
            let mut step = exchange.begin().unwrap();
            let bucket = step.take("x").unwrap();
            // SAFETY: the child takes no lock that another thread could hold, and leaves by _exit.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let refused = bucket.ready().is_err();
                drop(step);
                let refused =
                    refused && exchange.begin().is_err() && exchange.communicator().barrier().is_err();
                exchange.communicator().abort_handle().abort();
                drop(exchange);
                // SAFETY: ends the child without running anything of the parent's.
                unsafe { libc::_exit(i32::from(!refused)) };
            }
            let (mut status, until) = (0, Instant::now() + Duration::from_secs(3));
            // SAFETY: asks after the child forked above.
            while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
                if Instant::now() > until {
                    // SAFETY: kills the child forked above, which was not waited for yet.
                    unsafe { libc::kill(child, libc::SIGKILL) };
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(status, 0, "the child was refused and ended by itself");
            bucket.ready().unwrap();
            step.finish().unwrap();
            return;
        }
        std::thread::sleep(Duration::from_millis(500));
        let mut step = exchange.begin().unwrap();
        step.take("x").unwrap().ready().unwrap();
        step.finish().unwrap();
    });
}

fn custody_ends_at_the_own_communicators_abort_only(reach: Reach) {
    ranks(reach, 2, |communicator| {
        let mut window = communicator.window::<f32>(100_000).unwrap();
        communicator.all_reduce(&mut window, Operation::Sum).unwrap();
        if communicator.rank() == 1 {
            std::thread::sleep(Duration::from_secs(6));
            return;
        }
        communicator.all_reduce(&mut window, Operation::Sum).unwrap_err();
        let other = Communicator::builder().join(&Job::local(1).unwrap()[0]).unwrap();
        other.abort(&[&window]).unwrap_err();
        assert!(window.in_custody());
    });
}

/// Polls again inside of `wake`, as an executor on one thread may.
struct Eager(std::sync::Mutex<Option<std::pin::Pin<Box<sapwood::communicator::Pending<f32>>>>>);

impl std::task::Wake for Eager {
    fn wake(self: std::sync::Arc<Self>) {
        let waker = self.clone().into();
        let mut pending = self.0.try_lock().ok();
        if let Some(Some(pending)) = pending.as_deref_mut() {
            let _ = pending.as_mut().poll(&mut std::task::Context::from_waker(&waker));
        }
    }
}

fn a_waker_may_call_back(reach: Reach) {
    ranks(reach, 2, |communicator| {
        let window = communicator.window::<f32>(100_000).unwrap();
        let mut pending = Box::pin(communicator.start_all_reduce(window, Operation::Sum).unwrap());
        let eager = std::sync::Arc::new(Eager(std::sync::Mutex::new(None)));
        let waker = eager.clone().into();
        let outcome = pending.as_mut().poll(&mut std::task::Context::from_waker(&waker));
        if outcome.is_pending() {
            *eager.0.lock().unwrap() = Some(pending);
        }
        communicator.barrier().unwrap();
        communicator.all_gather_bytes("the end", &[]).unwrap();
        // The task holds its waker and the waker its task.
        eager.0.lock().unwrap().take();
    });
}

fn a_window_that_one_rank_cannot_have_is_refused_on_all(reach: Reach) {
    ranks(reach, 3, |communicator| {
        let began = Instant::now();
        let elements = if communicator.rank() == 1 { 1 << 46 } else { 16 };
        let error = communicator.window::<f32>(elements).unwrap_err();
        if communicator.rank() != 1 {
            assert_eq!(error.culprit(), Some(1), "{error}");
            assert!(error.to_string().contains("could not take part"), "{error}");
        }
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "waited for a rank that had given up"
        );
        // Nothing has changed.
        let mut window = communicator.window::<f32>(16).unwrap();
        window.fill(2.0);
        communicator.all_reduce(&mut window, Operation::Sum).unwrap();
        assert!(window.iter().all(|x| *x == 6.0));
    });
}

over_both! {
    a_window_that_one_rank_cannot_have_is_refused_on_all,
    a_step_that_is_dropped_does_not_hand_out_buckets_in_flight,
    an_exchange_of_more_buckets_than_boards_tell_apart_is_refused,
    a_small_operation_moves_started_ones_on,
    a_small_or_slow_collective_after_a_started_one_does_not_hold_it_up,
    different_windows_or_ranges_are_a_mismatch,
    what_one_rank_alone_calls_again_is_a_mismatch,
    a_factor_that_one_rank_alone_changes_counts,
    exchanges_of_different_buckets_are_refused,
    slices_of_different_lengths_are_a_mismatch_at_once,
    a_forked_child_that_drops_everything_disturbs_nobody,
    custody_ends_at_the_own_communicators_abort_only,
    a_waker_may_call_back,
}
