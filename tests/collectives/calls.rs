//! The ways to call a collective: by name, started, set up once, in a group, and ahead of the others.

use sapwood::communicator::{Request, Window};
use sapwood::engine::reduce::Operation;
use sapwood::plan::Collective;

use crate::reference::{Parts, UNTOUCHED, every, expected, fill, lengths, longest, request};
use crate::support::{Reach, with};

pub fn named_calls_are_the_requests(reach: Reach) {
    with(3, reach.builder(), |communicator| {
        let rank = communicator.rank();
        let window = |len: usize| {
            let mut window = communicator.window::<u64>(len).unwrap();
            window
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = 100 * u64::from(rank) + i as u64);
            window
        };
        let (mut long, mut short) = (window(6), window(2));
        communicator.all_gather_into(&short, &mut long).unwrap();
        assert_eq!(long[..], [0, 1, 100, 101, 200, 201]);
        communicator
            .reduce_scatter_into(&long, &mut short, Operation::Sum)
            .unwrap();
        assert_eq!(short[..], [300 * u64::from(rank), 300 * u64::from(rank) + 3]);
        communicator.scatter_into(&long, &mut short, 2).unwrap();
        assert_eq!(short[..], [100 * u64::from(rank), 100 * u64::from(rank) + 1]);
        long.fill(7);
        communicator.gather_into(&short, &mut long, 1).unwrap();
        assert_eq!(long[5], if rank == 1 { 201 } else { 7 });
        let (from, mut to) = (window(3), window(3));
        communicator.all_to_all(&from, &mut to).unwrap();
        assert_eq!(to[..], [0, 1, 2].map(|sender| 100 * sender + u64::from(rank)));
        communicator.broadcast_into(&from, &mut to, 1).unwrap();
        assert_eq!(to[..], [100, 101, 102]);
        communicator
            .reduce_into(&from, &mut to, Operation::Max, 0)
            .unwrap();
        assert_eq!(to[2], if rank == 0 { 202 } else { 102 });
        let mut all = window(3);
        communicator.all_gather(&mut all).unwrap();
        assert_eq!(all[..], [0, 101, 202]);
        communicator.reduce_scatter(&mut all, Operation::Min).unwrap();
        assert_eq!(all[rank as usize], 101 * u64::from(rank));
        let counts = [2, 0, 1];
        let (input, mut result) = (window(2), window(3));
        communicator
            .all_gather_varying(&input, &mut result, &counts)
            .unwrap();
        assert_eq!(result[..], [0, 1, 200]);
        // Rank r sends r elements to each, so gets s from rank s.
        let (input, mut result) = (window(6), window(6));
        let send = vec![rank as usize; 3];
        communicator
            .all_to_all_varying(&input, &send, &mut result, &[0, 1, 2])
            .unwrap();
        let r = u64::from(rank);
        assert_eq!(result[..3], [100 + r, 200 + 2 * r, 201 + 2 * r]);
    });
}

pub fn started_collectives_end_in_any_order(reach: Reach) {
    with(4, reach.builder(), |communicator| {
        let size = communicator.size();
        let run = |collective: Collective| {
            let parts = Parts::even(size, 3_000, collective);
            let (needs, _) = lengths(collective, &parts, communicator.rank());
            let (longest_input, longest_result) = longest(collective, &parts);
            let mut input = communicator.window::<u32>(longest_input).unwrap();
            fill(&mut input, communicator.rank(), 0, needs);
            let result = communicator.window::<u32>(longest_result).unwrap();
            (
                collective,
                parts,
                communicator
                    .start_into(&request(collective), input, result)
                    .unwrap(),
            )
        };
        let started = every(1).into_iter().map(run).collect::<Vec<_>>();
        for (collective, parts, started) in started.into_iter().rev() {
            let (_, result) = started.wait().unwrap();
            if let Some(expected) = expected(collective, &parts, communicator.rank()) {
                assert!(result[..expected.len()] == expected[..], "{collective}");
            }
        }
        let window = communicator.window::<u32>(4_000).unwrap();
        let window = communicator.start_all_gather(window).unwrap().wait().unwrap();
        communicator.start_broadcast(window, 2).unwrap().wait().unwrap();
    });
}

pub fn a_persistent_collective_is_started_many_times(reach: Reach) {
    with(3, reach.builder(), |communicator| {
        let (rank, size) = (communicator.rank(), communicator.size());
        for collective in every(1) {
            for count in [2, 5_000] {
                let parts = Parts::even(size, count, collective);
                let (needs, gets) = lengths(collective, &parts, rank);
                let (longest_input, longest_result) = longest(collective, &parts);
                let input = communicator.window::<u32>(longest_input).unwrap();
                let result = communicator.window::<u32>(longest_result).unwrap();
                let mut lasting = communicator
                    .persistent_into(&request(collective), input, result)
                    .unwrap();
                for round in 0..20 {
                    let (input, result) = lasting.windows();
                    fill(input, rank, 0, needs);
                    result.fill(UNTOUCHED);
                    lasting.start(&communicator).unwrap();
                    if round % 2 == 0 {
                        while !lasting.poll() {
                            std::thread::yield_now();
                        }
                    }
                    lasting.wait().unwrap();
                    if let Some(expected) = expected(collective, &parts, rank) {
                        assert!(
                            lasting.windows().1[..gets] == expected[..],
                            "{collective}, round {round}"
                        );
                    }
                }
                lasting.into_windows().unwrap();
            }
        }
        let mut lasting = communicator
            .persistent_all_reduce(communicator.window::<u32>(10).unwrap(), Operation::Sum)
            .unwrap();
        assert!(lasting.poll(), "not started");
        lasting.start(&communicator).unwrap();
        let twice = lasting.start(&communicator).unwrap_err().to_string();
        assert!(twice.contains("started and not waited for"), "{twice}");
        lasting.wait().unwrap();
        // Dropped while it is under way, it goes on.
        lasting.start(&communicator).unwrap();
        drop(lasting);
        communicator.barrier().unwrap();
    });
}

pub fn a_group_is_issued_as_one(reach: Reach) {
    with(4, reach.builder(), |communicator| {
        let rank = communicator.rank();
        let mut sums: Vec<Window<f32>> = (0..10)
            .map(|i| communicator.window(100 * i + 1).unwrap())
            .collect();
        let mut shared = communicator.window::<u64>(5).unwrap();
        let (part, mut all) = (
            communicator.window::<i8>(3).unwrap(),
            communicator.window::<i8>(12).unwrap(),
        );
        sums.iter_mut().for_each(|window| window.fill(1.5));
        shared.fill(u64::from(rank));
        communicator
            .group(|group| {
                for window in &mut sums {
                    group.add(&Request::all_reduce(Operation::Sum), window)?;
                }
                group.add(&Request::broadcast(3), &mut shared)?;
                group.add_into(&Request::all_gather(), &part, &mut all)
            })
            .unwrap();
        assert!(sums.iter().all(|window| window.iter().all(|x| *x == 6.0)));
        assert_eq!(shared[..], [3; 5]);
        communicator.group(|_| Ok(())).unwrap();
        // Refused as a whole, with the number of what is wrong.
        let refused = communicator.group(|group| {
            group.add(&Request::broadcast(0), &mut shared)?;
            group.add(&Request::gather(4), &mut all)
        });
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.contains("operation 1 of the group (gather)") && refused.contains("root 4"),
            "{refused}"
        );
        assert_eq!(shared[..], [3; 5]);
        communicator.broadcast(&mut shared, 1).unwrap();
    });
}

/// What goes together in one exchange comes out as if each had gone alone, whatever lies between.
pub fn small_all_reduces_of_a_group_are_fused(reach: Reach) {
    with(3, reach.builder(), |communicator| {
        let rank = communicator.rank();
        let of = |i: usize| (rank as usize + 1) * (i + 1);
        for round in 0..20 {
            let mut sums: Vec<Window<f32>> = [1, 30, 0, 7]
                .map(|len| communicator.window(len.max(1)).unwrap())
                .into();
            let mut most = communicator.window::<f32>(9).unwrap();
            let mut words = communicator.window::<u64>(3).unwrap();
            let (given, mut got) = (
                communicator.window::<f32>(5).unwrap(),
                communicator.window::<f32>(5).unwrap(),
            );
            let mut long = communicator.window::<f32>(40_000).unwrap();
            let mut given = given;
            for window in sums.iter_mut().chain([&mut most, &mut given, &mut long]) {
                window
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, x)| *x = (of(i) + round) as f32);
            }
            words.fill(u64::from(rank));
            let before = communicator.counters().operations;
            communicator
                .group(|group| {
                    let sum = Request::all_reduce(Operation::Sum);
                    let (first, last) = sums.split_at_mut(2);
                    for window in first {
                        group.add(&sum, window)?;
                    }
                    group.add(&Request::all_reduce(Operation::Max), &mut most)?;
                    group.add(&sum, &mut long)?;
                    group.add(&sum, &mut words)?;
                    group.add_into(&sum, &given, &mut got)?;
                    for window in last {
                        group.add(&sum, window)?;
                    }
                    Ok(())
                })
                .unwrap();
            let operations = communicator.counters().operations - before;
            // Five float sums are one; maximum, integers and the long one go alone. Over messages all do, and meet at
            // the first use of a plan.
            match reach {
                Reach::Messages => assert!(operations >= 8, "{operations}"),
                _ => assert_eq!(operations, 4),
            }
            let sum = |i: usize| (6 * (i + 1) + 3 * round) as f32;
            for window in sums.iter().chain([&got, &long]) {
                assert!(window.iter().enumerate().all(|(i, x)| *x == sum(i)));
            }
            assert!(
                most.iter()
                    .enumerate()
                    .all(|(i, x)| *x == (3 * (i + 1) + round) as f32)
            );
            assert!(
                given
                    .iter()
                    .enumerate()
                    .all(|(i, x)| *x == (of(i) + round) as f32)
            );
            assert_eq!(words[..], [3; 3]);
        }
    });
    // As many elements in all, but not in each.
    let errors = with(2, reach.builder(), |communicator| {
        let mut one = communicator.window::<f32>(5).unwrap();
        let mut two = communicator.window::<f32>(6).unwrap();
        let sum = Request::all_reduce(Operation::Sum);
        let outcome = communicator.group(|group| {
            let (first, second) = match communicator.rank() {
                0 => (&mut one, &mut two),
                _ => (&mut two, &mut one),
            };
            group.add(&sum, first)?;
            group.add(&sum, second)
        });
        outcome.unwrap_err().to_string()
    });
    for error in &errors {
        assert!(
            error.contains("of the group (all-reduce)") && error.contains("disagree"),
            "{error}"
        );
    }
}

pub fn a_failure_in_a_group_names_the_operation(reach: Reach) {
    let errors = with(3, reach.builder(), |communicator| {
        let mut one = communicator.window::<f32>(1_000).unwrap();
        let mut two = communicator.window::<f32>(1_000).unwrap();
        communicator.all_reduce(&mut one, Operation::Max).unwrap();
        let operation = if communicator.rank() == 1 {
            Operation::Max
        } else {
            Operation::Sum
        };
        let outcome = communicator.group(|group| {
            group.add(&Request::all_reduce(Operation::Max), &mut one)?;
            group.add(&Request::all_reduce(operation), &mut two)
        });
        assert!(one.in_custody() && two.in_custody());
        outcome.unwrap_err().to_string()
    });
    // Who finds it says which and what; who is told of it may have had the operation before still to end.
    let found = |error: &&String| {
        error.contains("operation 1 of the group (all-reduce)")
            && error.contains("rank 1 called all-reduce of 1000 float with max")
    };
    assert!(errors.iter().any(|error| found(&error)), "{errors:?}");
    for error in &errors {
        let told = error.contains("of the group (all-reduce)") && error.contains("disagree");
        assert!(told || found(&error), "{error}");
    }
}

/// Ranks that nothing makes wait run ahead of the others; what they have shown must be there when these come.
pub fn ranks_that_run_ahead_overwrite_nothing(reach: Reach) {
    // Over messages nobody runs ahead, and each operation may be as long as a time slice of a busy machine.
    let (rounds, planned) = match reach {
        Reach::Mapped => (2_000u64, 600u64),
        Reach::Messages => (100, 20),
    };
    for size in [2, 4] {
        with(size, reach.builder(), |communicator| {
            let rank = communicator.rank();
            let mut windows = [1usize, 4, 11, 40].map(|len| communicator.window::<u64>(len).unwrap());
            let mut long = communicator.window::<u64>(4 * size as usize).unwrap();
            let mut large = communicator.window::<u64>(5_000).unwrap();
            for round in 0..rounds {
                if round % 700 == u64::from(rank) * 150 {
                    std::thread::sleep(std::time::Duration::from_millis(3));
                }
                let root = (round / 100) as u32 % size;
                let window = &mut windows[(round % 4) as usize];
                window.fill(round << 8 | u64::from(rank));
                if round % 3 == 0 {
                    communicator.reduce(window, Operation::Max, root).unwrap();
                    let wanted = if rank == root {
                        u64::from(size) - 1
                    } else {
                        u64::from(rank)
                    };
                    assert!(
                        window.iter().all(|x| *x == round << 8 | wanted),
                        "round {round}: {:?}",
                        &window[..]
                    );
                } else {
                    communicator.broadcast(window, root).unwrap();
                    assert!(
                        window.iter().all(|x| *x == round << 8 | u64::from(root)),
                        "round {round}"
                    );
                }
                if round % 5 == 0 {
                    long.fill(round << 8 | u64::from(rank));
                    communicator.gather_into(&windows[1], &mut long, root).unwrap();
                }
                if round % 301 == 0 {
                    large.fill(1);
                    communicator.all_reduce(&mut large, Operation::Sum).unwrap();
                    assert_eq!(large[4_999], u64::from(size));
                }
            }
            // Many planned ones between two that are not waited for.
            let mut lasting = communicator.persistent_all_reduce(large, Operation::Max).unwrap();
            for round in 0..planned {
                if round % 290 == 0 {
                    windows[0].fill(round + u64::from(rank));
                    communicator.broadcast(&mut windows[0], 1).unwrap();
                    assert_eq!(windows[0][0], round + 1);
                }
                lasting.start(&communicator).unwrap();
                lasting.wait().unwrap();
            }
        });
    }
}

pub fn only_what_is_passed_on_through_slots_is_copied(reach: Reach) {
    let count = 10_000usize;
    for (plan, passed_on) in [("direct", 0), ("binomial-tree", 1)] {
        let copied = with(4, reach.builder().plan(plan), |communicator| {
            let part = communicator.window::<u32>(count).unwrap();
            let mut all = communicator.window::<u32>(4 * count).unwrap();
            communicator.gather_into(&part, &mut all, 0).unwrap();
            communicator.counters().bytes_copied
        });
        // One of four ranks is no neighbour of the root in the tree.
        let copied = copied.iter().sum::<u64>();
        assert_eq!(copied, passed_on * 4 * count as u64, "gather by {plan}");
    }
    let copied = with(3, reach.builder().plan("direct"), |communicator| {
        let part = communicator.window::<u32>(count).unwrap();
        let mut all = communicator.window::<u32>(3 * count).unwrap();
        let mut other = communicator.window::<u32>(3 * count).unwrap();
        communicator.all_gather_into(&part, &mut all).unwrap();
        communicator
            .call_into(&Request::all_to_all(), &all, &mut other)
            .unwrap();
        communicator.broadcast(&mut all, 1).unwrap();
        communicator.counters().bytes_copied
    });
    assert_eq!(copied, [0, 0, 0]);
}

/// More small operations than there are lines, each with a payload where a factor would lie.
pub fn small_operations_leave_a_started_ones_line_alone(reach: Reach) {
    const COUNT: usize = 1 << 20;
    with(2, reach.builder(), |communicator| {
        let rank = communicator.rank();
        let operation = Operation::pre_multiplied_sum(f64::from(rank + 1));
        for _ in 0..3 {
            let mut large = communicator.window::<f32>(COUNT).unwrap();
            large.fill(1.0);
            let started = communicator
                .start(&Request::all_reduce(operation), large)
                .unwrap();
            let mut small = communicator.window::<u32>(12).unwrap();
            for round in 0..600 {
                small.fill(round + rank);
                communicator.all_reduce(&mut small, Operation::Sum).unwrap();
                assert_eq!(small[..], [2 * round + 1; 12]);
            }
            assert!(started.wait().unwrap().iter().all(|x| *x == 3.0));
        }
    });
}
