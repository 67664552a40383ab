//! Why a step or the join ends without success, in a form that travels between ranks.

use serde::{Deserialize, Serialize};

use super::{BootstrapError, DepartureKind, Rank};

/// An error that concerns every rank.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Verdict {
    Missing {
        ranks: Vec<Rank>,
        size: u32,
        step: String,
        waited_ms: u64,
    },
    Departed {
        rank: Rank,
        how: DepartureKind,
        step: String,
    },
    Mismatch {
        rank: Rank,
        step: String,
        sequence: u64,
        other_rank: Rank,
        other_step: String,
        other_sequence: u64,
    },
    Failed {
        rank: Rank,
        problem: String,
    },
    GaveUp {
        rank: Rank,
        step: String,
        why: String,
    },
}

impl Verdict {
    /// What a rank tells the others when its own call ends with this error. What is its own affair (the system
    /// refused it something, for example) is told as a problem of its.
    pub(super) fn of(error: &BootstrapError, own: Rank) -> Self {
        match error.clone() {
            BootstrapError::Missing {
                ranks,
                size,
                step,
                waited,
            } => Self::Missing {
                ranks,
                size,
                step,
                waited_ms: waited.as_millis() as u64,
            },
            BootstrapError::Departed { rank, how, step } => Self::Departed { rank, how, step },
            BootstrapError::Mismatch {
                rank,
                step,
                sequence,
                other_rank,
                other_step,
                other_sequence,
            } => Self::Mismatch {
                rank,
                step,
                sequence,
                other_rank,
                other_step,
                other_sequence,
            },
            BootstrapError::Protocol { rank, problem } => Self::Failed { rank, problem },
            BootstrapError::GaveUp { rank, step, why } => Self::GaveUp { rank, step, why },
            other => Self::Failed {
                rank: own,
                problem: other.to_string(),
            },
        }
    }

    pub(super) fn into_error(self) -> BootstrapError {
        match self {
            Self::Missing {
                ranks,
                size,
                step,
                waited_ms,
            } => BootstrapError::Missing {
                ranks,
                size,
                step,
                waited: std::time::Duration::from_millis(waited_ms),
            },
            Self::Departed { rank, how, step } => BootstrapError::Departed { rank, how, step },
            Self::Mismatch {
                rank,
                step,
                sequence,
                other_rank,
                other_step,
                other_sequence,
            } => BootstrapError::Mismatch {
                rank,
                step,
                sequence,
                other_rank,
                other_step,
                other_sequence,
            },
            Self::Failed { rank, problem } => BootstrapError::Protocol { rank, problem },
            Self::GaveUp { rank, step, why } => BootstrapError::GaveUp { rank, step, why },
        }
    }
}
