//! An open connection to a peer: its socket, both halves, and whether the kernel has said that there is something to
//! be done.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::net::{Shutdown, sockopt};

use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::seal::Session;
use super::settings::Settings;
use crate::fabric::FabricError;

/// See the module. To be ended by [`Wire::close`].
pub(super) struct Wire {
    pub socket: OwnedFd,
    pub out: Outgoing,
    pub incoming: Incoming,
    /// There may be something to be received.
    pub readable: bool,
    /// The kernel may take more.
    pub writable: bool,
    /// The kernel might have taken more, but others had their turn.
    pub cut_short: bool,
    /// The other side has closed its half.
    pub closing: bool,
    /// The other side has said something that only it can say, and goes on with this connection.
    pub proved: bool,
    /// The other side waits for such a word of this one.
    pub owes_proof: bool,
    /// This side's address and the other's.
    pub addresses: [SocketAddr; 2],
}

fn address(of: rustix::io::Result<rustix::net::SocketAddrAny>) -> SocketAddr {
    of.ok()
        .and_then(|address| SocketAddr::try_from(address).ok())
        .map_or(SocketAddr::from(([0; 4], 0)), |address| {
            SocketAddr::new(address.ip().to_canonical(), address.port())
        })
}

impl Wire {
    /// Over an established connection, which this side began with `words`, or, with `None`, accepted.
    pub fn new(socket: OwnedFd, session: Session, words: Option<&[u8]>) -> Self {
        let Session {
            dialer_to_listener,
            listener_to_dialer,
            ..
        } = session;
        let (ours, theirs) = match words {
            Some(_) => (dialer_to_listener, listener_to_dialer),
            None => (listener_to_dialer, dialer_to_listener),
        };
        let addresses = [
            address(rustix::net::getsockname(&socket)),
            address(
                rustix::net::getpeername(&socket).and_then(|other| other.ok_or(rustix::io::Errno::NOTCONN)),
            ),
        ];
        Self {
            out: Outgoing::new(ours, words.unwrap_or_default()),
            incoming: Incoming::new(theirs),
            socket,
            readable: true,
            writable: true,
            cut_short: false,
            closing: false,
            proved: false,
            owes_proof: words.is_some(),
            addresses,
        }
    }

    /// The kernel says so.
    pub fn take_event(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable();
        self.closing |= event.is_read_closed() || event.is_error();
    }

    /// Ends the connection now: what was received and not taken is gone, and the peer is told.
    pub fn close(self, registry: &Registry) {
        close(self.socket, registry);
    }
}

/// Wants to hear of a socket.
pub(super) fn watch(socket: &OwnedFd, token: Token, registry: &Registry) -> Result<(), FabricError> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    registry
        .register(&mut SourceFd(&socket.as_raw_fd()), token, interest)
        .map_err(|error| super::system("watching a socket", error))
}

/// As [`watch`], under another name.
pub(super) fn watch_again(socket: &OwnedFd, token: Token, registry: &Registry) -> Result<(), FabricError> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    registry
        .reregister(&mut SourceFd(&socket.as_raw_fd()), token, interest)
        .map_err(|error| super::system("watching a socket", error))
}

/// Closes a watched socket. A forked child may hold a copy of it, which must keep neither the connection open nor the
/// kernel telling of it.
pub(super) fn close(socket: OwnedFd, registry: &Registry) {
    // It cannot fail for a socket that is watched, and if it were not that would be no loss.
    let _ = registry.deregister(&mut SourceFd(&socket.as_raw_fd()));
    // It may never have been connected.
    let _ = rustix::net::shutdown(&socket, Shutdown::Both);
}

/// Sets up a connection's socket: what is written is sent at once, and the kernel asks now and then whether a silent
/// other side is still there.
pub(super) fn tune(socket: &OwnedFd, settings: &Settings) -> rustix::io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    let silence = settings.silence;
    // A third until the first question, and two more with the same pauses.
    let pause = (silence / 3).max(std::time::Duration::from_secs(1));
    sockopt::set_tcp_keepidle(socket, pause)?;
    sockopt::set_tcp_keepintvl(socket, pause)?;
    sockopt::set_tcp_keepcnt(socket, 2)?;
    sockopt::set_socket_keepalive(socket, true)?;
    if settings.buffer != 0 {
        sockopt::set_socket_send_buffer_size(socket, settings.buffer)?;
    }
    Ok(())
}
