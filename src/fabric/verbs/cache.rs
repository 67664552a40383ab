//! Finds a registration that exists already. Keyed by the region's number, which is never used again, and never by
//! its address, which is: memory unmapped and mapped anew would silently be somebody else's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::error::VerbsError;
use super::registration::VerbsRegistration;
use crate::fabric::Access;
use crate::memory::RegionId;

/// The same region with other rights is another registration: a key must not give more than was asked for.
type Key = (RegionId, [bool; 3]);

/// Registrations that somebody still holds.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<HashMap<Key, Weak<VerbsRegistration>>>);

fn key(region: RegionId, access: Access) -> Key {
    (
        region,
        [access.remote_read, access.remote_write, access.remote_atomic],
    )
}

impl Cache {
    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Weak<VerbsRegistration>>> {
        // Each change is one insertion or removal, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registration of the region with exactly these rights: one that exists, else what `make` gives. Two threads
    /// that ask at once both get a valid one; it may not be the same.
    pub fn find_or_make(
        &self,
        region: RegionId,
        access: Access,
        make: impl FnOnce() -> Result<VerbsRegistration, VerbsError>,
    ) -> Result<Arc<VerbsRegistration>, VerbsError> {
        let key = key(region, access);
        if let Some(found) = self.entries().get(&key).and_then(Weak::upgrade) {
            return Ok(found);
        }
        // Not under the lock: registering takes as long as its pages are many.
        let made = Arc::new(make()?);
        self.entries().insert(key, Arc::downgrade(&made));
        Ok(made)
    }

    /// For a registration that is being dropped.
    pub fn forget(&self, region: RegionId, access: Access) {
        let key = key(region, access);
        let mut entries = self.entries();
        if entries.get(&key).is_some_and(|entry| entry.strong_count() == 0) {
            entries.remove(&key);
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries().len()
    }
}
