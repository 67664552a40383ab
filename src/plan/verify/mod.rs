//! Proves a lowered plan for all ranks, before any of it runs.
//!
//! What is proved, for every number of chunks (none included), in place and out of place:
//! - every block of a result that the collective defines holds the contributions that it should, each exactly once, and
//!   is marked complete once if it is a combination; no other block is written, and no input read that has none;
//! - no task waits on a circle, and everybody who waits is notified;
//! - no place is written before it has been read, nor read before it has been written, whatever the timing,
//!   and nobody's memory is touched before the rank has begun or after it has ended.
//!
//! # Why one block at a time suffices
//! A place belongs to one block, so two accesses can only collide within a block. Their order is proved from the
//! tasks of that block and the signals of the ranks concerned alone. Leaving out other tasks only takes orderings away, so
//! the proof holds with them, however many chunks they have; it also holds when other blocks are empty, where those tasks
//! do not run. Only circles of waits can lead through several blocks: they are looked for across all of them.
//!
//! A task that works on a run of blocks is looked at as what it does for the one block. That it does one after the other,
//! and that pieces may have several blocks, each of which then waits for what any of them waits for, only adds orderings.
//! They matter for circles, where each wait between two runs that are not the same is taken to be for all of the other run,
//! and where slots are used again, which are given back by the run that reads them, and chunk by chunk.
//!
//! # Why a few chunks suffice
//! The module on memory holds the argument; waits with a lag are the same for every chunk.

mod deadlock;
mod error;
mod graph;
mod memory;
mod outcome;
mod part;
mod shape;
mod symmetry;
mod threads;
mod waist;

use super::cut::Cut;
use super::dataflow::{Collective, Plan, Symmetry};
use super::error::PlanError;
use super::lowered::{Program, Rank};
use super::lowering::Reach;
pub use error::{At, VerifyError};

/// What programs are checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What they achieve together.
    pub collective: Collective,
    /// How many ranks take part.
    pub ranks: u32,
    /// Into how many blocks the vector is cut.
    pub blocks: u32,
    /// What ranks can do with each other's memory. The number of slots is taken from the programs.
    pub reach: Reach,
    /// What is said about the programs' shape. Of programs that are given one by one it is checked, not believed.
    pub symmetry: Symmetry,
}

impl Claim {
    /// What a plan says of itself.
    pub fn of(plan: &Plan, reach: Reach) -> Self {
        Self {
            collective: plan.collective(),
            ranks: plan.ranks(),
            blocks: plan.blocks(),
            reach,
            symmetry: plan.symmetry(),
        }
    }

    /// What the blocks stand for.
    fn cut(&self) -> Result<Cut, PlanError> {
        Cut::new(self.collective, self.ranks, self.blocks)
    }
}

/// What was looked at in a proof that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Tasks of all ranks.
    pub tasks: u64,
    /// Places (a rank's buffer, block by block) whose every access is in order.
    pub places: u64,
    /// Orderings between two events that were asked for and found.
    pub orderings: u64,
    /// Whether some blocks stand for all of them, by symmetry.
    pub by_symmetry: bool,
}

/// Proves `plan` as it is lowered for `reach`.
///
/// # Errors
/// The first thing found wrong; it names the rank, the task and the block.
pub fn verify(plan: &Plan, reach: Reach) -> Result<Proof, VerifyError> {
    let claim = Claim::of(plan, reach);
    match claim.symmetry {
        // All other ranks' programs are made from this one by turning it: there is nothing to compare.
        Symmetry::Rotation => verify_symmetric(&claim, &plan.lower(0, reach)?),
        Symmetry::None => verify_all(&claim, &|rank| plan.lower(rank, reach)),
    }
}

/// Proves programs, one for each rank, against a claim. Programs are asked for rank by rank, perhaps from several
/// threads; with [`Symmetry::Rotation`] no more than a few are held at a time.
///
/// # Errors
/// As [`verify`].
pub fn verify_programs<F>(claim: &Claim, program: F) -> Result<Proof, VerifyError>
where
    F: Fn(Rank) -> Result<Program, PlanError> + Sync,
{
    super::dataflow::check(claim.collective, claim.ranks)?;
    claim.cut()?;
    match claim.symmetry {
        Symmetry::Rotation => {
            let first = program(0)?;
            symmetry::compare(claim, &first, &program)?;
            verify_symmetric(claim, &first)
        }
        Symmetry::None => verify_all(claim, &program),
    }
}

fn verify_all(
    claim: &Claim,
    program: &dyn Fn(Rank) -> Result<Program, PlanError>,
) -> Result<Proof, VerifyError> {
    let programs = (0..claim.ranks).map(program).collect::<Result<Vec<_>, _>>()?;
    let world = shape::World::All(&programs);
    shape::check(claim, &world)?;
    let tasks = programs.iter().map(|program| program.tasks.len() as u64).sum();
    let mut proof = Proof {
        tasks,
        places: 0,
        orderings: 0,
        by_symmetry: false,
    };
    deadlock::check(&part::all(&programs))?;
    let blocks = part::Blocks::of(&programs, claim.blocks);
    for block in 0..claim.blocks {
        prove_block(claim, &blocks.part(&programs, block), &mut proof)?;
    }
    Ok(proof)
}

fn verify_symmetric(claim: &Claim, first: &Program) -> Result<Proof, VerifyError> {
    symmetry::possible(claim)?;
    let world = shape::World::Rotated {
        first,
        ranks: claim.ranks,
    };
    shape::check(claim, &world)?;
    let tasks = first.tasks.len() as u64 * u64::from(claim.ranks);
    let mut proof = Proof {
        tasks,
        places: 0,
        orderings: 0,
        by_symmetry: true,
    };
    let blocks = symmetry::Blocks::of(claim.cut()?, first);
    symmetry::check_deadlock(claim, first, &blocks)?;
    let representatives = symmetry::representatives(claim);
    for block in 0..representatives {
        prove_block(claim, &blocks.part(claim, block, false)?, &mut proof)?;
    }
    proof.places *= u64::from(claim.blocks / representatives);
    proof.orderings *= u64::from(claim.blocks / representatives);
    Ok(proof)
}

/// Everything but deadlocks, for one block.
fn prove_block(claim: &Claim, part: &part::Part<'_>, proof: &mut Proof) -> Result<(), VerifyError> {
    if claim.collective == Collective::Barrier {
        return outcome::barrier(claim, part, proof);
    }
    memory::one_chunk(claim, part, proof)?;
    memory::reused_slots(claim, part, proof)
}

#[cfg(test)]
pub(in crate::plan) mod tests;
