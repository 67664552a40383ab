//! Two ranks of one process over the stub driver, connected, each with a registered region.

use std::sync::Arc;

use sapwood::fabric::verbs::{Settings, Verbs};
use sapwood::fabric::{Access, Endpoint, Fabric, Registration, RemoteRegion, RemoteSlice, Slice};
use sapwood::memory::{HugePages, Region};

use super::library;

/// Bytes of a region.
pub const LENGTH: usize = 1 << 20;

/// See the module. Rank 0's endpoint is what is tested; rank 1's is there to be connected to.
pub struct Pair {
    /// Rank 0's.
    pub endpoint: Box<dyn Endpoint>,
    /// Rank 1's.
    pub other: Box<dyn Endpoint>,
    /// Rank 0's region.
    pub local: Arc<dyn Registration>,
    /// Rank 1's region.
    pub owned: Arc<dyn Registration>,
    /// As rank 0 reaches it.
    pub remote: Arc<dyn RemoteRegion>,
    /// Requests that may be in flight.
    pub depth: usize,
}

impl Pair {
    /// With one queue pair, or several to stripe over.
    pub fn connected(queue_pairs: usize) -> Self {
        let settings = Settings {
            queue_pairs,
            ..Settings::default()
        };
        // SAFETY: the stub keeps the promises of libibverbs that the fabric relies on.
        let fabric = unsafe { Verbs::open_with(library(), &settings) }.expect("the stub's device opens");
        let region = || Region::host(LENGTH, HugePages::Never).expect("a megabyte");
        let register = || {
            fabric
                .register(&region(), Access::ALL)
                .expect("the stub registers everything")
        };
        let (local, owned) = (register(), register());
        let mut endpoint = fabric.endpoint(0, 1).expect("an endpoint");
        let mut other = fabric.endpoint(1, 1).expect("an endpoint");
        let to_other = endpoint.prepare(1).expect("a queue pair");
        let to_endpoint = other.prepare(0).expect("a queue pair");
        endpoint.connect(1, to_endpoint).expect("connected");
        other.connect(0, to_other).expect("connected");
        let exported = owned.export().expect("peers have rights");
        let remote = endpoint.import(1, exported).expect("well formed");
        Self {
            endpoint,
            other,
            local,
            owned,
            remote,
            depth: fabric.capabilities().queue_depth,
        }
    }

    /// Bytes of rank 0's region.
    pub fn slice(&self, offset: usize, len: usize) -> Slice {
        Slice {
            registration: self.local.clone(),
            offset,
            len,
        }
    }

    /// Somewhere in rank 1's region.
    pub fn there(&self, offset: usize) -> RemoteSlice {
        RemoteSlice {
            region: self.remote.clone(),
            offset,
        }
    }
}
