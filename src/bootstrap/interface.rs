//! Which of this host's addresses the ranks of other hosts are told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use super::BootstrapError;
use crate::fabric::verbs::Subnet;

/// An address of this host: in the subnet, if one is given; else the one from which other networks are reached.
///
/// # Errors
/// [`BootstrapError::InvalidJob`] names the addresses that there are.
pub(super) fn own_address(subnet: Option<&Subnet>) -> Result<IpAddr, BootstrapError> {
    let addresses = addresses()?;
    let all = || match addresses.as_slice() {
        [] => "none".to_owned(),
        addresses => addresses
            .iter()
            .map(IpAddr::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    };
    if let Some(subnet) = subnet {
        let found = addresses.iter().find(|address| subnet.contains(**address));
        return found.copied().ok_or_else(|| {
            BootstrapError::InvalidJob(format!(
                "SAPWOOD_RENDEZVOUS_SUBNET={subnet}: this host has no address in it; it has {}",
                all()
            ))
        });
    }
    let routed = towards_others().filter(|address| addresses.contains(address));
    let any = || addresses.iter().find(|address| !address.is_loopback()).copied();
    let chosen = routed.or_else(any).or_else(|| addresses.first().copied());
    chosen.ok_or_else(|| BootstrapError::InvalidJob("this host has no network address".into()))
}

/// All that can be told others: what is of one link only is not.
fn addresses() -> Result<Vec<IpAddr>, BootstrapError> {
    let interfaces = if_addrs::get_if_addrs().map_err(|error| BootstrapError::System {
        doing: "listing this host's network interfaces".into(),
        source: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO),
    })?;
    let mut addresses: Vec<IpAddr> = interfaces
        .into_iter()
        .filter(|interface| interface.is_oper_up() && !interface.is_link_local())
        .map(|interface| interface.ip())
        .collect();
    // Version 4 first: it is what most clusters route.
    addresses.sort_by_key(|address| (address.is_loopback(), address.is_ipv6()));
    Ok(addresses)
}

/// The address from which this host would speak to another network: asked of the routing table, nothing is sent.
fn towards_others() -> Option<IpAddr> {
    // Reserved for documentation: nobody's in particular, so that the default route is taken.
    let asked: [(IpAddr, IpAddr); 2] = [
        (
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(198, 51, 100, 1).into(),
        ),
        (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1).into(),
        ),
    ];
    asked.into_iter().find_map(|(own, other)| {
        let socket = UdpSocket::bind((own, 0)).ok()?;
        socket.connect((other, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subnet_chooses() {
        let subnet: Subnet = "127.0.0.0/8".parse().unwrap();
        assert_eq!(
            own_address(Some(&subnet)).unwrap(),
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        );
        // Reserved for documentation: nobody has it.
        let subnet: Subnet = "203.0.113.0/24".parse().unwrap();
        let error = own_address(Some(&subnet)).unwrap_err().to_string();
        assert!(
            error.contains("203.0.113.0/24") && error.contains("127.0.0.1"),
            "{error}"
        );
    }

    #[test]
    fn without_one_there_is_an_address_too() {
        own_address(None).unwrap();
    }
}
