//! Why an operation did not end well: who was waited for, where, and what is known of it.

use std::time::Duration;

/// What a rank was waiting for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waited {
    /// The collective and what it was called with.
    pub operation: String,
    /// Its number on the communicator.
    pub sequence: u64,
    /// The plan that ran.
    pub plan: String,
    /// The rank waited for.
    pub peer: u32,
    /// The rank that holds everything up, as far as this one can see: `peer`, or the one whom `peer` waits for.
    pub last: u32,
    /// Which step of the plan: the waiting task, its block and chunk, and what the awaited one had done.
    pub step: String,
}

impl std::fmt::Display for Waited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            operation,
            sequence,
            plan,
            peer,
            step,
            last: _,
        } = self;
        write!(
            f,
            "operation {sequence} ({operation}, plan {plan}) waited for rank {peer}: {step}"
        )
    }
}

/// Why an operation failed. Afterwards the communicator is poisoned: every later call fails too, on every rank.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The deadline passed.
    #[error(
        "rank {rank}: nothing came within {waited:.1?}: {on}. Is that rank stopped, still computing, or in another \
         call? A longer deadline: SAPWOOD_TIMEOUT (seconds), or the builder's timeout"
    )]
    Deadline {
        /// Who waited.
        rank: u32,
        /// How long.
        waited: Duration,
        /// For what.
        on: Waited,
    },
    /// A rank that was needed is dead or has left.
    #[error("rank {rank}: rank {peer} {how}; {on}")]
    Gone {
        /// Who needed it.
        rank: u32,
        /// Who is gone.
        peer: u32,
        /// How it went.
        how: String,
        /// What it was needed for.
        on: String,
    },
    /// Ranks called different things.
    #[error("rank {rank}: the ranks disagree about operation {sequence}: {odd}")]
    Mismatch {
        /// Who found out.
        rank: u32,
        /// The operation's number.
        sequence: u64,
        /// Who called what.
        odd: String,
    },
    /// Sender and receiver of a message do not want the same, or one of them has dropped the window. Nothing was
    /// moved, and the communicator can be used on.
    #[error("rank {rank}: message {number} from rank {from} to rank {to}: {what}")]
    Letter {
        /// At which end.
        rank: u32,
        /// Who sends.
        from: u32,
        /// Who receives.
        to: u32,
        /// Which of the messages that go this way, from 1.
        number: u64,
        /// What each of them wants.
        what: String,
    },
    /// Another rank gave up first.
    #[error("rank {rank}: rank {peer} gave up: {why}")]
    PeerGaveUp {
        /// Who heard of it.
        rank: u32,
        /// Who gave up.
        peer: u32,
        /// Whose fault it found it to be.
        culprit: Option<u32>,
        /// Its reason.
        why: String,
    },
    /// The communicator was aborted.
    #[error("rank {rank}: the communicator was aborted by rank {by}")]
    Aborted {
        /// Who heard of it.
        rank: u32,
        /// Who did it.
        by: u32,
    },
    /// The fabric failed as a whole, or a peer did not keep to the protocol.
    #[error("rank {rank}: {why}")]
    Fabric {
        /// On which rank.
        rank: u32,
        /// What it said.
        why: String,
    },
    /// This process is a forked child of the one that made the communicator.
    #[error(
        "rank {rank}: this process was forked from the one that made the communicator, which alone can use it"
    )]
    Forked {
        /// The parent's rank.
        rank: u32,
    },
    /// An earlier operation failed.
    #[error("rank {rank}: the communicator cannot be used any more: {reason}")]
    Poisoned {
        /// Whose call.
        rank: u32,
        /// The first failure.
        reason: String,
    },
}

impl EngineError {
    /// The number of the operation that the failure is about, where it is known to be about one.
    pub fn sequence(&self) -> Option<u64> {
        match self {
            Self::Deadline { on, .. } => Some(on.sequence),
            Self::Mismatch { sequence, .. } => Some(*sequence),
            _ => None,
        }
    }

    /// The rank that the failure is about, where it is about one.
    pub fn culprit(&self) -> Option<u32> {
        match self {
            Self::Deadline { on, .. } => Some(on.last),
            Self::Gone { peer, .. } => Some(*peer),
            Self::Aborted { by, .. } => Some(*by),
            Self::PeerGaveUp { culprit, .. } => *culprit,
            Self::Mismatch { .. }
            | Self::Letter { .. }
            | Self::Fabric { .. }
            | Self::Forked { .. }
            | Self::Poisoned { .. } => None,
        }
    }
}
