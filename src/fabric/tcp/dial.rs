//! Calling a peer: its addresses one after the other, until one leads to somebody who answers as only the peer can.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mio::{Registry, Token};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::settings::Settings;
use super::wire::{self, watch};

/// How long one address may take, where there are others.
const ATTEMPT: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Dial {
    addresses: Vec<SocketAddr>,
    next: usize,
    socket: Option<OwnedFd>,
    /// What became of those that were tried, for people.
    tried: Vec<String>,
    since: Instant,
}

impl Dial {
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        Self {
            addresses,
            next: 0,
            socket: None,
            tried: Vec::new(),
            since: Instant::now(),
        }
    }

    /// Calls the next address.
    ///
    /// # Errors
    /// In words: there is no other, and what became of those before.
    pub fn call_next(
        &mut self,
        token: Token,
        registry: &Registry,
        settings: &Settings,
    ) -> Result<(), String> {
        while let Some(address) = self.addresses.get(self.next).copied() {
            self.next += 1;
            self.since = Instant::now();
            let called = open(&address, settings).and_then(|socket| {
                watch(&socket, token, registry).map_err(|_| Errno::NOMEM)?;
                Ok(socket)
            });
            match called {
                Ok(socket) => {
                    self.socket = Some(socket);
                    return Ok(());
                }
                Err(error) => self.tried.push(format!("{address}: {error}")),
            }
        }
        let tried = self.tried.join("; ");
        Err(format!("the peer cannot be reached ({tried})"))
    }

    /// The address that is being called, or was called last, led nowhere.
    pub fn give_up_on_this(&mut self, why: &str, registry: &Registry) {
        if let Some(address) = self.next.checked_sub(1).and_then(|at| self.addresses.get(at)) {
            self.tried.push(format!("{address}: {why}"));
        }
        if let Some(socket) = self.socket.take() {
            wire::close(socket, registry);
        }
    }

    /// The kernel has said something about the socket. `Ok(None)`: it is not decided yet.
    ///
    /// # Errors
    /// In words: this address leads nowhere.
    pub fn look(&mut self) -> Result<Option<OwnedFd>, String> {
        let Some(socket) = &self.socket else {
            return Ok(None);
        };
        match sockopt::socket_error(socket) {
            Ok(Err(error)) | Err(error) => Err(error.to_string()),
            Ok(Ok(())) => match rustix::net::getpeername(socket) {
                Ok(_) => Ok(self.socket.take()),
                Err(_) => Ok(None),
            },
        }
    }

    /// Until when the present address has time, if another waits for its turn.
    pub fn deadline(&self) -> Option<Instant> {
        (self.next < self.addresses.len()).then(|| self.since + ATTEMPT)
    }

    /// Gives up.
    pub fn close(mut self, registry: &Registry) {
        if let Some(socket) = self.socket.take() {
            wire::close(socket, registry);
        }
    }
}

fn open(address: &SocketAddr, settings: &Settings) -> Result<OwnedFd, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    wire::tune(&socket, settings)?;
    match rustix::net::connect(&socket, address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(error) => Err(error),
    }
}
