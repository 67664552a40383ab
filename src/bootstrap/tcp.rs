//! The network's part of a rendezvous: looking up a host.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::time::Instant;

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
