//! Why a plan was refused.

use crate::plan::error::PlanError;
use crate::plan::lowered::{Program, Rank};

/// A task, as errors name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct At {
    /// Whose task.
    pub rank: Rank,
    /// Its index in that rank's program.
    pub task: u32,
    /// The block that it works on.
    pub block: u32,
}

impl At {
    /// A task of this program, by its index there.
    pub(super) fn of(program: &Program, task: u32) -> Self {
        Self {
            rank: program.rank,
            task,
            block: program.tasks[task as usize].block,
        }
    }
}

impl std::fmt::Display for At {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "rank {}, task {} (block {})",
            self.rank, self.task, self.block
        )
    }
}

/// The first thing found wrong with a lowered plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It could not be lowered at all.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A program contradicts the rules of the lowered form.
    #[error("{at}: {reason}")]
    Malformed {
        /// Where.
        at: At,
        /// What is wrong with it.
        reason: String,
    },
    /// A rank's program says that it is something else than was asked for.
    #[error("the program of rank {rank} does not belong here: {reason}")]
    Foreign {
        /// Whose program was asked for.
        rank: Rank,
        /// What it says.
        reason: String,
    },
    /// A waiting rank would never hear of the progress it waits for, or one hears that does not wait.
    #[error("{at}: rank {peer} {}", if *.missing { "waits for it but is not notified" } else { "is notified but does not wait" })]
    Notify {
        /// Whose progress.
        at: At,
        /// The other rank.
        peer: Rank,
        /// Whether the rank is missing from the list (or is there in vain).
        missing: bool,
    },
    /// Tasks wait for each other in a circle.
    #[error("{at} and {with} wait for each other{}", if *.whole { ": one waits for the whole of what follows from it" } else { "" })]
    Deadlock {
        /// One of them.
        at: At,
        /// Another, or the same.
        with: At,
        /// Whether the circle closes only because a task waits for another's last chunk.
        whole: bool,
    },
    /// Two accesses to one place have no order, or the wrong one.
    #[error("rank {owner}'s {place}: {first} and {second} {reason}")]
    Race {
        /// Whose memory.
        owner: Rank,
        /// Which place.
        place: &'static str,
        /// The access that has to come first.
        first: At,
        /// The other.
        second: At,
        /// What they do to each other.
        reason: &'static str,
    },
    /// A place is read that holds nothing.
    #[error("{at} reads rank {owner}'s {place}, which nobody is sure to have written")]
    Unwritten {
        /// Who reads.
        at: At,
        /// Whose memory.
        owner: Rank,
        /// Which place.
        place: &'static str,
    },
    /// A rank's memory is touched when it does not take part.
    #[error("{at} touches rank {owner}'s {place} {}", if *.begun { "that may have ended already" } else { "that may not have begun yet" })]
    Lifetime {
        /// Who touches it.
        at: At,
        /// Whose memory.
        owner: Rank,
        /// Which place.
        place: &'static str,
        /// Whether the owner has at least begun.
        begun: bool,
    },
    /// The outcome is not what the collective promises.
    #[error("rank {rank}, block {block}: {reason}")]
    Outcome {
        /// Whose result.
        rank: Rank,
        /// Which block.
        block: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// A rank can leave a barrier before another has entered it.
    #[error("rank {early} can leave the barrier before rank {late} has entered it")]
    Barrier {
        /// Who leaves.
        early: Rank,
        /// Who is missing.
        late: Rank,
    },
    /// A plan that claims rotation symmetry does not have it.
    #[error(
        "the plan claims to be the same for all ranks, but rank {rank}'s program is not rank 0's moved on: {reason}"
    )]
    Asymmetric {
        /// The first rank found.
        rank: Rank,
        /// What differs.
        reason: String,
    },
}
