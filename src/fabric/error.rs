//! What can go wrong at a fabric, apart from what completions report.

use super::Rank;

/// A call that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    /// The provider cannot register this kind of memory.
    #[error("fabric {fabric} cannot register {kind} memory: {why}")]
    MemoryKind {
        /// Which provider.
        fabric: &'static str,
        /// The kind's name.
        kind: &'static str,
        /// What stands against it.
        why: String,
    },
    /// What came out of band is not what it should be.
    #[error("rank {rank}: what rank {peer} sent for {what} cannot be used: {why}")]
    Parcel {
        /// Who read it.
        rank: Rank,
        /// Who sent it.
        peer: Rank,
        /// A connection or a region.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A queue pair is not in the state that the call needs.
    #[error("rank {rank}: the queue pair to rank {peer} is {state}, but {call} needs it {needed}")]
    QueuePairState {
        /// Whose call.
        rank: Rank,
        /// The queue pair's peer.
        peer: Rank,
        /// What was called.
        call: &'static str,
        /// The state.
        state: &'static str,
        /// The state needed.
        needed: &'static str,
    },
    /// The operating system refused.
    #[error("fabric {fabric}: {what} failed: {source}")]
    System {
        /// Which provider.
        fabric: &'static str,
        /// The call, in words.
        what: String,
        /// The reason given.
        source: std::io::Error,
    },
    /// What only this provider can say.
    #[error("fabric {fabric}: {source}")]
    Provider {
        /// Which provider.
        fabric: &'static str,
        /// Its own error, with what mends it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Memory could not be had or mapped.
    #[error(transparent)]
    Memory(#[from] crate::memory::MemoryError),
    /// A registration that is for its owner alone.
    #[error(
        "the registration of {len} bytes gives peers no rights, so there is nothing to export; register it with the \
         access that peers need"
    )]
    NothingToExport {
        /// Bytes of the region.
        len: usize,
    },
    /// The handle was inherited through fork().
    #[error("this process was forked from the one that opened the fabric; a child must open its own")]
    Forked,
}

/// Requests that were not posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The queue is full: `posted` were taken, poll before posting the rest.
    #[error("the queue is full after {posted} requests")]
    QueueFull {
        /// How many of the batch were taken.
        posted: usize,
    },
    /// The queue pair is in the error state; nothing more can be posted.
    #[error("the queue pair is in the error state; {posted} requests were taken")]
    QueuePairError {
        /// How many of the batch were taken.
        posted: usize,
    },
    /// There is no connected queue pair to that rank.
    #[error("there is no connected queue pair to rank {peer}")]
    NotConnected {
        /// Which rank.
        peer: Rank,
    },
    /// The handle was inherited through fork().
    #[error("this process was forked from the one that opened the endpoint; a child must open its own")]
    Forked,
}
