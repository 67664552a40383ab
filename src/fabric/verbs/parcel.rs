//! What one side of a connection tells the other, as bytes. Decoding checks everything and believes nothing: it never
//! reads past what it got and never lets a number through that verbs would not take.

use super::gid::Gid;
use super::mtu::Mtu;
use super::transition::Remote;
use crate::fabric::parcel::{Ends, Reader, Writer};

const KIND: [u8; 3] = *b"SVq";
const VERSION: u8 = 1;

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
    pub ends: Ends,
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
        let mut writer = Writer::new(KIND, VERSION);
        writer.u8(self.ethernet.into());
        writer.ends(self.ends);
        writer.bytes(&self.lid.to_le_bytes());
        writer.bytes(&self.gid.bytes());
        writer.u8(self.mtu.code() as u8);
        writer.u8(self.reads_answered);
        writer.u8(self.reads_started);
        writer.u8(self.lanes.len() as u8);
        for lane in &self.lanes {
            writer.u32(lane.number);
            writer.u32(lane.first_packet);
        }
        writer.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::new(KIND, VERSION, bytes)?;
        let ethernet = match reader.u8()? {
            0 => false,
            1 => true,
            other => return Err(format!("its link layer is unknown ({other})")),
        };
        let ends = reader.ends()?;
        let lid = u16::from_le_bytes(reader.take()?);
        let gid = Gid::from_bytes(reader.take()?);
        let code = reader.u8()?;
        let mtu =
            Mtu::from_code(code.into()).ok_or_else(|| format!("its MTU has the unknown code {code}"))?;
        let (reads_answered, reads_started) = (reader.u8()?, reader.u8()?);
        let count = usize::from(reader.u8()?);
        if count == 0 {
            return Err("it has no queue pair".into());
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
        reader.finish()?;
        if ethernet && gid.is_empty() {
            return Err("its GID is empty, and without one there is no way to an Ethernet port".into());
        }
        if !ethernet && lid == 0 && gid.is_empty() {
            return Err("it has neither a LID nor a GID, so there is no way to it".into());
        }
        Ok(Self {
            ends,
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

    use crate::fabric::parcel::trials::{damaged, sealed};

    use super::*;

    /// Bytes of the fields before the lanes, and of a lane.
    const FIXED: usize = 1 + 3 * 4 + 2 + 16 + 1 + 1 + 1 + 1;
    const PER_LANE: usize = 8;

    fn parcel() -> ConnectionParcel {
        let lane = |number| LaneAddress {
            number,
            first_packet: NUMBER_MASK,
        };
        ConnectionParcel {
            ends: Ends {
                from: 1,
                to: 2,
                generation: 3,
            },
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
        fn random_fields_never_panic(
            fields in proptest::collection::vec(any::<u8>(), 0..120), sensible: bool, lanes in 0u8..8,
        ) {
            let mut fields = fields;
            if sensible {
                fields.resize(FIXED + usize::from(lanes) * PER_LANE, 0);
                fields[0] &= 1;
                fields[FIXED - 4] = 1 + fields[FIXED - 4] % 5;
                fields[FIXED - 1] = lanes;
            }
            let bytes = sealed(KIND, VERSION, &fields);
            if let Ok(parcel) = ConnectionParcel::decode(&bytes) {
                prop_assert_eq!(parcel.encode(), bytes);
            }
        }

        #[test]
        fn one_flipped_bit_or_a_cut_is_noticed(bit: usize, cut: usize) {
            damaged(&parcel().encode(), bit, cut, ConnectionParcel::decode);
        }
    }
}
