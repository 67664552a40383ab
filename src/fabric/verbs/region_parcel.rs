//! What the owner of a registration tells peers, as bytes. Decoding takes bytes from outside: it checks every field
//! and never reads past what it got.

use crate::fabric::Access;
use crate::fabric::parcel::{Reader, Writer};

const KIND: [u8; 3] = *b"SVr";
const VERSION: u8 = 1;
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

impl RegionParcel {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(KIND, VERSION);
        writer.access(self.access);
        writer.u32(self.key);
        writer.u64(self.address);
        writer.u64(self.len);
        writer.finish()
    }

    /// What is wrong, in words that complete "it cannot be used: …".
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::new(KIND, VERSION, bytes)?;
        let (access, key) = (reader.access()?, reader.u32()?);
        let (address, len) = (reader.u64()?, reader.region_len()?);
        reader.finish()?;
        if access == Access::LOCAL {
            return Err("it gives no rights".into());
        }
        if address.checked_add(len).is_none() {
            return Err(format!("{len} bytes at {address:#x} are no memory"));
        }
        Ok(Self {
            address,
            len,
            key,
            access,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::fabric::parcel::trials::{damaged, sealed};

    fn parcel() -> RegionParcel {
        RegionParcel {
            address: 0x7f00_0000_1000,
            len: 4096,
            key: 0x1234,
            access: Access::READ,
        }
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
            if let Ok(parcel) = RegionParcel::decode(&sealed(KIND, VERSION, &fields)) {
                prop_assert!(parcel.len > 0 && parcel.address.checked_add(parcel.len).is_some());
                prop_assert!(parcel.access != Access::LOCAL);
            }
        }

        #[test]
        fn a_flipped_bit_or_a_cut_is_noticed(bit: usize, cut: usize) {
            damaged(&parcel().encode(), bit, cut, RegionParcel::decode);
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
