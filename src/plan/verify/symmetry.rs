//! Rotation symmetry: every rank's program is rank 0's with a constant added to all ranks, and blocks moved along, so the
//! blocks that cannot be turned into each other stand for all.
//!
//! Programs that are given one by one are compared with rank 0's; those of a plan are made from it. Then the tasks of a block at all ranks follow from rank 0's program: rank `r`
//! does for block `b` what rank 0 does for `b` turned back by `r`. Each block's part is that of a block looked at with
//! the ranks renamed, and the proof does not depend on names; no order of accesses rests on another block (see the
//! module above).
//!
//! Only circles of waits can lead through several blocks. Every circle of tasks is one of task numbers, whatever ranks the
//! waits are for, so rank 0's program alone shows that there is none. Where it has one, the tasks of each block are looked
//! at, unless a stream waits for a stream of another block, or for a signal that waits for others: then it is refused.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use super::error::{At, VerifyError};
use super::part::{Index, Part, PartTask, coarsely};
use super::{Claim, deadlock};
use crate::plan::cut::Cut;
use crate::plan::error::PlanError;
use crate::plan::lowered::{Action, Place, Program, Rank, Task, Wait, places};
use crate::plan::lowering::turning::{moved, turn_action};

/// Whether ranks can be turned at all.
pub(super) fn possible(claim: &Claim) -> Result<(), VerifyError> {
    let asymmetric = |reason: &str| VerifyError::Asymmetric {
        rank: 0,
        reason: reason.to_owned(),
    };
    if claim.collective.root().is_some() {
        return Err(asymmetric(
            "a collective with a root is not the same for all ranks",
        ));
    }
    match claim.cut()?.turned(0, 1) {
        Some(_) => Ok(()),
        None => Err(asymmetric(
            "the vector is not cut into one block or as many to each rank",
        )),
    }
}

/// Whether every rank's program is rank 0's, turned.
pub(super) fn compare<F>(claim: &Claim, first: &Program, program: &F) -> Result<(), VerifyError>
where
    F: Fn(Rank) -> Result<Program, PlanError> + Sync,
{
    possible(claim)?;
    let cut = claim.cut()?;
    let next = AtomicU32::new(1);
    let work = || -> Result<(), VerifyError> {
        loop {
            let rank = next.fetch_add(1, Ordering::Relaxed);
            if rank >= claim.ranks {
                return Ok(());
            }
            let program = program(rank)?;
            if let Err(reason) = differs(cut, first, &program, rank) {
                next.store(claim.ranks, Ordering::Relaxed);
                return Err(VerifyError::Asymmetric { rank, reason });
            }
        }
    };
    let all_tasks = u64::from(claim.ranks) * first.tasks.len() as u64;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if all_tasks < 1 << 18 || cores == 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores.min(16)).map(|_| scope.spawn(work)).collect();
        let mut outcome = Ok(());
        for worker in workers {
            let worked = worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome = outcome.and(worked);
        }
        outcome
    })
}

fn differs(cut: Cut, first: &Program, other: &Program, by: Rank) -> Result<(), String> {
    if (other.rank, other.ranks, other.blocks) != (by, first.ranks, first.blocks) {
        return Err("it belongs to another rank or plan".to_owned());
    }
    if (other.tasks.len(), other.staging_slots) != (first.tasks.len(), first.staging_slots) {
        return Err("it has other numbers of tasks or staging slots".to_owned());
    }
    for ((ours, theirs), number) in first.tasks.iter().zip(&other.tasks).zip(0u32..) {
        if !same(cut, ours, theirs, by) {
            return Err(format!("task {number} is another"));
        }
    }
    Ok(())
}

fn same(cut: Cut, ours: &Task, theirs: &Task, by: Rank) -> bool {
    let turn = |rank: Rank| moved(rank, by, cut.ranks());
    let wait = |wait: &Wait| Wait {
        rank: turn(wait.rank),
        ..*wait
    };
    let place = |place: &Place| turned(place, by, cut.ranks());
    let actions = match (&ours.action, &theirs.action) {
        (Action::Signal, Action::Signal) => true,
        (
            Action::Reduce {
                sources,
                into,
                complete,
            },
            Action::Reduce {
                sources: their_sources,
                into: their_into,
                complete: their_complete,
            },
        ) => {
            complete == their_complete
                && same_set(sources, their_sources, place)
                && same_set(into, their_into, place)
        }
        (
            Action::Copy { source, into },
            Action::Copy {
                source: their_source,
                into: their_into,
            },
        ) => place(source) == *their_source && same_set(into, their_into, place),
        _ => false,
    };
    actions
        // A signal belongs to no block.
        && (ours.action == Action::Signal || cut.turned(ours.block, by) == Some(theirs.block))
        && ours.run == theirs.run
        && same_set(&ours.waits, &theirs.waits, wait)
        && same_set(&ours.notify, &theirs.notify, |&rank| turn(rank))
}

/// Whether the lists are the same but for their order, once ours has been moved.
fn same_set<T>(ours: &[T], theirs: &[T], turn: impl Fn(&T) -> T) -> bool
where
    T: Copy + PartialEq + Sortable,
{
    if ours.len() != theirs.len() {
        return false;
    }
    if ours
        .iter()
        .zip(theirs)
        .all(|(ours, theirs)| turn(ours) == *theirs)
    {
        return true;
    }
    let mut ours: Vec<T> = ours.iter().map(turn).collect();
    let mut theirs = theirs.to_vec();
    ours.sort_unstable_by_key(T::key);
    theirs.sort_unstable_by_key(T::key);
    ours == theirs
}

trait Sortable {
    type Key: Ord;
    fn key(&self) -> Self::Key;
}

impl Sortable for Rank {
    type Key = Rank;
    fn key(&self) -> Rank {
        *self
    }
}

impl Sortable for Wait {
    type Key = (Rank, u32, u64, i32);
    fn key(&self) -> Self::Key {
        use crate::plan::lowered::Progress;
        let progress = match self.progress {
            Progress::Chunk { lag } => u64::from(lag),
            Progress::Whole => u64::MAX,
        };
        (self.rank, self.task, progress, self.ahead)
    }
}

impl Sortable for Place {
    type Key = (Rank, u32, u32, u32);
    fn key(&self) -> Self::Key {
        use crate::plan::lowered::Buffer;
        match self.buffer {
            Buffer::Input => (self.rank, 0, 0, 0),
            Buffer::Result => (self.rank, 1, 0, 0),
            Buffer::Staging { first, slots } => (self.rank, 2, first, slots),
        }
    }
}

fn turned(place: &Place, by: Rank, ranks: u32) -> Place {
    Place {
        rank: moved(place.rank, by, ranks),
        ..*place
    }
}

fn turned_action(action: &Action, by: Rank, ranks: u32) -> Action {
    let mut action = action.clone();
    turn_action(&mut action, by, ranks);
    action
}

/// No task waits on a circle.
pub(super) fn check_deadlock(claim: &Claim, first: &Program, blocks: &Blocks<'_>) -> Result<(), VerifyError> {
    match deadlock::check(&quotient(first)) {
        Ok(()) => Ok(()),
        Err(circle) if couples_blocks(claim.cut()?, first) => Err(circle),
        // A circle of numbers need not be one of tasks.
        Err(_) => (0..representatives(claim))
            .try_for_each(|block| deadlock::check(&blocks.part(claim, block, true)?)),
    }
}

/// Whether a circle of waits could lead through several blocks.
fn couples_blocks(cut: Cut, first: &Program) -> bool {
    let signal = |task: &Task| matches!(task.action, Action::Signal);
    if first.tasks.iter().any(|task| task.run.is_long()) {
        return true;
    }
    let streams = first
        .tasks
        .iter()
        .filter(|task| !signal(task) && cut.blocks() > 1);
    streams.into_iter().any(|task| {
        task.waits.iter().any(|wait| {
            let target = &first.tasks[wait.task as usize];
            match signal(target) {
                true => !target.waits.is_empty(),
                false => cut.turned(target.block, wait.rank) != Some(task.block),
            }
        })
    })
}

/// Tasks by their numbers, as if there were one rank.
fn quotient(first: &Program) -> Part<'_> {
    let task = |(task, number): (&'_ Task, u32)| PartTask {
        at: At::of(first, number),
        long: task.run.is_long(),
        action: Cow::Owned(task.action.clone()),
        waits: (task.waits.iter())
            .map(|wait| (wait.task, coarsely(wait, task, &first.tasks[wait.task as usize])))
            .collect(),
    };
    Part {
        ranks: 1,
        block: 0,
        tasks: first.tasks.iter().zip(0..).map(task).collect(),
    }
}

/// So many blocks, from the first on, stand for all.
pub(super) fn representatives(claim: &Claim) -> u32 {
    match claim.blocks {
        1 => 1,
        blocks => blocks / claim.ranks,
    }
}

/// Rank 0's program by blocks.
pub(super) struct Blocks<'a> {
    first: &'a Program,
    streams: HashMap<u32, Vec<u32>>,
    /// Signals that may concern every block: those that somebody waits for, and those that wait for no stream.
    signals: Vec<u32>,
    /// Other signals, which do nothing but wait: by the blocks of the streams that they wait for, turned with these.
    ends: HashMap<u32, Vec<u32>>,
    /// Of signals, the waits for streams: by the signal and the block of the stream, turned with it.
    stream_waits: HashMap<(u32, u32), Vec<Wait>>,
    /// Of signals, the waits for signals.
    signal_waits: HashMap<u32, Vec<Wait>>,
}

impl<'a> Blocks<'a> {
    pub fn of(cut: Cut, first: &'a Program) -> Self {
        let mut blocks = Self {
            first,
            streams: HashMap::new(),
            signals: Vec::new(),
            ends: HashMap::new(),
            stream_waits: HashMap::new(),
            signal_waits: HashMap::new(),
        };
        let mut awaited = vec![false; first.tasks.len()];
        for wait in first.tasks.iter().flat_map(|task| &task.waits) {
            awaited[wait.task as usize] = true;
        }
        for (task, number) in first.tasks.iter().zip(0..) {
            match task.action {
                Action::Signal => blocks.take_signal(cut, number, task, awaited[number as usize]),
                _ => (task.run.of(task.block, cut.blocks()))
                    .for_each(|block| blocks.streams.entry(block).or_default().push(number)),
            }
        }
        blocks
    }

    fn take_signal(&mut self, cut: Cut, number: u32, task: &Task, awaited: bool) {
        let mut concerns: Vec<u32> = Vec::new();
        for wait in &task.waits {
            let target = &self.first.tasks[wait.task as usize];
            match target.action {
                Action::Signal => self.signal_waits.entry(number).or_default().push(*wait),
                _ => {
                    let block = cut.turned(target.block, wait.rank).unwrap_or(target.block);
                    for block in target.run.of(block, cut.blocks()) {
                        self.stream_waits.entry((number, block)).or_default().push(*wait);
                        concerns.push(block);
                    }
                }
            }
        }
        if awaited || concerns.is_empty() {
            self.signals.push(number);
            return;
        }
        concerns.sort_unstable();
        concerns.dedup();
        for block in concerns {
            self.ends.entry(block).or_default().push(number);
        }
    }

    /// The waits of a task that concern a block, both as rank 0 has them.
    fn waits(&self, number: u32, block: Option<u32>) -> impl Iterator<Item = &Wait> {
        let task = &self.first.tasks[number as usize];
        let (all, signals, streams) = match task.action {
            Action::Signal => (
                None,
                self.signal_waits.get(&number),
                block.and_then(|block| self.stream_waits.get(&(number, block))),
            ),
            _ => (Some(&task.waits), None, None),
        };
        [all, signals, streams].into_iter().flatten().flatten()
    }

    /// The tasks of a block at all ranks, and the signals of the ranks that have to do with it; of all ranks if nothing
    /// moves, or if asked for. A signal that only waits, and for no stream of the block, orders nothing within it.
    pub fn part(&self, claim: &Claim, block: u32, all_signals: bool) -> Result<Part<'a>, PlanError> {
        fn listed(map: &HashMap<u32, Vec<u32>>, block: Option<u32>) -> &[u32] {
            let list = block.and_then(|block| map.get(&block));
            list.map_or(&[], Vec::as_slice)
        }
        let (cut, ranks) = (claim.cut()?, claim.ranks);
        let home = |rank: Rank| cut.turned(block, ranks - rank);
        let mut involved = vec![all_signals || self.streams.is_empty(); ranks as usize];
        for rank in 0..ranks {
            for &number in listed(&self.streams, home(rank)) {
                involved[rank as usize] = true;
                let places = places(&self.first.tasks[number as usize].action);
                places.for_each(|place| involved[moved(place.rank, rank, ranks) as usize] = true);
            }
        }
        let mut index = Index::new(ranks);
        for rank in 0..ranks {
            let mut tasks = listed(&self.streams, home(rank)).to_vec();
            if involved[rank as usize] {
                tasks.extend(&self.signals);
                tasks.extend(listed(&self.ends, home(rank)));
                tasks.sort_unstable();
            }
            index.next_rank(tasks);
        }
        let mut tasks = Vec::new();
        for rank in 0..ranks {
            for &number in index.of_rank(rank) {
                let waits = self.waits(number, home(rank)).filter_map(|wait| {
                    let peer = moved(wait.rank, rank, ranks);
                    Some((index.find(peer, wait.task)?, wait.progress))
                });
                let action = &self.first.tasks[number as usize].action;
                tasks.push(PartTask {
                    long: self.first.tasks[number as usize].run.is_long(),
                    at: At {
                        rank,
                        task: number,
                        block,
                    },
                    waits: waits.collect(),
                    action: match rank {
                        0 => Cow::Borrowed(action),
                        _ => Cow::Owned(turned_action(action, rank, ranks)),
                    },
                });
            }
        }
        Ok(Part { ranks, block, tasks })
    }
}
