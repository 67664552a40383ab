//! What can be wrong with a request for a plan.

use super::dataflow::Collective;
use super::lowered::Rank;

/// A plan that cannot be made. Nothing has been changed when one of these comes back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No builder has that name.
    #[error("there is no plan named \"{name}\"; the plans are {known}")]
    UnknownName {
        /// What was asked for.
        name: String,
        /// All names, as text.
        known: String,
    },
    /// The part of the name after the colon makes no sense for that builder.
    #[error("the parameter of plan \"{name}\" is wrong: {reason}")]
    BadParameter {
        /// What was asked for.
        name: String,
        /// What was expected.
        reason: String,
    },
    /// Zero ranks, or too many.
    #[error("a plan has from 1 to {} ranks, not {ranks}", super::MAX_RANKS)]
    Ranks {
        /// What was asked for.
        ranks: u32,
    },
    /// More ranks than an all-to-all can have.
    #[error(
        "an all-to-all has at most {} ranks, not {ranks}: its parts, one for each pair, are numbered in 32 bits",
        u16::MAX
    )]
    Pairs {
        /// What was asked for.
        ranks: u32,
    },
    /// The root is not one of the ranks.
    #[error("root {root} is not one of the {ranks} ranks (0 to {})", ranks - 1)]
    Root {
        /// What was asked for.
        root: Rank,
        /// How many ranks there are.
        ranks: u32,
    },
    /// A part was asked for a rank that does not take part.
    #[error("rank {rank} is not one of the plan's {ranks} ranks (0 to {})", ranks - 1)]
    NoSuchRank {
        /// What was asked for.
        rank: Rank,
        /// How many ranks there are.
        ranks: u32,
    },
    /// This algorithm does not do this collective.
    #[error("plan \"{name}\" has no {collective}; {others} have one")]
    Unsupported {
        /// Which builder.
        name: String,
        /// What was asked of it.
        collective: Collective,
        /// Builders that support it, as text.
        others: String,
    },
    /// The number of staging slots per stream is out of range.
    #[error("message reach needs from 1 to {most} staging slots per stream, not {slots}")]
    Slots {
        /// What was asked for.
        slots: u32,
        /// The limit.
        most: u32,
    },
    /// A plan's number of blocks does not fit the parts of its collective.
    #[error("{blocks} blocks do not cut the {parts} parts of {collective} into as many each")]
    Blocks {
        /// What was asked for.
        collective: Collective,
        /// How many blocks.
        blocks: u32,
        /// How many parts.
        parts: u64,
    },
    /// Counts of elements that cannot be.
    #[error("the counts of elements are wrong: {reason}")]
    Counts {
        /// What is wrong with them.
        reason: String,
    },
}
