//! What is particular to ranks that reach each other by messages only: the same bits as with load/store reach, queue
//! pairs to neighbours only, what is copied and what is not.

use std::collections::BTreeMap;

use sapwood::engine::reduce::Operation;
use sapwood::memory::Element;
use sapwood::observe::CopySite;
use sapwood::plan::{Collective, Reach as PlanReach, builders};

#[path = "ranks/mod.rs"]
mod support;

use support::bits::outcomes;
use support::{REACHES, Reach, with};

const PLANS: [&str; 6] = [
    "binomial-tree",
    "k-ary-tree",
    "k-ary-tree:2",
    "double-binary-tree",
    "ring",
    "direct",
];

/// Whether both reaches give the same bits for every plan.
fn same_bits<T: Element>(sizes: &[u32], of: impl Fn(f64) -> T + Sync, operation: Operation) {
    for plan in PLANS {
        for &size in sizes {
            let [mapped, messages] = REACHES.map(|reach| {
                with(size, reach.builder().plan(plan), |it| {
                    outcomes(&it, &[1, 7, 1_001, 40_007], &of, operation)
                })
            });
            assert!(
                mapped == messages,
                "{plan}, {size} ranks, {} with {operation}",
                T::TYPE.name()
            );
        }
    }
}

#[test]
fn sums_of_floats_are_the_same_bits_for_any_number_of_ranks() {
    same_bits(&[1, 2, 3, 4, 5, 6, 7, 8, 9], |x| x as f32, Operation::Sum);
}

#[test]
fn every_type_gives_the_same_bits() {
    same_bits(&[3], |x| x, Operation::Average);
    same_bits(&[4], half::f16::from_f64, Operation::Sum);
    same_bits(&[4], half::bf16::from_f64, Operation::Average);
    same_bits(&[5], |x| x as i32, Operation::Product);
    same_bits(&[3], |x| x as i64, Operation::Min);
    same_bits(&[6], |x| x as u8, Operation::Max);
}

#[test]
fn queue_pairs_are_made_to_neighbours_only() {
    let size = 16;
    for plan in ["binomial-tree", "k-ary-tree:2", "double-binary-tree"] {
        let connections = with(size, Reach::Messages.builder().plan(plan), |communicator| {
            let mut window = communicator.window::<f32>(10_000).unwrap();
            window.fill(1.0);
            communicator.all_reduce(&mut window, Operation::Sum).unwrap();
            communicator.barrier().unwrap();
            assert!(window.iter().all(|x| *x == size as f32));
            communicator.connections()
        });
        let all_reduce = builders::build(plan, Collective::AllReduce, size).unwrap();
        let barrier = builders::build(plan, Collective::Barrier, size).unwrap();
        for (rank, connections) in (0..size).zip(&connections) {
            let mut expected = Vec::new();
            for built in [&all_reduce, &barrier] {
                let program = built.lower(rank, PlanReach::Message { slots: 8 }).unwrap();
                for task in program.tasks {
                    expected.extend(task.notify);
                    expected.extend(
                        task.waits
                            .iter()
                            .map(|wait| wait.rank)
                            .filter(|other| *other != rank),
                    );
                }
            }
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(*connections, expected, "{plan}, rank {rank}");
        }
        if plan != "double-binary-tree" {
            let leaves = connections
                .iter()
                .filter(|connections| connections.len() == 1)
                .count();
            assert_eq!(
                leaves, 8,
                "{plan}: half of the ranks are leaves, which know their parent only"
            );
        }
    }
}

#[test]
fn plans_add_queue_pairs_as_they_are_first_used() {
    with(6, Reach::Messages.builder().plan("ring"), |communicator| {
        let rank = communicator.rank();
        let mut window = communicator.window::<f32>(1_000).unwrap();
        // Barriers do not go around rings.
        let before = communicator.connections();
        communicator.all_reduce(&mut window, Operation::Sum).unwrap();
        let after = communicator.connections();
        for neighbour in [(rank + 1) % 6, (rank + 5) % 6] {
            assert!(after.contains(&neighbour));
        }
        assert!(before.iter().all(|known| after.contains(known)));
        communicator.all_reduce(&mut window, Operation::Sum).unwrap();
        assert_eq!(communicator.connections(), after);
    });
}

#[test]
fn a_leafs_gradient_and_the_result_are_not_copied() {
    let count = 100_000u64;
    let counters = with(
        4,
        Reach::Messages.builder().plan("binomial-tree"),
        |communicator| {
            let mut window = communicator.window::<f32>(count as usize).unwrap();
            communicator.all_reduce(&mut window, Operation::Sum).unwrap();
            (
                communicator.connections().len() as u64,
                communicator.rank(),
                communicator.counters(),
            )
        },
    );
    for (connections, rank, counters) in counters {
        // Every child's sum comes into staging slots, once.
        let children = if rank == 0 { connections } else { connections - 1 };
        assert_eq!(
            counters.bytes_copied,
            children * 4 * count,
            "rank {rank}: {counters:?}"
        );
        assert_eq!(counters.copies[&CopySite::StageIn].bytes, counters.bytes_copied);
    }
}

#[test]
fn the_same_bytes_reach_their_destinations() {
    for plan in PLANS {
        let [mapped, messages] = REACHES.map(|reach| {
            with(5, reach.builder().plan(plan), |communicator| {
                let mut window = communicator.window::<f32>(70_001).unwrap();
                communicator.all_reduce(&mut window, Operation::Sum).unwrap();
                communicator.broadcast(&mut window, 3).unwrap();
                communicator.counters().bytes_exchanged
            })
        });
        // A byte is counted by the rank that moves it: who that is depends on the reach, how many there are does not.
        let [mapped, messages] = [mapped, messages].map(|counts| counts.iter().sum::<u64>());
        assert_eq!(mapped, messages, "{plan}");
    }
}

#[test]
fn reductions_started_in_any_order_end() {
    // More than there are sets of staging slots for, and each rank has another order.
    with(4, Reach::Messages.builder().plan("direct"), |communicator| {
        let rank = communicator.rank() as usize;
        let names = (0..40).map(|i| format!("bucket {i}")).collect::<Vec<_>>();
        let exchange = sapwood::exchange::Exchange::builder(communicator);
        let exchange = names
            .iter()
            .fold(exchange, |exchange, name| exchange.bucket(name, 30_000));
        let mut exchange = exchange.build().unwrap();
        for number in 0..5 {
            let mut step = exchange.begin().unwrap();
            let mut order = (0..names.len()).collect::<Vec<_>>();
            order.rotate_left(rank * 10 + number);
            if rank % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let mut bucket = step.take(&names[index]).unwrap();
                bucket.fill((rank + index + number) as f32);
                bucket.ready().unwrap();
            }
            let outcome = step.finish().unwrap();
            for (index, name) in names.iter().enumerate() {
                assert_eq!(outcome.mean(name)[29_999], 1.5 + (index + number) as f32);
            }
        }
    });
}

#[test]
fn a_late_ranks_chain_is_followed_to_its_end() {
    // In a ring of ranks each waits for the one before it; only one neighbour of the absent rank sees who is absent.
    let builder = Reach::Messages.builder().plan("ring");
    let errors = with(6, builder, |communicator| {
        let mut window = communicator.window::<f32>(50_000).unwrap();
        communicator.all_reduce(&mut window, Operation::Sum).unwrap();
        communicator.set_timeout(std::time::Duration::from_secs(3));
        if communicator.rank() == 2 {
            std::thread::sleep(std::time::Duration::from_secs(8));
            return None;
        }
        Some((
            communicator.rank(),
            communicator.all_reduce(&mut window, Operation::Sum).unwrap_err(),
        ))
    });
    let errors = errors.into_iter().flatten().collect::<BTreeMap<_, _>>();
    for (rank, error) in &errors {
        assert_eq!(error.culprit(), Some(2), "rank {rank}: {error}");
        assert!(error.to_string().contains("rank 2"), "{error}");
    }
}
