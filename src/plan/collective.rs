//! What ranks can want to achieve together, and what of it does not depend on how. Knows no plans.

use std::fmt;

use super::lowered::Rank;

/// What all ranks want to achieve together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Collective {
    /// Every rank's result is the combination of all inputs.
    AllReduce,
    /// The root's result is the combination of all inputs; other results stay as they are.
    Reduce {
        /// Who gets the result.
        root: Rank,
    },
    /// Every rank's result is the root's input.
    Broadcast {
        /// Whose input it is.
        root: Rank,
    },
    /// No rank ends before every rank has begun.
    Barrier,
    /// Every rank's result is its own part of the combination of all inputs.
    ReduceScatter,
    /// Every rank's result is the inputs of all, one after the other.
    AllGather,
    /// The root's result is the inputs of all, one after the other; other results stay as they are.
    Gather {
        /// Who gets the result.
        root: Rank,
    },
    /// Every rank's result is its own part of the root's input.
    Scatter {
        /// Whose input it is.
        root: Rank,
    },
    /// Every rank's result is what each rank's input holds for it, one after the other.
    AllToAll,
}

impl Collective {
    /// How many there are.
    pub const COUNT: usize = 9;

    /// Every one, with this root where it has one.
    pub const fn every(root: Rank) -> [Self; Self::COUNT] {
        [
            Self::AllReduce,
            Self::Reduce { root },
            Self::Broadcast { root },
            Self::Barrier,
            Self::ReduceScatter,
            Self::AllGather,
            Self::Gather { root },
            Self::Scatter { root },
            Self::AllToAll,
        ]
    }

    /// Its place in [`Collective::every`]. Ranks tell each other what they call by it, so that it never changes.
    #[inline]
    pub const fn index(self) -> usize {
        match self {
            Self::AllReduce => 0,
            Self::Reduce { .. } => 1,
            Self::Broadcast { .. } => 2,
            Self::Barrier => 3,
            Self::ReduceScatter => 4,
            Self::AllGather => 5,
            Self::Gather { .. } => 6,
            Self::Scatter { .. } => 7,
            Self::AllToAll => 8,
        }
    }

    /// The word for it on a command line, without the root.
    pub fn name(self) -> &'static str {
        match self {
            Self::AllReduce => "all-reduce",
            Self::Reduce { .. } => "reduce",
            Self::Broadcast { .. } => "broadcast",
            Self::Barrier => "barrier",
            Self::ReduceScatter => "reduce-scatter",
            Self::AllGather => "all-gather",
            Self::Gather { .. } => "gather",
            Self::Scatter { .. } => "scatter",
            Self::AllToAll => "all-to-all",
        }
    }

    /// The root, for collectives that have one.
    pub fn root(self) -> Option<Rank> {
        match self {
            Self::Reduce { root }
            | Self::Broadcast { root }
            | Self::Gather { root }
            | Self::Scatter { root } => Some(root),
            Self::AllReduce | Self::Barrier | Self::ReduceScatter | Self::AllGather | Self::AllToAll => None,
        }
    }

    /// Whether contributions are combined, else they are moved only.
    pub fn combines(self) -> bool {
        matches!(self, Self::AllReduce | Self::Reduce { .. } | Self::ReduceScatter)
    }

    /// Whether the vector is made of one part for each rank (or pair of ranks), which no plan can cut otherwise.
    pub fn has_parts(self) -> bool {
        match self {
            Self::AllReduce | Self::Reduce { .. } | Self::Broadcast { .. } | Self::Barrier => false,
            Self::ReduceScatter
            | Self::AllGather
            | Self::Gather { .. }
            | Self::Scatter { .. }
            | Self::AllToAll => true,
        }
    }
}

impl fmt::Display for Collective {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}
