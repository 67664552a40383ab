//! The backup-worker barrier among ranks that are threads: every step's result is the mean of its members' gradients, the
//! same bits on all; late ones are dropped, find the result, or catch up.

use std::sync::Arc;
use std::time::Duration;

use sapwood::backup::protocol::Way;
use sapwood::backup::{Barrier, Ended, How};
use sapwood::bootstrap::Job;
use sapwood::communicator::Communicator;
use sapwood::fabric::shm::Shm;

/// Runs `rank` on each of `size` ranks, and returns what came of it by rank.
fn on_all<T: Send>(
    (size, queue_pairs): (u32, bool),
    timeout: Duration,
    rank: impl Fn(Communicator) -> T + Sync,
) -> Vec<T> {
    let jobs = Job::local(size).expect("a job");
    std::thread::scope(|scope| {
        let rank = &rank;
        let threads = jobs.iter().map(|job| {
            scope.spawn(move || {
                let mut builder = Communicator::builder().timeout(timeout);
                if queue_pairs {
                    builder = builder.fabric(Arc::new(Shm::without_reach().expect("a fabric")));
                }
                rank(builder.join(job).expect("joined"))
            })
        });
        let threads = threads.collect::<Vec<_>>();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    })
}

/// A gradient element whose sums of up to 64 workers are exact.
fn value(rank: u32, step: u64, index: usize) -> f32 {
    f32::from((u64::from(rank) * 31 + step * 7 + index as u64 * 3) as u16 % 1021)
}

fn mean(members: &[u32], step: u64, index: usize) -> f32 {
    members.iter().map(|rank| value(*rank, step, index)).sum::<f32>() / members.len() as f32
}

/// Some numbers that look random.
fn mixed(seed: u64) -> u64 {
    let x = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ x >> 29).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
}

#[derive(Clone, Copy, Debug)]
struct Case {
    workers: u32,
    backups: u32,
    count: usize,
    way: Option<Way>,
    steps: u64,
    /// Instead of memory that all see.
    queue_pairs: bool,
    /// The last worker says now and then that its gradient is complete, and waits for the result long after that.
    leaves_it_lying: bool,
}

/// What one worker saw of a step: how it ended, the members, and the result's bits.
type Seen = (Ended, Vec<u32>, Vec<u32>);

/// Runs steps in which every worker dawdles now and then, and checks each result.
fn run(case: Case, dawdle: impl Fn(u32, u64) -> Duration + Sync) -> Vec<Vec<Seen>> {
    let ranks = (case.workers, case.queue_pairs);
    let seen = on_all(ranks, Duration::from_secs(60), |communicator| {
        let rank = communicator.rank();
        let mut builder = Barrier::<f32>::builder(&communicator, case.count)
            .backups(case.backups)
            .state(2);
        if let Some(way) = case.way {
            builder = builder.way(way);
        }
        if case.queue_pairs {
            // Threads that wait for a core are in no doubt; who doubts asks everybody for a queue pair.
            // (Who comes from far behind may leave a later step with a ticket that nobody fills until it is doubted.)
            let seconds = if case.leaves_it_lying { 1 } else { 20 };
            builder = builder.suspicion(Duration::from_secs(seconds));
        }
        let mut barrier = builder.build().expect("built");
        let mut seen = Vec::new();
        while barrier.step() <= case.steps {
            let step = barrier.step();
            std::thread::sleep(dawdle(rank, step));
            let gradient = barrier.gradient().iter_mut().enumerate();
            gradient.for_each(|(index, x)| *x = value(rank, step, index));
            if case.leaves_it_lying && rank + 1 == case.workers && step % 4 == 1 {
                barrier.arrive().expect("it may");
                for _ in 0..10 {
                    std::thread::sleep(Duration::from_millis(3));
                    assert!(!barrier.sealed(), "its gradient is complete");
                }
            }
            let ended = barrier.finish().expect("the step ends");
            if !matches!(ended.how, How::CaughtUp { .. }) {
                // The state is the sum of all results' first elements, and their number.
                barrier.update(|result, state| {
                    state[0] += result[0];
                    state[1] += 1.0;
                });
            }
            assert_eq!(barrier.state()[1], ended.step as f32);
            let bits = barrier.result().iter().map(|x| x.to_bits()).collect();
            seen.push((ended, barrier.members().to_vec(), bits));
        }
        let state = barrier.state()[0];
        communicator.barrier().expect("all end");
        (seen, state)
    });
    let states = seen.iter().map(|(_, state)| state.to_bits()).collect::<Vec<_>>();
    assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
    let seen = seen.into_iter().map(|(seen, _)| seen).collect::<Vec<_>>();
    check(case, &seen);
    seen
}

fn check(case: Case, seen: &[Vec<Seen>]) {
    for step in 1..=case.steps {
        let all = seen.iter().flatten().filter(|(ended, ..)| ended.step == step);
        let results = all.filter(|(ended, ..)| !matches!(ended.how, How::CaughtUp { .. }));
        let results = results.collect::<Vec<_>>();
        let (_, members, bits) = results.first().expect("somebody has each result");
        assert_eq!(
            members.len() as u32,
            case.workers - case.backups,
            "{case:?} step {step}"
        );
        for (_, theirs, result) in &results {
            assert_eq!((theirs, result), (members, bits), "{case:?} step {step}");
        }
        for (index, x) in bits.iter().enumerate() {
            assert_eq!(
                f32::from_bits(*x),
                mean(members, step, index),
                "{case:?} step {step} [{index}]"
            );
        }
    }
}

const WAYS: [Option<Way>; 4] = [
    Some(Way::Flat),
    Some(Way::Tree { children: 1 }),
    Some(Way::Tree { children: 2 }),
    Some(Way::Tree { children: 4 }),
];

#[test]
fn every_result_is_the_mean_of_its_members() {
    for way in WAYS {
        for (workers, backups) in [(1, 0), (2, 0), (2, 1), (4, 0), (4, 1), (5, 2), (6, 5)] {
            for count in [1, 3, 1000, 50_000] {
                let case = Case {
                    workers,
                    backups,
                    count,
                    way,
                    steps: 12,
                    queue_pairs: false,
                    leaves_it_lying: false,
                };
                run(case, |rank, step| {
                    Duration::from_micros(mixed(u64::from(rank) << 32 | step) % 300)
                });
            }
        }
    }
}

/// What it had said in one step says nothing of those in which it finds itself afterwards.
#[test]
fn a_gradient_that_is_left_lying_is_in_no_later_step() {
    for queue_pairs in [false, true] {
        for way in WAYS {
            if queue_pairs && way == Some(Way::Flat) {
                continue;
            }
            let case = Case {
                workers: 5,
                backups: 2,
                count: 300,
                way,
                steps: 60,
                queue_pairs,
                leaves_it_lying: true,
            };
            let seen = run(case, |_, _| Duration::ZERO);
            let caught_up = seen[4]
                .iter()
                .filter(|(ended, ..)| matches!(ended.how, How::CaughtUp { .. }));
            println!("{case:?}: caught up {} times", caught_up.count());
        }
    }
}

#[test]
fn many_workers_have_the_same_results() {
    for (way, queue_pairs) in [
        (Way::Flat, false),
        (Way::Tree { children: 2 }, false),
        (Way::Tree { children: 4 }, true),
    ] {
        let case = Case {
            workers: 64,
            backups: 6,
            count: 500,
            way: Some(way),
            steps: if queue_pairs { 3 } else { 6 },
            queue_pairs,
            leaves_it_lying: false,
        };
        run(case, |rank, step| {
            Duration::from_micros(mixed(u64::from(rank) << 32 | step) % 3_000)
        });
    }
}
