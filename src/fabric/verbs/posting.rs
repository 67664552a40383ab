//! From requests to work requests: the path of every message. What one queue pair carries in one work request goes
//! into a batch, which is handed to the device with one call; what takes several is in `wide`.
//!
//! The path allocates nothing, takes no lock and makes no system call of ours. Registrations are cloned into the
//! in-flight table before the device sees a work request (invariant 1), except where the device takes the bytes at
//! the post.

use sapwood_sys::verbs::bindings::*;

use super::batch::Batch;
use super::budget::Budget;
use super::connection::Connection;
use super::error::VerbError;
use super::explain;
use super::in_flight::Outgoing;
use super::ticket::Ticket;
use super::work::{self, Local, Remote};
use crate::fabric::state::State;
use crate::fabric::{Opcode, Operation, PostError, Request, Status};

/// Why a list of work requests was not taken as a whole.
#[derive(Debug)]
pub(super) struct Refused {
    /// How many at the end of the list the device did not take; none of those is in the table any more.
    left: usize,
    full: bool,
}

impl Connection {
    /// Answers requests that come too early or too late. A failure that nobody was told of yet is told by the first
    /// that comes after it.
    #[cold]
    pub fn post_unconnected(&mut self, requests: &[Request]) -> Result<(), PostError> {
        if self.state == State::Prepared {
            return Err(PostError::NotConnected { peer: self.peer });
        }
        let posted = usize::from(requests.first().is_some_and(|first| self.tell_by(first)));
        if posted == requests.len() {
            return Ok(());
        }
        Err(PostError::QueuePairError { posted })
    }

    /// Posts requests in order on a connected connection; see [`crate::fabric::Endpoint::post`].
    #[inline(always)]
    pub fn post(
        &mut self,
        requests: &[Request],
        batch: &mut Batch,
        budget: &mut Budget,
    ) -> Result<(), PostError> {
        for (at, request) in requests.iter().enumerate() {
            if !self.is_plain(&request.operation) {
                self.flush(batch, budget, at)?;
                self.post_wide(request, batch, budget, at)?;
                continue;
            }
            if self.requests.len() >= self.depth || !budget.take_request(1) {
                self.flush(batch, budget, at)?;
                return Err(PostError::QueueFull { posted: at });
            }
            self.add(request, batch);
            if batch.is_full() {
                self.flush(batch, budget, at + 1)?;
            }
        }
        self.flush(batch, budget, requests.len())
    }

    /// Whether one work request on queue pair 0 is all it takes.
    #[inline(always)]
    fn is_plain(&self, operation: &Operation) -> bool {
        if !self.single {
            return self.is_plain_among_many(operation);
        }
        match operation {
            Operation::Write { local, .. } | Operation::Read { local, .. } => {
                local.len <= self.largest_message
            }
            _ => true,
        }
    }

    /// Adds a request to the batch and its entry to the table.
    #[inline(always)]
    fn add(&mut self, request: &Request, batch: &mut Batch) {
        let (work, memory) = batch.add();
        work.wr_id = Ticket::number(self.request_base, self.requests.next());
        let mut flags = IBV_SEND_SIGNALED;
        self.silent += 1;
        if request.signaled || self.silent > self.longest_silence {
            self.silent = 0;
        } else {
            flags = 0;
        }
        // Writes are what most messages are; the rest is as fast as a call more allows.
        let Operation::Write {
            local,
            remote,
            immediate,
        } = &request.operation
        else {
            return self.add_other(request, flags, batch);
        };
        let Some(found) = work::local(local, self.scope) else {
            return self.add_impossible(request, Status::LocalProtection, batch);
        };
        work.opcode = IBV_WR_RDMA_WRITE;
        if let Some(value) = immediate {
            work.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
            work.__bindgen_anon_1.imm_data = value.to_be();
        }
        let remote = work::remote(remote, self.remote_scope);
        work.wr.rdma.remote_addr = remote.address;
        work.wr.rdma.rkey = remote.key;
        fill(work, memory, found, local.len);
        // Bytes that the device takes at the post need no owner.
        let registration = if local.len <= self.inline_size && found.host {
            flags |= IBV_SEND_INLINE;
            None
        } else {
            Some(local.registration.clone())
        };
        work.send_flags = flags;
        self.requests.push(Outgoing {
            id: request.id,
            registration,
            bytes: local.len,
            weight: 1,
            unreported_lanes: 0,
            opcode: Opcode::Write,
            status: None,
            refused: None,
            signaled: request.signaled,
            internal: false,
            lone: false,
        });
    }

    /// Continues with the batch's newest work request, for everything but writes.
    #[inline(never)]
    fn add_other(&mut self, request: &Request, mut flags: u32, batch: &mut Batch) {
        let (work, memory) = batch.last();
        let (slice, opcode, aligned) = match &request.operation {
            Operation::Write { local, .. } => (local, Opcode::Write, true),
            Operation::Send { local, immediate } => {
                work.opcode = match immediate {
                    None => IBV_WR_SEND,
                    Some(value) => {
                        work.__bindgen_anon_1.imm_data = value.to_be();
                        IBV_WR_SEND_WITH_IMM
                    }
                };
                (local, Opcode::Send, true)
            }
            Operation::Read { local, remote } => {
                let remote = work::remote(remote, self.remote_scope);
                work.wr.rdma.remote_addr = remote.address;
                work.wr.rdma.rkey = remote.key;
                work.opcode = IBV_WR_RDMA_READ;
                (local, Opcode::Read, true)
            }
            Operation::FetchAdd { local, remote, add } => {
                work.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
                let aligned = atomic(work, work::remote(remote, self.remote_scope), *add, 0);
                (local, Opcode::FetchAdd, aligned)
            }
            Operation::CompareSwap {
                local,
                remote,
                expected,
                desired,
            } => {
                work.opcode = IBV_WR_ATOMIC_CMP_AND_SWP;
                let remote = work::remote(remote, self.remote_scope);
                (
                    local,
                    Opcode::CompareSwap,
                    atomic(work, remote, *expected, *desired),
                )
            }
        };
        if !aligned {
            return self.add_impossible(request, Status::RemoteOperation, batch);
        }
        let is_atomic = matches!(opcode, Opcode::FetchAdd | Opcode::CompareSwap);
        let found = work::local(slice, self.scope).filter(|_| !is_atomic || slice.len == 8);
        let Some(found) = found else {
            return self.add_impossible(request, Status::LocalProtection, batch);
        };
        fill(work, memory, found, slice.len);
        // Reads and atomics bring something back into the local memory.
        let mut registration = None;
        if opcode == Opcode::Send && slice.len <= self.inline_size && found.host {
            flags |= IBV_SEND_INLINE;
        } else {
            registration = Some(slice.registration.clone());
        }
        work.send_flags = flags;
        self.requests.push(Outgoing {
            id: request.id,
            registration,
            bytes: slice.len,
            weight: 1,
            signaled: request.signaled,
            internal: false,
            ..Outgoing::internal(opcode)
        });
    }

    /// Makes the batch's newest work request one that fails when it is its turn, and then so.
    #[cold]
    fn add_impossible(&mut self, request: &Request, status: Status, batch: &mut Batch) {
        let (work, memory) = batch.last();
        work::impossible(work, memory);
        work.send_flags = IBV_SEND_SIGNALED;
        self.requests.push(Outgoing {
            id: request.id,
            weight: 1,
            refused: Some(status),
            signaled: request.signaled,
            internal: false,
            ..Outgoing::internal(explain::opcode(&request.operation))
        });
    }

    /// Hands the batch to queue pair 0. `taken` requests of the caller's are in it or went before it.
    #[inline(always)]
    fn flush(&mut self, batch: &mut Batch, budget: &mut Budget, taken: usize) -> Result<(), PostError> {
        if batch.is_empty() {
            return Ok(());
        }
        match self.hand_over(0, batch) {
            Ok(()) => Ok(()),
            Err(refused) => Err(self.not_taken(&refused, budget, taken)),
        }
    }

    #[cold]
    fn not_taken(&mut self, refused: &Refused, budget: &mut Budget, taken: usize) -> PostError {
        for _ in 0..refused.left {
            self.requests.take_back();
            budget.give_request(1);
        }
        let posted = taken.saturating_sub(refused.left);
        if refused.full {
            PostError::QueueFull { posted }
        } else {
            PostError::QueuePairError { posted }
        }
    }

    /// Hands the batch to a queue pair. If it does not take all of it for another reason than a full queue, the
    /// connection has failed.
    #[inline(always)]
    pub(super) fn hand_over(&mut self, lane: usize, batch: &mut Batch) -> Result<(), Refused> {
        let length = batch.len();
        let pair = &mut self.lanes[lane];
        // SAFETY: every work request of the list points to memory whose registration is in the table, or which the
        // device takes during the call (and which the caller's request keeps alive meanwhile).
        let result = batch.post(|list| unsafe { pair.post(list) });
        match result {
            Ok(()) => Ok(()),
            Err(not_taken) => {
                let taken = batch.position(not_taken.first).min(length);
                Err(self.refused(lane, length - taken, not_taken.errno))
            }
        }
    }

    #[cold]
    fn refused(&mut self, lane: usize, left: usize, errno: i32) -> Refused {
        let full = errno == libc::ENOMEM;
        if !full {
            let error = self.lanes[lane].refusal(VerbError::PostSend, errno);
            self.failed_by_verb(&error);
        }
        Refused { left, full }
    }

    /// What a request that was posted alone is answered with when the device does not take it.
    pub(super) fn refused_alone(&mut self, errno: i32) -> PostError {
        if self.refused(0, 1, super::queue_pair::reason(errno)).full {
            PostError::QueueFull { posted: 0 }
        } else {
            PostError::QueuePairError { posted: 0 }
        }
    }
}

/// Fills in the numbers of an atomic; whether its word is aligned. Devices refuse others in different ways, or at the
/// post, so they are refused here.
fn atomic(work: &mut ibv_send_wr, remote: Remote, compare_add: u64, swap: u64) -> bool {
    work.wr.atomic.remote_addr = remote.address;
    work.wr.atomic.rkey = remote.key;
    work.wr.atomic.compare_add = compare_add;
    work.wr.atomic.swap = swap;
    remote.address.is_multiple_of(8)
}

/// Memory of one work request. An entry of length 0 means 2 GiB to some devices, so there is none for no bytes.
#[inline(always)]
pub(super) fn fill(work: &mut ibv_send_wr, memory: &mut ibv_sge, local: Local, len: usize) {
    memory.addr = local.address;
    memory.length = len as u32;
    memory.lkey = local.key;
    work.num_sge = i32::from(len != 0);
}
