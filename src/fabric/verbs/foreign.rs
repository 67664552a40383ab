//! Queue pairs and memory of software that is not Sapwood: what has to be known about them to connect to one and to
//! reach the other, as the parcels that an endpoint takes. For interoperation; members of a job exchange the parcels
//! that endpoints and registrations make, and need nothing of this.

use super::gid::Gid;
use super::mtu::Mtu;
use super::parcel::{ConnectionParcel, LaneAddress};
use super::region_parcel::RegionParcel;
use crate::fabric::parcel::Ends;
use crate::fabric::{Access, Parcel, Rank};

/// One reliable-connection queue pair, as its peer must know it.
///
/// The foreign side does what every peer does: it takes its queue pair to INIT with the rights that it gives, to RTR
/// with what [`ForeignQueuePair::of`] says of ours, and to RTS with [`ForeignQueuePair::first_packet`] as its `sq_psn`.
/// Ours must be connected by then or receives posted, as the two agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignQueuePair {
    /// `qp_num`, of 24 bits.
    pub number: u32,
    /// `sq_psn`, the number of the first packet that it sends, of 24 bits.
    pub first_packet: u32,
    /// The port's LID; 0 on Ethernet.
    pub lid: u16,
    /// The entry of the port's GID table that it uses; empty where it has none (InfiniBand inside one subnet).
    pub gid: Gid,
    /// Its path MTU: both sides must come to the same, and ours takes the smaller of the two.
    pub mtu: Mtu,
    /// Whether its port is an Ethernet one (RoCE).
    pub ethernet: bool,
    /// `max_dest_rd_atomic`: how many of our reads and atomics it answers at a time.
    pub reads_answered: u8,
    /// `max_rd_atomic`: how many of its own it has under way at a time.
    pub reads_started: u8,
}

/// A parcel that is none of the verbs fabric's, or damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not what the verbs fabric made for {what}: {why}")]
pub struct NotVerbs {
    what: &'static str,
    why: String,
}

impl ForeignQueuePair {
    /// For [`Endpoint::connect`](crate::fabric::Endpoint::connect) of rank `own`, to which it plays rank `peer`, at an
    /// endpoint of that generation which has one queue pair for each connection.
    pub fn parcel(&self, peer: Rank, own: Rank, generation: u32) -> Parcel {
        let parcel = ConnectionParcel {
            ends: Ends {
                from: peer,
                to: own,
                generation,
            },
            lid: self.lid,
            gid: self.gid,
            mtu: self.mtu,
            ethernet: self.ethernet,
            reads_answered: self.reads_answered,
            reads_started: self.reads_started,
            lanes: vec![LaneAddress {
                number: self.number,
                first_packet: self.first_packet,
            }],
        };
        Parcel {
            bytes: parcel.encode(),
            descriptors: Vec::new(),
        }
    }

    /// What [`Endpoint::prepare`](crate::fabric::Endpoint::prepare) of ours made: one for each queue pair of the
    /// connection.
    ///
    /// # Errors
    /// It is not a connection of the verbs fabric.
    pub fn of(prepared: &Parcel) -> Result<Vec<Self>, NotVerbs> {
        let parcel = ConnectionParcel::decode(&prepared.bytes).map_err(|why| NotVerbs {
            what: "a connection",
            why,
        })?;
        let one = |lane: &LaneAddress| Self {
            number: lane.number,
            first_packet: lane.first_packet,
            lid: parcel.lid,
            gid: parcel.gid,
            mtu: parcel.mtu,
            ethernet: parcel.ethernet,
            reads_answered: parcel.reads_answered,
            reads_started: parcel.reads_started,
        };
        Ok(parcel.lanes.iter().map(one).collect())
    }
}

/// Registered memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignRegion {
    /// Where its device sees the first byte.
    pub address: u64,
    /// Bytes.
    pub len: u64,
    /// `rkey`.
    pub key: u32,
    /// What its owner allows.
    pub access: Access,
}

impl ForeignRegion {
    /// For [`Endpoint::import`](crate::fabric::Endpoint::import).
    pub fn parcel(&self) -> Parcel {
        let parcel = RegionParcel {
            address: self.address,
            len: self.len,
            key: self.key,
            access: self.access,
        };
        Parcel {
            bytes: parcel.encode(),
            descriptors: Vec::new(),
        }
    }

    /// What [`Registration::export`](crate::fabric::Registration::export) of ours made.
    ///
    /// # Errors
    /// It is not a region of the verbs fabric.
    pub fn of(exported: &Parcel) -> Result<Self, NotVerbs> {
        let parcel = RegionParcel::decode(&exported.bytes).map_err(|why| NotVerbs {
            what: "a region",
            why,
        })?;
        Ok(Self {
            address: parcel.address,
            len: parcel.len,
            key: parcel.key,
            access: parcel.access,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_queue_pair_comes_back() {
        let pair = ForeignQueuePair {
            number: 17,
            first_packet: 0,
            lid: 0,
            gid: "::ffff:10.9.0.1".parse().unwrap(),
            mtu: Mtu::Bytes4096,
            ethernet: true,
            reads_answered: 1,
            reads_started: 1,
        };
        assert_eq!(ForeignQueuePair::of(&pair.parcel(1, 0, 7)), Ok(vec![pair]));
        let region = ForeignRegion {
            address: 4096,
            len: 64,
            key: 5,
            access: Access::READ,
        };
        assert_eq!(ForeignRegion::of(&region.parcel()), Ok(region));
        let error = ForeignQueuePair::of(&region.parcel()).unwrap_err().to_string();
        assert!(error.contains("a connection"), "{error}");
        assert!(ForeignRegion::of(&pair.parcel(1, 0, 7)).is_err());
    }
}
