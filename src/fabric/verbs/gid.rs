//! The addresses of ports: 16 bytes, a type, and how far packets to it travel. Nothing here talks to a device.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A port's address: an InfiniBand GID, or a RoCE GID, which is an IP address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Gid([u8; 16]);

/// What the packets to a GID look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GidType {
    /// An InfiniBand global route header.
    #[serde(rename = "IB")]
    InfiniBand,
    /// Ethernet frames of type 0x8915; they cross no router.
    #[serde(rename = "RoCE v1")]
    RoceV1,
    /// UDP packets to port 4791; they cross routers.
    #[serde(rename = "RoCE v2")]
    RoceV2,
}

/// How far packets to an address travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Nowhere: unspecified, loopback, multicast.
    Nowhere,
    /// Hosts of the same link only: 169.254.0.0/16, fe80::/10.
    Link,
    /// Across routers.
    Routable,
}

impl Gid {
    /// As it travels, most significant byte first.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// As it travels, most significant byte first.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// An entry of the table that holds nothing.
    pub fn is_empty(self) -> bool {
        self.0 == [0; 16]
    }

    /// The IP address of a RoCE GID: IPv4 where it is a mapped one.
    pub fn address(self) -> IpAddr {
        let six = Ipv6Addr::from(self.0);
        six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4)
    }

    /// How far packets to it travel, by its address.
    pub fn scope(self) -> Scope {
        let address = self.address();
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return Scope::Nowhere;
        }
        match address {
            IpAddr::V4(four) if four.is_broadcast() => Scope::Nowhere,
            IpAddr::V4(four) if four.is_link_local() => Scope::Link,
            IpAddr::V6(six) if six.is_unicast_link_local() => Scope::Link,
            _ => Scope::Routable,
        }
    }
}

impl From<IpAddr> for Gid {
    fn from(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
            IpAddr::V6(six) => six.octets(),
        })
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv6Addr::from(self.0).fmt(f)
    }
}

impl From<Gid> for String {
    fn from(gid: Gid) -> Self {
        gid.to_string()
    }
}

impl FromStr for Gid {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.trim().parse::<Ipv6Addr>()?.octets()))
    }
}

impl TryFrom<String> for Gid {
    type Error = std::net::AddrParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl GidType {
    /// From the words of `/sys/class/infiniband/*/ports/*/gid_attrs/types/*`, which do not tell InfiniBand from
    /// RoCE v1: the link layer does.
    pub(super) fn from_sysfs(words: &str, ethernet: bool) -> Option<Self> {
        match words.trim() {
            "RoCE v2" => Some(Self::RoceV2),
            "IB/RoCE v1" if ethernet => Some(Self::RoceV1),
            "IB/RoCE v1" => Some(Self::InfiniBand),
            _ => None,
        }
    }
}

impl fmt::Display for GidType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InfiniBand => "IB",
            Self::RoceV1 => "RoCE v1",
            Self::RoceV2 => "RoCE v2",
        })
    }
}

/// Addresses with a common beginning, as `10.9.0.0/24` or `fd00:9::/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    base: IpAddr,
    length: u8,
}

/// Text that is no subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a subnet; write it as 10.9.0.0/24 or fd00:9::/64")]
pub struct NoSubnet(String);

impl Subnet {
    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (a, b, width) = match (self.base, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let different: u128 = a ^ b;
        different.checked_shr(width - u32::from(self.length)).unwrap_or(0) == 0
    }
}

impl FromStr for Subnet {
    type Err = NoSubnet;

    fn from_str(text: &str) -> Result<Self, NoSubnet> {
        let refuse = || NoSubnet(text.to_owned());
        let (base, length) = text.trim().split_once('/').ok_or_else(refuse)?;
        let base: IpAddr = base.parse().map_err(|_| refuse())?;
        let length: u8 = length.parse().map_err(|_| refuse())?;
        if length > if base.is_ipv4() { 32 } else { 128 } {
            return Err(refuse());
        }
        Ok(Self { base, length })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gid(text: &str) -> Gid {
        text.parse().expect("a GID")
    }

    #[test]
    fn scopes_are_those_of_the_address() {
        for (text, scope) in [
            ("::", Scope::Nowhere),
            ("::1", Scope::Nowhere),
            ("ff02::1", Scope::Nowhere),
            ("::ffff:127.0.0.1", Scope::Nowhere),
            ("::ffff:255.255.255.255", Scope::Nowhere),
            ("::ffff:169.254.3.4", Scope::Link),
            ("fe80::a00:27ff:fe11:2233", Scope::Link),
            ("::ffff:10.9.0.1", Scope::Routable),
            ("fd00:9::1", Scope::Routable),
            ("2001:db8::7", Scope::Routable),
        ] {
            assert_eq!(gid(text).scope(), scope, "{text}");
        }
    }

    #[test]
    fn a_mapped_address_is_shown_as_such() {
        let mapped = Gid::from(IpAddr::from([10, 9, 0, 1]));
        assert_eq!(mapped.to_string(), "::ffff:10.9.0.1");
        assert_eq!(mapped.address(), IpAddr::from([10, 9, 0, 1]));
        // As sysfs writes it.
        assert_eq!(gid("0000:0000:0000:0000:0000:ffff:0a09:0001"), mapped);
    }

    #[test]
    fn subnets_contain_what_begins_as_they_do() {
        let subnet: Subnet = "10.9.0.0/24".parse().unwrap();
        assert!(subnet.contains([10, 9, 0, 255].into()));
        assert!(!subnet.contains([10, 9, 1, 0].into()));
        assert!(!subnet.contains("::ffff:10.9.0.1".parse().unwrap()));
        let all: Subnet = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains([1, 2, 3, 4].into()));
        let six: Subnet = "fd00:9::/64".parse().unwrap();
        assert!(six.contains("fd00:9::1234".parse().unwrap()));
        assert!(!six.contains("fd00:9:0:1::".parse().unwrap()));
        assert!("::/0".parse::<Subnet>().unwrap().contains("::1".parse().unwrap()));
        for bad in ["10.9.0.0", "10.9.0.0/33", "::/129", "x/8", "10.0.0.0/-1", ""] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }
}
