//! The bytes of the two kinds of parcel. Decoding checks everything and never reads past what it got.

use super::life::Process;
use crate::fabric::{Access, Rank};

const VERSION: u8 = 1;
const CONNECTION: [u8; 3] = *b"SWq";
const REGION: [u8; 3] = *b"SWr";

/// What one side of a queue pair tells the other. Descriptors: the endpoint's front, the inbound segment, and
/// the eventfd on which it may sleep, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionParcel {
    pub from: Rank,
    pub to: Rank,
    pub generation: u32,
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

struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: [u8; 3]) -> Self {
        let mut bytes = Vec::with_capacity(80);
        bytes.extend_from_slice(&kind);
        bytes.push(VERSION);
        Self(bytes)
    }
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn finish(mut self) -> Vec<u8> {
        let sum = checksum(&self.0);
        self.u64(sum);
        self.0
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(kind: [u8; 3], bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.len() < 12 || bytes[..3] != kind {
            return Err("it is not a parcel of this kind and fabric".into());
        }
        if bytes[3] != VERSION {
            return Err(format!(
                "it has version {} of the format, this side has {VERSION}: ranks of one job run the same release",
                bytes[3]
            ));
        }
        let (body, sum) = bytes.split_at(bytes.len() - 8);
        if checksum(body).to_le_bytes() != sum {
            return Err("it was damaged on its way".into());
        }
        Ok(Self(&body[4..]))
    }
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, tail) = self.0.split_first_chunk().ok_or("it ends too early")?;
        self.0 = tail;
        Ok(*head)
    }
    fn u32(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Result<u64, String> {
        self.take().map(u64::from_le_bytes)
    }
    fn finish(self) -> Result<(), String> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("it is longer than it should be".into())
        }
    }
}

/// FNV-1a: finds accidents. Malice is kept out by the channel that parcels travel on.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl ConnectionParcel {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(CONNECTION);
        writer.u32(self.from);
        writer.u32(self.to);
        writer.u32(self.generation);
        writer.u64(self.domain);
        writer.u32(self.process.pid);
        writer.u64(self.process.started);
        writer.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::new(CONNECTION, bytes)?;
        let parcel = Self {
            from: reader.u32()?,
            to: reader.u32()?,
            generation: reader.u32()?,
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
        let mut writer = Writer::new(REGION);
        writer.u64(self.domain);
        writer.u32(self.process.pid);
        writer.u64(self.process.started);
        writer.u64(self.len);
        let Access {
            remote_read,
            remote_write,
            remote_atomic,
        } = self.access;
        let rights = u32::from(remote_read) | u32::from(remote_write) << 1 | u32::from(remote_atomic) << 2;
        writer.u32(rights);
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
        let mut reader = Reader::new(REGION, bytes)?;
        let domain = reader.u64()?;
        let process = Process {
            pid: reader.u32()?,
            started: reader.u64()?,
        };
        let len = reader.u64()?;
        let rights = reader.u32()?;
        if rights >= 8 {
            return Err(format!("it gives unknown rights ({rights:#x})"));
        }
        let access = Access {
            remote_read: rights & 1 != 0,
            remote_write: rights & 2 != 0,
            remote_atomic: rights & 4 != 0,
        };
        let reach = match reader.u32()? {
            0 => Reach::Shared,
            1 => Reach::Attach {
                address: reader.u64()?,
            },
            other => return Err(format!("it is reached in an unknown way ({other})")),
        };
        let (slot, key) = (reader.u32()?, reader.u64()?);
        reader.finish()?;
        if len == 0 || len > isize::MAX as u64 {
            return Err(format!("a region cannot have {len} bytes"));
        }
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
    use super::*;
    use proptest::prelude::*;

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
            from: 1,
            to: 2,
            generation: 3,
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
            for kind in [CONNECTION, REGION] {
                let mut writer = Writer::new(kind);
                writer.0.extend_from_slice(&body);
                let bytes = writer.finish();
                let _ = ConnectionParcel::decode(&bytes);
                let _ = RegionParcel::decode(&bytes);
            }
        }

        #[test]
        fn one_flipped_bit_or_a_cut_is_noticed(bit in 0usize..400, cut in 1usize..50) {
            let whole = region().encode();
            let mut bytes = whole.clone();
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(RegionParcel::decode(&bytes).is_err());
            prop_assert!(RegionParcel::decode(&whole[..whole.len() - cut]).is_err());
        }
    }
}
