//! A peer's registration, as this rank reaches it: an address and a key that only its device understands.

use std::any::Any;
use std::ptr::NonNull;

use super::region_parcel::RegionParcel;
use crate::fabric::{FabricError, Parcel, Rank, RemoteRegion};

/// See the module.
#[derive(Debug)]
pub(super) struct VerbsRemote {
    peer: Rank,
    told: RegionParcel,
    len: usize,
}

impl VerbsRemote {
    /// Takes in what `peer` exported.
    pub fn import(rank: Rank, peer: Rank, parcel: &Parcel) -> Result<Self, FabricError> {
        let refuse = |why| FabricError::Parcel {
            rank,
            peer,
            what: "a region",
            why,
        };
        if !parcel.descriptors.is_empty() {
            let count = parcel.descriptors.len();
            return Err(refuse(format!(
                "it came with {count} descriptors instead of none"
            )));
        }
        let told = RegionParcel::decode(&parcel.bytes).map_err(refuse)?;
        let len = usize::try_from(told.len).map_err(|_| refuse("it is too long for this machine".into()))?;
        Ok(Self { peer, told, len })
    }

    /// Where the peer's device sees the first byte.
    #[inline]
    pub fn address(&self) -> u64 {
        self.told.address
    }

    /// What requests name it by.
    #[inline]
    pub fn key(&self) -> u32 {
        self.told.key
    }
}

impl RemoteRegion for VerbsRemote {
    fn peer(&self) -> Rank {
        self.peer
    }

    fn len(&self) -> usize {
        self.len
    }

    fn mapped(&self) -> Option<NonNull<u8>> {
        None
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Access;

    #[test]
    fn a_parcel_with_descriptors_or_of_another_fabric_is_refused() {
        let told = RegionParcel {
            address: 4096,
            len: 8,
            key: 1,
            access: Access::ALL,
        };
        let parcel = |descriptors| Parcel {
            bytes: told.encode(),
            descriptors,
        };
        let remote = VerbsRemote::import(0, 1, &parcel(vec![])).unwrap();
        assert_eq!(
            (remote.peer(), remote.len(), remote.address(), remote.key()),
            (1, 8, 4096, 1)
        );
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = VerbsRemote::import(0, 1, &parcel(vec![file.into()])).unwrap_err();
        assert!(error.to_string().contains("rank 1 sent for a region"), "{error}");
        assert!(VerbsRemote::import(0, 1, &Parcel::default()).is_err());
    }
}
