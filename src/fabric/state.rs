//! How far a queue pair has come, on every fabric, and the refusal of what does not fit that.

use super::{FabricError, Rank};

/// The states of a queue pair, of all its lanes where it has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It takes receives.
    Prepared,
    /// Everything may be posted.
    Connected,
    /// What was in flight comes back with an error.
    Error,
    /// It is destroyed: nothing can land any more. (Not every fabric has that before the endpoint goes.)
    Closed,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Connected => "connected",
            Self::Error => "in the error state",
            Self::Closed => "destroyed",
        }
    }

    /// Whether the queue pair of `rank` to `peer` may be connected.
    pub fn may_connect(self, rank: Rank, peer: Rank) -> Result<(), FabricError> {
        if self == Self::Prepared {
            return Ok(());
        }
        Err(FabricError::QueuePairState {
            rank,
            peer,
            call: "connect",
            state: self.name(),
            needed: "prepared",
        })
    }
}

/// That `rank` has a queue pair to `peer` already.
pub(super) fn already_there(rank: Rank, peer: Rank) -> FabricError {
    FabricError::QueuePairState {
        rank,
        peer,
        call: "prepare",
        state: "already there",
        needed: "not yet prepared",
    }
}

/// That `rank` has no queue pair to `peer`.
pub(super) fn not_there(rank: Rank, peer: Rank, call: &'static str, needed: &'static str) -> FabricError {
    FabricError::QueuePairState {
        rank,
        peer,
        call,
        state: "not prepared",
        needed,
    }
}
