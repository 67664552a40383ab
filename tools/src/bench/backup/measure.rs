//! Times and checks rows of the backup-worker barrier, each beside the all-reduce of the same size. Every rank runs the same
//! sequence of calls; what it notes others read only when the row is over.

use std::io;

use sapwood::backup::protocol::Way;
use sapwood::backup::{BackupError, Barrier};
use sapwood::communicator::{Communicator, CommunicatorError, Window};
use sapwood::engine::reduce::Operation;
use sapwood::observe::Clock;

use super::report::{Row, Spread};
use super::shared::Shared;
use crate::bench::case::Redop;
use crate::bench::check::{Check, Checked};

/// Barriers and all-reduces take turns after so many calls, so that a busy neighbour meets both.
const TURN: usize = 25;
/// What a rank notes of one call: when it arrived, when it sealed (0 if another did), when it had the result.
pub(super) const NOTES: usize = 3;
/// More steps than results are kept.
const STEPS_KEPT: usize = 4;

/// Why a row could not be measured.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Communicator(#[from] CommunicatorError),
    #[error(transparent)]
    Shared(#[from] io::Error),
}

/// What stays the same over all rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    pub(super) backups: u32,
    pub(super) way: Option<Way>,
    pub(super) iterations: usize,
    pub(super) warmup: usize,
    /// Passes with fresh data; 0 checks nothing.
    pub(super) checks: usize,
    /// That the ranks share.
    pub(super) cores: usize,
}

/// Measures rows, one after the other.
pub(super) struct Bench<'a> {
    pub(super) communicator: &'a Communicator,
    pub(super) shared: Shared,
    pub(super) method: Method,
    pub(super) round_trip: Option<f64>,
    checked: u64,
    pub(super) wrong_here: u64,
}

/// The memory of a row.
struct Subjects {
    barrier: Barrier<f32>,
    input: Window<f32>,
    output: Window<f32>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(communicator: &'a Communicator, method: Method) -> Result<Self, Trouble> {
        let mut shared = Shared::new(communicator, 2 * NOTES * method.iterations)?;
        Ok(Self {
            round_trip: shared.round_trip(method.cores)?,
            communicator,
            shared,
            method,
            checked: 0,
            wrong_here: 0,
        })
    }

    /// A row of `count` elements.
    pub(super) fn row(&mut self, count: usize) -> Result<Row, Trouble> {
        let Method {
            backups,
            way,
            iterations,
            warmup,
            checks,
            ..
        } = self.method;
        let mut builder = Barrier::<f32>::builder(self.communicator, count)
            .backups(backups)
            .clock(Clock::new());
        if let Some(way) = way {
            builder = builder.way(way);
        }
        let mut subjects = Subjects {
            barrier: builder.build()?,
            input: self.communicator.window(count)?,
            output: self.communicator.window(count)?,
        };
        for _ in 0..warmup {
            self.step(&mut subjects, None)?;
            self.all_reduce(&mut subjects, None)?;
        }
        for first in (0..iterations).step_by(TURN) {
            let turn = first..(first + TURN).min(iterations);
            for iteration in turn.clone() {
                self.step(&mut subjects, Some(iteration))?;
            }
            for iteration in turn {
                self.all_reduce(&mut subjects, Some(iterations + iteration))?;
            }
        }
        self.shared.meet()?;
        let ranks = 0..self.communicator.size();
        let moments = |iteration: usize, note: usize| -> Vec<u64> {
            let noted = ranks
                .clone()
                .map(|rank| self.shared.noted(rank, NOTES * iteration + note));
            let mut noted = noted.collect::<Vec<_>>();
            noted.sort_unstable();
            noted
        };
        let needed = subjects.barrier.needed() as usize;
        let (mut seal, mut result, mut all_reduce) = (Vec::new(), Vec::new(), Vec::new());
        for iteration in 0..iterations {
            let arrived = moments(iteration, 0)[needed - 1];
            let sealed = moments(iteration, 1).into_iter().find(|at| *at != 0);
            seal.push(self.shared.microseconds(arrived, sealed.unwrap_or(arrived)));
            let since = |from, iteration| {
                let done = moments(iteration, 2);
                self.shared.microseconds(from, done[done.len() - 1])
            };
            result.push(since(arrived, iteration));
            let last = moments(iterations + iteration, 0);
            all_reduce.push(since(last[last.len() - 1], iterations + iteration));
        }
        // What was noted is read by all before it is written again.
        self.shared.meet()?;
        let mut nwrong = None;
        for _ in 0..checks {
            let wrong = self.check(&mut subjects)?;
            if wrong > 0 {
                let (rank, members) = (self.communicator.rank(), subjects.barrier.members());
                eprintln!("rank {rank}: {wrong} wrong elements of {count}, members {members:?}");
            }
            self.wrong_here += wrong;
            let counts = self
                .communicator
                .all_gather_bytes("counting wrong elements", &wrong.to_le_bytes())?;
            let counts = counts.iter().filter_map(|bytes| bytes.as_slice().try_into().ok());
            nwrong = Some(nwrong.unwrap_or(0) + counts.map(u64::from_le_bytes).sum::<u64>());
        }
        Ok(Row::new(
            count * size_of::<f32>(),
            count,
            subjects.barrier.way(),
            backups,
            (Spread::new(seal), Spread::new(result), Spread::new(all_reduce)),
            self.round_trip,
            nwrong,
        ))
    }

    /// One step of the barrier with everyone on time.
    fn step(&mut self, subjects: &mut Subjects, note: Option<usize>) -> Result<(), Trouble> {
        let barrier = &mut subjects.barrier;
        barrier.gradient().fill(1.0);
        self.shared.meet()?;
        let arrived = self.shared.clock.now();
        barrier.finish()?;
        let done = self.shared.clock.now();
        let sealed = barrier.sealed_at().unwrap_or(0);
        self.note(note, [arrived, sealed, done]);
        Ok(())
    }

    fn all_reduce(&mut self, subjects: &mut Subjects, note: Option<usize>) -> Result<(), Trouble> {
        subjects.input.fill(1.0);
        self.shared.meet()?;
        let arrived = self.shared.clock.now();
        self.communicator
            .all_reduce_into(&subjects.input, &mut subjects.output, Operation::Sum)?;
        let done = self.shared.clock.now();
        self.note(note, [arrived, 0, done]);
        Ok(())
    }

    fn note(&self, at: Option<usize>, moments: [u64; NOTES]) {
        for (note, moment) in moments.into_iter().enumerate() {
            if let Some(iteration) = at {
                self.shared.note(NOTES * iteration + note, moment);
            }
        }
    }

    /// One step on random data, after results were poisoned by gradients that are no numbers; how many elements are wrong on
    /// this rank.
    fn check(&mut self, subjects: &mut Subjects) -> Result<u64, Trouble> {
        let barrier = &mut subjects.barrier;
        let mean = Redop::Plain(Operation::Average);
        let check = Check::new(mean, self.communicator.size(), self.checked);
        self.checked += 1;
        for _ in 0..STEPS_KEPT {
            barrier.gradient().fill(f32::POISON);
            self.shared.meet()?;
            barrier.finish()?;
        }
        check.fill(self.communicator.rank(), barrier.gradient());
        self.shared.meet()?;
        barrier.finish()?;
        let members = barrier.members();
        if members.len() != barrier.needed() as usize {
            return Ok(barrier.result().len().max(1) as u64);
        }
        let needed = barrier.needed();
        let growth = f32::growth(needed);
        let wrong = |(index, element): &(usize, &f32)| {
            let contributions = members
                .iter()
                .map(|rank| check.contribution::<f32>(*rank, *index));
            !element.is_right(mean, needed, growth, contributions)
        };
        Ok(barrier.result().iter().enumerate().filter(wrong).count() as u64)
    }
}
