//! The traits that a provider implements. No provider's types appear here.

use std::fmt::Debug;
use std::os::fd::{OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::{Access, Capabilities, Completion, Doorbell, FabricError, PostError, Rank, Receive, Request};
use crate::memory::Region;

/// Something that one side hands to the other out of band: bytes and, on one host, descriptors. Only members that
/// have proved that they know the job's secret may ever get one (invariant 9).
#[derive(Debug, Default)]
pub struct Parcel {
    /// The provider's own format; it checks what it gets, whoever it is from.
    pub bytes: Vec<u8>,
    /// Passed along with the bytes.
    pub descriptors: Vec<OwnedFd>,
}

impl Parcel {
    /// The same once more.
    ///
    /// # Errors
    /// The operating system's, where a descriptor cannot be duplicated.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        let descriptors = self.descriptors.iter().map(OwnedFd::try_clone);
        Ok(Self {
            bytes: self.bytes.clone(),
            descriptors: descriptors.collect::<Result<_, _>>()?,
        })
    }
}

/// A provider: opens endpoints and makes memory reachable.
pub trait Fabric: Send + Sync + Debug {
    /// `shm`, `verbs`, `tcp`: for reports, never for decisions.
    fn name(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> &Capabilities;

    /// Makes a region usable in requests, and by peers as `access` says. Dropping the last handle deregisters.
    ///
    /// # Errors
    /// The kind of memory is not one that the provider can register, or a limit is reached.
    fn register(&self, region: &Region, access: Access) -> Result<Arc<dyn Registration>, FabricError>;

    /// A place for queue pairs of one rank: at most one to each peer (itself included), and one completion queue.
    ///
    /// # Errors
    /// The provider's resources are exhausted.
    fn endpoint(&self, rank: Rank, generation: u32) -> Result<Box<dyn Endpoint>, FabricError>;

    /// For words on which every rank operates: where this fabric reaches some ranks by one means and some by another, which
    /// would give a word two atomic domains, the fabric that reaches all of them, ranks of this host and this rank itself
    /// included, by one. `None`: this one does.
    ///
    /// What is registered with that one is reached over its endpoints alone, and its capabilities are its own. All operations
    /// on a word are carried out where its owner has registered it, whatever those who ask for them use.
    fn by_one_means(&self) -> Option<Arc<dyn Fabric>> {
        None
    }
}

/// A registered region. A request in flight holds one, so that the memory outlives it (invariant 1).
pub trait Registration: Send + Sync + Debug {
    /// What is registered.
    fn region(&self) -> &Region;

    /// What a peer imports to reach it.
    ///
    /// # Errors
    /// The registration gives peers no rights, or a descriptor could not be duplicated.
    fn export(&self) -> Result<Parcel, FabricError>;

    /// What a device knows its memory by, where a device carries requests out: for the provider that made it.
    fn device_memory(&self) -> Option<&DeviceMemory> {
        None
    }

    /// For the provider that made it.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// Memory as work requests name it: plain numbers, so that a post only has to look at them. Only providers make one,
/// and nobody can copy it out of the registration that it belongs to.
#[derive(Debug)]
pub struct DeviceMemory {
    /// Who may name it: the provider's number for the device, or for the peer.
    pub(super) scope: u64,
    /// Where the device sees the first byte.
    pub(super) address: u64,
    /// Bytes.
    pub(super) len: usize,
    /// What the device gave for it.
    pub(super) key: u32,
    /// Whether this process's CPU may read it.
    pub(super) host_accessible: bool,
}

/// A peer's registration, as this rank can reach it.
#[allow(clippy::len_without_is_empty, reason = "never empty")]
pub trait RemoteRegion: Send + Sync + Debug {
    /// Whose it is.
    fn peer(&self) -> Rank;

    /// Bytes.
    fn len(&self) -> usize;

    /// The peer's bytes in this process's address space, where the fabric has load/store reach: readable, and
    /// writable if the registration gave write access. Valid as long as this handle lives.
    fn mapped(&self) -> Option<NonNull<u8>>;

    /// As [`Registration::device_memory`], of the peer's device.
    fn device_memory(&self) -> Option<&DeviceMemory> {
        None
    }

    /// For the provider that made it.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// The answer of a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Nothing that the peer posted earlier can land any more, and its queue pair to us is in the error state.
    Fenced,
    /// Something still could (a process stopped in the middle of a copy): what the peer can reach must stay out of
    /// use until a later fence says `Fenced`.
    Quarantined,
}

/// How an endpoint can be slept on, together with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// `poll` has something to do: nothing was armed, and no descriptor given.
    Needless,
    /// Whatever gives `poll` something to do makes a descriptor readable, and it stays so until `disarm`.
    Armed,
    /// Not at all: nothing was armed, and no descriptor given.
    Impossible,
}

/// One rank's queue pairs and their completion queue. Driven by one thread at a time; nothing here spawns one.
pub trait Endpoint: Send {
    /// This rank.
    fn rank(&self) -> Rank;

    /// Makes the local half of a queue pair and what the peer needs to connect its own half to it.
    ///
    /// # Errors
    /// There is one already, or resources are exhausted.
    fn prepare(&mut self, peer: Rank) -> Result<Parcel, FabricError>;

    /// Connects the prepared half to the peer's. Receives may be posted from `prepare` on, requests from here on.
    ///
    /// # Errors
    /// Nothing was prepared, or the parcel is not one of this provider, this generation and this pair of ranks.
    fn connect(&mut self, peer: Rank, remote: Parcel) -> Result<(), FabricError>;

    /// Takes in a peer's exported registration.
    ///
    /// # Errors
    /// The parcel is malformed, or the memory behind it cannot be reached.
    fn import(&mut self, peer: Rank, remote: Parcel) -> Result<Arc<dyn RemoteRegion>, FabricError>;

    /// Posts requests in order. What does not fit the queue is not posted and the error says how many were.
    ///
    /// # Errors
    /// [`PostError`]: the queue is full (poll and post the rest), the queue pair is in the error state or not connected.
    fn post(&mut self, peer: Rank, requests: &[Request]) -> Result<(), PostError>;

    /// Posts memory for a send or an immediate of the peer.
    ///
    /// # Errors
    /// As [`Endpoint::post`].
    fn post_receive(&mut self, peer: Rank, receive: Receive) -> Result<(), PostError>;

    /// Posts several receives in order, as cheaply as the fabric can; the error says how many were taken.
    ///
    /// # Errors
    /// As [`Endpoint::post`].
    fn post_receives(&mut self, peer: Rank, receives: &[Receive]) -> Result<(), PostError> {
        for (posted, receive) in receives.iter().enumerate() {
            self.post_receive(peer, receive.clone())
                .map_err(|error| match error {
                    PostError::QueueFull { .. } => PostError::QueueFull { posted },
                    PostError::QueuePairError { .. } => PostError::QueuePairError { posted },
                    other => other,
                })?;
        }
        Ok(())
    }

    /// Drives the queue pairs and appends what completed; returns how many. Never blocks; appends at most what
    /// `into` has capacity left for, so it does not allocate.
    ///
    /// # Errors
    /// The endpoint itself failed (not one of its queue pairs: those report by completions).
    fn poll(&mut self, into: &mut Vec<Completion>) -> Result<usize, FabricError>;

    /// Sleeps politely (invariant 7) until `poll` has something to do or the deadline passes; says which: `false`
    /// is the deadline. A peer's death is something to do.
    ///
    /// # Errors
    /// As [`Endpoint::poll`].
    fn wait(&mut self, deadline: Instant) -> Result<bool, FabricError>;

    /// Whether `poll` has something to do. Never blocks, and takes nothing back.
    ///
    /// # Errors
    /// As [`Endpoint::poll`].
    fn ready(&mut self) -> Result<bool, FabricError> {
        self.wait(Instant::now())
    }

    /// Prepares for a sleep in poll(2) on this endpoint and on other things; appends the descriptors to be waited for
    /// (`POLLIN`), which stay open until `disarm`. It looks for something to do after it has armed, so that nothing is
    /// missed. Peers that fall silent are looked at here and in `poll`: sleeps are a few 100 ms long at most.
    ///
    /// # Errors
    /// As [`Endpoint::poll`]; nothing is armed then.
    fn arm(&mut self, descriptors: &mut Vec<RawFd>) -> Result<Sleep, FabricError> {
        let _ = descriptors;
        Ok(Sleep::Impossible)
    }

    /// Ends what `arm` began, if it answered `Armed`. `readable`: those descriptors, among others perhaps, that are.
    /// Whoever calls it looks afterwards (`ready`, `poll`) what there is to do.
    ///
    /// # Errors
    /// As [`Endpoint::poll`]; it is disarmed all the same.
    fn disarm(&mut self, readable: &[RawFd]) -> Result<(), FabricError> {
        let _ = readable;
        Ok(())
    }

    /// Puts the queue pair to the peer into the error state on our side: what is still queued completes `Flushed`.
    fn disconnect(&mut self, peer: Rank);

    /// Makes sure that nothing that the peer posted to us can land any more, waiting at most until the deadline.
    ///
    /// # Errors
    /// There is no queue pair to that peer.
    fn fence(&mut self, peer: Rank, deadline: Instant) -> Result<Fence, FabricError>;

    /// Where the fabric has load/store reach: rings the peer (a rank's own: wakes itself), so that whoever stored
    /// into shared memory directly can wake who waits for it. `None` without that reach, or before `connect`.
    fn doorbell(&self, peer: Rank) -> Option<Doorbell>;

    /// Ends this endpoint's `wait` from any thread, as if there were something to do: the one in progress, else the
    /// next. `poll` takes the alarm back. It may outlive the endpoint.
    fn alarm(&self) -> Waker;

    /// What a completion that is not a success means, for people: which peer, over what, the usual causes and what
    /// mends them.
    fn explain(&self, completion: &Completion) -> String {
        let (rank, peer) = (self.rank(), completion.peer);
        format!(
            "rank {rank}: {} with rank {peer} failed: {}",
            completion.opcode, completion.status
        )
    }

    /// How people know the queue pair to a peer and its other end: numbers and addresses in the fabric's own words, ours
    /// first. `None` before `connect`, and where there is nothing to tell.
    fn addresses(&self, peer: Rank) -> Option<[String; 2]> {
        let _ = peer;
        None
    }

    /// Whether the peer was there when last looked (`poll` and `wait` look): `false` once its process or its endpoint
    /// is known to be gone. For who waits for something that no completion reports. A fabric that cannot tell says `true`.
    fn reachable(&self, peer: Rank) -> bool {
        let _ = peer;
        true
    }

    /// Bytes of payload that this endpoint moved more often than its requests asked for, since it was made (invariant 8).
    fn bytes_copied(&self) -> u64 {
        0
    }
}
