//! What `choose` answers: a device, a port and a GID with the reason, or what stands against each of them.

use std::fmt;

use super::inventory::{GidReport, LinkLayer, PortState};
use super::mtu::Mtu;

/// What was chosen, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The device.
    pub device: String,
    /// Its port.
    pub port: u8,
    /// What carries the port's packets.
    pub link_layer: LinkLayer,
    /// The GID that packets come from.
    pub gid: GidReport,
    /// The port's number in its InfiniBand subnet; 0 elsewhere.
    pub lid: u16,
    /// Whether packets need a global route header even between neighbours: always so on Ethernet.
    pub global_route: bool,
    /// The largest MTU that the link allows.
    pub active_mtu: Mtu,
    /// Bytes of data per second and direction, in units of 10^9, if the driver says.
    pub rate_gb_per_s: Option<f64>,
    /// Why this one.
    pub reason: String,
    /// What else was looked at, and why it is not used.
    pub passed_over: Vec<String>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            device,
            port,
            link_layer,
            gid,
            ..
        } = self;
        write!(
            f,
            "device {device} port {port} ({link_layer}, MTU {}",
            self.active_mtu
        )?;
        if let Some(rate) = self.rate_gb_per_s {
            write!(f, ", {rate} GB/s")?;
        }
        if self.lid != 0 {
            write!(f, ", LID {}", self.lid)?;
        }
        write!(f, ") with GID {gid}: {}", self.reason)?;
        if !self.passed_over.is_empty() {
            write!(f, "; not {}", self.passed_over.join("; not "))?;
        }
        Ok(())
    }
}

/// Why nothing could be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// This machine has none.
    #[error("there is no RDMA device here: {0}")]
    NoDevice(String),
    /// A name in the settings that no device has.
    #[error("there is no RDMA device {wanted:?}; there is {}", list(.there))]
    UnknownDevice {
        /// The name.
        wanted: String,
        /// The names that there are.
        there: Vec<String>,
    },
    /// The device could not be asked.
    #[error("{error}")]
    Unopened {
        /// Which.
        device: String,
        /// What stood against it.
        error: String,
    },
    /// A protocol that this fabric does not speak.
    #[error("device {device} speaks {what}; this fabric connects InfiniBand and RoCE devices")]
    Transport {
        /// Which.
        device: String,
        /// What it speaks.
        what: &'static str,
    },
    /// A port number that the device does not have.
    #[error("device {device} has no port {port}; it has ports 1 to {ports} (SAPWOOD_VERBS_PORT)")]
    UnknownPort {
        /// Which.
        device: String,
        /// The number.
        port: u8,
        /// How many it has.
        ports: usize,
    },
    /// The port carries nothing now.
    #[error("device {device} port {port} is {state} (physical state: {physical_state}): {remedy}")]
    PortDown {
        /// Which.
        device: String,
        /// Which.
        port: u8,
        /// Its logical state.
        state: PortState,
        /// Its physical state.
        physical_state: String,
        /// What brings it up.
        remedy: String,
    },
    /// The entry of the GID table that the settings name is empty or not there.
    #[error(
        "device {device} port {port} has no GID at index {index} (SAPWOOD_VERBS_GID_INDEX); its table holds {}",
        list(.table)
    )]
    GidIndex {
        /// Which.
        device: String,
        /// Which.
        port: u8,
        /// The index.
        index: u32,
        /// What is in the table.
        table: Vec<String>,
    },
    /// No GID lies in the subnet that the settings name.
    #[error(
        "device {device} port {port} has no GID in {subnet} (SAPWOOD_VERBS_SUBNET); its table holds {}",
        list(.table)
    )]
    NotInSubnet {
        /// Which.
        device: String,
        /// Which.
        port: u8,
        /// The subnet.
        subnet: String,
        /// What is in the table.
        table: Vec<String>,
    },
    /// No GID from which packets could travel.
    #[error("device {device} port {port} has no usable GID; its table holds {}: {remedy}", list(.table))]
    NoGid {
        /// Which.
        device: String,
        /// Which.
        port: u8,
        /// What is in the table.
        table: Vec<String>,
        /// What would give it one.
        remedy: String,
    },
    /// Nothing works on any of several ports.
    #[error("no port of any RDMA device can be used: {}", list(.0))]
    NoneUsable(Vec<ChoiceError>),
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "nothing".into();
    }
    items.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}
