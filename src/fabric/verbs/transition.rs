//! Changes the state of a queue pair: makes the attributes from settings, device and peer, has them checked, and makes
//! the one call. An error lists everything that was sent.

use sapwood_sys::verbs::bindings::*;

use super::attributes::{Attributes, Bounds, InvalidAttributes, Path, State};
use super::device::Device;
use super::error::{Failure, VerbError, VerbsError};
use super::gid::Gid;
use super::inventory::AtomicSupport;
use super::mtu::Mtu;
use crate::fabric::Rank;

/// What the peer's half of a connection says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    /// The peer's port.
    pub gid: Gid,
    /// The peer's port in its InfiniBand subnet; 0 elsewhere.
    pub lid: u16,
    /// The peer's queue pair.
    pub number: u32,
    /// Its first packet sequence number.
    pub sequence: u32,
    /// The largest packet that it wants.
    pub mtu: Mtu,
    /// Reads and atomics that it answers at a time.
    pub reads_answered: u8,
    /// Reads and atomics that it has under way at a time.
    pub reads_started: u8,
}

impl Device {
    fn bounds(&self) -> Bounds {
        Bounds {
            ports: self.limits().ports,
            link_layer: self.choice().link_layer,
            active_mtu: self.choice().active_mtu,
            partition_keys: self.partition_keys(),
            gid_table: self.gid_table(),
            reads_started: self.limits().reads_started,
            reads_answered: self.limits().reads_answered,
        }
    }

    /// RESET to INIT: peers may do with this queue pair whatever their keys allow.
    pub fn initial(&self) -> Attributes {
        let mut access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
        if self.limits().atomics != AtomicSupport::None {
            access |= IBV_ACCESS_REMOTE_ATOMIC;
        }
        Attributes {
            access: Some(access),
            partition_key_index: Some(self.partition_key_index()),
            port: Some(self.choice().port),
            ..Attributes::default()
        }
    }

    /// The way to a peer's port, over this device's port and address. `flow_label` tells queue pairs of one
    /// connection apart.
    pub fn path_to(&self, remote: &Remote, flow_label: u32) -> Path {
        let (choice, settings) = (self.choice(), self.settings());
        // The upper half of a GID is the subnet: into another one only a global route leads.
        let other_subnet = choice.gid.gid.bytes()[..8] != remote.gid.bytes()[..8];
        Path {
            port: choice.port,
            gid: remote.gid,
            lid: remote.lid,
            global: choice.global_route || remote.lid == 0 || other_subnet,
            gid_index: self.gid_index(),
            hop_limit: settings.hop_limit,
            traffic_class: settings.traffic_class,
            flow_label,
            service_level: settings.service_level,
        }
    }

    /// The smaller of both sides' packets.
    pub fn path_mtu(&self, remote: &Remote) -> Mtu {
        self.mtu().min(remote.mtu)
    }

    /// INIT to RTR.
    pub fn receiving(&self, remote: &Remote, path: Path) -> Attributes {
        Attributes {
            path: Some(path),
            path_mtu: Some(self.path_mtu(remote)),
            peer_number: Some(remote.number),
            receive_sequence: Some(remote.sequence),
            reads_answered: Some(self.reads_answered().min(remote.reads_started)),
            receiver_timer: Some(self.settings().receiver_timer),
            ..Attributes::default()
        }
    }

    /// RTR to RTS; `sequence` is our own first packet's.
    pub fn sending(&self, remote: &Remote, sequence: u32) -> Attributes {
        let settings = self.settings();
        Attributes {
            timeout: Some(settings.timeout),
            retry_count: Some(settings.retry_count),
            receiver_retry: Some(settings.receiver_retry),
            send_sequence: Some(sequence),
            reads_started: Some(self.reads_started().min(remote.reads_answered)),
            ..Attributes::default()
        }
    }

    /// Changes the state of a queue pair of this device, whose other end `peer` has.
    ///
    /// # Safety
    /// `pair` is a live queue pair of this device.
    pub unsafe fn modify(
        &self,
        pair: *mut ibv_qp,
        from: State,
        to: State,
        attributes: &Attributes,
        peer: Rank,
    ) -> Result<(), VerbsError> {
        let place = || self.place_of_peer(peer);
        let problems = attributes.problems(from, to, &self.bounds());
        if !problems.is_empty() {
            return Err(InvalidAttributes {
                place: place(),
                from: from.name(),
                to: to.name(),
                problems,
                attributes: attributes.to_string(),
            }
            .into());
        }
        let mut raw = raw(attributes);
        let mut mask = attributes.mask();
        if from != to {
            // Named again, SQD would begin to drain again.
            raw.qp_state = to.code();
            mask |= IBV_QP_STATE;
        }
        let mask = mask.cast_signed();
        // SAFETY: the caller's contract, and the attributes are readable.
        let errno = unsafe { (self.library().modify_qp)(pair, &mut raw, mask) };
        if errno == 0 {
            return Ok(());
        }
        Err(place().failed_with(variant(to), errno, format!("from {from}, sent: {attributes}")))
    }
}

fn variant(to: State) -> fn(Failure) -> VerbError {
    match to {
        State::Reset => VerbError::ModifyToReset,
        State::Init => VerbError::ModifyToInit,
        State::ReadyToReceive => VerbError::ModifyToReadyToReceive,
        State::ReadyToSend => VerbError::ModifyToReadyToSend,
        State::Drained => VerbError::ModifyToDrained,
        State::Error => VerbError::ModifyToError,
    }
}

fn raw(attributes: &Attributes) -> ibv_qp_attr {
    // SAFETY: numbers and bytes, for which zero is a value; the mask says which are looked at.
    let mut raw: ibv_qp_attr = unsafe { std::mem::zeroed() };
    raw.qp_access_flags = attributes.access.unwrap_or(0);
    raw.pkey_index = attributes.partition_key_index.unwrap_or(0);
    raw.port_num = attributes.port.unwrap_or(0);
    raw.path_mtu = attributes.path_mtu.map_or(0, Mtu::code);
    raw.dest_qp_num = attributes.peer_number.unwrap_or(0);
    raw.rq_psn = attributes.receive_sequence.unwrap_or(0);
    raw.sq_psn = attributes.send_sequence.unwrap_or(0);
    raw.max_dest_rd_atomic = attributes.reads_answered.unwrap_or(0);
    raw.max_rd_atomic = attributes.reads_started.unwrap_or(0);
    raw.min_rnr_timer = attributes.receiver_timer.unwrap_or(0);
    raw.timeout = attributes.timeout.unwrap_or(0);
    raw.retry_cnt = attributes.retry_count.unwrap_or(0);
    raw.rnr_retry = attributes.receiver_retry.unwrap_or(0);
    raw.en_sqd_async_notify = attributes.notify_drained.unwrap_or(false).into();
    if let Some(path) = attributes.path {
        let address = &mut raw.ah_attr;
        address.dlid = path.lid;
        address.sl = path.service_level;
        address.port_num = path.port;
        address.is_global = path.global.into();
        address.grh.dgid = ibv_gid {
            raw: path.gid.bytes(),
        };
        address.grh.flow_label = path.flow_label;
        address.grh.sgid_index = u8::try_from(path.gid_index).unwrap_or(u8::MAX);
        address.grh.hop_limit = path.hop_limit;
        address.grh.traffic_class = path.traffic_class;
    }
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_gets_to_its_own_field() {
        let path = Path {
            port: 21,
            gid: "::ffff:10.9.0.2".parse().unwrap(),
            lid: 22,
            global: true,
            gid_index: 23,
            hop_limit: 24,
            traffic_class: 25,
            flow_label: 26,
            service_level: 27,
        };
        let told = raw(&Attributes {
            access: Some(1),
            partition_key_index: Some(2),
            port: Some(3),
            path: Some(path),
            path_mtu: Some(Mtu::Bytes2048),
            peer_number: Some(5),
            receive_sequence: Some(6),
            send_sequence: Some(7),
            reads_answered: Some(8),
            reads_started: Some(9),
            receiver_timer: Some(10),
            timeout: Some(11),
            retry_count: Some(12),
            receiver_retry: Some(13),
            notify_drained: Some(true),
        });
        assert_eq!(
            (
                told.qp_access_flags,
                told.pkey_index,
                told.port_num,
                told.path_mtu
            ),
            (1, 2, 3, 4)
        );
        assert_eq!((told.dest_qp_num, told.rq_psn, told.sq_psn), (5, 6, 7));
        assert_eq!(
            (told.max_dest_rd_atomic, told.max_rd_atomic, told.min_rnr_timer),
            (8, 9, 10)
        );
        assert_eq!((told.timeout, told.retry_cnt, told.rnr_retry), (11, 12, 13));
        assert_eq!(told.en_sqd_async_notify, 1);
        let address = told.ah_attr;
        assert_eq!(
            (address.port_num, address.dlid, address.sl, address.is_global),
            (21, 22, 27, 1)
        );
        let grh = address.grh;
        assert_eq!(
            (grh.sgid_index, grh.hop_limit, grh.traffic_class, grh.flow_label),
            (23, 24, 25, 26)
        );
        // SAFETY: both views of the union are plain bytes.
        assert_eq!(unsafe { grh.dgid.raw }, path.gid.bytes());
    }
}
