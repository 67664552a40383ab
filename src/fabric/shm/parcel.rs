//! The bytes of the two kinds of parcel. Decoding checks everything and never reads past what it got.

use super::life::Process;
use crate::fabric::Access;
use crate::fabric::parcel::{Ends, Reader, Writer};

const VERSION: u8 = 1;
const CONNECTION: [u8; 3] = *b"SWq";
const REGION: [u8; 3] = *b"SWr";

/// What one side of a queue pair tells the other. Descriptors: the endpoint's front, the inbound segment, and
/// the eventfd on which it may sleep, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionParcel {
    pub ends: Ends,
    /// The protection domain of the endpoint.
    pub domain: u64,
    pub process: Process,
}

/// How a region's bytes are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Mapped from a descriptor.
    Shared,
    /// Copied by the kernel from or to this address of the process.
    Attach {
        /// In the owner's address space.
        address: u64,
    },
}

/// What the owner of a region tells peers. Descriptors: the table of keys, then (if shared) the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RegionParcel {
    pub domain: u64,
    pub process: Process,
    pub len: u64,
    pub access: Access,
    pub reach: Reach,
    /// Which word of the table says whether the key is valid.
    pub slot: u32,
    /// What that word holds as long as it is.
    pub key: u64,
}

impl ConnectionParcel {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(CONNECTION, VERSION);
        writer.ends(self.ends);
        writer.u64(self.domain);
        writer.u32(self.process.pid);
        writer.u64(self.process.started);
        writer.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::new(CONNECTION, VERSION, bytes)?;
        let parcel = Self {
            ends: reader.ends()?,
            domain: reader.u64()?,
            process: Process {
                pid: reader.u32()?,
                started: reader.u64()?,
            },
        };
        reader.finish()?;
        Ok(parcel)
    }
}

impl RegionParcel {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(REGION, VERSION);
        writer.u64(self.domain);
        writer.u32(self.process.pid);
        writer.u64(self.process.started);
        writer.u64(self.len);
        writer.access(self.access);
        match self.reach {
            Reach::Shared => writer.u32(0),
            Reach::Attach { address } => {
                writer.u32(1);
                writer.u64(address);
            }
        }
        writer.u32(self.slot);
        writer.u64(self.key);
        writer.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::new(REGION, VERSION, bytes)?;
        let domain = reader.u64()?;
        let process = Process {
            pid: reader.u32()?,
            started: reader.u64()?,
        };
        let (len, access) = (reader.region_len()?, reader.access()?);
        let reach = match reader.u32()? {
            0 => Reach::Shared,
            1 => Reach::Attach {
                address: reader.u64()?,
            },
            other => return Err(format!("it is reached in an unknown way ({other})")),
        };
        let (slot, key) = (reader.u32()?, reader.u64()?);
        reader.finish()?;
        if let Reach::Attach { address } = reach
            && (address == 0 || address.checked_add(len).is_none())
        {
            return Err(format!("{len} bytes at {address:#x} are no memory"));
        }
        if slot as usize >= super::keys::KEYS {
            return Err(format!("there is no key {slot}"));
        }
        Ok(Self {
            domain,
            process,
            len,
            access,
            reach,
            slot,
            key,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fabric::parcel::trials::{damaged, sealed};

    fn region() -> RegionParcel {
        RegionParcel {
            domain: 7,
            process: Process { pid: 9, started: 1 },
            len: 4096,
            access: Access::READ,
            reach: Reach::Attach { address: 0x1000 },
            slot: 3,
            key: 5,
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let connection = ConnectionParcel {
            ends: Ends {
                from: 1,
                to: 2,
                generation: 3,
            },
            domain: 4,
            process: Process { pid: 5, started: 6 },
        };
        assert_eq!(ConnectionParcel::decode(&connection.encode()), Ok(connection));
        assert_eq!(RegionParcel::decode(&region().encode()), Ok(region()));
        let shared = RegionParcel {
            reach: Reach::Shared,
            ..region()
        };
        assert_eq!(RegionParcel::decode(&shared.encode()), Ok(shared));
    }

    proptest! {
        #[test]
        fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            prop_assert!(ConnectionParcel::decode(&bytes).is_err());
            prop_assert!(RegionParcel::decode(&bytes).is_err());
        }

        #[test]
        fn random_fields_never_panic(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = ConnectionParcel::decode(&sealed(CONNECTION, VERSION, &body));
            let _ = RegionParcel::decode(&sealed(REGION, VERSION, &body));
        }

        #[test]
        fn one_flipped_bit_or_a_cut_is_noticed(bit: usize, cut: usize) {
            damaged(&region().encode(), bit, cut, RegionParcel::decode);
        }
    }
}
