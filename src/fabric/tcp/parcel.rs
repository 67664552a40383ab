//! The bytes of the two kinds of parcel, and of a connection's first words. Decoding checks everything and never reads
//! past what it got.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::frame::TAG;
use super::seal::{NONCE, Nonces, Pact, SECRET, Session, TOKEN};
use crate::fabric::parcel::{Ends, Reader, Writer};
use crate::fabric::{Access, Rank};

const VERSION: u8 = 2;
const CONNECTION: [u8; 3] = *b"SWt";
const REGION: [u8; 3] = *b"SWu";
/// The most addresses that one side names.
pub(super) const MOST_ADDRESSES: usize = 32;

/// What one side of a queue pair tells the other. A secret between the two.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ConnectionParcel {
    pub ends: Ends,
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

/// Without the secret and the token, which belong in no log.
impl fmt::Debug for ConnectionParcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionParcel")
            .field("ends", &self.ends)
            .field("domain", &self.domain)
            .field("by_loopback", &self.by_loopback)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl ConnectionParcel {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(CONNECTION, VERSION);
        writer.ends(self.ends);
        writer.u64(self.domain);
        writer.bytes(&self.network);
        writer.bytes(&self.secret);
        writer.bytes(&self.token);
        writer.u32(self.by_loopback.into());
        let addresses = &self.addresses[..self.addresses.len().min(MOST_ADDRESSES)];
        writer.u32(addresses.len() as u32);
        for address in addresses {
            let six = match address.ip() {
                IpAddr::V4(four) => four.to_ipv6_mapped(),
                IpAddr::V6(six) => six,
            };
            writer.bytes(&six.octets());
            writer.u32(address.port().into());
        }
        writer.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::new(CONNECTION, VERSION, bytes)?;
        let mut parcel = Self {
            ends: reader.ends()?,
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
        let mut writer = Writer::new(REGION, VERSION);
        writer.u64(self.domain);
        writer.u64(self.len);
        writer.access(self.access);
        writer.u64(self.key);
        writer.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::new(REGION, VERSION, bytes)?;
        let (domain, len) = (reader.u64()?, reader.region_len()?);
        let (access, key) = (reader.access()?, reader.u64()?);
        reader.finish()?;
        Ok(Self {
            domain,
            len,
            access,
            key,
        })
    }
}

/// What every connection of this fabric begins with, in either direction.
pub(super) const GREETING: [u8; 8] = *b"SapwoodT";

/// The listening side's first words, to anybody: a number that the visitor's own words must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Welcome {
    pub nonce: [u8; NONCE],
}

impl Welcome {
    /// Bytes on the wire.
    pub const BYTES: usize = 8 + 4 + NONCE;

    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&GREETING);
        bytes[8..12].copy_from_slice(&u32::from(VERSION).to_le_bytes());
        bytes[12..].copy_from_slice(&self.nonce);
        bytes
    }

    /// # Errors
    /// In words: who may be listening there.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, String> {
        protocol(bytes)?;
        let nonce = *bytes.last_chunk().expect("longer than a nonce");
        Ok(Self { nonce })
    }
}

/// Whether the first bytes of somebody's words are those of this release.
fn protocol(words: &[u8]) -> Result<(), String> {
    if words[..8] != GREETING {
        return Err(
            "it does not speak this protocol (a port scan, or a program that took the wrong port?)".into(),
        );
    }
    let version = u32::from_le_bytes(words[8..12].try_into().expect("four bytes"));
    if version != u32::from(VERSION) {
        return Err(format!(
            "it speaks version {version} of the protocol, this side speaks {VERSION}: ranks of one job run the same \
             release"
        ));
    }
    Ok(())
}

/// The connecting side's first words, by which the listening side knows whom it is with: who connects, and to which
/// half of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub from: Rank,
    pub to: Rank,
    pub generation: u32,
    /// The listening side's.
    pub token: [u8; TOKEN],
    /// The connecting side's.
    pub nonce: [u8; NONCE],
    pub tag: [u8; TAG],
}

impl Hello {
    /// Bytes on the wire.
    pub const BYTES: usize = 8 + 4 + 12 + TOKEN + NONCE + TAG;

    pub fn encode(
        [from, to]: [Rank; 2],
        generation: u32,
        token: [u8; TOKEN],
        nonce: [u8; NONCE],
        session: &Session,
    ) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&GREETING);
        for (at, word) in [u32::from(VERSION), from, to, generation].into_iter().enumerate() {
            bytes[8 + 4 * at..][..4].copy_from_slice(&word.to_le_bytes());
        }
        bytes[24..][..TOKEN].copy_from_slice(&token);
        bytes[24 + TOKEN..][..NONCE].copy_from_slice(&nonce);
        let tag = session.hello_tag(&bytes[..Self::BYTES - TAG]);
        bytes[Self::BYTES - TAG..].copy_from_slice(&tag);
        bytes
    }

    /// # Errors
    /// In words, for the log: what the visitor may be.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, String> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        protocol(bytes)?;
        Ok(Self {
            from: word(12),
            to: word(16),
            generation: word(20),
            token: bytes[24..24 + TOKEN].try_into().expect("a token"),
            nonce: bytes[24 + TOKEN..][..NONCE].try_into().expect("a nonce"),
            tag: bytes[Self::BYTES - TAG..].try_into().expect("a tag"),
        })
    }

    /// The keys of the connection, if whoever said this knows the secret and answers to `welcome`.
    pub fn session(&self, pact: &Pact, welcome: &Welcome) -> Option<Session> {
        let session = pact.session(&Nonces {
            listener: welcome.nonce,
            dialer: self.nonce,
        });
        let ends = [self.from, self.to];
        let again = Self::encode(ends, self.generation, self.token, self.nonce, &session);
        let tag: &[u8; TAG] = again.last_chunk().expect("longer than a tag");
        super::seal::same(tag, &self.tag).then_some(session)
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

    use crate::fabric::parcel::trials::{damaged, sealed};

    use super::*;

    fn connection() -> ConnectionParcel {
        ConnectionParcel {
            ends: Ends {
                from: 1,
                to: 2,
                generation: 3,
            },
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
        let pact = |secret| Pact::new((2, &[1; SECRET]), (1, &[secret; SECRET]), 3);
        let welcome = Welcome { nonce: [4; NONCE] };
        assert_eq!(Welcome::decode(&welcome.encode()), Ok(welcome));
        let dialer = [5; NONCE];
        let session = pact(2).session(&Nonces {
            listener: welcome.nonce,
            dialer,
        });
        let bytes = Hello::encode([2, 1], 3, [9; TOKEN], dialer, &session);
        let hello = Hello::decode(&bytes).unwrap();
        assert_eq!(
            (hello.from, hello.to, hello.generation, hello.token, hello.nonce),
            (2, 1, 3, [9; TOKEN], dialer)
        );
        assert!(hello.session(&pact(2), &welcome).is_some());
        assert!(hello.session(&pact(3), &welcome).is_none(), "another secret");
        let earlier = Welcome { nonce: [6; NONCE] };
        assert!(
            hello.session(&pact(2), &earlier).is_none(),
            "words of another connection"
        );
    }

    #[test]
    fn secrets_are_not_printed() {
        let said = format!("{:?}", connection());
        assert!(said.contains("10.0.0.1:80"), "{said}");
        assert!(!said.contains("6, 6") && !said.contains("7, 7"), "{said}");
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
            let _ = ConnectionParcel::decode(&sealed(CONNECTION, VERSION, &body));
            let _ = RegionParcel::decode(&sealed(REGION, VERSION, &body));
        }

        #[test]
        fn one_flipped_bit_or_a_cut_is_noticed(bit: usize, cut: usize) {
            damaged(&connection().encode(), bit, cut, ConnectionParcel::decode);
        }
    }
}
