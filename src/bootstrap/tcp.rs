//! The network's sockets: finding a host, listening, connecting, and noticing that the other end is out of reach.
//!
//! A process that ends closes its connections, which is seen at once. A host that vanishes closes nothing: its silence
//! must tell. The kernel answers for a process that is stopped or busy, so that such a one is not silent; hence no
//! timeout may count here that a kernel's acknowledgement does not stop, and `TCP_USER_TIMEOUT` counts on through a
//! full window.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::socket::NotThere;
use super::{BootstrapError, Rendezvous, interface, socket};
use crate::fabric::verbs::Subnet;

/// A host that has acknowledged nothing for this long is out of reach. It is noticed within [`CHECK`] more.
pub(super) const SILENCE: Duration = Duration::from_secs(9);
/// How often connections with something unacknowledged are looked at.
pub(super) const CHECK: Duration = Duration::from_secs(1);
/// After this long without a word the kernel asks whether the other end is there; three questions without an answer
/// make up [`SILENCE`].
const IDLE: Duration = Duration::from_secs(3);
const ASK_AGAIN: Duration = Duration::from_secs(2);
const QUESTIONS: u32 = 3;
/// How long one attempt to connect may take before the next address has its turn.
const ATTEMPT: Duration = Duration::from_secs(3);

/// The addresses of a host, with a port. The system's look-up of a name has no deadline and cannot be interrupted, so
/// a thread of its own does it, which is left to its fate at the deadline; an address needs no looking up.
pub(super) fn resolve(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (sender, receiver) = mpsc::channel();
    let name = host.to_owned();
    std::thread::Builder::new()
        .name("sapwood-look-up".into())
        .spawn(move || {
            let found = (name.as_str(), port).to_socket_addrs();
            let _ = sender.send(found.map(Iterator::collect).map_err(|error| error.to_string()));
        })
        .map_err(|error| format!("no thread to look it up ({error})"))?;
    let left = deadline.saturating_duration_since(Instant::now());
    match receiver.recv_timeout(left) {
        Ok(found) => found,
        Err(_) => Err("the system's look-up of the name gives no answer".into()),
    }
}

/// Those of a host's addresses that are in a subnet; the error says which there are.
fn inside(addresses: Vec<SocketAddr>, subnet: &Subnet) -> Result<Vec<SocketAddr>, String> {
    let (inside, outside): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| subnet.contains(address.ip()));
    if inside.is_empty() {
        let outside: Vec<String> = outside.iter().map(|address| address.ip().to_string()).collect();
        return Err(format!(
            "no address of that host is in SAPWOOD_RENDEZVOUS_SUBNET={subnet}; it has {}",
            outside.join(", ")
        ));
    }
    Ok(inside)
}

fn stream_socket(address: &SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::STREAM, flags, None)
}

/// Whether a name means this very host and no address that others can reach: Debian gives a host's own name 127.0.1.1.
fn own_by_name(host: &str, addresses: &[SocketAddr]) -> bool {
    let here_alone = ["localhost", "ip6-localhost", "ip6-loopback"].contains(&host)
        || ["localhost.", "localhost4", "localhost6"]
            .iter()
            .any(|name| host.starts_with(name))
        || host.ends_with(".localhost");
    let named = host.parse::<IpAddr>().is_err() && !here_alone;
    named && !addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback())
}

/// Every address of this host, also where the kernel has no version 6.
fn everywhere(port: u16) -> Vec<SocketAddr> {
    vec![
        (Ipv6Addr::UNSPECIFIED, port).into(),
        (Ipv4Addr::UNSPECIFIED, port).into(),
    ]
}

/// Listens on the first address of the host that is one of this host's; on all of them where its name leads nowhere
/// else but to itself: others come by another way, and all must know the secret.
pub(super) fn listen(
    (host, port): (&str, u16),
    subnet: Option<&Subnet>,
    backlog: i32,
    deadline: Instant,
) -> Result<OwnedFd, BootstrapError> {
    let rendezvous = Rendezvous::network(host, port)?;
    let invalid = |problem| BootstrapError::InvalidJob(format!("rendezvous {rendezvous}: {problem}"));
    let addresses = resolve(host, port, deadline).map_err(invalid)?;
    let addresses = match (own_by_name(host, &addresses), subnet) {
        (true, None) => everywhere(port),
        (true, Some(subnet)) if !addresses.iter().any(|address| subnet.contains(address.ip())) => {
            vec![SocketAddr::new(interface::own_address(Some(subnet))?, port)]
        }
        (_, Some(subnet)) => inside(addresses, subnet).map_err(invalid)?,
        (false, None) if host == Ipv6Addr::UNSPECIFIED.to_string() => everywhere(port),
        (false, None) => addresses,
    };
    let mut last = Errno::ADDRNOTAVAIL;
    for address in &addresses {
        match listen_on(address, backlog) {
            Ok(socket) => return Ok(socket),
            Err(Errno::ADDRINUSE) => {
                return Err(BootstrapError::RendezvousTaken {
                    rendezvous: rendezvous.to_string(),
                });
            }
            Err(error) => last = error,
        }
    }
    let whose = match last {
        Errno::ADDRNOTAVAIL => " (that address is not this host's, on which rank 0 runs)",
        _ => "",
    };
    Err(BootstrapError::System {
        doing: format!("opening the rendezvous {rendezvous}{whose}"),
        source: last,
    })
}

fn listen_on(address: &SocketAddr, backlog: i32) -> Result<OwnedFd, Errno> {
    let socket = stream_socket(address)?;
    // A port whose last connections are still fading away may be opened again; one that is listened on may not.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    rustix::net::bind(&socket, address)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// The port that a socket is bound to.
pub(super) fn port(socket: &OwnedFd) -> Result<u16, Errno> {
    let address = rustix::net::getsockname(socket)?;
    SocketAddr::try_from(address).map(|address| address.port())
}

/// One attempt to connect to a host, at one of its addresses after the other.
pub(super) fn connect(
    host: &str,
    port: u16,
    subnet: Option<&Subnet>,
    deadline: Instant,
) -> Result<OwnedFd, NotThere> {
    // A name that is not known yet is one that is not there yet.
    let unknown = |error, why| NotThere {
        error,
        why: Some(why),
    };
    let mut addresses = resolve(host, port, deadline)
        .map_err(|why| unknown(Errno::HOSTUNREACH, format!("the host's name {host:?}: {why}")))?;
    if let Some(subnet) = subnet {
        addresses = inside(addresses, subnet).map_err(|why| unknown(Errno::ADDRNOTAVAIL, why))?;
    }
    let mut last = Errno::HOSTUNREACH;
    for address in &addresses {
        match connect_to(address, deadline.min(Instant::now() + ATTEMPT)) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

fn connect_to(address: &SocketAddr, until: Instant) -> Result<OwnedFd, Errno> {
    connect_with(stream_socket(address)?, address, until)
}

fn connect_with(socket: OwnedFd, address: &SocketAddr, until: Instant) -> Result<OwnedFd, Errno> {
    match rustix::net::connect(&socket, address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => match socket::wait_for(&socket, PollFlags::OUT, until) {
            Ok(true) => sockopt::socket_error(&socket)??,
            _ => return Err(Errno::TIMEDOUT),
        },
        Err(error) => return Err(error),
    }
    // Where nobody listens, a connection within one host can be given the very port that it goes to, and then it meets
    // itself.
    let own = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    if own == *address {
        return Err(Errno::CONNREFUSED);
    }
    Ok(socket)
}

/// Sends what is written at once, and has the kernel ask whether a silent other end is still there.
pub(super) fn tune(socket: &OwnedFd) -> Result<(), Errno> {
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_tcp_keepidle(socket, IDLE)?;
    sockopt::set_tcp_keepintvl(socket, ASK_AGAIN)?;
    sockopt::set_tcp_keepcnt(socket, QUESTIONS)?;
    sockopt::set_socket_keepalive(socket, true)
}

/// What becomes of what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// Everything has been acknowledged: if the other end falls silent, the kernel asks by itself.
    Done,
    /// Something is on its way, while the kernel does not ask.
    Pending,
    /// Something has been sent again and again, and nothing has come back for [`SILENCE`].
    CutOff,
}

/// Looks at how a connection's deliveries go.
pub(super) fn delivery(socket: &impl AsFd) -> Delivery {
    // SAFETY: the structure is made of integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the option writes at most `length` bytes, which is the size of the structure it is given.
    let code = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut length,
        )
    };
    if code != 0 || (info.tcpi_unacked == 0 && info.tcpi_notsent_bytes == 0) {
        return Delivery::Done;
    }
    let silent = Duration::from_millis(info.tcpi_last_ack_recv.into()) >= SILENCE;
    // Where the other end takes nothing more for now (its process is stopped, say), the kernel asks ever more seldom:
    // two questions in a row without an answer are then needed.
    if silent && (info.tcpi_retransmits > 0 || info.tcpi_probes > 1) {
        Delivery::CutOff
    } else {
        Delivery::Pending
    }
}

/// Whether an error of an established connection means that the other end is out of reach.
pub(super) fn is_out_of_reach(error: Errno) -> bool {
    matches!(
        error,
        Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::NETDOWN
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn names_and_addresses_are_found() {
        assert_eq!(
            resolve("::1", 7, soon()).unwrap(),
            [SocketAddr::from((Ipv6Addr::LOCALHOST, 7))]
        );
        assert!(!resolve("localhost", 7, soon()).unwrap().is_empty());
        assert!(resolve("no-such-host.invalid", 7, soon()).is_err());
    }

    #[test]
    fn a_port_is_listened_on_once() {
        let first = listen(("127.0.0.1", 0), None, 16, soon()).unwrap();
        let port = port(&first).unwrap();
        let taken = listen(("127.0.0.1", port), None, 16, soon()).unwrap_err();
        assert!(matches!(taken, BootstrapError::RendezvousTaken { .. }), "{taken}");
        assert!(connect("127.0.0.1", port, None, soon()).is_ok());
        drop(first);
        assert_eq!(
            connect("127.0.0.1", port, None, soon()).unwrap_err(),
            Errno::CONNREFUSED.into()
        );
    }

    #[test]
    fn every_address_means_both_versions() {
        let socket = listen(("::", 0), None, 16, soon()).unwrap();
        assert!(connect("127.0.0.1", port(&socket).unwrap(), None, soon()).is_ok());
    }

    #[test]
    fn the_subnet_chooses_among_a_hosts_addresses() {
        let subnet = |text: &str| Some(text.parse::<Subnet>().unwrap());
        let loopback = subnet("127.0.0.0/8");
        let socket = listen(("localhost", 0), loopback.as_ref(), 16, soon()).unwrap();
        let number = port(&socket).unwrap();
        assert!(connect("localhost", number, loopback.as_ref(), soon()).is_ok());
        let elsewhere = subnet("203.0.113.0/24");
        let met = connect("localhost", number, elsewhere.as_ref(), soon());
        let said = met.unwrap_err().to_string();
        assert!(
            said.contains("SAPWOOD_RENDEZVOUS_SUBNET=203.0.113.0/24") && said.contains("127.0.0.1"),
            "{said}"
        );
        let error = listen(("localhost", 0), elsewhere.as_ref(), 16, soon()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("SAPWOOD_RENDEZVOUS_SUBNET=203.0.113.0/24"),
            "{error}"
        );
    }

    #[test]
    fn a_name_that_means_this_host_alone_is_told_from_one_that_others_know() {
        let own: SocketAddr = "127.0.1.1:7".parse().unwrap();
        let far: SocketAddr = "192.0.2.1:7".parse().unwrap();
        for (host, addresses, only_here) in [
            ("node7", &[own][..], true),
            ("node7", &[own, far], false),
            ("node7", &[far], false),
            ("localhost", &[own], false),
            ("localhost.localdomain", &[own], false),
            ("ip6-localhost", &["[::1]:7".parse().unwrap()], false),
            ("127.0.1.1", &[own], false),
        ] {
            assert_eq!(own_by_name(host, addresses), only_here, "{host} {addresses:?}");
        }
    }

    #[test]
    fn an_unknown_name_is_told_in_the_resolvers_words() {
        let error = connect("no-such-host.invalid", 7, None, soon()).unwrap_err();
        let words = resolve("no-such-host.invalid", 7, soon()).unwrap_err();
        assert_eq!(error.error, Errno::HOSTUNREACH);
        assert!(
            error.to_string().contains("\"no-such-host.invalid\"") && error.to_string().contains(&words),
            "{error}"
        );
    }

    #[test]
    fn an_address_of_another_host_cannot_be_opened() {
        let error = listen(("192.0.2.1", 0), None, 16, soon())
            .unwrap_err()
            .to_string();
        assert!(error.contains("not this host's"), "{error}");
    }

    #[test]
    fn nobody_meets_himself() {
        // A socket that is bound to the port it connects to is given what an unlucky one gets by chance.
        let probe = listen(("127.0.0.1", 0), None, 16, soon()).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port(&probe).unwrap()));
        drop(probe);
        let socket = stream_socket(&address).unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        rustix::net::bind(&socket, &address).unwrap();
        let met = connect_with(socket, &address, soon());
        assert_eq!(met.unwrap_err(), Errno::CONNREFUSED);
    }

    #[test]
    fn what_arrives_is_seen_to_have_arrived() {
        let listener = listen(("127.0.0.1", 0), None, 16, soon()).unwrap();
        let socket = connect("127.0.0.1", port(&listener).unwrap(), None, soon()).unwrap();
        tune(&socket).unwrap();
        rustix::io::write(&socket, b"leaf").unwrap();
        while delivery(&socket) != Delivery::Done {
            assert!(Instant::now() < soon());
        }
    }
}
