//! What is there: devices, ports and GIDs as plain data, for people, for programs and for the choice. Taken by
//! `survey`; nothing here talks to a device.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::gid::{Gid, GidType};
use super::mtu::Mtu;

/// Everything that libibverbs and the kernel tell about this machine's RDMA devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// Functions that a newer libibverbs would have, by the C name; what depends on them is refused by name.
    pub missing_functions: Vec<String>,
    /// Devices of the kernel for which libibverbs has no driver (Debian has them in ibverbs-providers).
    pub without_driver: Vec<String>,
    /// In the order of libibverbs.
    pub devices: Vec<DeviceReport>,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// `mlx5_0`, `r0`.
    pub name: String,
    /// In groups of four hexadecimal digits.
    pub node_guid: String,
    /// What it speaks.
    pub transport: Transport,
    /// Why nothing more is known, if it could not be opened.
    pub error: Option<String>,
    /// What is known of an opened one.
    pub details: Option<DeviceDetails>,
    /// Its ports, from 1; empty if it could not be opened.
    pub ports: Vec<PortReport>,
}

/// The family of protocols of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// InfiniBand and RoCE.
    InfiniBand,
    /// iWARP: connections need the rdma_cm library.
    Iwarp,
    /// Something else.
    Other,
}

/// Identity and limits of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceDetails {
    /// The firmware's version; empty for devices made of software.
    pub firmware: String,
    /// The PCI vendor (0x2c9, 0x15b3: Mellanox and NVIDIA).
    pub vendor: u32,
    /// The vendor's number for the model.
    pub part: u32,
    /// The model's revision.
    pub revision: u32,
    /// See [`Limits`].
    pub limits: Limits,
}

/// The device's limits that this library asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Ports.
    pub ports: u8,
    /// Queue pairs.
    pub queue_pairs: u32,
    /// Requests of one queue.
    pub queue_depth: u32,
    /// Pieces of one request.
    pub scatter_entries: u32,
    /// Completion queues.
    pub completion_queues: u32,
    /// Entries of one completion queue.
    pub completion_depth: u32,
    /// Registrations.
    pub registrations: u32,
    /// Bytes of one registration.
    pub registration_size: u64,
    /// Protection domains.
    pub protection_domains: u32,
    /// Reads and atomics of one queue pair that this device answers at a time.
    pub reads_answered: u8,
    /// Reads and atomics of one queue pair that this device has under way at a time.
    pub reads_started: u8,
    /// See [`AtomicSupport`].
    pub atomics: AtomicSupport,
}

/// Between whom the device's atomics are atomic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtomicSupport {
    /// There are none.
    #[default]
    None,
    /// Queue pairs of the device.
    Device,
    /// Everything that accesses the memory, CPUs included.
    Global,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortReport {
    /// From 1.
    pub number: u8,
    /// The logical state.
    pub state: PortState,
    /// `link up`, `disabled`, `polling`…
    pub physical_state: String,
    /// What carries its packets.
    pub link_layer: LinkLayer,
    /// The largest MTU that the link allows now.
    pub active_mtu: Option<Mtu>,
    /// The largest MTU that the device has.
    pub max_mtu: Option<Mtu>,
    /// Its number in an InfiniBand subnet; 0 elsewhere.
    pub lid: u16,
    /// The subnet manager's LID.
    pub subnet_manager_lid: u16,
    /// Low bits of a destination LID that select a path.
    pub lid_mask_count: u8,
    /// Whether every packet needs a global route header, even inside its subnet.
    pub global_route_required: bool,
    /// Lanes.
    pub width: Option<u8>,
    /// What one lane carries, in the words of the field: `EDR`, `HDR`.
    pub speed: Option<String>,
    /// Bytes of data per second and direction that the link carries, in units of 10^9.
    pub rate_gb_per_s: Option<f64>,
    /// Bytes of the longest message.
    pub max_message: u32,
    /// Entries of the GID table, empty ones included.
    pub gid_table: u32,
    /// Entries of the table of partition keys.
    pub partition_key_table: u16,
    /// The network interface that the port belongs to.
    pub net_device: Option<String>,
    /// The entries of the GID table that are not empty.
    pub gids: Vec<GidReport>,
    /// Counters of the port and its driver, by their names in sysfs.
    pub counters: BTreeMap<String, u64>,
    /// What could not be read.
    pub problems: Vec<String>,
}

/// The logical state of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// No link.
    Down,
    /// A link, and no subnet manager yet.
    Initialising,
    /// Configured by the subnet manager, not yet in use.
    Armed,
    /// In use.
    Active,
    /// None of these.
    Unknown,
}

/// What carries a port's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkLayer {
    /// InfiniBand links; addresses are LIDs.
    InfiniBand,
    /// Ethernet (RoCE); addresses are GIDs.
    Ethernet,
    /// The driver does not say.
    Unknown,
}

/// One entry of a port's GID table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GidReport {
    /// In the table.
    pub index: u32,
    /// The value.
    pub gid: Gid,
    /// What packets to it look like; `None` if neither library nor kernel says.
    #[serde(rename = "type")]
    pub kind: Option<GidType>,
    /// The IPv4 address in it, if it is a mapped one.
    pub ipv4: Option<IpAddr>,
    /// The interface that has the address.
    pub net_device: Option<String>,
    /// That interface's VLAN, if it is one.
    pub vlan: Option<u16>,
}

impl GidReport {
    /// An entry with its value and what follows from it.
    pub fn new(index: u32, gid: Gid, kind: Option<GidType>) -> Self {
        Self {
            index,
            gid,
            kind,
            ipv4: Some(gid.address()).filter(IpAddr::is_ipv4),
            net_device: None,
            vlan: None,
        }
    }
}

impl DeviceReport {
    /// One of its ports.
    pub fn port(&self, number: u8) -> Option<&PortReport> {
        self.ports.iter().find(|port| port.number == number)
    }
}

impl fmt::Display for GidReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ipv4 {
            Some(address) => write!(f, "{}: {address}", self.index)?,
            None => write!(f, "{}: {}", self.index, self.gid)?,
        }
        if let Some(kind) = self.kind {
            write!(f, " {kind}")?;
        }
        if let Some(device) = &self.net_device {
            write!(f, " on {device}")?;
        }
        if let Some(vlan) = self.vlan {
            write!(f, " (VLAN {vlan})")?;
        }
        Ok(())
    }
}

impl fmt::Display for PortState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "DOWN",
            Self::Initialising => "INIT",
            Self::Armed => "ARMED",
            Self::Active => "ACTIVE",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for LinkLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InfiniBand => "InfiniBand",
            Self::Ethernet => "Ethernet",
            Self::Unknown => "unknown link",
        })
    }
}
