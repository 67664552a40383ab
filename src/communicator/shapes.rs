//! The programs that this rank has run, by shape: lowered once, proved once by rank 0 (invariant 2), then reused.

use std::collections::HashMap;
use std::sync::Arc;

use super::CommunicatorError;
use crate::engine::{Layout, Prepared};
use crate::plan::{Collective, Reach, builders, default_plan, verify};

/// Staging slots that every rank owns, for plans that need some.
pub(super) const STAGING_SLOTS: usize = 32;

/// Bytes of one slot: the largest chunk of a staged operation.
pub(super) const SLOT_BYTES: usize = 32 << 10;

#[derive(Debug)]
pub(super) struct Shapes {
    rank: u32,
    ranks: u32,
    layout: Layout,
    known: HashMap<(Collective, String), Arc<Shape>>,
}

/// One shape's program, and what choosing its chunks needs.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) prepared: Arc<Prepared>,
    pub(super) blocks: u32,
    pub(super) staged: bool,
}

impl Shapes {
    pub(super) fn new(rank: u32, ranks: u32, layout: Layout) -> Self {
        Self {
            rank,
            ranks,
            layout,
            known: HashMap::new(),
        }
    }

    /// The plan that the built-in table chooses.
    pub(super) fn choose(&self, collective: Collective, bytes: usize) -> &'static str {
        default_plan(collective, self.ranks, bytes)
    }

    pub(super) fn get(
        &mut self,
        collective: Collective,
        plan: &str,
    ) -> Result<Arc<Shape>, CommunicatorError> {
        // The key is made only for a shape that is not known yet.
        if let Some((_, shape)) = self
            .known
            .iter()
            .find(|((c, name), _)| *c == collective && name == plan)
        {
            return Ok(shape.clone());
        }
        let built = builders::build(plan, collective, self.ranks)?;
        let unfit = |why: String| CommunicatorError::Unfit {
            rank: self.rank,
            plan: plan.into(),
            why,
        };
        if self.rank == 0 {
            let proof = verify::verify(&built, Reach::LoadStore).map_err(|error| unfit(error.to_string()))?;
            tracing::debug!(plan, ranks = self.ranks, ?collective, ?proof, "plan proved");
        }
        let program = built.lower(self.rank, Reach::LoadStore)?;
        let (blocks, staged) = (program.blocks, uses_staging(&program));
        let prepared = Prepared::new(program, plan, self.layout.tasks(), STAGING_SLOTS).map_err(unfit)?;
        let shape = Arc::new(Shape {
            prepared: Arc::new(prepared),
            blocks,
            staged,
        });
        self.known.insert((collective, plan.to_owned()), shape.clone());
        Ok(shape)
    }
}

/// Whether this rank reads or writes staging slots, its own or another rank's.
fn uses_staging(program: &crate::plan::lowered::Program) -> bool {
    use crate::plan::lowered::{Action, Buffer, Place};
    let staged = |place: &Place| matches!(place.buffer, Buffer::Staging { .. });
    program.tasks.iter().any(|task| match &task.action {
        Action::Signal => false,
        Action::Reduce { sources, into, .. } => sources.iter().chain(into).any(staged),
        Action::Copy { source, into } => staged(source) || into.iter().any(staged),
    })
}
