//! What the owner of a registration tells peers, as bytes. Decoding takes bytes from outside: it checks every field
//! and never reads past what it got.

use crate::fabric::Access;

const KIND: [u8; 3] = *b"SVr";
const VERSION: u8 = 1;
/// Kind, version, rights, key, address, length, checksum.
const LENGTH: usize = 4 + 4 + 4 + 8 + 8 + 8;

/// Where and how peers reach a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RegionParcel {
    /// Where the owner's device sees the first byte.
    pub address: u64,
    /// Bytes.
    pub len: u64,
    /// What requests name it by.
    pub key: u32,
    /// What peers may do.
    pub access: Access,
}

/// FNV-1a: finds accidents. Malice is kept out by the channel that parcels travel on.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl RegionParcel {
    pub fn encode(&self) -> Vec<u8> {
        let Access {
            remote_read,
            remote_write,
            remote_atomic,
        } = self.access;
        let rights = u32::from(remote_read) | u32::from(remote_write) << 1 | u32::from(remote_atomic) << 2;
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(&KIND);
        bytes.push(VERSION);
        bytes.extend_from_slice(&rights.to_le_bytes());
        bytes.extend_from_slice(&self.key.to_le_bytes());
        bytes.extend_from_slice(&self.address.to_le_bytes());
        bytes.extend_from_slice(&self.len.to_le_bytes());
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// What is wrong, in words that complete "it cannot be used: …".
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < 4 || bytes[..3] != KIND {
            return Err("it is not a region of the verbs fabric; both sides must use the same fabric".into());
        }
        if bytes[3] != VERSION {
            return Err(format!(
                "it has version {} of the format, this side has {VERSION}: ranks of one job run the same release",
                bytes[3]
            ));
        }
        let bytes: &[u8; LENGTH] = bytes
            .try_into()
            .map_err(|_| format!("it has {} bytes instead of {LENGTH}", bytes.len()))?;
        let (body, sum) = bytes.split_at(LENGTH - 8);
        if checksum(body).to_le_bytes() != sum {
            return Err("it was damaged on its way".into());
        }
        let four = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| body[at + i]));
        let eight = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| body[at + i]));
        let (rights, key, address, len) = (four(4), four(8), eight(12), eight(20));
        if rights == 0 || rights >= 8 {
            return Err(format!("it gives no rights or unknown ones ({rights:#x})"));
        }
        if len == 0 || len > isize::MAX as u64 {
            return Err(format!("a region cannot have {len} bytes"));
        }
        if address.checked_add(len).is_none() {
            return Err(format!("{len} bytes at {address:#x} are no memory"));
        }
        Ok(Self {
            address,
            len,
            key,
            access: Access {
                remote_read: rights & 1 != 0,
                remote_write: rights & 2 != 0,
                remote_atomic: rights & 4 != 0,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parcel() -> RegionParcel {
        RegionParcel {
            address: 0x7f00_0000_1000,
            len: 4096,
            key: 0x1234,
            access: Access::READ,
        }
    }

    /// Bytes with a right checksum.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            address in 0..u64::MAX / 2, len in 1..=isize::MAX as u64, key: u32, rights in 1u8..8,
        ) {
            let access = Access {
                remote_read: rights & 1 != 0,
                remote_write: rights & 2 != 0,
                remote_atomic: rights & 4 != 0,
            };
            let parcel = RegionParcel { address, len, key, access };
            prop_assert_eq!(RegionParcel::decode(&parcel.encode()), Ok(parcel));
        }

        #[test]
        fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(RegionParcel::decode(&bytes).is_err());
        }

        #[test]
        fn random_fields_are_refused_or_make_sense(fields in proptest::collection::vec(any::<u8>(), 20..30)) {
            let mut bytes = vec![b'S', b'V', b'r', VERSION];
            bytes.extend_from_slice(&fields);
            if let Ok(parcel) = RegionParcel::decode(&sealed(bytes)) {
                prop_assert!(parcel.len > 0 && parcel.address.checked_add(parcel.len).is_some());
                prop_assert!(parcel.access != Access::LOCAL);
            }
        }

        #[test]
        fn a_flipped_bit_or_a_cut_is_noticed(bit in 0..LENGTH * 8, cut in 0..LENGTH) {
            let mut bytes = parcel().encode();
            prop_assert!(RegionParcel::decode(&bytes[..cut]).is_err());
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(RegionParcel::decode(&bytes).is_err());
        }
    }

    #[test]
    fn fields_that_lie_are_refused() {
        for bad in [
            RegionParcel { len: 0, ..parcel() },
            RegionParcel {
                len: u64::MAX,
                ..parcel()
            },
            RegionParcel {
                address: u64::MAX,
                len: 2,
                ..parcel()
            },
            RegionParcel {
                access: Access::LOCAL,
                ..parcel()
            },
        ] {
            assert!(RegionParcel::decode(&bad.encode()).is_err(), "{bad:?}");
        }
        let error = RegionParcel::decode(b"SWr\x01").unwrap_err();
        assert!(error.contains("same fabric"), "{error}");
    }
}
