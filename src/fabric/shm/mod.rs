//! Ranks of one host over shared memory, between processes and between threads of one process.
//!
//! The CPU of the rank that posts performs the operation, at the post where nothing stands against it: copies to and
//! from mapped memory files, the CPU's own atomics, or cross-memory attach for memory that cannot be shared by
//! descriptor (no atomics there). Bounds, rights and keys are checked by the initiator's library: against a process
//! that has mapped a region they cannot be enforced, except that read-only access gets a read-only descriptor.
//! Sends go through a bounded ring in the receiver's control segment; that detour is counted
//! ([`Endpoint::bytes_copied`]). Nothing has a name in the file system, so nothing is left behind by a kill.
//!
//! A queue pair ends at the first error, and a peer that still uses it gets [`super::Status::PeerUnreachable`]. A
//! request that waits for a receive of the peer fails after [`Shm::receiver_patience`]; one that waits for the peer to
//! take in what was sent earlier waits as long as the peer lives.

mod alarm;
mod control;
mod copy;
mod endpoint;
mod keys;
mod life;
mod outbound;
mod parcel;
mod queue_pair;
mod region;
mod ringing;

use std::sync::Arc;
use std::time::Duration;

use super::{
    Access, AtomicDomain, Capabilities, Endpoint, Fabric, FabricError, OrderingScope, Rank, Registration,
};
use crate::memory::Region;

/// How long a request waits for a receive, unless set otherwise.
const RECEIVER_PATIENCE: Duration = Duration::from_secs(10);

/// The shared-memory fabric. One per process is enough for any number of ranks; regions and endpoints that work
/// together at one rank come from the same one.
pub struct Shm {
    capabilities: Capabilities,
    domain: Arc<keys::Domain>,
}

impl std::fmt::Debug for Shm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shm")
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}

/// How a [`Shm`] is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    reach: bool,
    pollable: bool,
    receiver_patience: Duration,
}

impl Options {
    /// Hides load/store reach: no mapping, no doorbell. What runs above then behaves as over a network.
    #[must_use]
    pub fn without_reach(mut self) -> Self {
        self.reach = false;
        self
    }

    /// Lets endpoints be slept on together with others ([`Endpoint::arm`]), at one more descriptor for each peer.
    #[must_use]
    pub fn pollable(mut self) -> Self {
        self.pollable = true;
        self
    }

    /// How long a request may wait for a receive of the peer before it ends with `ReceiverNotReady`; 10 s by default.
    #[must_use]
    pub fn receiver_patience(mut self, patience: Duration) -> Self {
        self.receiver_patience = patience;
        self
    }

    /// Opens the fabric.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn open(self) -> Result<Shm, FabricError> {
        let domain = Arc::new(keys::Domain::new(
            self.reach,
            self.pollable,
            self.receiver_patience,
        )?);
        let capabilities = Capabilities {
            load_store: self.reach,
            inline_size: 0,
            gpu_memory: false,
            foreign_memory: true,
            ordering: OrderingScope::QueuePair,
            atomic_domain: AtomicDomain::Cpu,
            progress_while_stopped: true,
            queue_depth: control::DEPTH,
        };
        Ok(Shm { capabilities, domain })
    }
}

impl Shm {
    /// How to open one.
    pub fn options() -> Options {
        Options {
            reach: true,
            pollable: false,
            receiver_patience: RECEIVER_PATIENCE,
        }
    }

    /// With load/store reach and the usual patience.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new() -> Result<Self, FabricError> {
        Self::options().open()
    }

    /// As [`Shm::new`], with [`Options::without_reach`].
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn without_reach() -> Result<Self, FabricError> {
        Self::options().without_reach().open()
    }

    /// How long a request waits for a receive of the peer.
    pub fn receiver_patience(&self) -> Duration {
        self.domain.receiver_patience
    }
}

impl Fabric for Shm {
    fn name(&self) -> &'static str {
        "shm"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn register(&self, region: &Region, access: Access) -> Result<Arc<dyn Registration>, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        let registration = region::ShmRegistration::new(region, access, self.domain.clone())?;
        Ok(Arc::new(registration))
    }

    fn endpoint(&self, rank: Rank, generation: u32) -> Result<Box<dyn Endpoint>, FabricError> {
        Ok(Box::new(endpoint::ShmEndpoint::new(
            rank,
            generation,
            self.domain.clone(),
        )?))
    }
}

#[cfg(test)]
mod tests;
