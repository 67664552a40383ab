//! Collectives between ranks that are threads of one process: results, errors, custody.

use std::time::{Duration, Instant};

use sapwood::bootstrap::Job;
use sapwood::communicator::CommunicatorError;
use sapwood::engine::reduce::Operation;
use sapwood::memory::Buffer;

#[path = "ranks/mod.rs"]
mod support;

use support::{Reach, over_both, with};

/// Integers that floats hold exactly, so that sums can be compared exactly.
fn value(rank: u32, index: usize) -> f32 {
    ((index * 7 + rank as usize * 13) % 101) as f32
}

fn sum(size: u32, index: usize) -> f32 {
    (0..size).map(|rank| value(rank, index)).sum()
}

const PLANS: [&str; 6] = [
    "binomial-tree",
    "k-ary-tree",
    "k-ary-tree:2",
    "double-binary-tree",
    "ring",
    "direct",
];

fn every_plan_sums_every_size_in_place_and_out_of_place(reach: Reach) {
    for plan in PLANS {
        for size in [1, 2, 3, 5, 8] {
            let builder = reach.builder().plan(plan);
            with(size, builder, |communicator| {
                let rank = communicator.rank();
                let mut input = communicator.window::<f32>(300_000).unwrap();
                let mut output = communicator.window::<f32>(300_000).unwrap();
                for count in [0, 1, 3, 1000, 70_001, 300_000] {
                    input
                        .iter_mut()
                        .enumerate()
                        .for_each(|(i, x)| *x = value(rank, i));
                    output.fill(f32::NAN);
                    communicator
                        .all_reduce_range_into(&input, &mut output, 0..count, Operation::Sum)
                        .unwrap();
                    for (i, x) in output[..count].iter().enumerate() {
                        assert_eq!(
                            *x,
                            sum(size, i),
                            "{plan}, {size} ranks, rank {rank}, {count} elements"
                        );
                    }
                    assert!(
                        output[count..].iter().all(|x| x.is_nan()),
                        "{plan}: wrote beyond {count}"
                    );
                    assert!(
                        input.iter().enumerate().all(|(i, x)| *x == value(rank, i)),
                        "{plan}: input kept"
                    );
                    communicator
                        .all_reduce_range(&mut input, 0..count, Operation::Sum)
                        .unwrap();
                    assert!(
                        input[..count].iter().enumerate().all(|(i, x)| *x == sum(size, i)),
                        "{plan} in place"
                    );
                }
            });
        }
    }
}

fn reduce_and_broadcast_with_every_root(reach: Reach) {
    for plan in PLANS {
        let builder = reach.builder().plan(plan);
        with(5, builder, |communicator| {
            let rank = communicator.rank();
            let mut window = communicator.window::<f32>(40_000).unwrap();
            for root in 0..5 {
                window
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, x)| *x = value(rank, i));
                communicator.reduce(&mut window, Operation::Sum, root).unwrap();
                let expected = |i| if rank == root { sum(5, i) } else { value(rank, i) };
                assert!(
                    window.iter().enumerate().all(|(i, x)| *x == expected(i)),
                    "{plan}, reduce to {root}"
                );
                communicator.broadcast(&mut window, root).unwrap();
                assert!(
                    window.iter().enumerate().all(|(i, x)| *x == sum(5, i)),
                    "{plan}, broadcast from {root}"
                );
                communicator.barrier().unwrap();
            }
        });
    }
}

fn small_and_unregistered_memory(reach: Reach) {
    for size in [1, 2, 4, 7] {
        with(size, reach.builder(), |communicator| {
            for count in [0usize, 1, 2, 11, 12, 13, 100, 1000, 2048, 5000, 40_000] {
                for round in 0..5 {
                    let mut slice = (0..count)
                        .map(|i| value(communicator.rank(), i + round))
                        .collect::<Vec<_>>();
                    communicator.all_reduce_slice(&mut slice, Operation::Sum).unwrap();
                    assert!(
                        slice.iter().enumerate().all(|(i, x)| *x == sum(size, i + round)),
                        "{count}"
                    );
                }
            }
        });
    }
}

/// Longer than what is staged at a time, and no multiple of it.
fn long_unregistered_memory(reach: Reach) {
    for size in [1, 2, 3] {
        with(size, reach.builder(), |communicator| {
            for count in [262_144usize, 700_001] {
                let before = communicator.counters().bytes_copied;
                let mut slice: Vec<f32> = (0..count).map(|i| value(communicator.rank(), i)).collect();
                communicator.all_reduce_slice(&mut slice, Operation::Sum).unwrap();
                assert!(
                    slice.iter().enumerate().all(|(i, x)| *x == sum(size, i)),
                    "{count}"
                );
                let copied = communicator.counters().bytes_copied - before;
                assert!(reach == Reach::Messages || copied == 8 * count as u64, "{copied}");
            }
        });
    }
    // Ranks that disagree about the length are told, though the pieces are equally long.
    let outcomes = with(2, reach.builder(), |communicator| {
        let mut slice = vec![1f32; 262_144 * (1 + communicator.rank() as usize)];
        text(communicator.all_reduce_slice(&mut slice, Operation::Sum))
    });
    assert!(
        outcomes.iter().any(|error| error.contains("262144 float")),
        "{outcomes:?}"
    );
}

fn every_type_and_operation_agrees_on_all_ranks(reach: Reach) {
    with(3, reach.builder(), |communicator| {
        let mut bytes = [1u8, 2, 3, 250];
        communicator.all_reduce_slice(&mut bytes, Operation::Max).unwrap();
        assert_eq!(bytes, [1, 2, 3, 250]);
        let mut average = vec![f64::from(communicator.rank()); 20_000];
        communicator
            .all_reduce_slice(&mut average, Operation::Average)
            .unwrap();
        assert!(average.iter().all(|x| *x == 1.0));
        let mut half = vec![half::f16::from_f32(0.5); 10_000];
        communicator.all_reduce_slice(&mut half, Operation::Sum).unwrap();
        assert!(half.iter().all(|x| x.to_f32() == 1.5));
        let mut least = vec![i64::from(communicator.rank()) - 1; 3];
        communicator.all_reduce_slice(&mut least, Operation::Min).unwrap();
        assert_eq!(least, [-1; 3]);
    });
}

fn contributions_are_multiplied_by_their_ranks_factor(reach: Reach) {
    fn of<T: sapwood::memory::Element>(reach: Reach, to: fn(f64) -> T) {
        for plan in PLANS.into_iter().map(Some).chain([None]) {
            for size in [1, 2, 4] {
                let builder = reach.builder();
                let builder = match plan {
                    Some(plan) => builder.plan(plan),
                    None => builder,
                };
                with(size, builder, |communicator| {
                    let rank = communicator.rank();
                    // Powers of two: every order of the sum gives the same.
                    let operation = Operation::pre_multiplied_sum(0.5f64.powi(rank as i32));
                    let expected = (0..size).map(|rank| 0.5f64.powi(rank as i32) * f64::from(rank + 1));
                    let expected = to(expected.sum());
                    for count in [1, 9, 11, 1_500, 30_000] {
                        let mut window = communicator.window::<T>(count).unwrap();
                        window.fill(to(f64::from(rank + 1)));
                        communicator.all_reduce(&mut window, operation).unwrap();
                        assert!(
                            window.iter().all(|x| *x == expected),
                            "{plan:?} {size} {:?}",
                            window[0]
                        );
                        window.fill(to(f64::from(rank + 1)));
                        communicator.reduce(&mut window, operation, size - 1).unwrap();
                        let result = if rank == size - 1 {
                            expected
                        } else {
                            to(f64::from(rank + 1))
                        };
                        assert!(
                            window.iter().all(|x| *x == result),
                            "{plan:?} {size} {:?}",
                            window[0]
                        );
                    }
                });
            }
        }
    }
    of(reach, |x| x as f32);
    of(reach, half::bf16::from_f64);
    with(2, reach.builder(), |communicator| {
        let mut window = communicator.window::<i32>(10).unwrap();
        let operation = Operation::pre_multiplied_sum(2.0);
        let refused = text(communicator.all_reduce(&mut window, operation));
        assert!(refused.contains("int32 has no pre-multiplied sum"), "{refused}");
        assert!(text(communicator.all_reduce_slice(&mut [1u64], operation)).contains("uint64"));
        assert!(text(communicator.reduce(&mut window, operation, 0)).contains("int32"));
        communicator.all_reduce(&mut window, Operation::Sum).unwrap();
    });
}

fn sums_are_bit_identical_on_every_rank_and_every_time(reach: Reach) {
    for plan in PLANS {
        let outcomes = with(6, reach.builder().plan(plan), |communicator| {
            let mut window = communicator.window::<f32>(30_000).unwrap();
            let mut outcomes = Vec::new();
            for _ in 0..4 {
                let seed = communicator.rank() as f32 + 0.1;
                window
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, x)| *x = (seed * (i as f32 + 0.37)).sin());
                communicator.all_reduce(&mut window, Operation::Sum).unwrap();
                outcomes.push(window.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
            }
            outcomes
        });
        assert!(
            outcomes.iter().flatten().all(|bits| *bits == outcomes[0][0]),
            "{plan}"
        );
    }
}

fn many_operations_in_flight_end_in_any_order(reach: Reach) {
    with(3, reach.builder(), |communicator| {
        let windows = (0..100)
            .map(|_| communicator.window::<i32>(5_000).unwrap())
            .collect::<Vec<_>>();
        let pending = windows.into_iter().enumerate().map(|(number, mut window)| {
            window.fill(number as i32 + communicator.rank() as i32);
            communicator.start_all_reduce(window, Operation::Sum).unwrap()
        });
        let pending = pending.collect::<Vec<_>>();
        for (number, pending) in pending.into_iter().enumerate().rev() {
            let window = pending.wait().unwrap();
            assert!(window.iter().all(|x| *x == 3 * number as i32 + 3));
        }
    });
}

/// One rank calls what another starts, at every length at which a call goes another way.
fn a_call_and_a_start_are_the_same_operation(reach: Reach) {
    with(3, reach.builder(), |communicator| {
        // Small ones, which calls show to all, are not started by others: that is another operation.
        for count in [2048, 50_000, 300_000] {
            for turn in 0..12 {
                let mut window = communicator.window::<u32>(count).unwrap();
                window.fill(communicator.rank() + turn);
                let window = if (communicator.rank() + turn).is_multiple_of(3) {
                    communicator.all_reduce(&mut window, Operation::Sum).unwrap();
                    window
                } else {
                    let pending = communicator.start_all_reduce(window, Operation::Sum).unwrap();
                    pending.wait().unwrap()
                };
                assert!(window.iter().all(|sum| *sum == 3 + 3 * turn), "{count}");
            }
        }
    });
}

fn a_dropped_handle_detaches_the_operation(reach: Reach) {
    with(2, reach.builder(), |communicator| {
        for _ in 0..20 {
            let window = communicator.window::<f64>(50_000).unwrap();
            drop(communicator.start_all_reduce(window, Operation::Sum).unwrap());
        }
        communicator.barrier().unwrap();
        let mut last = vec![1.0f64; 10_000];
        communicator.all_reduce_slice(&mut last, Operation::Sum).unwrap();
        assert!(last.iter().all(|x| *x == 2.0));
    });
}

fn text<T: std::fmt::Debug>(outcome: Result<T, CommunicatorError>) -> String {
    outcome.expect_err("an error").to_string()
}

fn a_mismatch_names_the_odd_rank_on_every_rank(reach: Reach) {
    for (count, other) in [(4, 5), (1000, 1001), (400_000, 400_001), (2, 400_000), (2, 1000)] {
        let errors = with(4, reach.builder(), |communicator| {
            let count = if communicator.rank() == 2 { other } else { count };
            let mut window = communicator.window::<f32>(500_000).unwrap();
            text(communicator.all_reduce_range(&mut window, 0..count, Operation::Sum))
        });
        for error in errors {
            assert!(
                error.contains(&format!("rank 2 called all-reduce of {other} float")),
                "{error}"
            );
            assert!(error.contains("ranks 0, 1 and 3 called"), "{error}");
        }
    }
    let errors = with(3, reach.builder(), |communicator| {
        let operation = if communicator.rank() == 0 {
            Operation::Max
        } else {
            Operation::Sum
        };
        text(communicator.all_reduce_slice(&mut [1.0f32; 3], operation))
    });
    assert!(
        errors
            .iter()
            .all(|error| error.contains("rank 0 called all-reduce of 3 float with max")),
        "{errors:?}"
    );
}

fn a_rank_that_never_comes_is_named_at_the_deadline(reach: Reach) {
    for count in [2, 1000, 400_000] {
        let errors = with(3, reach.builder(), |communicator| {
            communicator.set_timeout(Duration::from_millis(300));
            let mut window = communicator.window::<f32>(400_000).unwrap();
            if communicator.rank() == 1 {
                std::thread::sleep(Duration::from_millis(1500));
                return None;
            }
            let began = Instant::now();
            let error = communicator
                .all_reduce_range(&mut window, 0..count, Operation::Sum)
                .unwrap_err();
            assert_eq!(error.culprit(), Some(1), "{error}");
            Some((error.to_string(), began.elapsed()))
        });
        // Who gives up tells the others, who may have begun later: one has waited until its deadline.
        let waited = errors.iter().flatten().map(|(_, waited)| *waited).max();
        assert!(waited >= Some(Duration::from_millis(300)), "{waited:?}");
        for (error, _) in errors.into_iter().flatten() {
            assert!(error.contains("rank 1"), "{error}");
        }
    }
}

fn a_rank_that_leaves_is_named_at_once(reach: Reach) {
    let errors = with(4, reach.builder(), |communicator| {
        if communicator.rank() == 3 {
            return None;
        }
        let mut window = communicator.window::<f32>(100_000);
        // Rank 3 is gone already, or goes in the middle.
        let error = match &mut window {
            Ok(window) => communicator.all_reduce(window, Operation::Sum).unwrap_err(),
            Err(_) => window.unwrap_err(),
        };
        Some(error.to_string())
    });
    assert!(
        errors.iter().flatten().all(|error| error.contains("rank 3")),
        "{errors:?}"
    );
}

fn after_a_failure_windows_are_in_custody_until_abort(reach: Reach) {
    with(2, reach.builder(), |communicator| {
        let mut window = communicator.window::<f32>(100_000).unwrap();
        communicator.all_reduce(&mut window, Operation::Sum).unwrap();
        communicator.set_timeout(Duration::from_millis(500));
        if communicator.rank() == 1 {
            std::thread::sleep(Duration::from_millis(800));
            let error = communicator.all_reduce(&mut window, Operation::Sum).unwrap_err();
            assert!(error.to_string().contains("rank 0"), "{error}");
            return;
        }
        communicator.all_reduce(&mut window, Operation::Sum).unwrap_err();
        assert!(window.in_custody());
        let touched = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| window[0]));
        assert!(touched.is_err(), "peers may still read it");
        communicator.set_timeout(Duration::from_secs(20));
        communicator.abort(&[&window]).unwrap();
        window[0] = 1.0;
        let again = text(communicator.all_reduce(&mut window, Operation::Sum));
        assert!(again.contains("cannot be used any more"), "{again}");
    });
}

fn abort_from_another_thread_ends_every_wait(reach: Reach) {
    let errors = with(3, reach.builder(), |communicator| {
        if communicator.rank() == 0 {
            let handle = communicator.abort_handle();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(100));
                handle.abort();
            });
            std::thread::sleep(Duration::from_millis(400));
            return text(communicator.barrier());
        }
        let began = Instant::now();
        let error = text(communicator.barrier());
        assert!(began.elapsed() < Duration::from_secs(10));
        error
    });
    assert!(
        errors.iter().all(|error| error.contains("aborted by rank 0")),
        "{errors:?}"
    );
}

fn wrong_arguments_change_nothing(reach: Reach) {
    with(2, reach.builder(), |communicator| {
        let mut window = communicator.window::<f32>(10).unwrap();
        assert!(text(communicator.broadcast(&mut window, 2)).contains("root 2 does not exist"));
        assert!(text(communicator.all_reduce_range(&mut window, 3..11, Operation::Sum)).contains("3..11"));
        window.fill(1.0);
        communicator.all_reduce(&mut window, Operation::Sum).unwrap();
        assert!(window.iter().all(|x| *x == 2.0), "the communicator still works");
        // As long, and the same but for what is wrong.
        assert!(text(communicator.all_reduce_range(&mut window, 3..13, Operation::Sum)).contains("3..13"));
        let mut longer = communicator.window::<f32>(11).unwrap();
        assert!(
            communicator
                .all_reduce_into(&window, &mut longer, Operation::Sum)
                .is_err()
        );
        communicator.all_reduce(&mut window, Operation::Max).unwrap();
        assert!(
            window.iter().all(|x| *x == 2.0),
            "another operation is not the last one"
        );
        let mut numbers = communicator.window::<i32>(10).unwrap();
        numbers.fill(1 << 30);
        communicator.all_reduce(&mut numbers, Operation::Max).unwrap();
        assert!(numbers.iter().all(|x| *x == 1 << 30), "nor is another type");
        let mut other = communicator.window::<f32>(10).unwrap();
        communicator
            .all_reduce_into(&window, &mut other, Operation::Sum)
            .unwrap();
        communicator
            .all_reduce_range(&mut other, 2..5, Operation::Sum)
            .unwrap();
        assert_eq!(other[..], [4.0, 4.0, 8.0, 8.0, 8.0, 4.0, 4.0, 4.0, 4.0, 4.0]);
    });
}

/// What is remembered of a call is used for none that differs: in its window, where it begins, how long it is, where its result
/// goes, or by the window having been given back.
fn calls_that_follow_each_other_are_told_apart(reach: Reach) {
    with(2, reach.builder(), |communicator| {
        let (own, both) = (communicator.rank() as f32 + 1.0, 3.0);
        for count in [2, 12, 100, 500, 3_000] {
            for round in [0, 1, 0] {
                let mut first = communicator.window::<f32>(count + 7).unwrap();
                let mut second = communicator.window::<f32>(count + 7).unwrap();
                let mut exact = communicator.window::<f32>(count).unwrap();
                let mut result = communicator.window::<f32>(count).unwrap();
                for _ in 0..3 {
                    for window in [&mut first, &mut second] {
                        for at in [0, 0, 7, 3] {
                            window.fill(own);
                            communicator
                                .all_reduce_range(window, at..at + count, Operation::Sum)
                                .unwrap();
                            let inside = |index: usize| (at..at + count).contains(&index);
                            let right =
                                |(index, x): (usize, &f32)| *x == if inside(index) { both } else { own };
                            assert!(
                                window.iter().enumerate().all(right),
                                "{count} from {at}, round {round}"
                            );
                        }
                    }
                    exact.fill(own);
                    for (operation, expected) in [(Operation::Sum, both), (Operation::Max, 2.0)] {
                        for _ in 0..2 {
                            result.fill(0.0);
                            communicator
                                .all_reduce_into(&exact, &mut result, operation)
                                .unwrap();
                            assert!(
                                result.iter().all(|x| *x == expected),
                                "{count} into another window"
                            );
                            assert!(exact.iter().all(|x| *x == own), "the input stays");
                        }
                    }
                    communicator.all_reduce(&mut exact, Operation::Sum).unwrap();
                    assert!(exact.iter().all(|x| *x == both));
                    // Ranks may run ahead of a root's.
                    communicator.broadcast(&mut first, round).unwrap();
                    let halves = Operation::pre_multiplied_sum(0.5);
                    let doubles = Operation::pre_multiplied_sum(2.0);
                    for (operation, factor) in [(doubles, 2.0), (doubles, 2.0), (halves, 0.5), (doubles, 2.0)]
                    {
                        second.fill(own);
                        communicator.all_reduce(&mut second, operation).unwrap();
                        assert!(second.iter().all(|x| *x == factor * both), "{operation:?}");
                    }
                    exact.fill(both);
                    communicator
                        .all_reduce_into(&exact, &mut result, Operation::Sum)
                        .unwrap();
                    assert!(result.iter().all(|x| *x == 2.0 * both));
                }
            }
        }
    });
}

fn windows_must_agree(reach: Reach) {
    let errors = with(2, reach.builder(), |communicator| {
        text(communicator.window::<f32>(10 + communicator.rank() as usize))
    });
    assert!(
        errors.iter().all(|error| error.contains("disagree")),
        "{errors:?}"
    );
}

fn two_communicators_in_one_process_are_independent(reach: Reach) {
    let first = Job::local(2).unwrap();
    let second = Job::local(2).unwrap();
    std::thread::scope(|scope| {
        for rank in 0..2 {
            let (first, second) = (&first[rank], &second[rank]);
            scope.spawn(move || {
                let one = reach.builder().join(first).unwrap();
                let two = reach.builder().join(second).unwrap();
                let mut window = one.window::<f32>(10).unwrap();
                let foreign = |error: String| assert!(error.contains("another communicator"), "{error}");
                foreign(text(two.all_reduce(&mut window, Operation::Sum)));
                // Nor where the last call was the same on a window of its own.
                let mut own = two.window::<f32>(10).unwrap();
                two.all_reduce(&mut own, Operation::Sum).unwrap();
                two.all_reduce(&mut own, Operation::Sum).unwrap();
                foreign(text(two.all_reduce(&mut window, Operation::Sum)));
                foreign(text(two.all_reduce_into(&own, &mut window, Operation::Sum)));
                foreign(text(two.all_reduce_into(&window, &mut own, Operation::Sum)));
                one.barrier().unwrap();
                two.barrier().unwrap();
            });
        }
    });
}

fn a_handle_can_be_waited_for_a_while(reach: Reach) {
    with(2, reach.builder(), |communicator| {
        let window = communicator.window::<f32>(50_000).unwrap();
        // The first of its kind waits for all ranks, where they still have to connect for it.
        let window = communicator
            .start_all_reduce(window, Operation::Sum)
            .unwrap()
            .wait()
            .unwrap();
        if communicator.rank() == 1 {
            std::thread::sleep(Duration::from_millis(300));
        }
        let pending = communicator.start_all_reduce(window, Operation::Sum).unwrap();
        if communicator.rank() == 0 {
            assert!(
                !pending.wait_until(Instant::now() + Duration::from_millis(50)),
                "rank 1 has not come yet"
            );
        }
        pending.wait().unwrap();
    });
}

fn a_deadline_can_be_given_for_the_next_calls(reach: Reach) {
    let waited = with(2, reach.builder(), |communicator| {
        if communicator.rank() == 1 {
            std::thread::sleep(Duration::from_millis(900));
            return Duration::MAX;
        }
        communicator.set_timeout(Duration::from_millis(100));
        let began = Instant::now();
        communicator.barrier().unwrap_err();
        began.elapsed()
    });
    assert!(
        waited[0] < Duration::from_secs(10),
        "not the 20 s with which it was made: {waited:?}"
    );
}

fn memory_that_peers_cannot_map_is_no_window_but_can_be_reduced(reach: Reach) {
    with(2, reach.builder(), |communicator| {
        let foreign = || Buffer::from_vec(vec![1.0f32; 10_000]).unwrap();
        if reach == Reach::Messages {
            // Requests reach it where it lies.
            let mut window = communicator.register(foreign()).unwrap();
            communicator.all_reduce(&mut window, Operation::Sum).unwrap();
            assert!(window.iter().all(|x| *x == 2.0));
        } else {
            let refused = text(communicator.register(foreign()));
            assert!(refused.contains("peers cannot map foreign memory"), "{refused}");
        }
        let mut buffer = foreign();
        communicator
            .all_reduce_slice(&mut buffer, Operation::Sum)
            .unwrap();
        assert!(buffer.iter().all(|x| *x == 2.0));
    });
}

over_both! {
    every_plan_sums_every_size_in_place_and_out_of_place,
    reduce_and_broadcast_with_every_root,
    small_and_unregistered_memory,
    long_unregistered_memory,
    every_type_and_operation_agrees_on_all_ranks,
    contributions_are_multiplied_by_their_ranks_factor,
    sums_are_bit_identical_on_every_rank_and_every_time,
    many_operations_in_flight_end_in_any_order,
    a_call_and_a_start_are_the_same_operation,
    a_dropped_handle_detaches_the_operation,
    a_mismatch_names_the_odd_rank_on_every_rank,
    a_rank_that_never_comes_is_named_at_the_deadline,
    a_rank_that_leaves_is_named_at_once,
    after_a_failure_windows_are_in_custody_until_abort,
    abort_from_another_thread_ends_every_wait,
    wrong_arguments_change_nothing,
    calls_that_follow_each_other_are_told_apart,
    windows_must_agree,
    two_communicators_in_one_process_are_independent,
    a_handle_can_be_waited_for_a_while,
    a_deadline_can_be_given_for_the_next_calls,
    memory_that_peers_cannot_map_is_no_window_but_can_be_reduced,
}
