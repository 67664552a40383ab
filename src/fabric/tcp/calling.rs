//! How a queue pair gets to its connection: by calling the peer, at one address after the other, or by being called.

use std::time::{Duration, Instant};

use mio::Token;

use super::frame::Frame;
use super::queue_pair::{Link, QueuePair, Shared};
use super::visitor::Announced;
use super::wire::{Wire, watch_again};

/// How long a peer that hung up at once may take to call again.
const CALLS_AGAIN: Duration = Duration::from_secs(10);

impl QueuePair {
    fn token(&self) -> Token {
        Token(self.peer as usize)
    }

    /// Calls the peer, at its next address.
    pub fn call(&mut self, shared: &mut Shared<'_>) {
        let token = self.token();
        let Some(caller) = &mut self.caller else { return };
        match caller.dial.call_next(token, shared.registry, shared.settings) {
            Ok(()) => self.link = Link::Calling,
            Err(why) => self.lose_peer(why, shared),
        }
    }

    pub fn call_elsewhere(&mut self, why: &str, shared: &mut Shared<'_>) {
        if let Link::Open(wire) = std::mem::replace(&mut self.link, Link::Calling) {
            wire.close(shared.registry);
        }
        if let Some(caller) = &mut self.caller {
            caller.dial.give_up_on_this(why, shared.registry);
        }
        self.call(shared);
    }

    /// The kernel has said something about the call.
    pub fn look_at_call(&mut self, shared: &mut Shared<'_>) {
        let Some(caller) = &mut self.caller else { return };
        let (socket, welcome) = match caller.dial.look() {
            Ok(None) => return,
            Ok(Some(found)) => found,
            Err(why) => return self.call_elsewhere(&why, shared),
        };
        match caller.first_words(self.peer, &self.secret, welcome) {
            Ok((session, words)) => {
                self.open(Wire::new(socket, session, Some(&words)));
                self.send(shared);
            }
            Err(error) => self.lose_peer(error.to_string(), shared),
        }
    }

    fn open(&mut self, wire: Wire) {
        // Whatever was said on an earlier connection, nobody has proved to have heard it.
        self.receives.told(0);
        self.target.told(0);
        self.addresses = Some(wire.addresses);
        self.link = Link::Open(wire);
    }

    /// Somebody called who has seen this side's parcel.
    pub fn take_call(&mut self, announced: Announced, shared: &mut Shared<'_>) {
        if let Link::Unknown(earlier) = &mut self.link {
            if let Some(earlier) = earlier.replace(announced) {
                earlier.refuse("it called again", shared.registry);
            }
            return;
        }
        let wanted = match &self.link {
            Link::Expecting => true,
            // The peer may have given up that connection and called again, before this side looked.
            Link::Open(wire) => !wire.proved,
            _ => false,
        };
        let Some(pact) = self.pact.as_ref().filter(|_| wanted) else {
            let why = "the rank that it says it is is connected already, or not wanted any more";
            return announced.refuse(why, shared.registry);
        };
        let Some(session) = announced.hello.session(pact, &announced.welcome) else {
            let why = "it does not know the secret of the rank that it says it is";
            return announced.refuse(why, shared.registry);
        };
        if let Link::Open(earlier) = std::mem::replace(&mut self.link, Link::Expecting) {
            earlier.close(shared.registry);
        }
        let watched = watch_again(&announced.socket, self.token(), shared.registry);
        let mut wire = Wire::new(announced.socket, session, None);
        // The caller waits for a word.
        wire.out.push(&Frame::counts(0, self.receives.count()));
        self.open(wire);
        self.receives.told(self.receives.count());
        match watched {
            Ok(()) => self.send(shared),
            Err(error) => self.lose_peer(error.to_string(), shared),
        }
    }

    /// The connection ended before the peer had said anything on it. If it called and gave up, it calls again.
    pub fn expect_another_call(&mut self, shared: &mut Shared<'_>) {
        if let Link::Open(wire) = std::mem::replace(&mut self.link, Link::Expecting) {
            wire.close(shared.registry);
        }
        self.hung_up_at = Some(Instant::now());
    }

    /// Looks whether getting to a connection has taken too long. Says when to look again, if anything waits.
    pub fn look_at_calls(&mut self, now: Instant, shared: &mut Shared<'_>) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut look_at = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        if let Some(dial) = self.caller.as_ref().map(|caller| &caller.dial)
            && let Some(until) = dial.deadline()
        {
            if now < until {
                look_at(until);
            } else if dial.pauses() {
                self.call(shared);
            } else {
                self.call_elsewhere("nobody answered", shared);
            }
        }
        if let Some(at) = self.hung_up_at
            && matches!(self.link, Link::Expecting)
        {
            if now < at + CALLS_AGAIN {
                look_at(at + CALLS_AGAIN);
            } else {
                let why = "the peer hung up before it had said anything, and did not call again";
                self.lose_peer(why.to_owned(), shared);
            }
        }
        let connected = match &self.link {
            Link::Open(wire) => wire.proved,
            Link::Own | Link::Closed => true,
            _ => false,
        };
        if connected || self.requests.is_empty() {
            self.unanswered_since = None;
            return next;
        }
        // `None` is a patience without end.
        let since = *self.unanswered_since.get_or_insert(now);
        if let Some(until) = since.checked_add(shared.settings.call_patience) {
            if now < until {
                look_at(until);
            } else {
                let seconds = shared.settings.call_patience.as_secs();
                let why = match &self.caller {
                    Some(caller) => format!("{} within {seconds} s", caller.dial.what_was_tried()),
                    None => format!(
                        "the peer has not called within {seconds} s at {}",
                        self.callable_at
                    ),
                };
                self.lose_peer(why, shared);
            }
        }
        next
    }
}
