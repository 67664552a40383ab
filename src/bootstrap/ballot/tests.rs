use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use super::*;

/// A page, and who is dead.
struct World {
    members: Vec<AtomicU64>,
    outcome: AtomicU64,
    dead: Vec<AtomicBool>,
}

impl World {
    fn new(size: usize) -> Self {
        Self {
            members: (0..size).map(|_| AtomicU64::new(0)).collect(),
            outcome: AtomicU64::new(0),
            dead: (0..size).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    fn ballot(&self, own: Rank) -> Ballot<'_> {
        Ballot {
            own,
            members: &self.members,
            outcome: &self.outcome,
        }
    }

    fn gone(&self) -> Vec<Rank> {
        let dead = (0..).zip(&self.dead);
        dead.filter(|(_, dead)| dead.load(Ordering::Acquire))
            .map(|(rank, _)| rank)
            .collect()
    }

    /// One rank until it has survivors to go on with, or dies after so many steps.
    fn live(&self, own: Rank, steps: &AtomicUsize) -> Option<(u32, Vec<Rank>)> {
        let until = Instant::now() + Duration::from_secs(60);
        let ballot = self.ballot(own);
        let step = || {
            assert!(Instant::now() < until, "rank {own} hangs");
            std::thread::yield_now();
            let left = steps.load(Ordering::Relaxed);
            if left == 0 {
                self.dead[own as usize].store(true, Ordering::Release);
                return None;
            }
            steps.store(left.saturating_sub(1), Ordering::Relaxed);
            Some(())
        };
        'attempts: loop {
            step()?;
            let attempt = ballot.come().unwrap();
            let survivors = loop {
                step()?;
                ballot.exclude(attempt, self.gone());
                step()?;
                match ballot.survivors(attempt) {
                    Some(Ok(survivors)) => break survivors,
                    Some(Err(_)) => {}
                    // The others have gone on, because one who was in has died.
                    None => continue 'attempts,
                }
            };
            assert!(survivors.contains(&own));
            step()?;
            ballot.be_ready(attempt);
            loop {
                step()?;
                match ballot.end(attempt, &survivors, &self.gone()) {
                    Some(End::Made) => return Some((attempt, survivors)),
                    Some(End::Again) => break,
                    Some(End::Failed(rank)) => panic!("nobody says that rank {rank} failed"),
                    None => {}
                }
            }
        }
    }
}

#[test]
fn all_who_live_agree_whoever_dies_and_whenever() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % limit) as usize
    };
    for _ in 0..400 {
        let size = 2 + below(7);
        // Any number of them dies, after any number of steps; one lives.
        let lives = below(size as u64);
        let fates: Vec<AtomicUsize> = (0..size)
            .map(|rank| {
                let dies = rank != lives && below(2) == 0;
                AtomicUsize::new(if dies { below(40) } else { usize::MAX })
            })
            .collect();
        let world = World::new(size);
        let found: Vec<Option<(u32, Vec<Rank>)>> = std::thread::scope(|scope| {
            let world = &world;
            let threads: Vec<_> = (0..)
                .zip(&fates)
                .map(|(rank, steps)| scope.spawn(move || world.live(rank, steps)))
                .collect();
            threads.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let first = found[lives].clone().unwrap();
        for (rank, found) in (0..).zip(&found) {
            match found {
                Some(found) => assert_eq!(found, &first),
                None => assert!(world.gone().contains(&rank)),
            }
        }
        // Who lives on is never left out.
        assert!((0..size).all(|rank| found[rank].is_none() || first.1.contains(&(rank as Rank))));
    }
}

#[test]
fn who_was_ready_may_die_and_who_was_not_has_all_begin_anew() {
    let world = World::new(3);
    let ballots = [0, 1, 2].map(|rank| world.ballot(rank));
    for ballot in &ballots {
        assert_eq!(ballot.come(), Ok(0));
    }
    assert_eq!(ballots[0].survivors(0), Some(Ok(vec![0, 1, 2])));
    // It is final: a death that is seen later changes nothing.
    ballots[1].exclude(0, [2]);
    assert_eq!(ballots[1].survivors(0), Some(Ok(vec![0, 1, 2])));
    ballots[0].be_ready(0);
    ballots[1].be_ready(0);
    assert_eq!(ballots[1].end(0, &[0, 1, 2], &[]), None);
    assert_eq!(ballots[1].end(0, &[0, 1, 2], &[2]), Some(End::Again));
    assert!(ballots[0].is_void(0));
    assert_eq!(ballots[0].end(0, &[0, 1, 2], &[]), Some(End::Again));

    assert_eq!(ballots[0].come(), Ok(1));
    assert_eq!(ballots[0].survivors(1), Some(Err(vec![1, 2])));
    assert_eq!(ballots[1].come(), Ok(1));
    ballots[1].exclude(1, [2]);
    assert_eq!(ballots[0].survivors(1), Some(Ok(vec![0, 1])));
    ballots[0].be_ready(1);
    ballots[1].be_ready(1);
    assert_eq!(ballots[0].end(1, &[0, 1], &[1]), Some(End::Made), "it was ready");
    assert_eq!(ballots[1].end(1, &[0, 1], &[]), Some(End::Made));
    assert_eq!(ballots[0].come(), Err(Closed::Over));
}

#[test]
fn a_failure_that_is_no_death_ends_the_attempt_for_all() {
    let world = World::new(2);
    let ballots = [0, 1].map(|rank| world.ballot(rank));
    for ballot in &ballots {
        assert_eq!(ballot.come(), Ok(0));
        // To come twice changes nothing.
        assert_eq!(ballot.come(), Ok(0));
    }
    assert_eq!(ballots[1].survivors(0), Some(Ok(vec![0, 1])));
    ballots[0].be_ready(0);
    assert_eq!(ballots[1].fail(0, 1), End::Failed(1));
    assert_eq!(ballots[0].end(0, &[0, 1], &[]), Some(End::Failed(1)));
    assert_eq!(ballots[0].fail(0, 0), End::Failed(1), "the first one counts");
    // It can be tried again.
    assert_eq!(ballots[0].come(), Ok(1));
    assert_eq!(ballots[1].come(), Ok(1));
    assert_eq!(ballots[1].survivors(1), Some(Ok(vec![0, 1])));
    ballots[0].be_ready(1);
    ballots[1].be_ready(1);
    assert_eq!(ballots[1].end(1, &[0, 1], &[]), Some(End::Made));
    assert_eq!(ballots[0].fail(1, 1), End::Made);
}

#[test]
fn who_fails_because_of_one_that_was_ready_has_all_begin_anew() {
    let world = World::new(3);
    let ballots = [0, 1, 2].map(|rank| world.ballot(rank));
    for ballot in &ballots {
        assert_eq!(ballot.come(), Ok(0));
    }
    assert_eq!(ballots[0].survivors(0), Some(Ok(vec![0, 1, 2])));
    ballots[0].be_ready(0);
    ballots[2].be_ready(0);
    // Rank 2 has died since: nobody who is late is dead, and rank 1, which needed it, is late for ever.
    assert_eq!(ballots[0].end(0, &[0, 1, 2], &[2]), None);
    assert_eq!(ballots[1].begin_anew(0), End::Again);
    assert_eq!(ballots[0].end(0, &[0, 1, 2], &[2]), Some(End::Again));
    assert_eq!((ballots[0].come(), ballots[1].come()), (Ok(1), Ok(1)));
}

#[test]
fn who_is_written_out_hears_of_it() {
    let world = World::new(2);
    world.ballot(0).exclude(0, [1]);
    assert_eq!(world.ballot(1).come(), Err(Closed::Excluded));
}
