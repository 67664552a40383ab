//! What is posted to a queue pair and what comes back. Plain data; every slice keeps its registration alive.

use std::fmt;
use std::sync::Arc;

use super::{Rank, Registration, RemoteRegion};

/// Rights that a registration gives to peers. The owner may always do everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Peers may read.
    pub remote_read: bool,
    /// Peers may write.
    pub remote_write: bool,
    /// Peers may perform atomics.
    pub remote_atomic: bool,
}

impl Access {
    /// Nothing for peers.
    pub const LOCAL: Self = Self {
        remote_read: false,
        remote_write: false,
        remote_atomic: false,
    };
    /// Peers may read and nothing else.
    pub const READ: Self = Self {
        remote_read: true,
        remote_write: false,
        remote_atomic: false,
    };
    /// Peers may read and write.
    pub const READ_WRITE: Self = Self {
        remote_read: true,
        remote_write: true,
        remote_atomic: false,
    };
    /// Peers may do everything.
    pub const ALL: Self = Self {
        remote_read: true,
        remote_write: true,
        remote_atomic: true,
    };
}

/// Bytes of a local registration. Holding it keeps the region alive (invariant 1).
#[derive(Clone, Debug)]
pub struct Slice {
    /// The registration the bytes lie in.
    pub registration: Arc<dyn Registration>,
    /// The first byte, from the region's start.
    pub offset: usize,
    /// Bytes.
    pub len: usize,
}

/// Where in a peer's imported region.
#[derive(Clone, Debug)]
pub struct RemoteSlice {
    /// The peer's region.
    pub region: Arc<dyn RemoteRegion>,
    /// The first byte, from the region's start.
    pub offset: usize,
}

/// One operation of a queue pair. Local bytes of a write or a send stay as they are until it has ended, whoever may
/// reach them: a fabric may send any mixture of what was there, or end the queue pair because of it.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Stores local bytes into the peer's region; an immediate consumes a posted receive there and completes it.
    Write {
        /// From here.
        local: Slice,
        /// To there.
        remote: RemoteSlice,
        /// Delivered after the data.
        immediate: Option<u32>,
    },
    /// Loads bytes of the peer's region into local memory.
    Read {
        /// To here.
        local: Slice,
        /// From there.
        remote: RemoteSlice,
    },
    /// Adds to a word of 8 aligned bytes and returns what it was.
    FetchAdd {
        /// Eight bytes for the earlier value.
        local: Slice,
        /// The word.
        remote: RemoteSlice,
        /// Wrapping.
        add: u64,
    },
    /// Replaces a word of 8 aligned bytes if it is as expected, and returns what it was.
    CompareSwap {
        /// Eight bytes for the earlier value.
        local: Slice,
        /// The word.
        remote: RemoteSlice,
        /// What it must be.
        expected: u64,
        /// What it becomes.
        desired: u64,
    },
    /// Delivers bytes into the memory of the peer's next posted receive.
    Send {
        /// From here.
        local: Slice,
        /// Delivered with the data.
        immediate: Option<u32>,
    },
}

/// An operation with the number under which its completion comes back.
#[derive(Clone, Debug)]
pub struct Request {
    /// The caller's number.
    pub id: u64,
    /// What to do.
    pub operation: Operation,
    /// Whether success is reported; a failure always is.
    pub signaled: bool,
}

/// Memory for one incoming send, or for the completion of one immediate.
#[derive(Clone, Debug)]
pub struct Receive {
    /// The caller's number.
    pub id: u64,
    /// Where a send's bytes go; `None` takes immediates (and empty sends) only.
    pub local: Option<Slice>,
}

/// What completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A write of ours.
    Write,
    /// A read of ours.
    Read,
    /// A fetch-and-add of ours.
    FetchAdd,
    /// A compare-and-swap of ours.
    CompareSwap,
    /// A send of ours.
    Send,
    /// A peer's send arrived.
    Receive,
    /// A peer's write with immediate arrived.
    ReceiveWithImmediate,
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "a write",
            Self::Read => "a read",
            Self::FetchAdd => "a fetch-and-add",
            Self::CompareSwap => "a compare-and-swap",
            Self::Send => "a send",
            Self::Receive => "a receive",
            Self::ReceiveWithImmediate => "a receive of an immediate",
        })
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As asked.
    Success,
    /// The local slice leaves its registration.
    LocalProtection,
    /// The local memory of a receive is shorter than the message.
    LocalLength,
    /// The peer's region does not allow it: bounds, rights, a key that is no longer valid.
    RemoteAccess,
    /// Not possible at the peer: a misaligned atomic word, a receive too short for the message.
    RemoteOperation,
    /// The peer posted no receive in time.
    ReceiverNotReady,
    /// The peer does not answer any more: dead or gone.
    PeerUnreachable,
    /// The queue pair went to the error state before it was this one's turn.
    Flushed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "success",
            Self::LocalProtection => "the local slice leaves its registration",
            Self::LocalLength => "the local memory of the receive is shorter than the message",
            Self::RemoteAccess => {
                "the peer's region does not allow it: bounds, rights, or a key that is no longer valid"
            }
            Self::RemoteOperation => {
                "it is not possible at the peer: a misaligned atomic word, or a receive too short for the message"
            }
            Self::ReceiverNotReady => "the peer posted no receive in time",
            Self::PeerUnreachable => "the peer does not answer any more: dead, gone, or cut off",
            Self::Flushed => "the queue pair failed before it was this one's turn",
        })
    }
}

/// The end of one request or receive. Those of one queue pair's requests come in the order of posting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The number given when it was posted.
    pub id: u64,
    /// The queue pair's peer.
    pub peer: Rank,
    /// What ended.
    pub opcode: Opcode,
    /// How.
    pub status: Status,
    /// Bytes received (for receives), else bytes moved. A write with an immediate that is longer than a device's
    /// longest message (8 MiB at least) is received as its last piece.
    pub bytes: usize,
    /// The immediate of a receive.
    pub immediate: Option<u32>,
}
