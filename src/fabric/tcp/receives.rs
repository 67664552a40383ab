//! Receives that were posted for what a peer sends, and what the peer was told of them.

use std::collections::VecDeque;

use super::region;
use super::sink::Sink;
use crate::fabric::{Opcode, PostError, Rank, Receive, Status};

/// With fewer receives than this that the peer knows of and has not used, it is told of more at once.
const FEW: u32 = 8;

/// See the module.
pub(super) struct Receives {
    peer: Rank,
    depth: usize,
    queue: VecDeque<Receive>,
    /// Since the beginning, modulo 2^32: posted, told of, used up.
    posted: u32,
    told: u32,
    used: u32,
    /// Completions that the user has not taken yet: they occupy the queue.
    pub undelivered: usize,
}

impl Receives {
    pub fn new(peer: Rank, depth: usize) -> Self {
        Self {
            peer,
            depth,
            queue: VecDeque::with_capacity(depth),
            posted: 0,
            told: 0,
            used: 0,
            undelivered: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes one up. `Ok(false)`: it can never be filled, and has ended so.
    pub fn post(&mut self, receive: Receive, sink: &mut Sink) -> Result<bool, PostError> {
        if self.queue.len() + self.undelivered >= self.depth {
            return Err(PostError::QueueFull { posted: 0 });
        }
        let local = receive.local.as_ref();
        if local.is_some_and(|slice| region::local(slice).is_err()) {
            self.complete(receive.id, None, Status::LocalProtection, 0, sink);
            return Ok(false);
        }
        self.queue.push_back(receive);
        self.posted = self.posted.wrapping_add(1);
        Ok(true)
    }

    /// The one that is next.
    pub fn first(&self) -> Option<&Receive> {
        self.queue.front()
    }

    /// The next one's bytes.
    pub fn capacity(&self) -> Option<usize> {
        Some(self.first()?.local.as_ref().map_or(0, |slice| slice.len))
    }

    /// Ends the next one. `immediate`: that of a write, whose bytes are elsewhere, or of a send.
    pub fn end_first(
        &mut self,
        opcode: Opcode,
        immediate: Option<u32>,
        status: Status,
        bytes: usize,
        sink: &mut Sink,
    ) {
        if let Some(receive) = self.queue.pop_front() {
            self.used = self.used.wrapping_add(1);
            self.complete(receive.id, Some((opcode, immediate)), status, bytes, sink);
        }
    }

    fn complete(
        &mut self,
        id: u64,
        what: Option<(Opcode, Option<u32>)>,
        status: Status,
        bytes: usize,
        sink: &mut Sink,
    ) {
        let (opcode, immediate) = what.unwrap_or((Opcode::Receive, None));
        self.undelivered += 1;
        sink.complete(id, self.peer, opcode, status, bytes, immediate);
    }

    /// Ends the next one, or all of them, for want of a queue pair.
    pub fn fail_first(&mut self, status: Status, sink: &mut Sink) {
        self.end_first(Opcode::Receive, None, status, 0, sink);
    }

    /// See [`Receives::fail_first`].
    pub fn flush(&mut self, sink: &mut Sink) {
        while !self.queue.is_empty() {
            self.fail_first(Status::Flushed, sink);
        }
    }

    /// What the peer is to be told.
    pub fn count(&self) -> u32 {
        self.posted
    }

    /// The peer was told that.
    pub fn told(&mut self, count: u32) {
        self.told = count;
    }

    /// Whether the peer may be waiting to be told.
    pub fn is_urgent(&self) -> bool {
        self.posted != self.told && self.told.wrapping_sub(self.used) < FEW
    }
}
