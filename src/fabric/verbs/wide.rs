//! Requests that take more than one work request: writes that several queue pairs carry, messages longer than the
//! device's longest, and, with several queue pairs, everything that takes a receive at the peer.
//!
//! An immediate orders only what its own queue pair carried. So with k queue pairs a message that takes a receive goes
//! over all k of them, if only as an empty message, and the receiver posts each receive k times and reports it when
//! all have come. The queue pairs carry such messages in the same order, so the n-th on each belong together.
//!
//! A request is a series of *rounds*, each at most one work request on each queue pair and one entry of the table; all
//! but the last are of this module's own making. Everything here is reported by the device.

use sapwood_sys::verbs::bindings::*;

use super::batch::Batch;
use super::budget::Budget;
use super::connection::Connection;
use super::in_flight::Outgoing;
use super::posting::fill;
use super::queue_pair::NotTaken;
use super::stripes::{messages, stripe};
use super::ticket::Ticket;
use super::work::{self, Local, Remote};
use crate::fabric::{Opcode, Operation, PostError, Request, Slice, Status};

/// Writes from this many bytes on are striped.
pub(super) const STRIPE_FROM: usize = 64 << 10;

/// What all work requests of one request have in common.
struct Wide<'a> {
    slice: &'a Slice,
    local: Local,
    remote: Remote,
    opcode: Opcode,
    immediate: Option<u32>,
    /// Whether every queue pair takes part, if only with an empty message.
    everywhere: bool,
    /// Bytes from which on it is striped.
    threshold: usize,
}

impl Connection {
    /// Whether queue pair 0 alone can carry it, where there are others.
    pub(super) fn is_plain_among_many(&self, operation: &Operation) -> bool {
        match operation {
            Operation::Write {
                immediate: Some(_), ..
            }
            | Operation::Send { .. } => false,
            Operation::Write { local, .. } => local.len < STRIPE_FROM.min(self.largest_message + 1),
            // Must not overtake what other queue pairs still carry.
            Operation::Read { local, .. } => local.len <= self.largest_message && !self.is_striping(),
            Operation::FetchAdd { .. } | Operation::CompareSwap { .. } => !self.is_striping(),
        }
    }

    /// Whether other queue pairs than the first still carry parts of writes.
    fn is_striping(&self) -> bool {
        self.requests.oldest() < self.striped_before
    }

    /// Posts a request that is not plain; `at` requests of the caller's went before it.
    #[cold]
    pub(super) fn post_wide(
        &mut self,
        request: &Request,
        batch: &mut Batch,
        budget: &mut Budget,
        at: usize,
    ) -> Result<(), PostError> {
        let lanes = self.lanes.len();
        let none = work::NOWHERE;
        let (slice, remote, opcode, immediate) = match &request.operation {
            Operation::Write {
                local,
                remote,
                immediate,
            } => (
                local,
                work::remote(remote, self.remote_scope),
                Opcode::Write,
                *immediate,
            ),
            Operation::Send { local, immediate } => (local, none, Opcode::Send, *immediate),
            Operation::Read { local, remote } => {
                (local, work::remote(remote, self.remote_scope), Opcode::Read, None)
            }
            Operation::FetchAdd { local, .. } => (local, none, Opcode::FetchAdd, None),
            Operation::CompareSwap { local, .. } => (local, none, Opcode::CompareSwap, None),
        };
        // A read, or an atomic, waits until what was striped before it has landed.
        let waits =
            matches!(opcode, Opcode::Read | Opcode::FetchAdd | Opcode::CompareSwap) && self.is_striping();
        let threshold = if opcode == Opcode::Write {
            STRIPE_FROM
        } else {
            usize::MAX
        };
        let longest = stripe(slice.len, 0, lanes, threshold).len;
        let rounds = if opcode == Opcode::Send {
            1
        } else {
            messages(longest, self.largest_message)
        };
        let fits = rounds <= self.depth && budget.could_take(rounds * lanes);
        let found = work::local(slice, self.scope).filter(|_| fits);
        let rounds = if found.is_some() { rounds } else { 1 };
        if waits || self.requests.len() + rounds > self.depth || !budget.take_request(rounds * lanes) {
            return Err(PostError::QueueFull { posted: at });
        }
        let Some(local) = found else {
            return self.post_impossible(request, opcode, batch, budget, at);
        };
        let wide = Wide {
            slice,
            local,
            remote,
            opcode,
            immediate,
            everywhere: immediate.is_some() || opcode == Opcode::Send,
            threshold,
        };
        for round in 0..rounds {
            let last = round + 1 == rounds;
            let mut entry = Outgoing::internal(opcode);
            if last {
                entry.id = request.id;
                entry.signaled = request.signaled;
                entry.internal = false;
                entry.bytes = slice.len;
            }
            entry.weight = lanes as u8;
            entry.registration = Some(slice.registration.clone());
            self.requests.push(entry);
            if let Err(taken) = self.post_round(&wide, round, last, batch) {
                let left = rounds - round - usize::from(taken);
                budget.give_request(left * lanes);
                return Err(PostError::QueuePairError { posted: at });
            }
        }
        if lanes > 1 && slice.len >= wide.threshold {
            self.striped_before = self.requests.next();
        }
        Ok(())
    }

    /// Posts the newest entry's work requests, one on each queue pair that takes part. If one is refused, the connection
    /// has failed, and the error says whether the entry is still in flight on others.
    fn post_round(
        &mut self,
        wide: &Wide<'_>,
        round: usize,
        last: bool,
        batch: &mut Batch,
    ) -> Result<(), bool> {
        let lanes = self.lanes.len();
        let number = self.requests.next() - 1;
        for lane in 0..lanes {
            let part = stripe(wide.slice.len, lane, lanes, wide.threshold);
            let (skip, len) = if wide.opcode == Opcode::Send {
                (0, part.len)
            } else {
                let skip = round * self.largest_message;
                (skip, part.len.saturating_sub(skip).min(self.largest_message))
            };
            let announced = last && wide.everywhere;
            if lane > 0 && len == 0 && !announced {
                continue;
            }
            let (request, memory) = batch.add();
            request.wr_id = Ticket::number(self.request_bases[lane], number);
            request.send_flags = IBV_SEND_SIGNALED;
            let immediate = if announced { wide.immediate } else { None };
            if let Some(value) = immediate {
                request.__bindgen_anon_1.imm_data = value.to_be();
            }
            request.opcode = match (wide.opcode, immediate) {
                (Opcode::Send, None) => IBV_WR_SEND,
                (Opcode::Send, Some(_)) => IBV_WR_SEND_WITH_IMM,
                (Opcode::Read, _) => IBV_WR_RDMA_READ,
                (_, None) => IBV_WR_RDMA_WRITE,
                (_, Some(_)) => IBV_WR_RDMA_WRITE_WITH_IMM,
            };
            let offset = (part.offset + skip) as u64;
            let local = Local {
                address: wide.local.address + if len == 0 { 0 } else { offset },
                ..wide.local
            };
            fill(request, memory, local, len);
            // An empty message has no place.
            let remote = if len == 0 && lane > 0 {
                work::NOWHERE
            } else {
                wide.remote
            };
            request.wr.rdma.remote_addr = remote.address.wrapping_add(if len == 0 { 0 } else { offset });
            request.wr.rdma.rkey = remote.key;
            if len <= self.inline_size && wide.local.host && wide.opcode != Opcode::Read {
                request.send_flags |= IBV_SEND_INLINE;
            }
            if self.hand_over(lane, batch).is_err() {
                if lane == 0 {
                    self.requests.take_back();
                }
                // Queue pairs of one connection are equally full: that one takes less than another is a failure.
                self.failed_by_event("a queue pair took less than its neighbours".into());
                return Err(lane > 0);
            }
            if lanes > 1
                && let Some(entry) = self.requests.get_mut(number)
            {
                entry.unreported_lanes += 1;
            }
        }
        Ok(())
    }

    /// A slice that leaves its registration, or is too long for a whole queue: fails in its turn.
    fn post_impossible(
        &mut self,
        request: &Request,
        opcode: Opcode,
        batch: &mut Batch,
        budget: &mut Budget,
        at: usize,
    ) -> Result<(), PostError> {
        let (work, memory) = batch.add();
        work::impossible(work, memory);
        work.wr_id = Ticket::number(self.request_bases[0], self.requests.next());
        work.send_flags = IBV_SEND_SIGNALED;
        self.requests.push(Outgoing {
            id: request.id,
            signaled: request.signaled,
            internal: false,
            lone: false,
            refused: Some(Status::LocalProtection),
            weight: self.lanes.len() as u8,
            ..Outgoing::internal(opcode)
        });
        self.hand_over(0, batch).map_err(|_| {
            self.requests.take_back();
            budget.give_request(self.lanes.len());
            PostError::QueuePairError { posted: at }
        })
    }

    /// An empty write on queue pair 0, for `entry`. It touches no memory and needs no key; it fails if the peer is not
    /// there, and tells, if it is signaled, that everything before it is over. Whether the device took it.
    #[cold]
    pub(super) fn post_empty(&mut self, flags: u32, entry: Outgoing) -> bool {
        if self.requests.is_full() {
            return false;
        }
        // SAFETY: numbers, null pointers and unions of these.
        let mut work: ibv_send_wr = unsafe { std::mem::zeroed() };
        work.wr_id = Ticket::number(self.request_bases[0], self.requests.next());
        work.opcode = IBV_WR_RDMA_WRITE;
        work.send_flags = flags;
        self.requests.push(entry);
        // SAFETY: one work request without memory.
        if let Err(NotTaken { errno, .. }) = unsafe { self.lanes[0].post(&mut work) } {
            self.requests.take_back();
            tracing::debug!(errno, peer = self.peer, "an empty write was not taken");
            return false;
        }
        true
    }
}
