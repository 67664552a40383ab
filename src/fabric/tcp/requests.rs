//! What this rank asked of a peer: cut into frames in the order of posting, and ended in that order by what the peer
//! says. Whether a write, a send or a receive is to be had is known from the counts that every frame brings.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::time::Instant;

use super::frame::{FRAGMENT, Frame, INLINE, Kind};
use super::outgoing::Outgoing;
use super::region::{self, Right};
use super::sink::Sink;
use crate::fabric::{Opcode, Operation, Rank, Request, Slice, Status};

/// What became of the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Some of it was handed on.
    Staged,
    /// There is none, or it must wait.
    Nothing,
    /// It cannot be carried out, and all before it have ended.
    Failed(Status),
}

/// See the module.
pub(super) struct Requests {
    /// The peer, and its protection domain.
    pub target: (Rank, u64),
    queue: VecDeque<Request>,
    /// How many have ended well, modulo 2^32.
    ended: u32,
    /// How many of the queue were handed on whole, and how much of the next.
    sent: usize,
    progress: usize,
    /// Bytes of the first one's answer.
    answered: usize,
    /// Receives of the peer: posted, and used up.
    receives: u32,
    used: u32,
    /// Since when the next waits for a receive.
    waiting_since: Option<Instant>,
    /// Completions that the user has not taken yet: they occupy the queue.
    pub undelivered: usize,
}

pub(super) fn opcode(operation: &Operation) -> Opcode {
    match operation {
        Operation::Write { .. } => Opcode::Write,
        Operation::Read { .. } => Opcode::Read,
        Operation::FetchAdd { .. } => Opcode::FetchAdd,
        Operation::CompareSwap { .. } => Opcode::CompareSwap,
        Operation::Send { .. } => Opcode::Send,
    }
}

pub(super) fn local_of(operation: &Operation) -> &Slice {
    match operation {
        Operation::Write { local, .. }
        | Operation::Read { local, .. }
        | Operation::FetchAdd { local, .. }
        | Operation::CompareSwap { local, .. }
        | Operation::Send { local, .. } => local,
    }
}

/// Whether the operation uses up a receive of the peer.
pub(super) fn needs_receive(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Send { .. }
            | Operation::Write {
                immediate: Some(_),
                ..
            }
    )
}

/// The place of the local bytes, the peer's key and where in its region, if nothing on this side stands against it.
#[inline]
pub(super) fn check(operation: &Operation, target: (Rank, u64)) -> Result<(NonNull<u8>, u64, u64), Status> {
    let local = local_of(operation);
    let place = region::local(local)?;
    let (remote, right) = match operation {
        Operation::Send { .. } => return Ok((place, 0, 0)),
        Operation::Write { remote, .. } => (remote, Right::Write),
        Operation::Read { remote, .. } => (remote, Right::Read),
        Operation::FetchAdd { remote, .. } | Operation::CompareSwap { remote, .. } => (remote, Right::Atomic),
    };
    if right == Right::Atomic && local.len != size_of::<u64>() {
        return Err(Status::LocalLength);
    }
    let key = region::remote(remote, local.len, target, right)?;
    Ok((place, key, remote.offset as u64))
}

impl Requests {
    pub fn new(peer: Rank, depth: usize) -> Self {
        Self {
            target: (peer, 0),
            queue: VecDeque::with_capacity(depth),
            ended: 0,
            sent: 0,
            progress: 0,
            answered: 0,
            receives: 0,
            used: 0,
            waiting_since: None,
            undelivered: 0,
        }
    }

    /// Places in use.
    pub fn occupied(&self) -> usize {
        self.queue.len() + self.undelivered
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes one up; it holds its registrations until it has ended (invariant 1).
    pub fn push(&mut self, request: Request) {
        self.queue.push_back(request);
    }

    /// The first, for a queue pair that has nobody to hand it on to.
    pub fn first(&self) -> Option<&Request> {
        self.queue.front()
    }

    /// Since when the first one has waited for a receive of the peer, if it does.
    pub fn waits_for_receive(&self) -> Option<Instant> {
        self.waiting_since.filter(|_| self.sent == 0)
    }

    /// The next one needs a receive, and there is none.
    pub fn wait_for_receive(&mut self) {
        self.waiting_since.get_or_insert_with(Instant::now);
    }

    /// Hands on the next piece, with the counts that go with it. Adds to `copied` what rides in a header.
    pub fn stage(&mut self, out: &mut Outgoing, counts: (u32, u32), copied: &mut u64) -> Next {
        let Some(request) = self.queue.get(self.sent) else {
            return Next::Nothing;
        };
        let operation = &request.operation;
        let (place, key, offset) = match check(operation, self.target) {
            Ok(found) => found,
            Err(status) if self.sent == 0 => return Next::Failed(status),
            Err(_) => return Next::Nothing,
        };
        let takes_receive = needs_receive(operation);
        if takes_receive && self.receives == self.used {
            self.waiting_since.get_or_insert_with(Instant::now);
            return Next::Nothing;
        }
        self.waiting_since = None;
        let local = local_of(operation);
        let mut frame = Frame {
            first: self.progress == 0,
            last: true,
            signaled: request.signaled,
            key,
            offset,
            ..Frame::counts(counts.0, counts.1)
        };
        let immediate = match operation {
            Operation::Write { immediate, .. } => {
                frame.kind = Kind::Write;
                immediate
            }
            Operation::Send { immediate, .. } => {
                frame.kind = Kind::Send;
                frame.key = local.len as u64;
                immediate
            }
            Operation::Read { .. } => {
                frame.kind = Kind::Read;
                frame.words[0] = local.len as u64;
                &None
            }
            Operation::FetchAdd { add, .. } => {
                frame.kind = Kind::FetchAdd;
                frame.words[0] = *add;
                &None
            }
            Operation::CompareSwap {
                expected, desired, ..
            } => {
                frame.kind = Kind::CompareSwap;
                frame.words = [*expected, *desired];
                &None
            }
        };
        let carries = matches!(frame.kind, Kind::Write | Kind::Send);
        if !carries || local.len <= INLINE {
            frame.immediate = *immediate;
            if carries {
                let mut bytes = [0; INLINE];
                // SAFETY: `check` found that `local.len` bytes are there, and they fit.
                unsafe { place.copy_to_nonoverlapping(NonNull::from(&mut bytes).cast(), local.len) };
                frame.set_payload(bytes, local.len);
                *copied += local.len as u64;
            }
            out.push(&frame);
        } else {
            frame.body = (local.len - self.progress).min(FRAGMENT);
            frame.last = self.progress + frame.body == local.len;
            frame.offset += self.progress as u64;
            frame.words[0] = local.len as u64;
            frame.immediate = immediate.filter(|_| frame.last);
            let body = Slice {
                registration: local.registration.clone(),
                offset: local.offset + self.progress,
                len: frame.body,
            };
            out.push_local(&frame, body);
        }
        if frame.last {
            (self.sent, self.progress) = (self.sent + 1, 0);
            self.used = self.used.wrapping_add(takes_receive.into());
        } else {
            self.progress += frame.body;
        }
        Next::Staged
    }

    /// How many receives the peer says to have posted.
    pub fn told_of_receives(&mut self, receives: u32) -> Result<(), &'static str> {
        if receives.wrapping_sub(self.used) > u32::MAX / 2 {
            return Err("it takes receives back");
        }
        self.receives = receives;
        Ok(())
    }

    /// The peer says that so many have ended well.
    pub fn acknowledge(&mut self, count: u32, sink: &mut Sink) -> Result<(), &'static str> {
        let new = count.wrapping_sub(self.ended) as usize;
        if new > self.sent {
            return Err("it acknowledges what it was not sent");
        }
        for _ in 0..new {
            if self.expects_answer() {
                return Err("it owes an answer");
            }
            self.end_first(sink);
        }
        Ok(())
    }

    /// The first one has ended well.
    fn end_first(&mut self, sink: &mut Sink) {
        let request = self.queue.pop_front().expect("it was sent");
        (self.sent, self.answered) = (self.sent - 1, 0);
        self.ended = self.ended.wrapping_add(1);
        if request.signaled {
            let bytes = local_of(&request.operation).len;
            self.complete(&request, Status::Success, bytes, sink);
        }
    }

    /// The first one has ended well, and was carried out on this side.
    pub fn end_own(&mut self, sink: &mut Sink) {
        self.sent += 1;
        self.waiting_since = None;
        self.end_first(sink);
    }

    fn expects_answer(&self) -> bool {
        let first = self.queue.front().filter(|_| self.sent > 0);
        first.is_some_and(|request| {
            !matches!(
                request.operation,
                Operation::Write { .. } | Operation::Send { .. }
            )
        })
    }

    /// A piece of the first one's answer came, or begins to come.
    pub fn answer(&mut self, frame: &Frame, sink: &mut Sink) -> Result<(), &'static str> {
        if !self.expects_answer() {
            return Err("it answers what nobody asked");
        }
        let local = local_of(&self.queue[0].operation);
        let (len, end) = (local.len, self.answered + frame.inline + frame.body);
        if frame.key != len as u64
            || end > len
            || frame.first != (self.answered == 0)
            || frame.last != (end == len)
        {
            return Err("its answer is not what was asked for");
        }
        if frame.body == 0 {
            let place = region::local(local).map_err(|_| "nothing: the slice was checked before")?;
            let bytes = frame.payload();
            // SAFETY: `frame.inline == local.len` bytes are there, which the request in the queue keeps.
            unsafe { place.copy_from_nonoverlapping(NonNull::from(&bytes).cast(), frame.inline) };
            sink.copied += frame.inline as u64;
            self.end_first(sink);
        }
        Ok(())
    }

    /// Where the rest of a body of the answer goes.
    pub fn answer_place(&self, done: usize) -> Option<NonNull<u8>> {
        let place = region::local(local_of(&self.queue.front()?.operation)).ok()?;
        // SAFETY: `answer` found that the body fits behind what was answered.
        Some(unsafe { place.add(self.answered + done) })
    }

    /// A body of the answer is whole.
    pub fn answer_body(&mut self, frame: &Frame, sink: &mut Sink) {
        self.answered += frame.body;
        if frame.last {
            self.end_first(sink);
        }
    }

    /// Whether the peer can have anything against the first.
    pub fn first_is_known(&self) -> bool {
        self.sent > 0 || self.progress > 0
    }

    /// Ends the first one so.
    pub fn fail_first(&mut self, status: Status, sink: &mut Sink) {
        if let Some(request) = self.queue.pop_front() {
            self.sent = self.sent.saturating_sub(1);
            self.complete(&request, status, 0, sink);
        }
    }

    /// Ends one that was not taken up.
    pub fn complete(&mut self, request: &Request, status: Status, bytes: usize, sink: &mut Sink) {
        self.undelivered += 1;
        sink.complete(
            request.id,
            self.target.0,
            opcode(&request.operation),
            status,
            bytes,
            None,
        );
    }

    /// Ends all of them.
    pub fn flush(&mut self, sink: &mut Sink) {
        self.waiting_since = None;
        while !self.queue.is_empty() {
            self.fail_first(Status::Flushed, sink);
        }
    }
}
