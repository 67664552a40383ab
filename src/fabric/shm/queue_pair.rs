//! One queue pair: what is posted and not yet done, what arrives, and the error state. Completions go to a sink whose
//! room is reserved, so nothing here allocates once connected.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::control::{Arrival, BOUNCE, DEPTH, FRAGMENT, SLOTS};
use super::keys::Incoming;
use super::outbound::{Outbound, Outcome};
use super::region;
use crate::fabric::state::State;
use crate::fabric::{Completion, Opcode, Operation, PostError, Rank, Receive, Request, Status};

/// See the module.
pub(super) struct QueuePair {
    pub peer: Rank,
    pub state: State,
    pub incoming: Arc<Incoming>,
    pub outbound: Option<Outbound>,
    /// The peer's process or endpoint is gone.
    pub gone: bool,
    /// It went when there was nothing to report it on: the next request will.
    pub unreported: bool,
    /// Requests that wait for something of the peer; the first may be half done.
    queue: VecDeque<Request>,
    /// Since when the first waits for a receive.
    waiting_since: Option<Instant>,
    /// Completions of requests that the user has not taken yet: they occupy the queue, so the sink is bounded.
    pub undelivered: usize,
    receives: VecDeque<Receive>,
    /// As `undelivered`, of receives.
    pub undelivered_receives: usize,
    posted: u64,
    consumed: u64,
    taken: u64,
    /// Bytes of the message that is arriving.
    arrived: usize,
}

/// Where completions and counts go.
pub(super) struct Sink<'a> {
    pub completions: &'a mut VecDeque<Completion>,
    pub copied: &'a mut u64,
}

fn opcode(operation: &Operation) -> Opcode {
    match operation {
        Operation::Write { .. } => Opcode::Write,
        Operation::Read { .. } => Opcode::Read,
        Operation::FetchAdd { .. } => Opcode::FetchAdd,
        Operation::CompareSwap { .. } => Opcode::CompareSwap,
        Operation::Send { .. } => Opcode::Send,
    }
}

impl QueuePair {
    pub fn new(peer: Rank, incoming: Arc<Incoming>) -> Self {
        Self {
            peer,
            state: State::Prepared,
            incoming,
            outbound: None,
            gone: false,
            unreported: false,
            queue: VecDeque::with_capacity(DEPTH),
            waiting_since: None,
            undelivered: 0,
            receives: VecDeque::with_capacity(DEPTH),
            undelivered_receives: 0,
            posted: 0,
            consumed: 0,
            taken: 0,
            arrived: 0,
        }
    }

    pub fn post(&mut self, requests: &[Request], sink: &mut Sink<'_>) -> Result<(), PostError> {
        for (posted, request) in requests.iter().enumerate() {
            match self.state {
                State::Prepared => return Err(PostError::NotConnected { peer: self.peer }),
                State::Error if self.unreported => {
                    self.unreported = false;
                    self.complete(request, Status::PeerUnreachable, 0, sink);
                    continue;
                }
                State::Error | State::Closed => return Err(PostError::QueuePairError { posted }),
                State::Connected => {}
            }
            if self.queue.len() + self.undelivered >= DEPTH {
                return Err(PostError::QueueFull { posted });
            }
            if !self.queue.is_empty() || !self.perform(request, sink) {
                // Holds the registrations until it is done (invariant 1).
                self.queue.push_back(request.clone());
            }
        }
        Ok(())
    }

    /// Performs a request; `false` if it must wait. A failure puts the queue pair into the error state.
    fn perform(&mut self, request: &Request, sink: &mut Sink<'_>) -> bool {
        let outbound = self
            .outbound
            .as_mut()
            .expect("a connected queue pair has a sending half");
        match outbound.perform(&request.operation, sink.copied) {
            Outcome::Done(bytes) => {
                self.waiting_since = None;
                if request.signaled {
                    self.complete(request, Status::Success, bytes, sink);
                }
                true
            }
            Outcome::Failed(status) => {
                self.complete(request, status, 0, sink);
                self.state = State::Error;
                true
            }
            Outcome::NoReceive => {
                self.waiting_since.get_or_insert_with(Instant::now);
                false
            }
            Outcome::NoRoom => {
                self.waiting_since = None;
                false
            }
        }
    }

    fn complete(&mut self, request: &Request, status: Status, bytes: usize, sink: &mut Sink<'_>) {
        self.undelivered += 1;
        sink.completions.push_back(Completion {
            id: request.id,
            peer: self.peer,
            opcode: opcode(&request.operation),
            status,
            bytes,
            immediate: None,
        });
    }

    pub fn post_receive(&mut self, receive: Receive, sink: &mut Sink<'_>) -> Result<(), PostError> {
        if self.state == State::Error {
            return Err(PostError::QueuePairError { posted: 0 });
        }
        if self.receives.len() + self.undelivered_receives >= DEPTH {
            return Err(PostError::QueueFull { posted: 0 });
        }
        if receive
            .local
            .as_ref()
            .is_some_and(|slice| region::local(slice).is_err())
        {
            self.complete_receive(receive.id, Arrival::Last, Status::LocalProtection, 0, sink);
            self.fail(sink);
            return Ok(());
        }
        let capacity = receive.local.as_ref().map_or(0, |slice| slice.len);
        self.receives.push_back(receive);
        let control = &self.incoming.control;
        control.capacities[self.posted as usize % DEPTH].store(capacity as u64, Ordering::Relaxed);
        self.posted += 1;
        control.owner.posted.store(self.posted, Ordering::Release);
        self.wake_peer();
        Ok(())
    }

    fn complete_receive(
        &mut self,
        id: u64,
        arrival: Arrival,
        status: Status,
        bytes: usize,
        sink: &mut Sink<'_>,
    ) {
        let (opcode, immediate) = match arrival {
            Arrival::Immediate(value) => (Opcode::ReceiveWithImmediate, Some(value)),
            Arrival::LastWithImmediate(value) => (Opcode::Receive, Some(value)),
            _ => (Opcode::Receive, None),
        };
        self.undelivered_receives += 1;
        sink.completions.push_back(Completion {
            id,
            peer: self.peer,
            opcode,
            status,
            bytes,
            immediate,
        });
    }

    fn wake_peer(&self) {
        if let Some(outbound) = &self.outbound {
            outbound.bell.ring();
        }
    }

    /// Whether `progress` would do something.
    pub fn has_work(&self) -> bool {
        self.state != State::Error
            && (self.incoming.control.peer.produced.load(Ordering::Acquire) != self.consumed
                || self
                    .outbound
                    .as_ref()
                    .is_some_and(|outbound| !self.queue.is_empty() && outbound.unblocked())
                || (!self.gone && self.outbound.as_ref().is_some_and(Outbound::closed)))
    }

    /// Whether the request at the head has waited too long for a receive.
    pub fn out_of_patience(&self, patience: Duration) -> bool {
        self.state == State::Connected
            && self
                .waiting_since
                .is_some_and(|since| since.elapsed() >= patience)
    }

    pub fn progress(&mut self, patience: Duration, sink: &mut Sink<'_>) {
        if self.state == State::Error {
            return;
        }
        self.take_in(sink);
        // What is queued at all is queued because its head was blocked.
        let unblocked = self.outbound.as_ref().is_some_and(Outbound::unblocked);
        while unblocked && self.state == State::Connected {
            let Some(request) = self.queue.pop_front() else {
                break;
            };
            if !self.perform(&request, sink) {
                self.queue.push_front(request);
                break;
            }
        }
        if self.out_of_patience(patience)
            && let Some(request) = self.queue.pop_front()
        {
            self.complete(&request, Status::ReceiverNotReady, 0, sink);
            self.state = State::Error;
        }
        if self.state == State::Error {
            self.fail(sink);
        }
    }

    /// The peer's process or endpoint is gone: what it had handed over still arrives, the rest ends.
    pub fn lose_peer(&mut self, sink: &mut Sink<'_>) {
        self.gone = true;
        if self.state != State::Connected {
            return;
        }
        self.take_in(sink);
        if self.state == State::Connected {
            self.unreported = self.queue.is_empty() && self.receives.is_empty();
            if let Some(request) = self.queue.pop_front() {
                self.complete(&request, Status::PeerUnreachable, 0, sink);
            }
            if let Some(receive) = self.receives.pop_front() {
                self.complete_receive(receive.id, Arrival::Last, Status::PeerUnreachable, 0, sink);
            }
        }
        self.fail(sink);
    }

    /// Goes to the error state: the peer may not begin anything here any more, and what is queued is flushed.
    pub fn fail(&mut self, sink: &mut Sink<'_>) {
        self.state = State::Error;
        self.revoke();
        self.waiting_since = None;
        while let Some(request) = self.queue.pop_front() {
            self.complete(&request, Status::Flushed, 0, sink);
        }
        while let Some(receive) = self.receives.pop_front() {
            self.complete_receive(receive.id, Arrival::Last, Status::Flushed, 0, sink);
        }
    }

    /// Forbids the peer to begin anything.
    pub fn revoke(&self) {
        if self.incoming.control.revocation.revoke() {
            self.wake_peer();
        }
    }

    /// Whether the peer is in the middle of an operation on our memory. After `revoke`, `false` is for ever.
    pub fn peer_is_busy(&self) -> bool {
        self.incoming.control.activity.in_progress().is_some()
    }

    /// Takes what has arrived. Counters and slots are the peer's to write, so each is read once and checked.
    fn take_in(&mut self, sink: &mut Sink<'_>) {
        let produced = self.incoming.control.peer.produced.load(Ordering::Acquire);
        let waiting = produced.wrapping_sub(self.consumed);
        if waiting == 0 {
            return;
        }
        if waiting > SLOTS as u64 {
            return self.misbehaved(sink);
        }
        for _ in 0..waiting {
            let slot = &self.incoming.control.slots[self.consumed as usize % SLOTS];
            let what = slot.what.load(Ordering::Relaxed);
            let len = slot.len.load(Ordering::Relaxed) as usize;
            let taken = match Arrival::decode(what) {
                Some(arrival) => self.take(arrival, len, sink),
                None => None,
            };
            if taken.is_none() {
                return self.misbehaved(sink);
            }
            self.consumed += 1;
            if self.state == State::Error {
                return;
            }
        }
        let owner = &self.incoming.control.owner;
        owner.taken.store(self.taken, Ordering::Release);
        owner.consumed.store(self.consumed, Ordering::Release);
        self.wake_peer();
    }

    /// Takes one arrival; `None` if no peer that keeps the protocol sends such a thing now.
    fn take(&mut self, arrival: Arrival, len: usize, sink: &mut Sink<'_>) -> Option<()> {
        let receive = self.receives.front()?;
        match arrival {
            Arrival::Immediate(_) => {
                if self.arrived != 0 {
                    return None;
                }
                let id = self.receives.pop_front()?.id;
                self.complete_receive(id, arrival, Status::Success, len, sink);
            }
            Arrival::TooLong => {
                let id = self.receives.pop_front()?.id;
                self.complete_receive(id, arrival, Status::LocalLength, 0, sink);
                self.state = State::Error;
            }
            Arrival::Piece | Arrival::Last | Arrival::LastWithImmediate(_) => {
                let at = self.taken as usize % BOUNCE;
                let capacity = receive.local.as_ref().map_or(0, |slice| slice.len);
                if len > FRAGMENT || len > BOUNCE - at || len > capacity - self.arrived {
                    return None;
                }
                if len > 0 {
                    let target = region::local(receive.local.as_ref()?).ok()?;
                    // SAFETY: the source is inside the ring; the target lies in a registration that the receive holds,
                    // with `capacity` bytes of which `arrived` are filled.
                    unsafe {
                        let source = self.incoming.control.bounce.base().add(at);
                        let target = target.as_ptr().add(self.arrived);
                        std::ptr::copy_nonoverlapping(source, target, len);
                    }
                }
                self.taken += len as u64;
                self.arrived += len;
                if arrival != Arrival::Piece {
                    let id = self.receives.pop_front()?.id;
                    let bytes = std::mem::take(&mut self.arrived);
                    self.complete_receive(id, arrival, Status::Success, bytes, sink);
                }
            }
        }
        Some(())
    }

    fn misbehaved(&mut self, sink: &mut Sink<'_>) {
        tracing::error!(
            peer = self.peer,
            "the peer broke the shared-memory protocol; its queue pair ends"
        );
        self.fail(sink);
    }
}
