//! Whoever calls this rank's port, until it is known who that is. Anybody can: port scans, other programs, ranks of
//! another job. They get nothing, hold up nobody, and each is worth one line in the log.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mio::{Registry, Token};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::parcel::{ANY, Hello};
use super::settings::Settings;
use super::wire::{self, watch};
use crate::fabric::FabricError;
use crate::observe::Repeats;

/// How long a visitor may take to say who it is.
const FIRST_WORDS: Duration = Duration::from_secs(10);
/// More than this at a time: the oldest has to go. So many are answered before anything else gets its turn.
const MOST: usize = 64;
/// Calls that the kernel keeps until they are answered.
const BACKLOG: i32 = 4096;
/// How long callers wait that cannot be answered, for want of descriptors say.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// The first visitor's name among what is watched, above all ranks.
pub(super) const VISITORS: usize = 1 << 40;

struct Visitor {
    socket: OwnedFd,
    from: SocketAddr,
    words: [u8; Hello::BYTES],
    heard: usize,
    since: Instant,
}

/// A visitor that has said who it is, and by its token that it has seen this side's parcel.
pub(super) struct Announced {
    pub socket: OwnedFd,
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
    fn counts(&self, from: SocketAddr, why: &str) -> bool {
        let mut repeats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        repeats.count((from.ip(), why.to_owned()))
    }

    fn note(&self, from: SocketAddr, why: &str) {
        if self.counts(from, why) {
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
    /// When to look at them, if nothing else happens.
    again: Option<Instant>,
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
                        again: None,
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

    /// Answers calls, listens to visitors, and calls `announce` with those that have said all.
    pub fn drive(&mut self, settings: &Settings, registry: &Registry, mut announce: impl FnMut(Announced)) {
        self.again = None;
        let mut answered = 0;
        while self.waiting {
            if answered == MOST {
                self.again = Some(Instant::now());
                break;
            }
            answered += 1;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::acceptfrom_with(&self.socket, flags) {
                Ok((socket, from)) => {
                    let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                    let from = from.unwrap_or((ANY[1], 0).into());
                    self.greet(
                        socket,
                        SocketAddr::new(from.ip().to_canonical(), from.port()),
                        settings,
                        registry,
                    );
                }
                Err(Errno::AGAIN) => self.waiting = false,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    // Out of descriptors, say: those who call wait.
                    if self.turned_away.counts((ANY[1], 0).into(), &error.to_string()) {
                        tracing::warn!(%error, "a call of a peer, or of somebody else, cannot be answered");
                    }
                    self.again = Some(Instant::now() + TRY_AGAIN);
                    break;
                }
            }
        }
        let mut at = 0;
        while at < self.visitors.len() {
            match self.visitors[at].listen() {
                Ok(None) => at += 1,
                Ok(Some(hello)) => {
                    let Visitor { socket, from, .. } = self.visitors.swap_remove(at);
                    let turned_away = self.turned_away.clone();
                    announce(Announced {
                        socket,
                        hello,
                        from,
                        turned_away,
                    });
                }
                Err(why) => {
                    let visitor = self.visitors.swap_remove(at);
                    self.turned_away.note(visitor.from, &why);
                    wire::close(visitor.socket, registry);
                }
            }
        }
    }

    fn greet(&mut self, socket: OwnedFd, from: SocketAddr, settings: &Settings, registry: &Registry) {
        if self.visitors.len() >= MOST {
            let oldest = (0..MOST)
                .min_by_key(|at| self.visitors[*at].since)
                .expect("not empty");
            let oldest = self.visitors.swap_remove(oldest);
            self.turned_away
                .note(oldest.from, "it said nothing while too many others called");
            wire::close(oldest.socket, registry);
        }
        let token = Token(self.next);
        self.next += 1;
        let ready = wire::tune(&socket, settings).is_ok() && watch(&socket, token, registry).is_ok();
        if ready {
            self.visitors.push(Visitor {
                socket,
                from,
                words: [0; Hello::BYTES],
                heard: 0,
                since: Instant::now(),
            });
        }
    }

    /// Turns those away that have been silent for too long. Says when to look again.
    pub fn look_at_clock(&mut self, now: Instant, registry: &Registry) -> Option<Instant> {
        for visitor in self
            .visitors
            .extract_if(.., |visitor| now >= visitor.since + FIRST_WORDS)
        {
            self.turned_away.note(visitor.from, "it did not say who it is");
            wire::close(visitor.socket, registry);
        }
        self.visitors
            .iter()
            .map(|visitor| visitor.since + FIRST_WORDS)
            .chain(self.again)
            .min()
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
        while self.heard < Hello::BYTES {
            match rustix::io::read(&self.socket, &mut self.words[self.heard..]) {
                Ok(0) => return Err("it hung up before it had said who it is".into()),
                Ok(count) => self.heard += count,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(format!("it was lost before it had said who it is: {error}")),
            }
            if self.heard >= 8 && self.words[..8] != super::parcel::GREETING {
                // No need to hear the rest.
                self.words[8..].fill(0);
                break;
            }
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
