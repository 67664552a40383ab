//! The payload of one packet, in the five sizes that the transport knows.

use std::fmt;

use sapwood_sys::verbs::bindings::ibv_mtu;
use serde::{Deserialize, Serialize};

/// Bytes of payload in one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub enum Mtu {
    /// 256 bytes.
    Bytes256 = 1,
    /// 512 bytes.
    Bytes512,
    /// 1,024 bytes: what Ethernet frames of 1,500 bytes hold.
    Bytes1024,
    /// 2,048 bytes.
    Bytes2048,
    /// 4,096 bytes: the largest.
    Bytes4096,
}

impl Mtu {
    const ALL: [Self; 5] = [
        Self::Bytes256,
        Self::Bytes512,
        Self::Bytes1024,
        Self::Bytes2048,
        Self::Bytes4096,
    ];

    /// Bytes.
    pub const fn bytes(self) -> u32 {
        128 << self as u32
    }

    /// As verbs numbers them.
    pub(super) const fn code(self) -> ibv_mtu {
        self as ibv_mtu
    }

    /// From the number that verbs gives it.
    pub(super) fn from_code(code: ibv_mtu) -> Option<Self> {
        Self::ALL.into_iter().find(|mtu| mtu.code() == code)
    }
}

/// Not one of the five sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes is no path MTU; there are 256, 512, 1024, 2048 and 4096")]
pub struct NoMtu(pub u32);

impl TryFrom<u32> for Mtu {
    type Error = NoMtu;

    fn try_from(bytes: u32) -> Result<Self, NoMtu> {
        Self::ALL
            .into_iter()
            .find(|mtu| mtu.bytes() == bytes)
            .ok_or(NoMtu(bytes))
    }
}

impl From<Mtu> for u32 {
    fn from(mtu: Mtu) -> u32 {
        mtu.bytes()
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_bytes_agree() {
        for (code, bytes) in [(1, 256), (2, 512), (3, 1024), (4, 2048), (5, 4096)] {
            let mtu = Mtu::from_code(code).unwrap();
            assert_eq!(
                (mtu.code(), mtu.bytes(), Mtu::try_from(bytes)),
                (code, bytes, Ok(mtu))
            );
        }
        assert_eq!((Mtu::from_code(0), Mtu::from_code(6)), (None, None));
        assert_eq!(Mtu::try_from(1500), Err(NoMtu(1500)));
    }
}
