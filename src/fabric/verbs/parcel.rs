//! What one side of a connection tells the other, as bytes. Decoding checks everything and believes nothing: it never
//! reads past what it got and never lets a number through that verbs would not take.

use super::gid::Gid;
use super::mtu::Mtu;
use super::transition::Remote;
use crate::fabric::Rank;

const MAGIC: [u8; 4] = *b"SWvq";
const VERSION: u8 = 1;
const FIXED: usize = 4 + 1 + 1 + 3 * 4 + 2 + 16 + 1 + 1 + 1 + 1;
const PER_LANE: usize = 8;
const CHECKSUM: usize = 8;

/// Numbers of queue pairs and of packets have 24 bits.
pub(super) const NUMBER_MASK: u32 = 0x00FF_FFFF;

/// One queue pair of a connection, as the peer must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaneAddress {
    /// The queue pair's number.
    pub number: u32,
    /// The number of its first packet.
    pub first_packet: u32,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConnectionParcel {
    pub from: Rank,
    pub to: Rank,
    pub generation: u32,
    /// The port's local identifier; 0 on Ethernet.
    pub lid: u16,
    pub gid: Gid,
    /// Of the port (and the settings' limit).
    pub mtu: Mtu,
    /// Whether the port is an Ethernet one (RoCE).
    pub ethernet: bool,
    /// Reads and atomics that a queue pair answers at a time.
    pub reads_answered: u8,
    /// Reads and atomics that a queue pair has under way at a time.
    pub reads_started: u8,
    pub lanes: Vec<LaneAddress>,
}

/// As perftest writes it, the first queue pair for all.
impl std::fmt::Display for ConnectionParcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LID {:#06x}", self.lid)?;
        if let Some(lane) = self.lanes.first() {
            write!(f, " QPN {:#06x} PSN {:#08x}", lane.number, lane.first_packet)?;
        }
        write!(f, " GID {}", self.gid)?;
        if self.lanes.len() > 1 {
            write!(f, " (and {} queue pairs more)", self.lanes.len() - 1)?;
        }
        Ok(())
    }
}

/// FNV-1a: finds accidents. Malice is kept out by the channel that parcels travel on.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, tail) = self.0.split_first_chunk().ok_or("it ends too early")?;
        self.0 = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, String> {
        self.take().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_le_bytes)
    }
}

impl ConnectionParcel {
    /// What one of our queue pairs is told about its other half.
    pub fn remote(&self, lane: LaneAddress) -> Remote {
        Remote {
            gid: self.gid,
            lid: self.lid,
            number: lane.number,
            sequence: lane.first_packet,
            mtu: self.mtu,
            reads_answered: self.reads_answered,
            reads_started: self.reads_started,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + PER_LANE * self.lanes.len() + CHECKSUM);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        bytes.push(u8::from(self.ethernet));
        for number in [self.from, self.to, self.generation] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.lid.to_le_bytes());
        bytes.extend_from_slice(&self.gid.bytes());
        bytes.push(self.mtu.code() as u8);
        bytes.push(self.reads_answered);
        bytes.push(self.reads_started);
        bytes.push(self.lanes.len() as u8);
        for lane in &self.lanes {
            bytes.extend_from_slice(&lane.number.to_le_bytes());
            bytes.extend_from_slice(&lane.first_packet.to_le_bytes());
        }
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < FIXED + CHECKSUM || bytes[..4] != MAGIC {
            return Err("it is not a verbs connection".into());
        }
        if bytes[4] != VERSION {
            return Err(format!(
                "it has version {} of the format, this side has {VERSION}: ranks of one job run the same release",
                bytes[4]
            ));
        }
        let (body, sum) = bytes.split_at(bytes.len() - CHECKSUM);
        if checksum(body).to_le_bytes() != sum {
            return Err("it was damaged on its way".into());
        }
        let mut reader = Reader(&body[5..]);
        let ethernet = match reader.u8()? {
            0 => false,
            1 => true,
            other => return Err(format!("its link layer is unknown ({other})")),
        };
        let (from, to, generation) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let lid = u16::from_le_bytes(reader.take()?);
        let gid = Gid::from_bytes(reader.take()?);
        let code = reader.u8()?;
        let mtu =
            Mtu::from_code(code.into()).ok_or_else(|| format!("its MTU has the unknown code {code}"))?;
        let (reads_answered, reads_started) = (reader.u8()?, reader.u8()?);
        let count = usize::from(reader.u8()?);
        if reader.0.len() != count * PER_LANE || count == 0 {
            return Err(format!(
                "{} bytes do not describe {count} queue pairs",
                reader.0.len()
            ));
        }
        let mut lanes = Vec::with_capacity(count);
        for _ in 0..count {
            let lane = LaneAddress {
                number: reader.u32()?,
                first_packet: reader.u32()?,
            };
            if lane.number > NUMBER_MASK || lane.first_packet > NUMBER_MASK || lane.number < 2 {
                return Err(format!(
                    "queue pair {:#x} with first packet {:#x} cannot be: both have 24 bits, and 0 and 1 are taken",
                    lane.number, lane.first_packet
                ));
            }
            lanes.push(lane);
        }
        if ethernet && gid.is_empty() {
            return Err("its GID is empty, and without one there is no way to an Ethernet port".into());
        }
        if !ethernet && lid == 0 && gid.is_empty() {
            return Err("it has neither a LID nor a GID, so there is no way to it".into());
        }
        Ok(Self {
            from,
            to,
            generation,
            lid,
            gid,
            mtu,
            ethernet,
            reads_answered,
            reads_started,
            lanes,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parcel() -> ConnectionParcel {
        let lane = |number| LaneAddress {
            number,
            first_packet: NUMBER_MASK,
        };
        ConnectionParcel {
            from: 1,
            to: 2,
            generation: 3,
            lid: 4,
            gid: "::ffff:10.9.0.1".parse().unwrap(),
            mtu: Mtu::Bytes4096,
            ethernet: true,
            reads_answered: 16,
            reads_started: 8,
            lanes: vec![lane(17), lane(18)],
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(ConnectionParcel::decode(&parcel().encode()), Ok(parcel()));
    }

    #[test]
    fn what_verbs_would_not_take_is_refused() {
        let broken: [fn(&mut ConnectionParcel); 6] = [
            |parcel| parcel.lanes.clear(),
            |parcel| parcel.lanes[0].number = NUMBER_MASK + 1,
            |parcel| parcel.lanes[0].number = 1,
            |parcel| parcel.lanes[1].first_packet = u32::MAX,
            |parcel| parcel.gid = Gid::default(),
            |parcel| (parcel.ethernet, parcel.lid, parcel.gid) = (false, 0, Gid::default()),
        ];
        for (number, breaking) in broken.iter().enumerate() {
            let mut parcel = parcel();
            breaking(&mut parcel);
            assert!(ConnectionParcel::decode(&parcel.encode()).is_err(), "{number}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(ConnectionParcel::decode(&bytes).is_err());
        }

        /// With the right beginning and the right sum: whatever gets through is something that encodes to the same.
        #[test]
        fn random_fields_never_panic(fields in proptest::collection::vec(any::<u8>(), 0..120), lanes in 0u8..8) {
            let mut bytes = MAGIC.to_vec();
            bytes.push(VERSION);
            bytes.extend_from_slice(&fields);
            if bytes.len() > FIXED {
                bytes[5] &= 1;
                bytes[36] = 1 + bytes[36] % 5;
                bytes[FIXED - 1] = lanes;
                bytes.resize(FIXED + usize::from(lanes) * PER_LANE, 0);
            }
            let sum = checksum(&bytes);
            bytes.extend_from_slice(&sum.to_le_bytes());
            if let Ok(parcel) = ConnectionParcel::decode(&bytes) {
                prop_assert_eq!(parcel.encode(), bytes);
            }
        }

        #[test]
        fn one_flipped_bit_or_a_cut_is_noticed(bit in 0usize..600, cut in 1usize..60) {
            let whole = parcel().encode();
            let mut bytes = whole.clone();
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(ConnectionParcel::decode(&bytes).is_err());
            prop_assert!(ConnectionParcel::decode(&whole[..whole.len() - cut]).is_err());
        }
    }
}
