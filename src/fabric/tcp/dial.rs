//! Calling a peer: its addresses one after the other, until one leads to somebody who answers as only the peer can.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mio::{Registry, Token};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::parcel::Welcome;
use super::settings::Settings;
use super::wire::{self, watch};

/// How long it may take until somebody answers at one address, where there are others.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How long whoever answered may be silent, where there are other addresses. The kernel answers for a rank that is
/// busy, or stopped; the same rank is behind its other addresses, and no faster there.
const SILENT: Duration = Duration::from_secs(30);
/// How often all addresses are called again if somebody has answered and hung up: perhaps there was a crowd.
const ROUNDS: u32 = 5;
/// The pause before the first of these rounds; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Dial {
    addresses: Vec<SocketAddr>,
    next: usize,
    socket: Option<OwnedFd>,
    /// Somebody has answered at the present address.
    answered: bool,
    /// What that one has said so far.
    words: [u8; Welcome::BYTES],
    heard: usize,
    /// What became of those that were tried in this round, for people.
    tried: Vec<String>,
    since: Instant,
    round: u32,
    /// Somebody has answered in this round.
    any_answer: bool,
    /// When the next round begins.
    pause_until: Option<Instant>,
}

impl Dial {
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        Self {
            addresses,
            next: 0,
            socket: None,
            answered: false,
            words: [0; Welcome::BYTES],
            heard: 0,
            tried: Vec::new(),
            since: Instant::now(),
            round: 0,
            any_answer: false,
            pause_until: None,
        }
    }

    /// Calls the next address, or pauses before all are called again.
    ///
    /// # Errors
    /// In words: there is no other, and what became of those before.
    pub fn call_next(
        &mut self,
        token: Token,
        registry: &Registry,
        settings: &Settings,
    ) -> Result<(), String> {
        self.pause_until = None;
        while let Some(address) = self.addresses.get(self.next).copied() {
            self.next += 1;
            self.since = Instant::now();
            (self.answered, self.heard) = (false, 0);
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
        if std::mem::take(&mut self.any_answer) && self.round < ROUNDS {
            self.pause_until = Some(Instant::now() + PAUSE * 2u32.pow(self.round));
            self.round += 1;
            self.next = 0;
            self.tried.clear();
            return Ok(());
        }
        Err(self.what_was_tried())
    }

    /// What became of the calls so far.
    pub fn what_was_tried(&self) -> String {
        if self.addresses.is_empty() {
            return "the peer has no address that this host could call".into();
        }
        let present = self.next.checked_sub(1).filter(|_| self.tried.len() < self.next);
        let present = present.map(|at| {
            let state = if self.answered { "silent" } else { "no answer yet" };
            format!("{}: {state}", self.addresses[at])
        });
        let tried: Vec<String> = self.tried.iter().cloned().chain(present).collect();
        format!("the peer cannot be reached ({})", tried.join("; "))
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
    pub fn look(&mut self) -> Result<Option<(OwnedFd, Welcome)>, String> {
        let Some(socket) = &self.socket else {
            return Ok(None);
        };
        if !self.answered {
            match sockopt::socket_error(socket) {
                Ok(Err(error)) | Err(error) => return Err(error.to_string()),
                Ok(Ok(())) if rustix::net::getpeername(socket).is_err() => return Ok(None),
                Ok(Ok(())) => (self.answered, self.any_answer) = (true, true),
            }
        }
        while self.heard < Welcome::BYTES {
            match rustix::io::read(socket, &mut self.words[self.heard..]) {
                Ok(0) => return Err("whoever answered hung up".into()),
                Ok(count) => self.heard += count,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let welcome = Welcome::decode(&self.words)?;
        Ok(self.socket.take().map(|socket| (socket, welcome)))
    }

    /// Until when the present address has time, if another waits for its turn, or when the next round begins.
    pub fn deadline(&self) -> Option<Instant> {
        let patience = if self.answered { SILENT } else { ATTEMPT };
        let others = self.next < self.addresses.len();
        self.pause_until.or(others.then(|| self.since + patience))
    }

    /// Whether nothing is being called before the next round.
    pub fn pauses(&self) -> bool {
        self.pause_until.is_some()
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
