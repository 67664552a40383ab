//! Where a rank can be called, and where a peer is called first. Guesses nothing: all addresses that may lead to a rank
//! travel in its parcel, and are tried until one leads there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use if_addrs::{IfAddr, Interface};

use super::TcpError;
use super::settings::Settings;
use crate::fabric::FabricError;

/// An address of this host, and how many of its leading bits its neighbours have in common with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub interface: String,
    pub address: IpAddr,
    pub prefix: u32,
}

impl From<Interface> for Own {
    fn from(found: Interface) -> Self {
        let prefix = match &found.addr {
            IfAddr::V4(four) => four.netmask.to_bits().leading_ones(),
            IfAddr::V6(six) => six.netmask.to_bits().leading_ones(),
        };
        Self {
            address: found.ip(),
            interface: found.name,
            prefix,
        }
    }
}

/// All addresses of this host.
pub(super) fn of_this_host() -> Result<Vec<Own>, FabricError> {
    let found =
        if_addrs::get_if_addrs().map_err(|error| super::system("listing the network's addresses", error))?;
    Ok(found.into_iter().map(Own::from).collect())
}

/// Those at which peers may call, by the settings, the most widely known first.
///
/// # Errors
/// None fits the settings.
pub(super) fn to_be_called_at(own: &[Own], settings: &Settings) -> Result<Vec<IpAddr>, TcpError> {
    let asked = settings.subnet.is_some() || settings.interface.is_some();
    let fits = |one: &&Own| {
        settings.subnet.is_none_or(|subnet| subnet.contains(one.address))
            && settings.interface.as_ref().is_none_or(|name| *name == one.interface)
            // What means another host to each host is called only by who asked for it.
            && (asked || !one.address.is_loopback())
            && !matches!(one.address, IpAddr::V6(six) if six.is_unicast_link_local())
    };
    let mut found: Vec<IpAddr> = own.iter().filter(fits).map(|one| one.address).collect();
    // 169.254.0.0/16 is what an interface has that got nothing better.
    found.sort_by_key(|address| matches!(address, IpAddr::V4(four) if four.is_link_local()));
    if found.is_empty() && asked {
        let wanted = match (&settings.subnet, &settings.interface) {
            (Some(subnet), Some(name)) => format!("lies in {subnet} and belongs to {name}"),
            (Some(subnet), None) => format!("lies in {subnet} (SAPWOOD_TCP_SUBNET)"),
            (_, name) => format!(
                "belongs to {} (SAPWOOD_TCP_INTERFACE)",
                name.as_deref().unwrap_or("it")
            ),
        };
        let present: Vec<String> = own
            .iter()
            .map(|one| format!("{} {}", one.interface, one.address))
            .collect();
        return Err(TcpError::NoAddress {
            wanted,
            present: present.join(", "),
        });
    }
    if found.is_empty() {
        // A host without a network still reaches itself.
        found.push(Ipv4Addr::LOCALHOST.into());
    }
    Ok(found)
}

/// In which order a peer's addresses are called. `same_network`: both ranks are in one network name space of one kernel.
pub(super) fn order(
    theirs: &[SocketAddr],
    own: &[Own],
    same_network: bool,
    by_loopback: bool,
) -> Vec<SocketAddr> {
    let is_own = |address: &SocketAddr| own.iter().any(|one| one.address == address.ip());
    let mut order: Vec<SocketAddr> = theirs
        .iter()
        // An address that both hosts have (of a bridge for containers, say) leads back here.
        .filter(|address| same_network || !is_own(address))
        .copied()
        .collect();
    let is_near = |address: &SocketAddr| own.iter().any(|one| shares_prefix(one, address.ip()));
    order.sort_by_key(|address| !is_near(address));
    if let Some(first) = order.first()
        && same_network
        && by_loopback
    {
        order.insert(0, (Ipv4Addr::LOCALHOST, first.port()).into());
    }
    order
}

fn shares_prefix(own: &Own, other: IpAddr) -> bool {
    let (a, b, width): (u128, u128, u32) = match (own.address, other) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    own.prefix > 0 && (a ^ b).checked_shr(width.saturating_sub(own.prefix)).unwrap_or(0) == 0
}

/// Tells networks apart: in the same one, loopback leads from one rank to the other.
pub(super) fn network() -> [u8; 16] {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = std::fs::metadata("/proc/self/ns/net").map_or((0, 0), |space| (space.dev(), space.ino()));
    let mut hasher = blake3::Hasher::new_derive_key("sapwood fabric tcp v1: network");
    hasher
        .update(&boot)
        .update(&space.0.to_le_bytes())
        .update(&space.1.to_le_bytes());
    *hasher
        .finalize()
        .as_bytes()
        .first_chunk()
        .expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(list: &[(&str, &str, u32)]) -> Vec<Own> {
        list.iter()
            .map(|(interface, address, prefix)| Own {
                interface: (*interface).into(),
                address: address.parse().unwrap(),
                prefix: *prefix,
            })
            .collect()
    }

    fn laptop() -> Vec<Own> {
        own(&[
            ("lo", "127.0.0.1", 8),
            ("usb0", "169.254.3.4", 16),
            ("eth0", "192.168.1.7", 24),
            ("docker0", "172.17.0.1", 16),
            ("eth0", "fe80::1", 64),
            ("eth0", "2001:db8::7", 64),
        ])
    }

    fn called(settings: &Settings) -> Vec<String> {
        let found = to_be_called_at(&laptop(), settings).unwrap();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_are_those_that_lead_here_from_elsewhere() {
        assert_eq!(
            called(&Settings::default()),
            ["192.168.1.7", "172.17.0.1", "2001:db8::7", "169.254.3.4"]
        );
        let subnet = Some("192.168.0.0/16".parse().unwrap());
        assert_eq!(
            called(&Settings {
                subnet,
                ..Settings::default()
            }),
            ["192.168.1.7"]
        );
        let interface = Some("eth0".to_owned());
        assert_eq!(
            called(&Settings {
                interface,
                ..Settings::default()
            }),
            ["192.168.1.7", "2001:db8::7"]
        );
        let interface = Some("lo".to_owned());
        assert_eq!(
            called(&Settings {
                interface,
                ..Settings::default()
            }),
            ["127.0.0.1"]
        );
        let nothing = to_be_called_at(&[], &Settings::default()).unwrap();
        assert_eq!(nothing, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
    }

    #[test]
    fn settings_that_nothing_fits_are_refused_with_what_there_is() {
        let subnet = Some("10.0.0.0/8".parse().unwrap());
        let error = to_be_called_at(
            &laptop(),
            &Settings {
                subnet,
                ..Settings::default()
            },
        );
        let said = error.unwrap_err().to_string();
        assert!(
            said.contains("10.0.0.0/8") && said.contains("eth0 192.168.1.7"),
            "{said}"
        );
    }

    #[test]
    fn near_addresses_are_called_first_and_own_ones_not_at_all() {
        let theirs: Vec<SocketAddr> = ["10.1.1.1:5", "172.17.0.1:5", "192.168.1.9:5"]
            .map(|text| text.parse().unwrap())
            .into();
        let order_of = |same, loopback| {
            let order = order(&theirs, &laptop(), same, loopback);
            order.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(order_of(false, true), ["192.168.1.9:5", "10.1.1.1:5"]);
        let same = ["127.0.0.1:5", "172.17.0.1:5", "192.168.1.9:5", "10.1.1.1:5"];
        assert_eq!(order_of(true, true), same);
        assert_eq!(order_of(true, false), same[1..]);
    }

    #[test]
    fn this_host_has_a_network_of_its_own() {
        assert_eq!(network(), network());
        let own = of_this_host().unwrap();
        assert!(!to_be_called_at(&own, &Settings::default()).unwrap().is_empty());
    }
}
