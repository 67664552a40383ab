//! Where the ranks of a job meet, and how that is written. The only place that reads or writes it.

use std::fmt;
use std::path::PathBuf;

use super::{BootstrapError, noise};

/// `sun_path` holds 108 bytes; a path needs one for its end, an abstract name one for its beginning.
const NAME_LIMIT: usize = 107;
/// The longest name that the domain name system has.
const HOST_LIMIT: usize = 253;
const WHAT_WOULD_BE_RIGHT: &str = "it must be @NAME (an abstract socket), /PATH (a socket's absolute path) or, for \
                                   ranks on several hosts, HOST:PORT of rank 0 (an IPv6 address in brackets)";

/// Where the ranks of a job meet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rendezvous {
    /// A Unix socket in the abstract name space: no file, gone with its process. Written `@name`.
    Abstract(String),
    /// A Unix socket in the file system. Written as its absolute path.
    Path(PathBuf),
    /// A TCP port of the host that rank 0 is on, for ranks on several hosts. Written `host:port`, or `[address]:port`
    /// for an IPv6 address.
    Network {
        /// A name or an address, without brackets. Rank 0 listens on that address alone; on `::` or `0.0.0.0`, on
        /// every one.
        host: String,
        /// The port. 0 is for a rank 0 that opens it before the others are told of it ([`super::Job::open`]).
        port: u16,
    },
}

impl Rendezvous {
    /// An abstract name that nobody else has.
    ///
    /// # Errors
    /// [`BootstrapError::System`] if the system gives no random bytes.
    pub fn random() -> Result<Self, BootstrapError> {
        let mut bytes = [0; 16];
        noise::fill_random(&mut bytes)?;
        Ok(Self::Abstract(format!(
            "sapwood-{:032x}",
            u128::from_ne_bytes(bytes)
        )))
    }

    /// A port of a host.
    ///
    /// # Errors
    /// [`BootstrapError::InvalidJob`] if the host is neither a name nor an address.
    pub fn network(host: &str, port: u16) -> Result<Self, BootstrapError> {
        if is_host(host) {
            return Ok(Self::Network {
                host: host.into(),
                port,
            });
        }
        Err(BootstrapError::InvalidJob(format!(
            "{host:?} is no host to meet at: it must be a name or an address, without brackets and port"
        )))
    }

    /// Whether ranks on several hosts can meet there.
    pub fn is_network(&self) -> bool {
        matches!(self, Self::Network { .. })
    }
}

fn is_host(host: &str) -> bool {
    is_name(host) || is_address_of_version_6(host)
}

fn is_name(host: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !host.is_empty() && host.len() <= HOST_LIMIT && host.bytes().all(known)
}

/// With or without an interface behind a percent sign.
fn is_address_of_version_6(host: &str) -> bool {
    let (address, interface) = host.split_once('%').unwrap_or((host, "any"));
    address.parse::<std::net::Ipv6Addr>().is_ok() && is_name(interface)
}

/// A port as it is printed: digits, and none too many in front.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

impl std::str::FromStr for Rendezvous {
    type Err = String;

    /// Reads `@name`, `/path`, `host:port` or `[address]:port`; the error says what would be right.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err(format!("it contains a zero byte; {WHAT_WOULD_BE_RIGHT}"));
        }
        if text.starts_with(['@', '/']) && text.len() > NAME_LIMIT {
            return Err(format!(
                "it is {} bytes long and a socket's name has at most {NAME_LIMIT}",
                text.len()
            ));
        }
        match text.as_bytes() {
            [b'@', _, ..] => return Ok(Self::Abstract(text[1..].into())),
            [b'/', _, ..] => return Ok(Self::Path(text.into())),
            _ => {}
        }
        let (host, port) = text
            .rsplit_once(':')
            .and_then(|(host, digits)| Some((host, port(digits)?)))
            .ok_or(WHAT_WOULD_BE_RIGHT)?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match bare {
            Some(address) if is_address_of_version_6(address) => Ok(Self::Network {
                host: address.into(),
                port,
            }),
            Some(address) => Err(format!(
                "{address:?} is not an IPv6 address; {WHAT_WOULD_BE_RIGHT}"
            )),
            None if is_name(host) => Ok(Self::Network {
                host: host.into(),
                port,
            }),
            None => Err(WHAT_WOULD_BE_RIGHT.into()),
        }
    }
}

impl fmt::Display for Rendezvous {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abstract(name) => write!(formatter, "@{name}"),
            Self::Path(path) => write!(formatter, "{}", path.display()),
            Self::Network { host, port } if host.contains(':') => write!(formatter, "[{host}]:{port}"),
            Self::Network { host, port } => write!(formatter, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        assert!(format!("@{}", "x".repeat(106)).parse::<Rendezvous>().is_ok());
        assert!(format!("@{}", "x".repeat(107)).parse::<Rendezvous>().is_err());
    }

    #[test]
    fn hosts_and_ports_are_read() {
        for (text, host, port) in [
            ("node7:4000", "node7", 4000),
            ("10.9.0.1:18515", "10.9.0.1", 18515),
            ("[::1]:0", "::1", 0),
            ("[fe80::1%eth0]:65535", "fe80::1%eth0", 65535),
        ] {
            let host = host.to_owned();
            assert_eq!(text.parse(), Ok(Rendezvous::Network { host, port }), "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused_with_what_would_be_right() {
        for text in [
            "",
            "@",
            "/",
            "node7",
            ":4000",
            "node7:",
            "node7:65536",
            "node7:+4",
            "node7:04",
            "::1:4000",
            "[::1]",
            "[node7]:1",
            "two words:1",
            "a\0b",
        ] {
            let error = text.parse::<Rendezvous>().unwrap_err();
            assert!(error.contains("HOST:PORT"), "{text:?}: {error}");
        }
        assert!(Rendezvous::network("[::1]", 1).is_err());
        assert!(Rendezvous::network("::1", 1).is_ok());
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_it_was_written(text in "[@/]?.{0,120}") {
            if let Ok(rendezvous) = text.parse::<Rendezvous>() {
                prop_assert_eq!(rendezvous.to_string(), text);
            }
        }

        #[test]
        fn what_looks_like_a_port_prints_as_it_was_written(text in "\\[?[0-9a-f:.%]{0,20}\\]?:[0-9+ ]{0,6}") {
            if let Ok(rendezvous) = text.parse::<Rendezvous>() {
                prop_assert_eq!(rendezvous.to_string(), text);
            }
        }
    }
}
