//! Which device, port and GID are used. Pure: from an inventory and settings to a choice that says why, so that
//! every network can be tested without having it.

use super::choice::{Choice, ChoiceError};
use super::gid::{GidType, Scope, Subnet};
use super::inventory::*;
use super::mtu::Mtu;
use super::settings::Settings;

/// What makes one port, with the best of its GIDs, better than another; the greater, the better.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
struct Merit {
    /// 2: routable (RoCE v2) or InfiniBand; 1: RoCE v2, this link only; 0: RoCE v1 or unknown.
    reach: u8,
    rate: f64,
    untagged: bool,
    ipv4: bool,
}

struct Candidate<'a> {
    device: &'a DeviceReport,
    port: &'a PortReport,
    gid: &'a GidReport,
    mtu: Mtu,
    merit: Merit,
}

/// A device's name in the settings, with its port if it has one there.
fn split(wanted: &str) -> (&str, Option<u8>) {
    match wanted.rsplit_once(':') {
        Some((name, port)) => port.parse().map_or((wanted, None), |port| (name, Some(port))),
        None => (wanted, None),
    }
}

/// The name in the settings of the device that this rank must take, if they name any.
pub(super) fn named(settings: &Settings) -> Option<(&str, Option<u8>)> {
    let count = settings.devices.len();
    (count > 0).then(|| split(&settings.devices[settings.local_rank % count]))
}

/// Chooses. Among equally good ports ranks of one host are spread by their local rank.
///
/// # Errors
/// Nothing can be used; the error says what stands against each port that was looked at.
pub fn choose(inventory: &Inventory, settings: &Settings) -> Result<Choice, ChoiceError> {
    if inventory.devices.is_empty() {
        return Err(ChoiceError::NoDevice(no_device(inventory)));
    }
    let named = named(settings);
    let devices: Vec<_> = match named {
        None => inventory.devices.iter().collect(),
        Some((name, _)) => inventory
            .devices
            .iter()
            .filter(|device| device.name == name)
            .collect(),
    };
    if let (Some((wanted, _)), true) = (named, devices.is_empty()) {
        let there = inventory.devices.iter().map(|device| device.name.clone());
        return Err(ChoiceError::UnknownDevice {
            wanted: wanted.into(),
            there: there.collect(),
        });
    }
    let wanted_port = named.and_then(|(_, port)| port).or(settings.port);
    let (mut candidates, mut refused) = (Vec::new(), Vec::new());
    for device in devices {
        match ports(device, wanted_port) {
            Err(error) => refused.push(error),
            Ok(ports) => {
                for port in ports {
                    match assess(device, port, settings) {
                        Ok(candidate) => candidates.push(candidate),
                        Err(error) => refused.push(error),
                    }
                }
            }
        }
    }
    let best = candidates.iter().map(|candidate| candidate.merit);
    let Some(best) = best.reduce(|a, b| if b > a { b } else { a }) else {
        return Err(match refused.len() {
            1 => refused.remove(0),
            _ => ChoiceError::NoneUsable(refused),
        });
    };
    let equal: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.merit == best)
        .collect();
    let turn = if named.is_some() {
        0
    } else {
        settings.local_rank % equal.len()
    };
    let chosen = equal[turn];
    let others = candidates.iter().filter(|other| !std::ptr::eq(*other, chosen));
    let others = others.map(|other| {
        let why = compare(other.merit, best);
        format!("{} port {} ({why})", other.device.name, other.port.number)
    });
    let refused = refused.iter().map(|error| format!("usable: {error}"));
    Ok(Choice {
        device: chosen.device.name.clone(),
        port: chosen.port.number,
        link_layer: chosen.port.link_layer,
        gid: chosen.gid.clone(),
        lid: chosen.port.lid,
        global_route: chosen.port.global_route_required || chosen.port.lid == 0,
        active_mtu: chosen.mtu,
        rate_gb_per_s: chosen.port.rate_gb_per_s,
        reason: reason(chosen, settings, turn, equal.len()),
        passed_over: others.chain(refused).collect(),
    })
}

fn no_device(inventory: &Inventory) -> String {
    if inventory.without_driver.is_empty() {
        return "no driver has made one (`ls /sys/class/infiniband`); for soft-RoCE `modprobe rdma_rxe` and `rdma link \
                add r0 type rxe netdev eth0`; SAPWOOD_FABRIC=shm does without one on a single host"
            .into();
    }
    format!(
        "the kernel has {}, but libibverbs has no driver for it: install the driver's package (Debian: \
         ibverbs-providers) in the same release as libibverbs1",
        inventory.without_driver.join(", ")
    )
}

fn ports(device: &DeviceReport, wanted: Option<u8>) -> Result<Vec<&PortReport>, ChoiceError> {
    let name = || device.name.clone();
    match device.transport {
        Transport::InfiniBand => {}
        Transport::Iwarp => {
            return Err(ChoiceError::Transport {
                device: name(),
                what: "iWARP",
            });
        }
        Transport::Other => {
            return Err(ChoiceError::Transport {
                device: name(),
                what: "a protocol of its own",
            });
        }
    }
    if let Some(error) = &device.error {
        return Err(ChoiceError::Unopened {
            device: name(),
            error: error.clone(),
        });
    }
    match wanted {
        None => Ok(device.ports.iter().collect()),
        Some(number) => {
            let port = device.port(number);
            let ports = device.ports.len();
            port.map(|port| vec![port])
                .ok_or_else(|| ChoiceError::UnknownPort {
                    device: name(),
                    port: number,
                    ports,
                })
        }
    }
}

/// Whether a port can be used, with which GID, and how good that is.
fn assess<'a>(
    device: &'a DeviceReport,
    port: &'a PortReport,
    settings: &Settings,
) -> Result<Candidate<'a>, ChoiceError> {
    let mtu = match (port.state, port.active_mtu) {
        (PortState::Active, Some(mtu)) => mtu,
        _ => {
            return Err(ChoiceError::PortDown {
                device: device.name.clone(),
                port: port.number,
                state: port.state,
                physical_state: port.physical_state.clone(),
                remedy: bring_up(port),
            });
        }
    };
    let gid = gid(device, port, settings)?;
    let infiniband = port.link_layer == LinkLayer::InfiniBand;
    let reach = match (infiniband, gid.kind, gid.gid.scope()) {
        (true, ..) | (_, Some(GidType::RoceV2), Scope::Routable) => 2,
        (_, Some(GidType::RoceV2), _) => 1,
        _ => 0,
    };
    let merit = Merit {
        reach,
        rate: port.rate_gb_per_s.unwrap_or(0.0),
        untagged: gid.vlan.is_none(),
        ipv4: infiniband || gid.ipv4.is_some(),
    };
    Ok(Candidate {
        device,
        port,
        gid,
        mtu,
        merit,
    })
}

fn bring_up(port: &PortReport) -> String {
    match (port.link_layer, port.state, &port.net_device) {
        (LinkLayer::InfiniBand, PortState::Initialising | PortState::Armed, _) => {
            "the link is there but no subnet manager has configured it: start one (`opensm`) or ask whoever runs it"
                .into()
        }
        (LinkLayer::InfiniBand, ..) => {
            "check the cable and the switch's port (`ibstat` shows the link; `iblinkinfo` the other end)".into()
        }
        (_, _, Some(interface)) => format!(
            "bring its interface up (`ip link set {interface} up`); if `ip link show {interface}` says NO-CARRIER, \
             check the cable and the switch's port"
        ),
        (_, _, None) => "bring its network interface up (`ip link`), check the cable and the switch's port".into(),
    }
}

fn gid<'a>(
    device: &DeviceReport,
    port: &'a PortReport,
    settings: &Settings,
) -> Result<&'a GidReport, ChoiceError> {
    let table = || port.gids.iter().map(GidReport::to_string).collect();
    let (name, number) = (|| device.name.clone(), port.number);
    if let Some(index) = settings.gid_index {
        let found = port.gids.iter().find(|gid| gid.index == index);
        return found.ok_or_else(|| ChoiceError::GidIndex {
            device: name(),
            port: number,
            index,
            table: table(),
        });
    }
    if let Some(subnet) = settings.subnet {
        let inside = port.gids.iter().filter(|gid| in_subnet(port, gid, &subnet));
        return inside
            .max_by_key(|gid| order(gid))
            .ok_or_else(|| ChoiceError::NotInSubnet {
                device: name(),
                port: number,
                subnet: subnet.to_string(),
                table: table(),
            });
    }
    let infiniband = port.link_layer == LinkLayer::InfiniBand;
    let usable = port
        .gids
        .iter()
        .filter(|gid| infiniband || gid.gid.scope() > Scope::Nowhere);
    let best = if infiniband {
        usable.min_by_key(|gid| gid.index)
    } else {
        usable.max_by_key(|gid| order(gid))
    };
    best.ok_or_else(|| ChoiceError::NoGid {
        device: name(),
        port: number,
        table: table(),
        remedy: match &port.net_device {
            Some(interface) => {
                format!("give its interface an address (`ip addr add ADDRESS/LENGTH dev {interface}`)")
            }
            None => "give its network interface an address".into(),
        },
    })
}

fn in_subnet(port: &PortReport, gid: &GidReport, subnet: &Subnet) -> bool {
    port.link_layer != LinkLayer::InfiniBand && subnet.contains(gid.gid.address())
}

/// RoCE v2 before v1, routable before link-local, no VLAN before VLAN, IPv4 before IPv6, then the lowest index.
fn order(gid: &GidReport) -> impl Ord + use<> {
    (
        gid.kind == Some(GidType::RoceV2),
        gid.gid.scope(),
        gid.vlan.is_none(),
        gid.ipv4.is_some(),
        std::cmp::Reverse(gid.index),
    )
}

fn compare(other: Merit, best: Merit) -> &'static str {
    if other.reach < best.reach {
        "its addresses do not travel as far"
    } else if other.rate < best.rate {
        "slower"
    } else if best.untagged && !other.untagged {
        "its address is on a VLAN"
    } else if best.ipv4 && !other.ipv4 {
        "it has no IPv4 address"
    } else {
        "as good, for other ranks"
    }
}

fn reason(chosen: &Candidate<'_>, settings: &Settings, turn: usize, equal: usize) -> String {
    let mut reasons = Vec::new();
    if !settings.devices.is_empty() {
        reasons.push("the device is set".to_owned());
    } else if equal > 1 {
        reasons.push(format!(
            "number {} of {equal} equally good ports, by local rank",
            turn + 1
        ));
    }
    reasons.push("the port is active".into());
    if settings.gid_index.is_some() {
        reasons.push("the GID index is set".into());
    } else if let Some(subnet) = settings.subnet {
        reasons.push(format!("its address lies in {subnet}"));
    } else if chosen.port.link_layer == LinkLayer::InfiniBand {
        reasons.push("addressed by LID".into());
    } else {
        reasons.push(match chosen.merit.reach {
            2 => "a routable address".into(),
            1 => "no better address than one of this link".into(),
            _ => "no RoCE v2 address: hosts behind routers are out of reach".into(),
        });
    }
    reasons.join(", ")
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
