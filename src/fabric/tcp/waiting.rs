//! How an endpoint is driven, and how it waits (invariant 7): whoever calls it takes in what the kernel has and hands on
//! what it takes; who waits looks as often as a wake-up costs, yields, and then sleeps on all sockets at once.
//!
//! Each socket's readiness is told once, and remembered here until the socket has been found empty or full. No wake-up
//! is lost: what comes after the last look makes the poller's descriptor readable.

use std::time::{Duration, Instant};

use mio::Token;

use super::endpoint::{LISTENER, TcpEndpoint};
use super::queue_pair::{Link, QueuePair, Shared};
use super::silence;
use super::visitor::{Announced, VISITORS};
use crate::fabric::FabricError;

/// The longest sleep between two looks at clocks and silent peers.
const SLICE: Duration = Duration::from_millis(500);
/// How often connections are looked at whose peers are silent.
const SILENCES: Duration = Duration::from_secs(1);

impl TcpEndpoint {
    /// Takes in what there is, after sleeping until there is something, at most `timeout`. Whether there is more at
    /// once.
    pub(super) fn drive(&mut self, timeout: Duration) -> Result<bool, FabricError> {
        self.take_events(timeout)?;
        let mut more = false;
        let mut listener = self.listener.take();
        if let Some(listener) = &mut listener {
            let registry = self.poller.registry();
            let mut announced = std::mem::take(&mut self.announced);
            more |= listener.drive(&self.settings, registry, |visitor| announced.push(visitor));
            for visitor in announced.drain(..) {
                self.introduce(visitor);
            }
            self.announced = announced;
        }
        self.listener = listener;
        let (pairs, mut shared) = self.split();
        for pair in pairs {
            more |= pair.drive(&mut shared);
        }
        Ok(more)
    }

    fn take_events(&mut self, timeout: Duration) -> Result<(), FabricError> {
        match self.poller.poll(&mut self.events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(super::system("asking for events", error)),
        }
        let events = std::mem::replace(&mut self.events, mio::Events::with_capacity(0));
        for event in &events {
            let Token(number) = event.token();
            if event.token() == LISTENER {
                if let Some(listener) = &mut self.listener {
                    listener.take_event();
                }
            } else if number < VISITORS {
                let (pairs, mut shared) = self.split();
                if let Ok(at) = pairs.binary_search_by_key(&number, |pair| pair.peer as usize) {
                    pairs[at].take_event(event, &mut shared);
                }
            } else if let Some(listener) = &mut self.listener {
                // Else it is the bell, which has its flag.
                listener.take_event_of_visitor(event.token());
            }
        }
        self.events = events;
        Ok(())
    }

    /// A visitor has said who it is.
    fn introduce(&mut self, visitor: Announced) {
        let hello = visitor.hello;
        let registry = self.poller.registry();
        if (hello.to, hello.generation) != (self.rank, self.generation) {
            let why = format!(
                "it looks for rank {} of generation {}, and this is rank {} of generation {}",
                hello.to, hello.generation, self.rank, self.generation
            );
            return visitor.refuse(&why, registry);
        }
        let Ok(at) = self.pairs.binary_search_by_key(&hello.from, |pair| pair.peer) else {
            return visitor.refuse("it says that it is a rank that nobody here knows", registry);
        };
        if hello.from <= self.rank || !super::seal::same(&self.pairs[at].token, &hello.token) {
            return visitor.refuse("it was not invited: its token is none of this rank's", registry);
        }
        let (pairs, mut shared) = self.split();
        pairs[at].take_call(visitor, &mut shared);
    }

    /// Looks whether something has taken too long. Says when to look again at the latest.
    pub(super) fn look_at_clocks(&mut self) -> Instant {
        let now = Instant::now();
        self.looked = now;
        let patience = self.settings.receiver_patience;
        let look_for_silence = now.saturating_duration_since(self.silences_looked) >= SILENCES;
        if look_for_silence {
            self.silences_looked = now;
        }
        let silence = self.settings.silence;
        let mut next = now + SLICE;
        if let Some(listener) = &mut self.listener {
            let again = listener.look_at_clock(now, self.poller.registry());
            next = again.map_or(next, |again| next.min(again));
        }
        let (pairs, mut shared) = self.split();
        for pair in pairs {
            if look_for_silence {
                look_for_sign_of_life(pair, silence, &mut shared);
            }
            let again = pair.look_at_clock(now, patience, &mut shared);
            next = again.map_or(next, |again| next.min(again));
        }
        next
    }

    /// Until `poll` has something to deliver (`true`) or the deadline has passed.
    pub(super) fn sleep_until(&mut self, deadline: Instant) -> Result<bool, FabricError> {
        let (mut spins, mut yields) = (self.patience.spins / LOOKS, self.patience.yields);
        loop {
            let more = self.drive(Duration::ZERO)?;
            if self.has_work() {
                return Ok(true);
            }
            if more {
                // What came is of no concern to the user, but somebody waits for it to be done.
                if Instant::now() >= deadline {
                    return Ok(false);
                }
                continue;
            }
            if spins > 0 {
                spins -= 1;
                std::hint::spin_loop();
                continue;
            }
            if yields > 0 {
                yields -= 1;
                std::thread::yield_now();
                continue;
            }
            let next = self.look_at_clocks();
            if self.has_work() {
                return Ok(true);
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(false);
            }
            self.drive(next.min(deadline).saturating_duration_since(now))?;
            if self.has_work() {
                return Ok(true);
            }
        }
    }
}

/// One look is a system call, as long as so many looks at memory.
const LOOKS: u32 = 10;

fn look_for_sign_of_life(pair: &mut QueuePair, silence: Duration, shared: &mut Shared<'_>) {
    if let Link::Open(wire) = &pair.link
        && silence::is_cut_off(&wire.socket, silence)
    {
        let why = format!(
            "its host has acknowledged nothing for {} s: it is down, or the network between is (SAPWOOD_TCP_SILENCE sets \
             how long that is put up with)",
            silence.as_secs()
        );
        pair.lose_peer(why, shared);
    }
}
