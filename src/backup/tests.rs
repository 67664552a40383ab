//! Workers that are driven by hand, one turn at a time, in orders drawn at random: stopped between any two turns, resumed
//! at any later one, doubted as soon as they are stopped.

use std::sync::Arc;
use std::time::Duration;

use super::barrier::Driver;
use super::core::{Core, Turn};
use super::doubting::Suspicion;
use super::ground::Ground;
use super::protocol::{Members, Seal, Want, Way};
use super::{Barrier, Ended, How};
use crate::bootstrap::Job;
use crate::communicator::Communicator;
use crate::fabric::shm::Shm;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct Seat {
    barrier: Barrier<f32>,
    // Kept for its ranks' memory, and left last.
    _communicator: Communicator,
    stopped: bool,
    was_stopped: bool,
    ended: Vec<(Ended, Vec<u32>, Vec<u32>)>,
}

fn value(rank: usize, step: u64, index: usize) -> f32 {
    ((rank as u64 * 31 + step * 7 + index as u64 * 3) % 1021) as f32
}

/// Whether workers see each other's memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lies {
    Mapped,
    Remote,
}

/// The same on either driver.
macro_rules! either {
    ($barrier:expr, $core:ident => $call:expr) => {
        match &mut $barrier.driver {
            Driver::Mapped($core) => $call,
            Driver::Remote($core) => $call,
        }
    };
}

pub(in crate::backup) mod between;

/// As settings have it.
const SUSPICION: Duration = Duration::from_millis(100);

fn seats(lies: Lies, workers: u32, backups: u32, count: usize, way: Way) -> Vec<Seat> {
    trusting_seats(lies, workers, backups, count, (way, SUSPICION))
}

fn trusting_seats(
    lies: Lies,
    workers: u32,
    backups: u32,
    count: usize,
    (way, suspicion): (Way, Duration),
) -> Vec<Seat> {
    let jobs = Job::local(workers).unwrap();
    std::thread::scope(|scope| {
        let threads = jobs.iter().map(|job| {
            scope.spawn(move || {
                let mut builder = Communicator::builder();
                if lies == Lies::Remote {
                    builder = builder.fabric(Arc::new(Shm::without_reach().unwrap()));
                }
                let communicator = builder.join(job).unwrap();
                let barrier = Barrier::<f32>::builder(&communicator, count)
                    .backups(backups)
                    .state(2)
                    .suspicion(suspicion)
                    .way(way);
                Seat {
                    barrier: barrier.build().unwrap(),
                    _communicator: communicator,
                    stopped: false,
                    was_stopped: false,
                    ended: Vec::new(),
                }
            })
        });
        let threads = threads.collect::<Vec<_>>();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

impl Seat {
    /// One turn, or one step of the training loop.
    fn go(&mut self, rank: usize, doubted: &[u16], random: &mut Random) {
        let barrier = &mut self.barrier;
        let from = either!(barrier, core => core.worker.applied()) + 1;
        let want = either!(barrier, core => core.worker.want());
        if want == Want::Compute {
            match random.one_in(3) {
                true => drop(barrier.sealed()),
                false => {
                    let step = barrier.step();
                    let gradient = barrier.gradient().iter_mut().enumerate();
                    gradient.for_each(|(index, x)| *x = value(rank, step, index));
                    let looks = random.below(4) as u32;
                    either!(barrier, core => {
                        core.come().unwrap();
                        if looks > 0 {
                            Ground::go_straight(core, looks);
                        }
                    });
                }
            }
        } else {
            either!(barrier, core => act(core, doubted, random));
        }
        let applied = either!(barrier, core => core.worker.applied());
        let applies = matches!(either!(barrier, core => core.worker.want()), Want::Apply { .. });
        if applied >= from || applies {
            let ended = barrier.conclude();
            if !matches!(ended.how, How::CaughtUp { .. }) {
                barrier.update(|result, state| {
                    state[0] += result[0];
                    state[1] += 1.0;
                });
            }
            assert_eq!(barrier.state()[1], ended.step as f32, "rank {rank} {ended:?}");
            let bits = barrier.result().iter().map(|x| x.to_bits()).collect();
            self.ended.push((ended, barrier.members().to_vec(), bits));
        }
    }

    /// Breaks the queue pair to a worker, if there is one.
    fn break_pair(&mut self, peer: u16) -> bool {
        match &mut self.barrier.driver {
            Driver::Mapped(_) => false,
            Driver::Remote(core) => core.ground.lines.break_pair(peer),
        }
    }

    fn applied(&mut self) -> u64 {
        either!(self.barrier, core => core.worker.applied())
    }
}

/// One turn, or a look with doubts.
fn act<G: Ground>(core: &mut Core<G>, doubted: &[u16], random: &mut Random) {
    if !random.one_in(4) {
        let turn = core.turn().unwrap();
        assert!(turn != Turn::Over || matches!(core.worker.want(), Want::Apply { .. }));
        return;
    }
    let mut workers = Members::default();
    doubted.iter().for_each(|worker| workers.insert(*worker));
    // Anybody may be between ticket and slot.
    let ticket = random.below(u64::from(core.shape.tickets())) as u16;
    let ticket = (!doubted.is_empty()).then_some(ticket);
    core.look(&Suspicion { workers, ticket });
}

/// Every result that anybody has: the mean of N workers' gradients of that step, the same for all.
fn check(seats: &[Seat], steps: u64, needed: u32) {
    for step in 1..=steps {
        let all = seats.iter().flat_map(|seat| &seat.ended);
        let mut all =
            all.filter(|(ended, ..)| ended.step == step && !matches!(ended.how, How::CaughtUp { .. }));
        let (_, members, bits) = all.next().expect("somebody has it");
        assert_eq!(members.len(), needed as usize);
        assert!(all.all(|(_, theirs, result)| theirs == members && result == bits));
        for (index, x) in bits.iter().enumerate() {
            let sum = members
                .iter()
                .map(|rank| value(*rank as usize, step, index))
                .sum::<f32>();
            assert_eq!(
                f32::from_bits(*x),
                sum / needed as f32,
                "step {step} [{index}] of {members:?}"
            );
        }
    }
}

/// How often something happened, so that the test shows what it has tried.
#[derive(Debug, Default)]
struct Seen {
    late: usize,
    caught_up: usize,
    again: usize,
    broken: usize,
}

fn run(lies: Lies, workers: u32, backups: u32, count: usize, way: Way, seed: u64, seen: &mut Seen) {
    const STEPS: u64 = 12;
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut seats = seats(lies, workers, backups, count, way);
    let mut idle = 0;
    while seats.iter_mut().any(|seat| seat.applied() < STEPS) {
        let rank = random.below(u64::from(workers)) as usize;
        let stopped = seats.iter().filter(|seat| seat.stopped).count() as u32;
        if seats[rank].stopped {
            // At the end everybody goes on.
            let over = seats
                .iter_mut()
                .all(|seat| seat.stopped || seat.applied() >= STEPS);
            seats[rank].stopped = !over && !random.one_in(200);
            continue;
        }
        if stopped < backups && random.one_in(60) {
            (seats[rank].stopped, seats[rank].was_stopped) = (true, true);
            continue;
        }
        if seats[rank].applied() >= STEPS {
            idle += 1;
            assert!(idle < 2_000_000, "seed {seed}: nothing moves any more");
            continue;
        }
        if random.one_in(300) {
            let peer = random.below(u64::from(workers)) as u16;
            seen.broken += usize::from(seats[rank].break_pair(peer));
        }
        let doubted = (0..)
            .zip(&seats)
            .filter(|(_, seat)| seat.stopped)
            .map(|(rank, _)| rank);
        let doubted = doubted.collect::<Vec<u16>>();
        let applied = seats[rank].applied();
        seats[rank].go(rank, &doubted, &mut random);
        idle = if seats[rank].applied() > applied {
            0
        } else {
            idle + 1
        };
        assert!(idle < 2_000_000, "seed {seed}: nothing moves any more");
    }
    check(&seats, STEPS, workers - backups);
    let states = seats.iter().map(|seat| seat.barrier.state()[0].to_bits());
    let states = states.collect::<Vec<_>>();
    assert!(
        states.iter().all(|state| *state == states[0]),
        "seed {seed}: {states:?}"
    );
    for (ended, ..) in seats.iter().flat_map(|seat| &seat.ended) {
        seen.late += usize::from(ended.how == How::Late);
        seen.caught_up += usize::from(matches!(ended.how, How::CaughtUp { .. }));
    }
    for step in STEPS - 1..=STEPS {
        let seal = either!(seats[0].barrier, core => core.ground.seal(0, step)).unwrap();
        seen.again += usize::from(Seal(seal).attempt() > 0);
    }
    // In any order, and by one thread: nobody waits for the others.
    for seat in &mut seats {
        either!(seat.barrier, core => core.timeout = Duration::ZERO);
    }
}

fn campaign(lies: Lies, way: Way, rounds: u64) {
    let mut seen = Seen::default();
    for seed in 1..=rounds {
        for (workers, backups) in [(3, 1), (4, 1), (5, 2)] {
            run(lies, workers, backups, 3, way, seed, &mut seen);
        }
        run(lies, 4, 1, 40_000, way, seed, &mut seen);
    }
    println!("{lies:?}, {way:?}, {rounds} rounds: {seen:?}");
    assert!(seen.late > 0 && seen.caught_up > 0, "{seen:?}");
    assert!(way == Way::Flat || seen.again > 0, "{seen:?}");
    assert!(lies == Lies::Mapped || seen.broken > 0, "{seen:?}");
}

fn rounds() -> u64 {
    let asked = std::env::var("BACKUP_ORDERS").ok();
    asked.and_then(|rounds| rounds.parse().ok()).unwrap_or(12)
}

#[test]
fn any_order_flat() {
    campaign(Lies::Mapped, Way::Flat, rounds());
}

#[test]
fn any_order_chain() {
    campaign(Lies::Mapped, Way::Tree { children: 1 }, rounds());
}

#[test]
fn any_order_tree() {
    campaign(Lies::Mapped, Way::Tree { children: 2 }, rounds());
}

#[test]
fn any_order_chain_over_queue_pairs() {
    campaign(Lies::Remote, Way::Tree { children: 1 }, rounds());
}

#[test]
fn any_order_tree_over_queue_pairs() {
    campaign(Lies::Remote, Way::Tree { children: 4 }, rounds());
}

/// In a chain of all workers each reads from the next, all from the root, and all reach the first homes.
#[test]
fn queue_pairs_are_made_when_they_are_needed_and_kept() {
    const WORKERS: u32 = 12;
    let way = (Way::Tree { children: 1 }, Duration::from_secs(60));
    let mut seats = trusting_seats(Lies::Remote, WORKERS, 0, 40, way);
    let connections = |seats: &[Seat]| {
        let all = seats.iter().map(|seat| seat.barrier.connections());
        all.collect::<Vec<_>>()
    };
    let step = |seats: &mut [Seat]| {
        std::thread::scope(|scope| {
            for (rank, seat) in seats.iter_mut().enumerate() {
                scope.spawn(move || {
                    seat.barrier.gradient().fill(rank as f32);
                    seat.barrier.finish().unwrap();
                    assert_eq!(seat.barrier.result()[39], 5.5);
                });
            }
        });
    };
    let first = connections(&seats);
    assert!(
        (0..)
            .zip(&first)
            .all(|(rank, all)| *all == if rank == 0 { vec![0] } else { vec![0, rank] })
    );
    step(&mut seats);
    let then = connections(&seats);
    for (rank, all) in (0..WORKERS).zip(&then) {
        // The root looks whether all have marked the result.
        let expected = if rank == 0 { WORKERS as usize } else { 3 };
        assert!(
            all.len() <= expected && all.contains(&((rank + 1) % WORKERS)),
            "rank {rank}: {all:?}"
        );
    }
    (0..20).for_each(|_| step(&mut seats));
    assert_eq!(connections(&seats), then);
    // A pair that breaks is made anew.
    assert!(seats[5].break_pair(6) && seats[3].break_pair(0) && !seats[5].break_pair(9));
    (0..3).for_each(|_| step(&mut seats));
    assert_eq!(connections(&seats), then);
    for seat in &mut seats {
        either!(seat.barrier, core => core.timeout = Duration::ZERO);
    }
}

#[test]
fn deadlines_name_who_is_missing() {
    for lies in [Lies::Mapped, Lies::Remote] {
        let mut seats = seats(lies, 3, 1, 4, Way::Tree { children: 2 });
        for seat in &mut seats {
            either!(seat.barrier, core => core.timeout = Duration::from_millis(50));
        }
        let barrier = &mut seats[2].barrier;
        barrier.gradient().fill(1.0);
        let error = barrier.finish().unwrap_err();
        assert_eq!(error.culprits(), [0, 1]);
        let text = error.to_string();
        let expected = "rank 2: step 1: 1 of the 2 gradients that it needs have come within 50ms; missing: rank 0, rank 1";
        assert!(text.contains(expected), "{text}");
        let again = barrier.finish().unwrap_err().to_string();
        assert!(again.contains("an earlier step failed"), "{again}");
    }
}
