//! A peer's registration, as this rank reaches it: an address and a key that only its device understands.

use std::any::Any;
use std::ptr::NonNull;

use super::region_parcel::RegionParcel;
use crate::fabric::{DeviceMemory, FabricError, Parcel, Rank, RemoteRegion};

/// See the module.
#[derive(Debug)]
pub(super) struct VerbsRemote {
    peer: Rank,
    memory: DeviceMemory,
}

/// Tells regions of one peer from those of others, and from what is registered here.
pub(super) const fn scope(peer: Rank) -> u64 {
    1 << 63 | peer as u64
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
        let memory = DeviceMemory {
            scope: scope(peer),
            address: told.address,
            len,
            key: told.key,
            host_accessible: false,
        };
        Ok(Self { peer, memory })
    }
}

impl RemoteRegion for VerbsRemote {
    fn peer(&self) -> Rank {
        self.peer
    }

    fn len(&self) -> usize {
        self.memory.len
    }

    fn mapped(&self) -> Option<NonNull<u8>> {
        None
    }

    fn device_memory(&self) -> Option<&DeviceMemory> {
        Some(&self.memory)
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
            (
                remote.peer(),
                remote.len(),
                remote.memory.address,
                remote.memory.key
            ),
            (1, 8, 4096, 1)
        );
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = VerbsRemote::import(0, 1, &parcel(vec![file.into()])).unwrap_err();
        assert!(error.to_string().contains("rank 1 sent for a region"), "{error}");
        assert!(VerbsRemote::import(0, 1, &Parcel::default()).is_err());
    }
}
