//! From requests to work requests: the path of every message. What one queue pair carries in one work request goes
//! into a batch, which is handed to the device with one call; what takes several is in `wide`.
//!
//! The path allocates nothing, takes no lock and makes no system call of ours. Registrations are cloned into the
//! in-flight table before the device sees a work request (invariant 1), except where the device takes the bytes at
//! the post.

use sapwood_sys::verbs::bindings::*;

use super::batch::Batch;
use super::budget::Budget;
use super::connection::{Connection, State};
use super::device::Device;
use super::error::VerbError;
use super::in_flight::{Incoming, Outgoing, Ticket};
use super::work::{self, Local};
use crate::fabric::{Opcode, Operation, PostError, Receive, Request, Slice, Status};

/// Why a list of work requests was not taken as a whole.
#[derive(Debug)]
pub(super) struct Refused {
    /// How many at the end of the list the device did not take; none of those is in the table any more.
    left: usize,
    full: bool,
}

impl Connection {
    /// Posts requests in order; see [`crate::fabric::Endpoint::post`].
    #[inline]
    pub fn post(
        &mut self,
        requests: &[Request],
        batch: &mut Batch,
        budget: &mut Budget,
    ) -> Result<(), PostError> {
        match self.state {
            State::Connected => {}
            State::Prepared => return Err(PostError::NotConnected { peer: self.peer }),
            State::Failed | State::Closed => return Err(PostError::QueuePairError { posted: 0 }),
        }
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
    #[inline]
    fn is_plain(&self, operation: &Operation) -> bool {
        if self.lanes.len() > 1 {
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
    #[inline]
    fn add(&mut self, request: &Request, batch: &mut Batch) {
        let (work, memory) = batch.add();
        work.wr_id = Ticket::number(self.request_bases[0], self.requests.next());
        let mut flags = 0;
        if request.signaled || self.silent >= self.longest_silence {
            flags = IBV_SEND_SIGNALED;
            self.silent = 0;
        } else {
            self.silent += 1;
        }
        let mut entry = Outgoing {
            id: request.id,
            registration: None,
            bytes: 0,
            weight: 1,
            unreported_lanes: 0,
            opcode: Opcode::Write,
            status: None,
            signaled: request.signaled,
            internal: false,
            lone: false,
            refused: None,
        };
        // Reads and atomics bring something back into the local memory: nothing of them can be inline.
        let mut outgoing = false;
        let (slice, found) = match &request.operation {
            Operation::Write {
                local,
                remote,
                immediate,
            } => {
                outgoing = true;
                let remote = work::remote(remote, self.peer);
                work.wr.rdma.remote_addr = remote.address;
                work.wr.rdma.rkey = remote.key;
                work.opcode = match immediate {
                    None => IBV_WR_RDMA_WRITE,
                    Some(value) => {
                        work.__bindgen_anon_1.imm_data = value.to_be();
                        IBV_WR_RDMA_WRITE_WITH_IMM
                    }
                };
                (local, work::local(local, &self.device))
            }
            Operation::Send { local, immediate } => {
                outgoing = true;
                entry.opcode = Opcode::Send;
                work.opcode = match immediate {
                    None => IBV_WR_SEND,
                    Some(value) => {
                        work.__bindgen_anon_1.imm_data = value.to_be();
                        IBV_WR_SEND_WITH_IMM
                    }
                };
                (local, work::local(local, &self.device))
            }
            Operation::Read { local, remote } => {
                entry.opcode = Opcode::Read;
                let remote = work::remote(remote, self.peer);
                work.wr.rdma.remote_addr = remote.address;
                work.wr.rdma.rkey = remote.key;
                work.opcode = IBV_WR_RDMA_READ;
                (local, work::local(local, &self.device))
            }
            Operation::FetchAdd { local, remote, add } => {
                entry.opcode = Opcode::FetchAdd;
                let remote = work::remote(remote, self.peer);
                let aligned = remote.address.is_multiple_of(8);
                work.wr.atomic.remote_addr = remote.address;
                work.wr.atomic.rkey = remote.key;
                work.wr.atomic.compare_add = *add;
                work.wr.atomic.swap = 0;
                work.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
                if !aligned {
                    entry.refused = Some(Status::RemoteOperation);
                }
                (
                    local,
                    work::local(local, &self.device).filter(|_| aligned && local.len == 8),
                )
            }
            Operation::CompareSwap {
                local,
                remote,
                expected,
                desired,
            } => {
                entry.opcode = Opcode::CompareSwap;
                let remote = work::remote(remote, self.peer);
                let aligned = remote.address.is_multiple_of(8);
                work.wr.atomic.remote_addr = remote.address;
                work.wr.atomic.rkey = remote.key;
                work.wr.atomic.compare_add = *expected;
                work.wr.atomic.swap = *desired;
                work.opcode = IBV_WR_ATOMIC_CMP_AND_SWP;
                if !aligned {
                    entry.refused = Some(Status::RemoteOperation);
                }
                (
                    local,
                    work::local(local, &self.device).filter(|_| aligned && local.len == 8),
                )
            }
        };
        entry.bytes = slice.len;
        match found {
            Some(found) => {
                fill(work, memory, found, slice.len);
                if outgoing && slice.len <= self.inline_size && found.host {
                    flags |= IBV_SEND_INLINE;
                } else {
                    entry.registration = Some(slice.registration.clone());
                }
            }
            None => {
                work::impossible(work, memory);
                entry.refused.get_or_insert(Status::LocalProtection);
                flags = IBV_SEND_SIGNALED;
            }
        }
        work.send_flags = flags;
        self.requests.push(entry);
    }

    /// Hands the batch to queue pair 0. `taken` requests of the caller's are in it or went before it.
    #[inline]
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
    #[inline]
    pub(super) fn hand_over(&mut self, lane: usize, batch: &mut Batch) -> Result<(), Refused> {
        let length = batch.len();
        let pair = &mut self.lanes[lane];
        // SAFETY: every work request of the list points to memory whose registration is in the table, or which the
        // device takes during the call (and which the caller's request keeps alive meanwhile).
        let result = batch.post(|list| unsafe { pair.post(list) });
        match result {
            Ok(()) => Ok(()),
            Err((bad, errno)) => Err(self.refused(lane, length - batch.position(bad).min(length), errno)),
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

    /// Posts receives in order, as one list for each queue pair.
    pub fn post_receives(&mut self, receives: &[Receive], budget: &mut Budget) -> Result<(), PostError> {
        if !matches!(self.state, State::Prepared | State::Connected) {
            return Err(PostError::QueuePairError { posted: 0 });
        }
        let room = self.depth.saturating_sub(self.receives.len());
        let lanes = self.lanes.len();
        let count = budget.take_receives(receives.len().min(room), lanes);
        for (chunk, start) in receives[..count].chunks(RECEIVES).zip((0..).step_by(RECEIVES)) {
            if let Err(taken) = self.post_some_receives(chunk) {
                let posted = start + taken;
                (posted..count).for_each(|_| budget.give_receive(lanes));
                return Err(PostError::QueuePairError { posted });
            }
        }
        if count < receives.len() {
            return Err(PostError::QueueFull { posted: count });
        }
        Ok(())
    }

    /// Posts up to [`RECEIVES`]; how many were taken if not all were.
    fn post_some_receives(&mut self, receives: &[Receive]) -> Result<(), usize> {
        let first = self.receives.next();
        let lanes = self.lanes.len();
        let mut memory = [NO_MEMORY; RECEIVES];
        for (receive, memory) in receives.iter().zip(&mut memory) {
            let mut entry = Incoming {
                id: receive.id,
                registration: None,
                unreported_lanes: lanes as u8,
                opcode: Opcode::Receive,
                status: None,
                bytes: 0,
                immediate: None,
            };
            if let Some(slice) = &receive.local {
                *memory = receive_memory(slice, &self.device);
                entry.registration = Some(slice.registration.clone());
            }
            self.receives.push(entry);
        }
        for lane in 0..lanes {
            let base = self.receive_bases[lane];
            let number = |at: usize| Ticket::number(base, first + at as u64);
            let mut list = [NO_RECEIVE; RECEIVES];
            for at in 0..receives.len() {
                list[at].wr_id = number(at);
                if lane == 0 && memory[at].length > 0 {
                    list[at].sg_list = &raw mut memory[at];
                    list[at].num_sge = 1;
                }
                if at > 0 {
                    list[at - 1].next = &raw mut list[at];
                }
            }
            // SAFETY: the list and its memory entries live until the call returns, which copies them; the memory
            // itself belongs to registrations in the table.
            if let Err((bad, errno)) = unsafe { self.lanes[lane].post_receives(list.as_mut_ptr()) } {
                let start = list.as_ptr() as usize;
                let taken = (bad as usize).wrapping_sub(start) / size_of::<ibv_recv_wr>();
                let taken = if lane == 0 {
                    taken.min(receives.len())
                } else {
                    receives.len()
                };
                // What no queue pair knows leaves the table; what only some know ends with the queue pairs.
                if lane == 0 {
                    (taken..receives.len()).for_each(|_| drop(self.receives.take_back()));
                }
                let error = self.lanes[lane].refusal(VerbError::PostReceive, errno);
                self.failed_by_verb(&error);
                return Err(taken);
            }
        }
        Ok(())
    }
}

/// Receives that are handed to the device at a time.
const RECEIVES: usize = 16;

const NO_MEMORY: ibv_sge = ibv_sge {
    addr: 0,
    length: 0,
    lkey: 0,
};

const NO_RECEIVE: ibv_recv_wr = ibv_recv_wr {
    wr_id: 0,
    next: std::ptr::null_mut(),
    sg_list: std::ptr::null_mut(),
    num_sge: 0,
};

/// What leaves its registration gets a key that the device refuses when a message arrives for it.
fn receive_memory(slice: &Slice, device: &Device) -> ibv_sge {
    let length = slice.len.min(LONGEST_RECEIVE) as u32;
    match work::local(slice, device) {
        Some(Local { address, key, .. }) => ibv_sge {
            addr: address,
            length,
            lkey: key,
        },
        None => ibv_sge {
            addr: 0,
            length: length.max(1),
            lkey: 0,
        },
    }
}

/// No message is longer (InfiniBand specification, 9.2).
const LONGEST_RECEIVE: usize = 1 << 31;

/// Memory of one work request. An entry of length 0 means 2 GiB to some devices, so there is none for no bytes.
#[inline]
pub(super) fn fill(work: &mut ibv_send_wr, memory: &mut ibv_sge, local: Local, len: usize) {
    memory.addr = local.address;
    memory.length = len as u32;
    memory.lkey = local.key;
    work.num_sge = i32::from(len != 0);
}
