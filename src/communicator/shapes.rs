//! The programs that this rank has run, by shape: lowered once, proved once by rank 0 (invariant 2), then reused.

use std::collections::HashMap;
use std::sync::Arc;

use super::CommunicatorError;
use super::plans::programs;
use crate::engine::{Layout, Prepared};
use crate::plan::lowered::Program;
use crate::plan::{Collective, Plan, Reach, builders, default_chunk_bytes, verify};

/// Staging slots that every rank owns, for plans that need some, where ranks see each other's boards: no plan holds more
/// partial sums than it has tasks.
pub(super) fn staging_slots(layout: &Layout) -> usize {
    layout.tasks().max(32)
}

/// What programs are prepared for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// Boards of this layout.
    Boards(Layout),
    Messages,
}

#[derive(Debug)]
pub(super) struct Shapes {
    rank: u32,
    ranks: u32,
    way: Way,
    known: HashMap<(Collective, String), Arc<Known>>,
}

/// One shape's program, and what choosing its chunks needs.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) prepared: Arc<Prepared>,
    /// Of those that a rank's longest buffer is cut into.
    blocks: u32,
    pub(super) staged: bool,
}

impl Known {
    /// Bytes of a block, where the longest buffer has `total`.
    pub(super) fn block_bytes(&self, total: usize) -> usize {
        total / self.blocks as usize
    }
}

/// Chunks of one stream that may be under way: enough to keep a queue pair busy, fewer where many ranks would each
/// push so many to one. The same on every rank.
fn slots(ranks: u32) -> u32 {
    (512 / ranks).clamp(2, 8)
}

/// What plans are lowered for.
pub(super) fn reach(load_store: bool, ranks: u32) -> Reach {
    match load_store {
        true => Reach::LoadStore,
        false => Reach::Message { slots: slots(ranks) },
    }
}

impl Shapes {
    pub(super) fn new(rank: u32, ranks: u32, way: Way) -> Self {
        Self {
            rank,
            ranks,
            way,
            known: HashMap::new(),
        }
    }

    /// A shape that was prepared before.
    pub(super) fn find(&self, collective: Collective, plan: &str) -> Option<Arc<Known>> {
        // A key would have to be allocated.
        let mut known = self.known.iter();
        let found = known.find(|((c, name), _)| *c == collective && name == plan);
        found.map(|(_, shape)| shape.clone())
    }

    /// Prepares a shape for its first use; [`Shapes::keep`] makes it known.
    pub(super) fn prepare(
        &self,
        collective: Collective,
        plan: &str,
    ) -> Result<Arc<Known>, CommunicatorError> {
        let built = builders::build(plan, collective, self.ranks)?;
        let unfit = |why: String| CommunicatorError::Unfit {
            rank: self.rank,
            plan: plan.into(),
            why,
        };
        let reach = reach(matches!(self.way, Way::Boards(_)), self.ranks);
        if self.rank == 0 {
            let proof = verify::verify(&built, reach).map_err(|error| unfit(error.to_string()))?;
            tracing::debug!(
                plan,
                ranks = self.ranks,
                ?collective,
                ?reach,
                ?proof,
                "plan proved"
            );
        }
        let program = built.lower(self.rank, reach)?;
        let blocks = match collective {
            // A rank's buffers hold the blocks of one sender or receiver.
            Collective::AllToAll => program.blocks / self.ranks,
            _ => program.blocks,
        };
        if self.rank == 0 {
            // At its first use; why, when the table has chosen it, is the size that asked for it.
            tracing::info!(
                plan,
                ranks = self.ranks,
                collective = %collective,
                blocks,
                chunk_of_a_mebibyte = default_chunk_bytes((1 << 20) / (blocks as usize).max(1)),
                "a plan is used for the first time"
            );
        }
        let of = |rank| Plan::lower(&built, rank, reach);
        // Where one rank has something in slots, which are small, all ranks must cut their blocks alike.
        let too_many = matches!(self.way, Way::Messages) && self.ranks > MOST_LOOKED_AT;
        let staged = too_many || programs(&built, reach).any(|program| uses_staging(&program));
        let prepared = match self.way {
            Way::Boards(layout) => Prepared::new(program, plan, layout.tasks(), staging_slots(&layout)),
            Way::Messages => Prepared::for_messages(program, plan, of),
        };
        Ok(Arc::new(Known {
            prepared: Arc::new(prepared.map_err(unfit)?),
            blocks,
            staged,
        }))
    }

    /// Makes a prepared shape known.
    pub(super) fn keep(&mut self, collective: Collective, plan: &str, shape: Arc<Known>) {
        self.known.insert((collective, plan.to_owned()), shape);
    }
}

/// With more ranks than these, which are then on many hosts, it is not looked whether a plan has any of them use slots:
/// chunks are then small.
const MOST_LOOKED_AT: u32 = 64;

/// Whether this rank reads or writes staging slots, its own or another rank's.
fn uses_staging(program: &Program) -> bool {
    use crate::plan::lowered::{Action, Buffer, Place};
    let staged = |place: &Place| matches!(place.buffer, Buffer::Staging { .. });
    program.tasks.iter().any(|task| match &task.action {
        Action::Signal => false,
        Action::Reduce { sources, into, .. } => sources.iter().chain(into).any(staged),
        Action::Copy { source, into } => staged(source) || into.iter().any(staged),
    })
}
