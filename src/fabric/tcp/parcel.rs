//! The bytes of the two kinds of parcel, and of a connection's first words. Decoding checks everything and never reads
//! past what it got.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::frame::TAG;
use super::seal::{SECRET, Session, TOKEN};
use crate::fabric::{Access, Rank};

const VERSION: u8 = 1;
const CONNECTION: [u8; 3] = *b"SWt";
const REGION: [u8; 3] = *b"SWu";
/// The most addresses that one side names.
pub(super) const MOST_ADDRESSES: usize = 32;

/// What one side of a queue pair tells the other. A secret between the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConnectionParcel {
    pub from: Rank,
    pub to: Rank,
    pub generation: u32,
    /// The protection domain of the endpoint.
    pub domain: u64,
    /// Which network the side is in: equal where loopback leads from one to the other.
    pub network: [u8; 16],
    pub secret: [u8; SECRET],
    /// Whoever connects shows it.
    pub token: [u8; TOKEN],
    /// Whether it listens at loopback, too.
    pub by_loopback: bool,
    /// Where the side listens, the best first.
    pub addresses: Vec<SocketAddr>,
}

/// What the owner of a region tells peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RegionParcel {
    pub domain: u64,
    pub len: u64,
    pub access: Access,
    pub key: u64,
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: [u8; 3]) -> Self {
        let mut bytes = kind.to_vec();
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
        writer.0.extend_from_slice(&self.network);
        writer.0.extend_from_slice(&self.secret);
        writer.0.extend_from_slice(&self.token);
        writer.u32(self.by_loopback.into());
        let addresses = &self.addresses[..self.addresses.len().min(MOST_ADDRESSES)];
        writer.u32(addresses.len() as u32);
        for address in addresses {
            let six = match address.ip() {
                IpAddr::V4(four) => four.to_ipv6_mapped(),
                IpAddr::V6(six) => six,
            };
            writer.0.extend_from_slice(&six.octets());
            writer.u32(address.port().into());
        }
        writer.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::new(CONNECTION, bytes)?;
        let mut parcel = Self {
            from: reader.u32()?,
            to: reader.u32()?,
            generation: reader.u32()?,
            domain: reader.u64()?,
            network: reader.take()?,
            secret: reader.take()?,
            token: reader.take()?,
            by_loopback: reader.u32()? == 1,
            addresses: Vec::new(),
        };
        let count = reader.u32()? as usize;
        if count > MOST_ADDRESSES {
            return Err(format!("it names {count} addresses"));
        }
        for _ in 0..count {
            let six = Ipv6Addr::from(reader.take::<16>()?);
            let address = six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4);
            let port = u16::try_from(reader.u32()?).map_err(|_| "it names a port that there is not")?;
            parcel.addresses.push(SocketAddr::new(address, port));
        }
        reader.finish()?;
        Ok(parcel)
    }
}

impl RegionParcel {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(REGION);
        writer.u64(self.domain);
        writer.u64(self.len);
        let Access {
            remote_read,
            remote_write,
            remote_atomic,
        } = self.access;
        writer.u32(u32::from(remote_read) | u32::from(remote_write) << 1 | u32::from(remote_atomic) << 2);
        writer.u64(self.key);
        writer.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::new(REGION, bytes)?;
        let (domain, len, rights, key) = (reader.u64()?, reader.u64()?, reader.u32()?, reader.u64()?);
        reader.finish()?;
        if rights > 7 || len == 0 {
            return Err("it says what no region is".into());
        }
        let access = Access {
            remote_read: rights & 1 != 0,
            remote_write: rights & 2 != 0,
            remote_atomic: rights & 4 != 0,
        };
        Ok(Self {
            domain,
            len,
            access,
            key,
        })
    }
}

/// The first words on a connection, by which the listening side knows whom it is with: who connects, and to which half
/// of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub from: Rank,
    pub to: Rank,
    pub generation: u32,
    /// The listening side's.
    pub token: [u8; TOKEN],
    pub tag: [u8; TAG],
}

/// What every connection of this fabric begins with.
pub(super) const GREETING: [u8; 8] = *b"SapwoodT";

impl Hello {
    /// Bytes on the wire.
    pub const BYTES: usize = 8 + 4 + 12 + TOKEN + TAG;

    pub fn encode(
        from: Rank,
        to: Rank,
        generation: u32,
        token: [u8; TOKEN],
        session: &Session,
    ) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&GREETING);
        for (at, word) in [u32::from(VERSION), from, to, generation].into_iter().enumerate() {
            bytes[8 + 4 * at..][..4].copy_from_slice(&word.to_le_bytes());
        }
        bytes[24..][..TOKEN].copy_from_slice(&token);
        let tag = session.hello_tag(&bytes[..Self::BYTES - TAG]);
        bytes[Self::BYTES - TAG..].copy_from_slice(&tag);
        bytes
    }

    /// # Errors
    /// In words, for the log: what the visitor may be.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, String> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if bytes[..8] != GREETING {
            return Err(
                "it does not speak this protocol (a port scan, or a program that took the wrong port?)"
                    .into(),
            );
        }
        if word(8) != u32::from(VERSION) {
            return Err(format!(
                "it speaks version {} of the protocol, this side speaks {VERSION}: ranks of one job run the same release",
                word(8)
            ));
        }
        Ok(Self {
            from: word(12),
            to: word(16),
            generation: word(20),
            token: bytes[24..24 + TOKEN].try_into().expect("a token"),
            tag: bytes[Self::BYTES - TAG..].try_into().expect("a tag"),
        })
    }

    /// Whether whoever said it knows the session's secret.
    pub fn is_sealed_by(&self, session: &Session) -> bool {
        let again = Self::encode(self.from, self.to, self.generation, self.token, session);
        let tag: &[u8; TAG] = again.last_chunk().expect("longer than a tag");
        super::seal::same(tag, &self.tag)
    }
}

/// Every address of this host, of either version.
pub(super) const ANY: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connection() -> ConnectionParcel {
        ConnectionParcel {
            from: 1,
            to: 2,
            generation: 3,
            domain: 4,
            network: [5; 16],
            secret: [6; SECRET],
            token: [7; TOKEN],
            by_loopback: true,
            addresses: vec!["10.0.0.1:80".parse().unwrap(), "[2001:db8::1]:9".parse().unwrap()],
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(ConnectionParcel::decode(&connection().encode()), Ok(connection()));
        let region = RegionParcel {
            domain: 7,
            len: 4096,
            access: Access::READ,
            key: 5,
        };
        assert_eq!(RegionParcel::decode(&region.encode()), Ok(region));
        let session = || Session::new((2, &[1; SECRET]), (1, &[2; SECRET]), 3);
        let bytes = Hello::encode(2, 1, 3, [9; TOKEN], &session());
        let hello = Hello::decode(&bytes).unwrap();
        assert_eq!(
            (hello.from, hello.to, hello.generation, hello.token),
            (2, 1, 3, [9; TOKEN])
        );
        assert!(hello.is_sealed_by(&session()));
        assert!(!hello.is_sealed_by(&Session::new((2, &[1; SECRET]), (1, &[3; SECRET]), 3)));
    }

    #[test]
    fn strangers_words_are_told_apart() {
        let mut bytes = [0; Hello::BYTES];
        bytes[..14].copy_from_slice(b"GET / HTTP/1.1");
        assert!(Hello::decode(&bytes).unwrap_err().contains("does not speak"));
        bytes[..8].copy_from_slice(&GREETING);
        bytes[8] = 9;
        assert!(Hello::decode(&bytes).unwrap_err().contains("same release"));
    }

    proptest! {
        #[test]
        fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(ConnectionParcel::decode(&bytes).is_err());
            prop_assert!(RegionParcel::decode(&bytes).is_err());
        }

        #[test]
        fn random_fields_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            for kind in [CONNECTION, REGION] {
                let mut writer = Writer::new(kind);
                writer.0.extend_from_slice(&body);
                let bytes = writer.finish();
                let _ = ConnectionParcel::decode(&bytes);
                let _ = RegionParcel::decode(&bytes);
            }
        }

        #[test]
        fn one_flipped_bit_or_a_cut_is_noticed(bit in 0usize..2000, cut in 1usize..80) {
            let whole = connection().encode();
            let mut bytes = whole.clone();
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(ConnectionParcel::decode(&bytes).is_err());
            prop_assert!(ConnectionParcel::decode(&whole[..whole.len() - cut]).is_err());
        }
    }
}
