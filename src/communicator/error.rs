//! What a call of a communicator can end in.

use crate::bootstrap::BootstrapError;
use crate::engine::EngineError;
use crate::fabric::FabricError;
use crate::memory::MemoryError;
use crate::plan::PlanError;
use crate::plan::cost::TuningError;

/// Why a communicator could not be made, or a call of it failed.
#[derive(Debug, thiserror::Error)]
pub enum CommunicatorError {
    /// Meeting the other ranks, or exchanging something with all of them, failed.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The fabric refused.
    #[error(transparent)]
    Fabric(#[from] FabricError),
    /// Memory could not be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// There is no such plan, or it cannot do this.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// What was measured cannot be used.
    #[error(transparent)]
    Tuning(#[from] TuningError),
    /// The operation failed; the communicator cannot be used any more.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An argument is wrong; nothing was changed and no other rank concerned.
    #[error("rank {rank}: {call}: {what}")]
    Argument {
        /// Whose call.
        rank: u32,
        /// What was called.
        call: &'static str,
        /// What is wrong and what would be right.
        what: String,
    },
    /// A plan was proved wrong or cannot be run.
    #[error("rank {rank}: plan {plan} is not fit to run: {why}")]
    Unfit {
        /// Who found out.
        rank: u32,
        /// Its name.
        plan: String,
        /// What is wrong.
        why: String,
    },
    /// What the ranks brought to a collective call differs.
    #[error("rank {rank}: {call}: the ranks disagree: {what}")]
    Disagreement {
        /// Who found out.
        rank: u32,
        /// What was called.
        call: &'static str,
        /// Who brought what.
        what: String,
    },
    /// A rank could not bring what a collective call needs; nothing was changed, and the communicator can be used on.
    #[error("rank {rank}: {call}: rank {peer} could not take part: {why}")]
    Declined {
        /// Who was told.
        rank: u32,
        /// What was called.
        call: &'static str,
        /// Who could not.
        peer: u32,
        /// Why.
        why: String,
    },
    /// One operation of a group was refused or failed.
    #[error("operation {number} of the group ({call}): {source}")]
    InGroup {
        /// Which, from 0, in the order in which they were added.
        number: usize,
        /// What it is.
        call: &'static str,
        /// Why.
        source: Box<CommunicatorError>,
    },
}

impl CommunicatorError {
    /// The rank that the failure is about, where it is about one.
    pub fn culprit(&self) -> Option<u32> {
        match self {
            Self::Engine(error) => error.culprit(),
            Self::Bootstrap(
                BootstrapError::Departed { rank, .. }
                | BootstrapError::Protocol { rank, .. }
                | BootstrapError::Mismatch { rank, .. },
            ) => Some(*rank),
            Self::Bootstrap(BootstrapError::Missing { ranks, .. }) => ranks.first().copied(),
            Self::InGroup { source, .. } => source.culprit(),
            Self::Declined { peer, .. } => Some(*peer),
            _ => None,
        }
    }
}
