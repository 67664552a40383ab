//! The rules that each program must keep by itself, and the lists that must agree between two programs.
//!
//! After this check every reference leads to a task or a place that exists, a stream waits chunk by chunk only for
//! streams of its own block (others may have another number of chunks) or of runs that have blocks of its own, a run's slots
//! are given back for the same run only, and staging slots have one purpose each.

use super::Claim;
use super::error::{At, VerifyError};
use crate::plan::cut::Cut;
use crate::plan::dataflow::Collective;
use crate::plan::lowered::{Action, Buffer, Place, Program, Progress, Rank, Task, places};
use crate::plan::lowering::Reach;

/// All programs, held as they are or as one that stands for all.
pub(super) enum World<'a> {
    All(&'a [Program]),
    /// Rank `r`'s program is this one with `r` added to all ranks and blocks.
    Rotated {
        first: &'a Program,
        ranks: u32,
    },
}

impl World<'_> {
    fn programs(&self) -> &[Program] {
        match self {
            World::All(programs) => programs,
            World::Rotated { first, .. } => std::slice::from_ref(first),
        }
    }

    /// The program that stands for `rank`'s, and what to add to its blocks.
    fn program(&self, rank: Rank) -> (&Program, u32) {
        match self {
            World::All(programs) => (&programs[rank as usize], 0),
            World::Rotated { first, .. } => (first, rank),
        }
    }

    /// What stands for something that `rank` owns: a rank whose program is at hand, and what to take from a rank or
    /// block that goes with it.
    fn home(&self, rank: Rank) -> (Rank, u32) {
        match self {
            World::All(_) => (rank, 0),
            World::Rotated { .. } => (0, rank),
        }
    }

    fn back(&self, rank: Rank, by: u32) -> Rank {
        (rank + self.ranks() - by) % self.ranks()
    }

    /// A block of a program that stands for another, `by` ranks further; none if ranks cannot be turned.
    fn block(&self, cut: Cut, block: u32, by: u32) -> Option<u32> {
        match self {
            World::All(_) => Some(block),
            World::Rotated { .. } => cut.turned(block, by),
        }
    }

    fn ranks(&self) -> u32 {
        match self {
            World::All(programs) => programs.len() as u32,
            World::Rotated { ranks, .. } => *ranks,
        }
    }
}

pub(super) fn check(claim: &Claim, world: &World<'_>) -> Result<(), VerifyError> {
    for (expected, program) in (0..).zip(world.programs()) {
        let said = (program.rank, program.ranks, program.blocks);
        if said != (expected, claim.ranks, claim.blocks) || claim.blocks == 0 {
            let reason = format!(
                "it says rank {} of {} with {} blocks, not rank {expected} of {} with {}",
                said.0, said.1, said.2, claim.ranks, claim.blocks
            );
            return Err(VerifyError::Foreign {
                rank: expected,
                reason,
            });
        }
    }
    let cut = claim.cut()?;
    for program in world.programs() {
        for (task, number) in program.tasks.iter().zip(0..) {
            let at = At::of(program, number);
            check_task(claim, cut, world, at, task)
                .map_err(|reason| VerifyError::Malformed { at, reason })?;
        }
    }
    check_notify(world)?;
    check_staging(claim, cut, world)
}

fn check_task(claim: &Claim, cut: Cut, world: &World<'_>, at: At, task: &Task) -> Result<(), String> {
    if task.block >= claim.blocks {
        return Err(format!("there are only {} blocks", claim.blocks));
    }
    let signal = matches!(task.action, Action::Signal);
    if task.run.blocks == 0 || task.run.is_long() && signal {
        return Err("it has no such run of blocks".to_owned());
    }
    // Else blocks need not lie side by side, or two runs could meet twice.
    let most = match claim.collective {
        Collective::AllReduce => (claim.blocks / 2).max(1),
        _ => 1,
    };
    if task.run.blocks > most {
        return Err(format!("a run has {most} blocks at most"));
    }
    for wait in &task.waits {
        let named = format!("its wait for rank {}, task {}", wait.rank, wait.task);
        if wait.rank >= claim.ranks {
            return Err(format!("{named} names a rank that does not exist"));
        }
        let (program, added) = world.program(wait.rank);
        let Some(target) = program.tasks.get(wait.task as usize) else {
            return Err(format!("{named} names a task that does not exist"));
        };
        if let Progress::Chunk { .. } = wait.progress {
            if signal || matches!(target.action, Action::Signal) {
                return Err(format!("{named} counts chunks, but a signal has none"));
            }
            let first = world.block(cut, target.block, added);
            let ahead =
                first.and_then(|first| target.run.place_of(first, task.run, task.block, claim.blocks));
            if ahead != Some(wait.ahead) {
                return Err(format!("{named} counts chunks of another block"));
            }
            if !wait.is_even(task, target) && wait.progress != (Progress::Chunk { lag: 0 }) {
                return Err(format!("{named} is for a place in another run"));
            }
        } else if wait.ahead != 0 {
            return Err(format!("{named} is for the whole, but from some place on"));
        }
    }
    let (sources, into): (&[Place], &[Place]) = match &task.action {
        Action::Signal => return Ok(()),
        Action::Reduce { sources, into, .. } => (sources, into),
        Action::Copy { source, into } => (std::slice::from_ref(source), into),
    };
    if sources.is_empty() || into.is_empty() {
        return Err("it moves data from nowhere or to nowhere".to_owned());
    }
    for place in sources.iter().chain(into) {
        if place.rank >= claim.ranks {
            return Err(format!("rank {} does not exist", place.rank));
        }
        if let Buffer::Staging { first, slots } = place.buffer {
            let owned = world.program(place.rank).0.staging_slots;
            if slots == 0 || first.checked_add(slots).is_none_or(|end| end > owned) {
                return Err(format!("rank {} has only {owned} staging slots", place.rank));
            }
        }
    }
    for place in sources {
        if place.buffer == Buffer::Input && !cut.contributes(place.rank, task.block) {
            return Err(format!("rank {}'s input has no such block", place.rank));
        }
    }
    for (index, place) in into.iter().enumerate() {
        if place.buffer == Buffer::Input {
            return Err(format!("it writes into rank {}'s input", place.rank));
        }
        if place.buffer == Buffer::Result && !cut.defines(place.rank, task.block) {
            return Err(format!(
                "it writes into rank {}'s result, which is to stay as it is",
                place.rank
            ));
        }
        if into[..index].contains(place) {
            return Err("it writes twice into one place".to_owned());
        }
    }
    // A slot number follows from the chunk's in either form, so a place cannot be two things to one task.
    match claim.reach {
        Reach::LoadStore => match into
            .iter()
            .find(|place| place.rank != at.rank && place.buffer != Buffer::Result)
        {
            Some(place) => Err(format!(
                "it writes into rank {}'s memory elsewhere than into its result",
                place.rank
            )),
            None => Ok(()),
        },
        Reach::Load => match into.iter().find(|place| place.rank != at.rank) {
            Some(place) => Err(format!(
                "it writes into rank {}'s memory, which may only be read",
                place.rank
            )),
            None => Ok(()),
        },
        Reach::Message { .. } => match sources.iter().find(|place| place.rank != at.rank) {
            Some(place) => Err(format!(
                "it reads rank {}'s memory, which may only be written",
                place.rank
            )),
            None => Ok(()),
        },
    }
}

/// Exactly the ranks that wait are notified.
fn check_notify(world: &World<'_>) -> Result<(), VerifyError> {
    let mut waiters: Vec<(Rank, u32, Rank)> = Vec::new();
    for program in world.programs() {
        for wait in program.tasks.iter().flat_map(|task| &task.waits) {
            if wait.rank != program.rank {
                let (owner, by) = world.home(wait.rank);
                waiters.push((owner, wait.task, world.back(program.rank, by)));
            }
        }
    }
    waiters.sort_unstable();
    waiters.dedup();
    let mut rest = &waiters[..];
    for program in world.programs() {
        for (task, number) in program.tasks.iter().zip(0u32..) {
            let at = At::of(program, number);
            let count = rest.partition_point(|&(rank, task, _)| (rank, task) <= (program.rank, number));
            let (these, after) = rest.split_at(count);
            rest = after;
            if !task.notify.is_sorted_by(|a, b| a < b) {
                let reason = "its list of ranks to notify is not ascending".to_owned();
                return Err(VerifyError::Malformed { at, reason });
            }
            if !these
                .iter()
                .map(|&(.., peer)| peer)
                .eq(task.notify.iter().copied())
            {
                let waits = |peer: Rank| these.iter().any(|&(.., waiter)| waiter == peer);
                let lost = these
                    .iter()
                    .map(|&(.., peer)| peer)
                    .find(|peer| !task.notify.contains(peer));
                let vain = task.notify.iter().copied().find(|&peer| !waits(peer));
                let peer = lost.or(vain).unwrap_or(program.rank);
                return Err(VerifyError::Notify {
                    at,
                    peer,
                    missing: lost.is_some(),
                });
            }
        }
    }
    Ok(())
}

/// The first of some blocks, how many, and whether they go backwards.
type Blocks = (u32, u32, bool);

/// A slot belongs to one range, and a range to one block or one run of them.
fn check_staging(claim: &Claim, cut: Cut, world: &World<'_>) -> Result<(), VerifyError> {
    let mut ranges: Vec<(Rank, u32, u32, Blocks, At)> = Vec::new();
    for program in world.programs() {
        for (task, number) in program.tasks.iter().zip(0u32..) {
            let at = At::of(program, number);
            for place in places(&task.action) {
                if let Buffer::Staging { first, slots } = place.buffer {
                    let (owner, by) = world.home(place.rank);
                    let ranks = claim.ranks;
                    let block = world.block(cut, task.block, ranks - by % ranks).unwrap_or(0);
                    let blocks = (block, task.run.blocks, task.run.backwards && task.run.is_long());
                    ranges.push((owner, first, slots, blocks, at));
                }
            }
        }
    }
    ranges.sort_unstable_by_key(|&(owner, first, slots, blocks, _)| (owner, first, slots, blocks));
    for pair in ranges.windows(2) {
        let ((owner, first, slots, blocks, _), next) = (pair[0], pair[1]);
        let same = (owner, first, slots, blocks) == (next.0, next.1, next.2, next.3);
        if !same && owner == next.0 && first + slots > next.1 {
            let reason = format!(
                "its staging slots at rank {owner} from {} on have another use as well",
                next.1
            );
            return Err(VerifyError::Malformed { at: next.4, reason });
        }
    }
    Ok(())
}
