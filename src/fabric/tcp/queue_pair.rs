//! One queue pair: the requests of this side, those of the other, the connection between them, and the error state.
//! What cannot go on waits for the next event; nothing here blocks, and nothing allocates once it is connected.

use std::time::{Duration, Instant};

use mio::Registry;
use rustix::io::Errno;

use super::caller::Caller;
use super::frame::Frame;
use super::incoming::Pause;
use super::outgoing::Flushed;
use super::own;
use super::receives::Receives;
use super::region::{Domain, KnownKeys};
use super::requests::{Next, Requests};
use super::seal::{Pact, SECRET, TOKEN};
use super::settings::Settings;
use super::sink::Sink;
use super::taking::Taking;
use super::target::{Memory, Target};
use super::visitor::Announced;
use super::wire::Wire;
use crate::fabric::state::State;
use crate::fabric::{PostError, Rank, Receive, Request, Status};

/// Requests, and receives, that one queue pair holds.
pub(super) const DEPTH: usize = 256;
/// About so many bytes are received from one peer, or sent to it, before the next has its turn.
const BUDGET: usize = 1 << 20;
/// How long a refused peer may take to hear of it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How the two sides get to a connection.
#[allow(
    clippy::large_enum_variant,
    reason = "one for each queue pair, and mostly the large one"
)]
pub(super) enum Link {
    /// To this rank itself: there is none.
    Own,
    /// Not yet told where the other side is. It may have called already.
    Unknown(Option<Announced>),
    /// This side calls: see [`Caller`].
    Calling,
    /// The other side will call, and then must know [`QueuePair::pact`].
    Expecting,
    /// See [`Wire`].
    Open(Wire),
    /// There was one, or never will be.
    Closed,
}

/// What all queue pairs of an endpoint share.
pub(super) struct Shared<'a> {
    pub domain: &'a Domain,
    pub keys: &'a mut KnownKeys,
    pub sink: &'a mut Sink,
    pub settings: &'a Settings,
    pub registry: &'a Registry,
}

/// See the module.
pub(super) struct QueuePair {
    pub peer: Rank,
    pub state: State,
    /// The peer's process or endpoint is gone.
    pub gone: bool,
    /// It went when there was nothing to report it on: the next request will.
    pub unreported: bool,
    pub secret: [u8; SECRET],
    pub token: [u8; TOKEN],
    pub link: Link,
    /// What who calls must know, until the peer has.
    pub pact: Option<Pact>,
    /// As long as this side calls and was not answered.
    pub caller: Option<Caller>,
    pub requests: Requests,
    pub receives: Receives,
    pub target: Target,
    /// Whose turn it is to be sent next.
    answers_first: bool,
    /// When the peer was refused.
    refused_at: Option<Instant>,
    /// What ended it, for people.
    pub trouble: Option<String>,
    /// Between which addresses it was.
    pub addresses: Option<[std::net::SocketAddr; 2]>,
    /// Where the peer is expected to call, for people.
    pub callable_at: String,
    /// Since when requests have waited for a connection.
    pub unanswered_since: Option<Instant>,
    /// When the peer hung up without a word.
    pub hung_up_at: Option<Instant>,
}

impl QueuePair {
    pub fn new(peer: Rank, own: bool, secret: [u8; SECRET], token: [u8; TOKEN]) -> Self {
        Self {
            peer,
            state: State::Prepared,
            gone: false,
            unreported: false,
            secret,
            token,
            link: if own { Link::Own } else { Link::Unknown(None) },
            pact: None,
            caller: None,
            requests: Requests::new(peer, DEPTH),
            receives: Receives::new(peer, DEPTH),
            target: Target::new(DEPTH),
            answers_first: false,
            refused_at: None,
            trouble: None,
            addresses: None,
            callable_at: String::new(),
            unanswered_since: None,
            hung_up_at: None,
        }
    }

    pub fn post(&mut self, requests: &[Request], shared: &mut Shared<'_>) -> Result<(), PostError> {
        let mut outcome = Ok(());
        for (posted, request) in requests.iter().enumerate() {
            match self.state {
                State::Prepared => return Err(PostError::NotConnected { peer: self.peer }),
                State::Error if self.unreported => {
                    self.unreported = false;
                    self.requests
                        .complete(request, Status::PeerUnreachable, 0, shared.sink);
                    continue;
                }
                State::Error | State::Closed => return Err(PostError::QueuePairError { posted }),
                State::Connected => {}
            }
            if self.requests.occupied() >= DEPTH {
                outcome = Err(PostError::QueueFull { posted });
                break;
            }
            self.requests.push(request.clone());
        }
        self.send(shared);
        outcome
    }

    pub fn post_receive(&mut self, receive: Receive, shared: &mut Shared<'_>) -> Result<(), PostError> {
        if self.state == State::Error {
            return Err(PostError::QueuePairError { posted: 0 });
        }
        if !self.receives.post(receive, shared.sink)? {
            self.fail(shared);
        }
        Ok(())
    }

    /// Tells the peer, if it may wait to be told, and goes on with what waits on this side.
    pub fn send(&mut self, shared: &mut Shared<'_>) {
        match &self.link {
            Link::Own => self.go_on_with_own(shared),
            Link::Open(_) => self.send_on(shared),
            _ => {}
        }
    }

    fn go_on_with_own(&mut self, shared: &mut Shared<'_>) {
        if self.state != State::Connected {
            return;
        }
        let Shared {
            domain, keys, sink, ..
        } = shared;
        let memory = &mut Memory { domain, keys };
        if let Err(status) = own::carry_out(&mut self.requests, &mut self.receives, memory, sink) {
            self.requests.fail_first(status, shared.sink);
            self.fail(shared);
        }
    }

    /// Gives the kernel what it takes.
    fn send_on(&mut self, shared: &mut Shared<'_>) {
        let mut budget = BUDGET;
        loop {
            let Link::Open(wire) = &mut self.link else { return };
            wire.cut_short = false;
            if !wire.writable {
                return;
            }
            let mut failed = None;
            // Before that the connection may be one that the peer has given up.
            while wire.proved && wire.out.has_room() {
                let counts = (self.target.acknowledged(), self.receives.count());
                let memory = &mut Memory {
                    domain: shared.domain,
                    keys: shared.keys,
                };
                let copied = &mut shared.sink.copied;
                let mut staged = false;
                let mut told = counts;
                for turn in [self.answers_first, !self.answers_first] {
                    if turn {
                        staged = self.target.stage(&mut wire.out, counts.1, memory, copied);
                        // An answer is said with the number of what it answers.
                        told.0 = counts.0;
                    } else if self.state == State::Connected {
                        match self.requests.stage(&mut wire.out, counts, copied) {
                            Next::Staged => staged = true,
                            Next::Nothing => {}
                            Next::Failed(status) => failed = Some(status),
                        }
                    }
                    if staged || failed.is_some() {
                        break;
                    }
                }
                if failed.is_some() {
                    break;
                }
                self.answers_first = !self.answers_first;
                if !staged {
                    let urgent = wire.owes_proof || self.target.is_urgent() || self.receives.is_urgent();
                    if !urgent || self.target.refused {
                        break;
                    }
                    wire.out.push(&Frame::counts(counts.0, counts.1));
                }
                wire.owes_proof = false;
                self.target.told(told.0);
                self.receives.told(told.1);
            }
            if let Some(status) = failed {
                // Everything before it has ended well.
                self.requests.fail_first(status, shared.sink);
                return self.fail(shared);
            }
            if !wire.out.is_behind() {
                return;
            }
            match wire.out.flush(&wire.socket, &mut budget) {
                Ok(Flushed::All | Flushed::Body) => {}
                Ok(Flushed::Full) => wire.writable = false,
                Ok(Flushed::Budget) => {
                    wire.cut_short = true;
                    return;
                }
                Err(error) => {
                    // What the peer said before it left is still to be taken, and receiving will say why.
                    wire.writable = false;
                    wire.readable = true;
                    wire.closing = true;
                    tracing::debug!(peer = self.peer, %error, "sending failed");
                    if !matches!(error, Errno::PIPE | Errno::CONNRESET | Errno::TIMEDOUT) {
                        // It is no end of the connection, which receiving would find.
                        self.lose_peer(format!("nothing can be sent to the peer: {error}"), shared);
                        return;
                    }
                }
            }
        }
    }

    /// Takes in what came, and goes on with what waits. Whether there is more at once.
    pub fn drive(&mut self, shared: &mut Shared<'_>) -> bool {
        self.receive(shared);
        self.send(shared);
        matches!(&self.link, Link::Open(wire) if wire.readable || wire.cut_short)
    }

    /// The kernel has said something about this queue pair's socket.
    pub fn take_event(&mut self, event: &mio::event::Event, shared: &mut Shared<'_>) {
        match &mut self.link {
            Link::Open(wire) => wire.take_event(event),
            Link::Calling => self.look_at_call(shared),
            _ => {}
        }
    }

    fn receive(&mut self, shared: &mut Shared<'_>) {
        let Link::Open(wire) = &mut self.link else { return };
        if !wire.readable {
            return;
        }
        let mut taking = Taking {
            requests: &mut self.requests,
            receives: &mut self.receives,
            target: &mut self.target,
            shared,
            caller: &mut self.caller,
            proved: &mut wire.proved,
            refusal: None,
        };
        let outcome = wire
            .incoming
            .receive(&wire.socket, BUDGET, wire.closing, &mut taking);
        let refusal = taking.refusal;
        if wire.proved {
            self.pact = None;
        }
        if let Some(status) = refusal {
            self.trouble = Some("the peer refused the request".into());
            self.requests.fail_first(status, shared.sink);
            return self.fail(shared);
        }
        match outcome {
            Ok(pause) => {
                let wire_is_readable = pause == Pause::Budget;
                if let Link::Open(wire) = &mut self.link {
                    wire.readable = wire_is_readable;
                }
            }
            Err(end) => return self.end(end, shared),
        }
        if self.target.refused && self.refused_at.is_none() {
            self.refused_at = Some(Instant::now());
            self.trouble = Some("the peer asked for what this rank does not allow".into());
            if let Link::Open(wire) = &mut self.link {
                // The refusal comes behind it, but its memory is the user's again.
                shared.sink.copied += wire.out.let_go() as u64;
            }
            self.flush(shared);
        }
    }

    /// Looks whether something has waited too long. Says when to look again, if anything waits.
    pub fn look_at_clock(
        &mut self,
        now: Instant,
        patience: Duration,
        shared: &mut Shared<'_>,
    ) -> Option<Instant> {
        if let Some(since) = self.requests.waits_for_receive() {
            // `None` is a patience without end.
            match since.checked_add(patience) {
                Some(until) if now < until => return Some(until),
                Some(_) => {
                    self.requests.fail_first(Status::ReceiverNotReady, shared.sink);
                    self.fail(shared);
                }
                None => {}
            }
        }
        if let Some(again) = self.look_at_calls(now, shared) {
            return Some(again);
        }
        if let Some(at) = self.refused_at {
            if now < at + LAST_WORDS {
                return Some(at + LAST_WORDS);
            }
            self.refused_at = None;
            self.fail(shared);
        }
        None
    }
}
