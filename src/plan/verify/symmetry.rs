//! Rotation symmetry: every rank's program is rank 0's with a constant added to all ranks and blocks, so block 0 stands
//! for all blocks.
//!
//! The claim is checked for every rank. Then the tasks of block 0 at all ranks follow from rank 0's program: rank `r`
//! does for block 0 what rank 0 does for block `-r`. Each block's part is that of block 0 with the ranks renamed, and
//! the proof does not depend on names; streams of different blocks are coupled by signals only, and no order of accesses
//! rests on another block (see the module above). A circle of waits through several blocks would have to leave a block
//! through a signal that waits and enter another where a stream waits for such a signal: that is refused here.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Claim;
use super::error::{At, VerifyError};
use super::part::{Index, Part, PartTask};
use crate::plan::error::PlanError;
use crate::plan::lowered::{Action, Place, Program, Rank, Task, Wait};

pub(super) fn check<F>(claim: &Claim, first: &Program, program: &F) -> Result<(), VerifyError>
where
    F: Fn(Rank) -> Result<Program, PlanError> + Sync,
{
    let asymmetric = |rank, reason: &str| VerifyError::Asymmetric {
        rank,
        reason: reason.to_owned(),
    };
    if claim.blocks != claim.ranks && claim.blocks != 1 {
        return Err(asymmetric(
            0,
            "the vector is not cut into one block or as many as there are ranks",
        ));
    }
    if claim.collective.root().is_some() {
        return Err(asymmetric(
            0,
            "a collective with a root is not the same for all ranks",
        ));
    }
    let waits = |task: u32| {
        let target = &first.tasks[task as usize];
        matches!(target.action, Action::Signal) && !target.waits.is_empty()
    };
    for (task, number) in first.tasks.iter().zip(0..) {
        let stream = !matches!(task.action, Action::Signal);
        if stream && claim.blocks > 1 && task.waits.iter().any(|wait| waits(wait.task)) {
            let at = At {
                rank: 0,
                task: number,
                block: task.block,
            };
            let reason = "a stream waits for a signal that waits for others, which couples blocks".to_owned();
            return Err(VerifyError::Malformed { at, reason });
        }
    }
    let next = AtomicU32::new(1);
    let work = || -> Result<(), VerifyError> {
        loop {
            let rank = next.fetch_add(1, Ordering::Relaxed);
            if rank >= claim.ranks {
                return Ok(());
            }
            let program = program(rank)?;
            if let Err(reason) = compare(claim, first, &program, rank) {
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

fn moved(rank: Rank, by: u32, modulus: u32) -> u32 {
    (rank + by) % modulus
}

fn compare(claim: &Claim, first: &Program, other: &Program, by: Rank) -> Result<(), String> {
    if (other.rank, other.ranks, other.blocks) != (by, first.ranks, first.blocks) {
        return Err("it belongs to another rank or plan".to_owned());
    }
    if (other.tasks.len(), other.staging_slots) != (first.tasks.len(), first.staging_slots) {
        return Err("it has other numbers of tasks or staging slots".to_owned());
    }
    for ((ours, theirs), number) in first.tasks.iter().zip(&other.tasks).zip(0u32..) {
        if !same(claim, ours, theirs, by) {
            return Err(format!("task {number} is another"));
        }
    }
    Ok(())
}

fn same(claim: &Claim, ours: &Task, theirs: &Task, by: Rank) -> bool {
    let turn = |rank: Rank| moved(rank, by, claim.ranks);
    let wait = |wait: &Wait| Wait {
        rank: turn(wait.rank),
        ..*wait
    };
    let place = |place: &Place| turned(place, by, claim.ranks);
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
        && (ours.action == Action::Signal || moved(ours.block, by, claim.blocks) == theirs.block)
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
    type Key = (Rank, u32, u64);
    fn key(&self) -> Self::Key {
        use crate::plan::lowered::Progress;
        let progress = match self.progress {
            Progress::Chunk { lag } => u64::from(lag),
            Progress::Whole => u64::MAX,
        };
        (self.rank, self.task, progress)
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
    let all = |places: &[Place]| places.iter().map(|place| turned(place, by, ranks)).collect();
    match action {
        Action::Signal => Action::Signal,
        Action::Reduce {
            sources,
            into,
            complete,
        } => Action::Reduce {
            sources: all(sources),
            into: all(into),
            complete: *complete,
        },
        Action::Copy { source, into } => Action::Copy {
            source: turned(source, by, ranks),
            into: all(into),
        },
    }
}

/// The tasks of block 0 at all ranks, and all signals with what of them concerns block 0.
pub(super) fn block_zero<'a>(claim: &Claim, first: &'a Program) -> Part<'a> {
    let (ranks, blocks) = (claim.ranks, claim.blocks);
    let signal = |task: &Task| matches!(task.action, Action::Signal);
    let mut of_block: Vec<Vec<u32>> = vec![Vec::new(); blocks as usize];
    let mut signals: Vec<u32> = Vec::new();
    for (task, number) in first.tasks.iter().zip(0..) {
        if signal(task) {
            signals.push(number);
        } else {
            of_block[task.block as usize].push(number);
        }
    }
    let mut index = Index::new(ranks);
    for rank in 0..ranks {
        let home = (blocks - rank % blocks) % blocks;
        let mut tasks = [&of_block[home as usize][..], &signals[..]].concat();
        tasks.sort_unstable();
        index.next_rank(tasks);
    }
    let mut tasks = Vec::new();
    for rank in 0..ranks {
        for &number in index.of_rank(rank) {
            let task = &first.tasks[number as usize];
            let waits = task.waits.iter().filter_map(|wait| {
                let target = &first.tasks[wait.task as usize];
                let peer = moved(wait.rank, rank, ranks);
                let here = signal(target) || moved(target.block, peer, blocks) == 0;
                here.then(|| index.find(peer, wait.task))
                    .flatten()
                    .map(|found| (found, wait.progress))
            });
            tasks.push(PartTask {
                at: At {
                    rank,
                    task: number,
                    block: 0,
                },
                waits: waits.collect(),
                action: match rank {
                    0 => Cow::Borrowed(&task.action),
                    _ => Cow::Owned(turned_action(&task.action, rank, ranks)),
                },
            });
        }
    }
    Part {
        ranks,
        block: 0,
        tasks,
    }
}
