//! What a queue pair is told when it changes its state, checked against the transition, the port and the device
//! before the driver sees it: its EINVAL does not say which attribute it means. Pure; `transition` makes the call.

use std::fmt;

use sapwood_sys::verbs::bindings::*;

use super::gid::Gid;
use super::inventory::LinkLayer;
use super::mtu::Mtu;

/// The states of a queue pair of a reliable connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Reset,
    Init,
    ReadyToReceive,
    ReadyToSend,
    /// The send queue finishes what was begun and begins nothing new: a live queue pair changes its path in it.
    #[allow(
        dead_code,
        reason = "paths of live queue pairs are not changed yet, only in a test"
    )]
    Drained,
    Error,
}

impl State {
    #[cfg(test)]
    pub const ALL: [Self; 6] = [
        Self::Reset,
        Self::Init,
        Self::ReadyToReceive,
        Self::ReadyToSend,
        Self::Drained,
        Self::Error,
    ];

    pub const fn code(self) -> ibv_qp_state {
        match self {
            Self::Reset => IBV_QPS_RESET,
            Self::Init => IBV_QPS_INIT,
            Self::ReadyToReceive => IBV_QPS_RTR,
            Self::ReadyToSend => IBV_QPS_RTS,
            Self::Drained => IBV_QPS_SQD,
            Self::Error => IBV_QPS_ERR,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Reset => "RESET",
            Self::Init => "INIT",
            Self::ReadyToReceive => "RTR",
            Self::ReadyToSend => "RTS",
            Self::Drained => "SQD",
            Self::Error => "ERR",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The way to the peer's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// Ours.
    pub port: u8,
    /// The peer's GID.
    pub gid: Gid,
    /// The peer's LID; 0 on Ethernet.
    pub lid: u16,
    /// Whether packets carry a global route header, which has the four that follow.
    pub global: bool,
    /// Of our own GID.
    pub gid_index: u32,
    pub hop_limit: u8,
    pub traffic_class: u8,
    pub flow_label: u32,
    pub service_level: u8,
}

/// The attributes of one transition; what is `None` is not sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// `IBV_ACCESS_*`: what peers may ask of this queue pair at all.
    pub access: Option<u32>,
    pub partition_key_index: Option<u16>,
    pub port: Option<u8>,
    pub path: Option<Path>,
    pub path_mtu: Option<Mtu>,
    /// The number of the peer's queue pair.
    pub peer_number: Option<u32>,
    /// The peer's first packet sequence number.
    pub receive_sequence: Option<u32>,
    /// Our own first packet sequence number.
    pub send_sequence: Option<u32>,
    /// Reads and atomics of the peer answered at a time.
    pub reads_answered: Option<u8>,
    /// Reads and atomics under way at a time.
    pub reads_started: Option<u8>,
    pub receiver_timer: Option<u8>,
    pub timeout: Option<u8>,
    pub retry_count: Option<u8>,
    pub receiver_retry: Option<u8>,
    /// Whether an event says that SQD is reached.
    pub notify_drained: Option<bool>,
}

/// What device and port allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub ports: u8,
    pub link_layer: LinkLayer,
    pub active_mtu: Mtu,
    pub partition_keys: u16,
    pub gid_table: u32,
    pub reads_started: u8,
    pub reads_answered: u8,
}

/// Attributes that the driver would refuse, found before the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: a queue pair cannot go from {from} to {to}: {}; sent: {attributes}", problems.join("; "))]
pub struct InvalidAttributes {
    /// Which device, port and peer.
    pub place: super::error::Place,
    /// The state that it is in.
    pub from: &'static str,
    /// The state that was asked for.
    pub to: &'static str,
    /// Everything that is wrong.
    pub problems: Vec<String>,
    /// Everything that would have been sent.
    pub attributes: String,
}

type Mask = ibv_qp_attr_mask;

/// Required and optional attributes of a transition of a reliable connection (InfiniBand specification, table of
/// queue-pair transitions); `None` where there is no such transition.
pub(super) fn transition(from: State, to: State) -> Option<(Mask, Mask)> {
    use State::*;
    Some(match (from, to) {
        (_, Reset | Error) => (0, 0),
        (Reset, Init) => (IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, 0),
        (Init, Init) => (0, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
        (Init, ReadyToReceive) => (
            IBV_QP_AV
                | IBV_QP_PATH_MTU
                | IBV_QP_DEST_QPN
                | IBV_QP_RQ_PSN
                | IBV_QP_MAX_DEST_RD_ATOMIC
                | IBV_QP_MIN_RNR_TIMER,
            IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX,
        ),
        (ReadyToReceive, ReadyToSend) => (
            IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC,
            IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER,
        ),
        (ReadyToSend | Drained, ReadyToSend) => (0, IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER),
        (ReadyToSend, Drained) => (0, IBV_QP_EN_SQD_ASYNC_NOTIFY),
        (Drained, Drained) => (
            0,
            IBV_QP_PORT
                | IBV_QP_AV
                | IBV_QP_TIMEOUT
                | IBV_QP_RETRY_CNT
                | IBV_QP_RNR_RETRY
                | IBV_QP_MAX_QP_RD_ATOMIC
                | IBV_QP_MAX_DEST_RD_ATOMIC
                | IBV_QP_ACCESS_FLAGS
                | IBV_QP_PKEY_INDEX
                | IBV_QP_MIN_RNR_TIMER,
        ),
        _ => return None,
    })
}

const NAMES: [(Mask, &str); 15] = [
    (IBV_QP_ACCESS_FLAGS, "access"),
    (IBV_QP_PKEY_INDEX, "partition key index"),
    (IBV_QP_PORT, "port"),
    (IBV_QP_AV, "path"),
    (IBV_QP_PATH_MTU, "path MTU"),
    (IBV_QP_DEST_QPN, "peer's queue pair"),
    (IBV_QP_RQ_PSN, "receive sequence"),
    (IBV_QP_SQ_PSN, "send sequence"),
    (IBV_QP_MAX_DEST_RD_ATOMIC, "reads answered"),
    (IBV_QP_MAX_QP_RD_ATOMIC, "reads started"),
    (IBV_QP_MIN_RNR_TIMER, "receiver timer"),
    (IBV_QP_TIMEOUT, "timeout"),
    (IBV_QP_RETRY_CNT, "retry count"),
    (IBV_QP_RNR_RETRY, "receiver retry"),
    (IBV_QP_EN_SQD_ASYNC_NOTIFY, "notify drained"),
];

fn names(mask: Mask) -> String {
    let names = NAMES
        .iter()
        .filter(|(bit, _)| mask & bit != 0)
        .map(|(_, name)| *name);
    names.collect::<Vec<_>>().join(", ")
}

impl Attributes {
    /// Which attributes are sent, the state not among them.
    pub fn mask(&self) -> Mask {
        let given = [
            self.access.is_some(),
            self.partition_key_index.is_some(),
            self.port.is_some(),
            self.path.is_some(),
            self.path_mtu.is_some(),
            self.peer_number.is_some(),
            self.receive_sequence.is_some(),
            self.send_sequence.is_some(),
            self.reads_answered.is_some(),
            self.reads_started.is_some(),
            self.receiver_timer.is_some(),
            self.timeout.is_some(),
            self.retry_count.is_some(),
            self.receiver_retry.is_some(),
            self.notify_drained.is_some(),
        ];
        let bits = NAMES.iter().zip(given).filter(|(_, given)| *given);
        bits.fold(0, |mask, ((bit, _), _)| mask | bit)
    }

    /// Everything that is wrong with these attributes for that transition; empty if they may be sent.
    pub fn problems(&self, from: State, to: State, bounds: &Bounds) -> Vec<String> {
        let Some((required, optional)) = transition(from, to) else {
            return vec!["there is no such transition".into()];
        };
        let mut problems = Vec::new();
        let mask = self.mask();
        let missing = required & !mask;
        if missing != 0 {
            problems.push(format!("it needs {}", names(missing)));
        }
        let unwanted = mask & !(required | optional);
        if unwanted != 0 {
            problems.push(format!("it does not take {}", names(unwanted)));
        }
        let mut within = |name: &str, value: Option<u32>, least: u32, most: u32| {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                problems.push(format!("{name} {value} is not within {least} to {most}"));
            }
        };
        const SEQUENCE: u32 = (1 << 24) - 1;
        let keys = u32::from(bounds.partition_keys).saturating_sub(1);
        within(
            "partition key index",
            self.partition_key_index.map(u32::from),
            0,
            keys,
        );
        within("port", self.port.map(u32::from), 1, bounds.ports.into());
        within(
            "path MTU",
            self.path_mtu.map(Mtu::bytes),
            256,
            bounds.active_mtu.bytes(),
        );
        within("peer's queue pair", self.peer_number, 2, SEQUENCE);
        within("receive sequence", self.receive_sequence, 0, SEQUENCE);
        within("send sequence", self.send_sequence, 0, SEQUENCE);
        within(
            "reads answered",
            self.reads_answered.map(u32::from),
            0,
            bounds.reads_answered.into(),
        );
        within(
            "reads started",
            self.reads_started.map(u32::from),
            0,
            bounds.reads_started.into(),
        );
        within("receiver timer", self.receiver_timer.map(u32::from), 0, 31);
        within("timeout", self.timeout.map(u32::from), 0, 31);
        within("retry count", self.retry_count.map(u32::from), 0, 7);
        within("receiver retry", self.receiver_retry.map(u32::from), 0, 7);
        if let Some(path) = self.path {
            let ethernet = bounds.link_layer == LinkLayer::Ethernet;
            within("port of the path", Some(path.port.into()), 1, bounds.ports.into());
            within(
                "service level",
                Some(path.service_level.into()),
                0,
                if ethernet { 7 } else { 15 },
            );
            if path.global {
                within("flow label", Some(path.flow_label), 0, (1 << 20) - 1);
                within("hop limit", Some(path.hop_limit.into()), 1, 255);
                // The entry's number travels in 8 bits.
                within(
                    "GID index",
                    Some(path.gid_index),
                    0,
                    bounds.gid_table.saturating_sub(1).min(255),
                );
            }
            if !ethernet {
                // Above are multicast LIDs.
                within("LID", Some(path.lid.into()), u32::from(!path.global), 0xbfff);
            }
            if path.global && path.gid.is_empty() {
                problems.push("the peer's GID is empty".into());
            }
            if ethernet && !path.global {
                problems.push("a path over Ethernet needs a global route header".into());
            }
        }
        if let Some(access) = self.access {
            let known = IBV_ACCESS_LOCAL_WRITE
                | IBV_ACCESS_REMOTE_READ
                | IBV_ACCESS_REMOTE_WRITE
                | IBV_ACCESS_REMOTE_ATOMIC;
            if access & !known != 0 {
                problems.push(format!("access {:#x} is not a queue pair's", access & !known));
            }
        }
        problems
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {} to ", self.port)?;
        if self.lid != 0 {
            write!(f, "LID {} ", self.lid)?;
        }
        if self.global {
            write!(
                f,
                "GID {} from GID index {} (traffic class {}, flow label {:#x}, hop limit {}) ",
                self.gid, self.gid_index, self.traffic_class, self.flow_label, self.hop_limit
            )?;
        }
        write!(f, "service level {}", self.service_level)
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<u8>| value.map(|value| value.to_string());
        let values = [
            self.access.map(|flags| format!("{flags:#x}")),
            self.partition_key_index.map(|index| index.to_string()),
            number(self.port),
            self.path.map(|path| path.to_string()),
            self.path_mtu.map(|mtu| mtu.to_string()),
            self.peer_number.map(|number| number.to_string()),
            self.receive_sequence.map(|sequence| format!("{sequence:#x}")),
            self.send_sequence.map(|sequence| format!("{sequence:#x}")),
            number(self.reads_answered),
            number(self.reads_started),
            number(self.receiver_timer),
            number(self.timeout),
            number(self.retry_count),
            number(self.receiver_retry),
            self.notify_drained.map(|notify| notify.to_string()),
        ];
        let given = NAMES.iter().zip(values);
        let given = given.filter_map(|((_, name), value)| Some(format!("{name} {}", value?)));
        let given: Vec<_> = given.collect();
        if given.is_empty() {
            return f.write_str("nothing but the state");
        }
        f.write_str(&given.join(", "))
    }
}

#[cfg(test)]
#[path = "attributes_tests.rs"]
mod tests;
