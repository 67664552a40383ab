//! What a step of the barrier can end in.

use super::protocol::ShapeError;
use crate::communicator::CommunicatorError;

/// Why a barrier could not be made, or a step of it did not end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackupError {
    /// There is no such barrier.
    #[error("backup workers: {0}")]
    Shape(#[from] ShapeError),
    /// The workers could not share their memory.
    #[error("backup workers: {0}")]
    Communicator(std::sync::Arc<CommunicatorError>),
    /// Ranks that neither see each other's memory nor have words on which all can operate.
    #[error(
        "rank {rank}: backup workers need ranks that see each other's memory, or whose devices carry out atomic operations \
         while the other side computes or is stopped, which {fabric} does not; run them over shm or verbs, or without \
         backups"
    )]
    Messages {
        /// Who.
        rank: u32,
        /// What would have to carry the operations.
        fabric: &'static str,
    },
    /// A setting that cannot be.
    #[error("rank {rank}: backup workers: {what}")]
    Argument {
        /// Whose.
        rank: u32,
        /// What is wrong and what would be right.
        what: String,
    },
    /// So many are missing that the step cannot be sealed.
    #[error(
        "rank {rank}: step {step}: {arrived} of the {needed} gradients that it needs have come {when}; missing: {missing}"
    )]
    Missing {
        /// Who waited.
        rank: u32,
        /// In which step.
        step: u64,
        /// How many have arrived.
        arrived: u32,
        /// How many are needed.
        needed: u32,
        /// Until when was waited.
        when: String,
        /// Those that have not arrived, with how they went if they are gone.
        missing: String,
        /// The same, for programs.
        ranks: Vec<u32>,
    },
    /// The step was sealed, and some of its members did not do their part.
    #[error(
        "rank {rank}: step {step} was sealed, and its sum was not complete {when}: it waits for {names}, and nobody can take \
         their place{others}"
    )]
    Stuck {
        /// Who waited.
        rank: u32,
        /// In which step.
        step: u64,
        /// Until when was waited.
        when: String,
        /// For whom.
        names: String,
        /// Who else is gone, which may be why those whom it waits for have left.
        others: String,
        /// All of them, for programs.
        ranks: Vec<u32>,
    },
    /// The words by which steps are decided could not be reached, and their owner is not known to be dead.
    #[error(
        "rank {rank}: step {step}: the words that decide it are in the memory of {home}, to which the queue pair is broken, and \
         nothing says that it is dead within {waited:?}; is the network up between the two?"
    )]
    Unreachable {
        /// Who.
        rank: u32,
        /// In which step.
        step: u64,
        /// Whose memory.
        home: String,
        /// How long was waited.
        waited: std::time::Duration,
    },
    /// The words by which steps are decided are gone with their owner, and this worker has no state of its own to go on from, or
    /// others have a later one.
    #[error(
        "rank {rank}: the words that decide steps are lost with their owner, and nobody has said within {waited:?} what to \
         continue from; {others}{gone}"
    )]
    Untold {
        /// Who.
        rank: u32,
        /// How long was waited.
        waited: std::time::Duration,
        /// Who might have.
        others: String,
        /// Who is gone, and how it went.
        gone: String,
        /// The same, for programs.
        ranks: Vec<u32>,
    },
    /// This worker fell so far behind that results it needs are not kept any more.
    #[error(
        "rank {rank}: step {step} is over, and so long that its result is not kept any more (the last {ring} are); {why}"
    )]
    Behind {
        /// Who.
        rank: u32,
        /// The step that it was in.
        step: u64,
        /// How many steps' results are kept.
        ring: u16,
        /// Why it could not catch up, and what mends that.
        why: String,
        /// Those that are gone, of whom one may have had what it needs.
        ranks: Vec<u32>,
    },
    /// An earlier step had failed.
    #[error("rank {rank}: backup workers: an earlier step failed: {reason}")]
    Poisoned {
        /// Who.
        rank: u32,
        /// How.
        reason: String,
    },
}

impl From<CommunicatorError> for BackupError {
    fn from(error: CommunicatorError) -> Self {
        Self::Communicator(std::sync::Arc::new(error))
    }
}

impl BackupError {
    /// The ranks that were waited for in vain.
    pub fn culprits(&self) -> &[u32] {
        match self {
            Self::Missing { ranks, .. }
            | Self::Stuck { ranks, .. }
            | Self::Behind { ranks, .. }
            | Self::Untold { ranks, .. } => ranks,
            _ => &[],
        }
    }
}
