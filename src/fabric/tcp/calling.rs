//! How a queue pair gets to its connection: by calling the peer, at one address after the other, or by being called.

use mio::Token;

use super::frame::Frame;
use super::queue_pair::{Link, QueuePair, Shared};
use super::visitor::Announced;
use super::wire::{Wire, watch_again};

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
        match caller.dial.look() {
            Ok(None) => {}
            Ok(Some(socket)) => {
                let (session, words) = caller.first_words(self.peer, &self.secret);
                self.open(Wire::new(socket, session, Some(&words)));
                self.send(shared);
            }
            Err(why) => self.call_elsewhere(&why, shared),
        }
    }

    fn open(&mut self, wire: Wire) {
        self.addresses = Some(wire.addresses);
        self.link = Link::Open(wire);
    }

    /// Somebody called who has seen this side's parcel.
    pub fn take_call(&mut self, announced: Announced, shared: &mut Shared<'_>) {
        match std::mem::replace(&mut self.link, Link::Closed) {
            Link::Unknown(earlier) => {
                if let Some(earlier) = earlier {
                    earlier.refuse("it called again", shared.registry);
                }
                self.link = Link::Unknown(Some(announced));
            }
            Link::Expecting(session) if announced.hello.is_sealed_by(&session) => {
                let watched = watch_again(&announced.socket, self.token(), shared.registry);
                let mut wire = Wire::new(announced.socket, session, None);
                let counts = (self.target.acknowledged(), self.receives.count());
                // The caller waits for a word.
                wire.out.push(&Frame::counts(counts.0, counts.1));
                self.receives.told(counts.1);
                self.open(wire);
                match watched {
                    Ok(()) => self.send(shared),
                    Err(error) => self.lose_peer(error.to_string(), shared),
                }
            }
            link => {
                let why = match link {
                    Link::Expecting(_) => "it does not know the secret of the rank that it says it is",
                    _ => "the rank that it says it is is connected already, or not wanted any more",
                };
                self.link = link;
                announced.refuse(why, shared.registry);
            }
        }
    }
}
