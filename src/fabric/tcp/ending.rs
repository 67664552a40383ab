//! How a queue pair ends: what becomes of its requests, what is said of it, and what the peer is told.

use super::frame::Frame;
use super::incoming::End;
use super::queue_pair::{Link, QueuePair, Shared};
use crate::fabric::Status;
use crate::fabric::state::State;

impl QueuePair {
    /// Nothing more can be received.
    pub fn end(&mut self, end: End, shared: &mut Shared<'_>) {
        let peer = self.peer;
        if self.caller.is_some() {
            // Perhaps it was somebody else's port.
            return self.call_elsewhere("whoever answered hung up", shared);
        }
        if let Link::Open(wire) = &self.link
            && matches!(end, End::Closed | End::Failed(_))
            && self.pact.is_some()
            && wire.incoming.is_untouched()
        {
            return self.expect_another_call(shared);
        }
        let why = match end {
            End::Closed => "the peer closed the connection: its process ended, or it gave up".to_owned(),
            End::Failed(error) => format!("the connection ended: {error}"),
            End::Forged => {
                tracing::error!(
                    peer,
                    "what came over the connection is not what the peer sent: something between the ranks changes it, \
                     or memory was changed while it was being sent; the connection ends"
                );
                "what came is not what the peer sent".to_owned()
            }
            End::Broken(what) => {
                tracing::error!(peer, what, "the peer broke the protocol; the connection ends");
                format!("the peer broke the protocol: {what}")
            }
        };
        self.lose_peer(why, shared);
    }

    /// The peer is gone, or out of reach: what it had handed over has arrived, the rest ends.
    pub fn lose_peer(&mut self, why: String, shared: &mut Shared<'_>) {
        self.gone = true;
        shared.sink.news = true;
        if self.state == State::Connected {
            self.trouble = Some(why);
            self.unreported = self.requests.is_empty() && self.receives.is_empty();
            self.requests.fail_first(Status::PeerUnreachable, shared.sink);
            self.receives.fail_first(Status::PeerUnreachable, shared.sink);
        }
        self.fail(shared);
    }

    /// Goes to the error state: nothing of the peer lands any more, and what is queued is flushed.
    pub fn fail(&mut self, shared: &mut Shared<'_>) {
        self.flush(shared);
        match std::mem::replace(&mut self.link, Link::Closed) {
            Link::Open(wire) => wire.close(shared.registry),
            Link::Unknown(Some(announced)) => announced.close(shared.registry),
            Link::Own => self.link = Link::Own,
            _ => {}
        }
        if let Some(caller) = self.caller.take() {
            caller.dial.close(shared.registry);
        }
    }

    /// Ends what is queued, and lets nothing new in.
    pub fn flush(&mut self, shared: &mut Shared<'_>) {
        self.state = State::Error;
        self.requests.flush(shared.sink);
        self.receives.flush(shared.sink);
    }

    /// Says what is to be said before the connection is given up in order.
    pub fn say_farewell(&mut self, shared: &mut Shared<'_>) {
        self.send(shared);
        if let Link::Open(wire) = &mut self.link
            && wire.proved
            && !self.target.refused
            && self.target.has_news()
            && wire.out.has_room()
        {
            // Nobody waited for it, but whoever is not told takes what arrived for lost.
            let counts = (self.target.acknowledged(), self.receives.count());
            wire.out.push(&Frame::counts(counts.0, counts.1));
            self.target.told(counts.0);
            self.send(shared);
        }
        if let Link::Open(wire) = &mut self.link {
            // Closed with something unread, a socket would throw away what it has not sent yet.
            let mut scratch = [0; 4096];
            for _ in 0..1024 {
                match rustix::io::read(&wire.socket, &mut scratch) {
                    Ok(1..) => {}
                    _ => break,
                }
            }
        }
    }
}
