//! Whoever calls this rank's port, until it is known who that is. Anybody can: port scans, other programs, ranks of
//! another job. They get nothing but a random number, hold up nobody, and the first few are worth a line in the log each.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mio::{Registry, Token};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sockopt};

use super::parcel::{ANY, Hello, Welcome};
use super::seal::random;
use super::settings::Settings;
use super::wire::{self, watch};
use crate::fabric::FabricError;
use crate::observe::Repeats;

/// How long a visitor may take to say who it is: a rank that is busy elsewhere takes its time.
const FIRST_WORDS: Duration = Duration::from_secs(60);
/// How long while others wait for its place.
const FIRST_WORDS_IN_A_CROWD: Duration = Duration::from_secs(2);
/// With so many, others wait with the kernel.
const MOST: usize = 64;
/// So many calls are answered before those who called are listened to.
const ANSWERS: usize = 16;
/// How long no call is answered after one could not be.
const REST: Duration = Duration::from_millis(100);
/// How often that is worth a line in the log.
const LINES: Duration = Duration::from_secs(1);
/// Calls that the kernel keeps until they are answered.
const BACKLOG: i32 = 4096;
/// The first visitor's name among what is watched, above all ranks.
pub(super) const VISITORS: usize = 1 << 40;

struct Visitor {
    socket: OwnedFd,
    token: Token,
    from: SocketAddr,
    welcome: Welcome,
    /// The kernel has said that there is something to be heard.
    readable: bool,
    words: [u8; Hello::BYTES],
    heard: usize,
    since: Instant,
}

/// A visitor that has said who it is, and by its token that it has seen this side's parcel.
pub(super) struct Announced {
    pub socket: OwnedFd,
    /// What it was told first, which its own words must fit.
    pub welcome: Welcome,
    pub hello: Hello,
    pub from: SocketAddr,
    turned_away: TurnedAway,
}

impl Announced {
    /// Turns it away, and says so.
    pub fn refuse(self, why: &str, registry: &Registry) {
        self.turned_away.note(self.from, why);
        self.close(registry);
    }

    pub fn close(self, registry: &Registry) {
        wire::close(self.socket, registry);
    }
}

/// Who got nothing, in the log.
#[derive(Clone, Default)]
struct TurnedAway(Arc<Mutex<Repeats<(IpAddr, String)>>>);

impl TurnedAway {
    fn note(&self, from: SocketAddr, why: &str) {
        let mut repeats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if repeats.count((from.ip(), why.to_owned())) {
            tracing::warn!(%from, why, "a connection to the port of this rank's tcp fabric was refused");
        }
    }
}

/// See the module.
pub(super) struct Listener {
    socket: OwnedFd,
    /// Where peers can call.
    pub addresses: Vec<SocketAddr>,
    /// Whether loopback leads here, too.
    pub by_loopback: bool,
    visitors: Vec<Visitor>,
    next: usize,
    /// The kernel may have more calls.
    waiting: bool,
    /// Until when none is answered, for want of descriptors, say.
    resting_until: Option<Instant>,
    /// When that was logged.
    logged: Option<Instant>,
    turned_away: TurnedAway,
}

impl Listener {
    /// Listens on a port of the system's choice.
    pub fn open(
        callable: &[IpAddr],
        settings: &Settings,
        token: Token,
        registry: &Registry,
    ) -> Result<Self, FabricError> {
        let asked = settings.subnet.is_some() || settings.interface.is_some();
        // A port that is open on one address is out of reach from all other networks.
        let places = match callable {
            [one] if asked => &[*one][..],
            _ => &ANY[..],
        };
        let mut last = Errno::ADDRNOTAVAIL;
        for place in places {
            match listen(*place) {
                Ok((socket, port)) => {
                    watch(&socket, token, registry)?;
                    let four_only = *place == ANY[1];
                    let reachable = |address: &&IpAddr| !four_only || address.is_ipv4();
                    let addresses = callable.iter().filter(reachable);
                    return Ok(Self {
                        socket,
                        addresses: addresses.map(|address| SocketAddr::new(*address, port)).collect(),
                        by_loopback: ANY.contains(place),
                        visitors: Vec::new(),
                        next: VISITORS,
                        waiting: true,
                        resting_until: None,
                        logged: None,
                        turned_away: TurnedAway::default(),
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(super::system("opening a port for peers", last))
    }

    /// The kernel says that somebody calls.
    pub fn take_event(&mut self) {
        self.waiting = true;
    }

    /// The kernel says that there is something to be heard of a visitor, if it is one.
    pub fn take_event_of_visitor(&mut self, token: Token) {
        let visitor = self.visitors.iter_mut().find(|visitor| visitor.token == token);
        if let Some(visitor) = visitor {
            visitor.readable = true;
        }
    }

    /// Answers calls, listens to visitors, and calls `announce` with those that have said all. Whether there are more
    /// calls to be answered at once.
    pub fn drive(
        &mut self,
        settings: &Settings,
        registry: &Registry,
        mut announce: impl FnMut(Announced),
    ) -> bool {
        if self.waiting {
            self.answer(settings, registry);
        }
        let mut at = 0;
        while at < self.visitors.len() {
            match self.visitors[at].listen() {
                Ok(None) => at += 1,
                Ok(Some(hello)) => {
                    let Visitor {
                        socket,
                        from,
                        welcome,
                        ..
                    } = self.visitors.swap_remove(at);
                    announce(Announced {
                        socket,
                        welcome,
                        hello,
                        from,
                        turned_away: self.turned_away.clone(),
                    });
                }
                Err(why) => {
                    let visitor = self.visitors.swap_remove(at);
                    self.turned_away.note(visitor.from, &why);
                    wire::close(visitor.socket, registry);
                }
            }
        }
        self.can_answer()
    }

    /// Whether a call may be waiting for which there is room.
    fn can_answer(&self) -> bool {
        self.waiting && self.visitors.len() < MOST && self.resting_until.is_none()
    }

    fn answer(&mut self, settings: &Settings, registry: &Registry) {
        if self.resting_until.is_some_and(|until| Instant::now() >= until) {
            self.resting_until = None;
        }
        for _ in 0..ANSWERS {
            if !self.can_answer() {
                return;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::acceptfrom_with(&self.socket, flags) {
                Ok((socket, from)) => {
                    let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                    let from = from.unwrap_or((ANY[1], 0).into());
                    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                    if let Err(error) = self.greet(socket, from, settings, registry) {
                        self.turned_away.note(from, &error.to_string());
                    }
                }
                Err(Errno::AGAIN) => self.waiting = false,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    // Out of descriptors, say: those who call wait, those who are here are listened to.
                    let now = Instant::now();
                    self.resting_until = Some(now + REST);
                    if self.logged.is_none_or(|logged| now >= logged + LINES) {
                        self.logged = Some(now);
                        tracing::warn!(%error, "calls of peers, or of somebody else, cannot be answered for now");
                    }
                }
            }
        }
    }

    fn greet(
        &mut self,
        socket: OwnedFd,
        from: SocketAddr,
        settings: &Settings,
        registry: &Registry,
    ) -> Result<(), FabricError> {
        let failed = |error| super::system("greeting who called", error);
        let token = Token(self.next);
        self.next += 1;
        wire::tune(&socket, settings).map_err(failed)?;
        let welcome = Welcome { nonce: random()? };
        // A new socket has room for so little.
        rustix::net::send(&socket, &welcome.encode(), SendFlags::NOSIGNAL).map_err(failed)?;
        watch(&socket, token, registry)?;
        self.visitors.push(Visitor {
            socket,
            token,
            from,
            welcome,
            readable: true,
            words: [0; Hello::BYTES],
            heard: 0,
            since: Instant::now(),
        });
        Ok(())
    }

    /// Turns those away that have been silent for too long. Says when to look again.
    pub fn look_at_clock(&mut self, now: Instant, registry: &Registry) -> Option<Instant> {
        let patience = if self.waiting && self.visitors.len() >= MOST {
            FIRST_WORDS_IN_A_CROWD
        } else {
            FIRST_WORDS
        };
        for visitor in self
            .visitors
            .extract_if(.., |visitor| now >= visitor.since + patience)
        {
            self.turned_away.note(visitor.from, "it did not say who it is");
            wire::close(visitor.socket, registry);
        }
        if self.can_answer() {
            return Some(now);
        }
        let silent = self.visitors.iter().map(|visitor| visitor.since + patience);
        silent.chain(self.resting_until).min()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let repeats = &self.turned_away.0;
        for (kind, more) in repeats.lock().unwrap_or_else(PoisonError::into_inner).unsaid() {
            let (from, why) = kind.unwrap_or((ANY[1], "for many reasons".into()));
            tracing::warn!(%from, why, more, "more connections to the port of this rank's tcp fabric were refused");
        }
    }
}

impl Visitor {
    /// Hears what it says.
    ///
    /// # Errors
    /// In words, for the log: why it is turned away.
    fn listen(&mut self) -> Result<Option<Hello>, String> {
        while self.readable && self.heard < Hello::BYTES {
            match rustix::io::read(&self.socket, &mut self.words[self.heard..]) {
                Ok(0) => return Err("it hung up before it had said who it is".into()),
                Ok(count) => self.heard += count,
                Err(Errno::AGAIN) => self.readable = false,
                Err(Errno::INTR) => {}
                Err(error) => return Err(format!("it was lost before it had said who it is: {error}")),
            }
            if self.heard >= 8 && self.words[..8] != super::parcel::GREETING {
                // No need to hear the rest.
                self.words[8..].fill(0);
                return Hello::decode(&self.words).map(Some);
            }
        }
        if self.heard < Hello::BYTES {
            return Ok(None);
        }
        Hello::decode(&self.words).map(Some)
    }
}

fn listen(address: IpAddr) -> Result<(OwnedFd, u16), Errno> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !address.is_unspecified())?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(address, 0))?;
    rustix::net::listen(&socket, BACKLOG)?;
    let own = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, own.port()))
}
