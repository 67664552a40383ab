//! Queue pairs and staging slots: made and taken in between operations, by one thread.

use std::sync::Arc;

use super::MessageCore;
use crate::engine::message::link::{LINK_BYTES, Link};
use crate::fabric::{FabricError, Parcel, Registration, RemoteRegion};

impl MessageCore {
    /// Bytes of registered memory that [`MessageCore::prepare`] needs for each peer.
    pub const NOTES: usize = LINK_BYTES;

    /// The ranks that this one has queue pairs to, ascending.
    pub fn connections(&self) -> Vec<u32> {
        self.with(|inner| inner.connected.clone())
    }

    /// Whether there is a queue pair to a rank.
    pub fn is_connected(&self, peer: u32) -> bool {
        self.with(|inner| inner.connected.binary_search(&peer).is_ok())
    }

    /// Makes the local half of a queue pair, with its receives posted, unless there is one that is not connected yet. `notes` is registered memory, and where in it
    /// [`MessageCore::NOTES`] bytes are free for this.
    ///
    /// # Errors
    /// What the fabric refuses.
    pub fn prepare(&self, peer: u32, notes: (Arc<dyn Registration>, usize)) -> Result<Parcel, FabricError> {
        self.with(|inner| {
            let again = |parcel: &Parcel| {
                parcel.try_clone().map_err(|source| FabricError::System {
                    fabric: self.fabric,
                    what: format!("duplicating a descriptor for rank {peer}"),
                    source,
                })
            };
            if let Some(parcel) = inner.prepared.get(&peer) {
                return again(parcel);
            }
            let endpoint = inner.endpoint();
            let parcel = endpoint.prepare(peer)?;
            let link = Link::new(peer, notes, self.queue_depth, endpoint).map_err(|error| {
                FabricError::Provider {
                    fabric: self.fabric,
                    source: format!("posting receives for rank {peer}: {error}").into(),
                }
            })?;
            inner.links[peer as usize] = Some(Box::new(link));
            let copy = again(&parcel);
            inner.prepared.insert(peer, parcel);
            copy
        })
    }

    /// Connects it to the peer's half.
    ///
    /// # Errors
    /// What the fabric refuses.
    pub fn connect(&self, peer: u32, parcel: Parcel) -> Result<(), FabricError> {
        self.with(|inner| {
            inner.endpoint().connect(peer, parcel)?;
            inner.prepared.remove(&peer);
            let at = inner.connected.binary_search(&peer).unwrap_or_else(|at| at);
            inner.connected.insert(at, peer);
            Ok(())
        })
    }

    /// Takes in memory of a peer.
    ///
    /// # Errors
    /// What the fabric refuses.
    pub fn import(&self, peer: u32, parcel: Parcel) -> Result<Arc<dyn RemoteRegion>, FabricError> {
        self.with(|inner| inner.endpoint().import(peer, parcel))
    }

    /// Staging slots of one operation that there are.
    pub fn staging_slots(&self) -> u32 {
        self.with(|inner| inner.staging.set())
    }

    /// Takes these staging slots instead of the earlier ones, in sets of `set`.
    pub fn replace_staging(&self, registration: Arc<dyn Registration>, set: u32) {
        self.with(|inner| inner.staging.replace(registration, set));
    }

    /// What a peer imports to push into them.
    ///
    /// # Errors
    /// What the fabric refuses.
    ///
    /// # Panics
    /// If there are none.
    pub fn export_staging(&self) -> Result<Parcel, FabricError> {
        self.with(|inner| inner.staging.export())
    }

    /// Takes in a connected peer's staging slots.
    ///
    /// # Errors
    /// What the fabric refuses.
    pub fn import_staging(&self, peer: u32, parcel: Parcel) -> Result<(), FabricError> {
        self.with(|inner| {
            let region = inner.endpoint().import(peer, parcel)?;
            if let Some(link) = inner.links[peer as usize].as_deref_mut() {
                link.staging = Some(region);
            }
            Ok(())
        })
    }
}
