//! The path of one read or atomic, posted alone, its success reported: as `lone`, for what brings something back. Memory
//! that is written by the device until then is held by the entry (invariant 1).

use std::ffi::c_int;

use sapwood_sys::verbs::bindings::*;

use super::connection::Connection;
use super::in_flight::Outgoing;
use super::ticket::Ticket;
use crate::fabric::{Opcode, Operation, RemoteSlice, Request, Slice};

/// The memory of a read or atomic that the path could take.
#[inline]
pub(super) fn memory(operation: &Operation) -> Option<(&Slice, &RemoteSlice)> {
    match operation {
        Operation::Read { local, remote }
        | Operation::FetchAdd { local, remote, .. }
        | Operation::CompareSwap { local, remote, .. } => Some((local, remote)),
        Operation::Write { .. } | Operation::Send { .. } => None,
    }
}

/// What the table keeps of such a request.
#[inline(always)]
fn entry(id: u64, local: &Slice, opcode: Opcode) -> Outgoing {
    Outgoing {
        registration: Some(local.registration.clone()),
        opcode,
        ..Outgoing::lone(id, local.len)
    }
}

impl Connection {
    /// As [`Connection::post_lone`], for a read.
    #[inline(always)]
    pub(super) fn post_lone_read(&mut self, id: u64, local: &Slice, remote: &RemoteSlice) -> Option<c_int> {
        let lone = &mut self.lone;
        if !lone.spend() {
            return None;
        }
        // SAFETY: as `spend` says.
        let familiar = unsafe { lone.familiar.as_ref().unwrap_unchecked() };
        if !familiar.covers(local, remote, familiar.longest_read) {
            return None;
        }
        let (work, memory) = &mut *lone.read;
        work.wr_id = Ticket::number(lone.base, self.requests.next());
        work.wr.rdma.remote_addr = familiar.remote_address.wrapping_add(remote.offset as u64);
        memory.addr = familiar.address.wrapping_add(local.offset as u64);
        memory.length = local.len as u32;
        self.requests.push_counted(entry(id, local, Opcode::Read));
        // SAFETY: with credit the connection is connected, so its queue pair is live; the entry keeps the registration
        // of the memory until the device is through with it.
        Some(unsafe { (lone.post)(lone.pair, work, &mut lone.bad) })
    }

    /// As [`Connection::post_lone`], for an atomic; `None` for everything else, too.
    #[inline(always)]
    pub(super) fn post_lone_atomic(&mut self, request: &Request) -> Option<c_int> {
        match &request.operation {
            Operation::FetchAdd { local, remote, add } => {
                const VERB: ibv_wr_opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
                self.post_lone_word(request.id, local, remote, (Opcode::FetchAdd, VERB), (*add, 0))
            }
            Operation::CompareSwap {
                local,
                remote,
                expected,
                desired,
            } => {
                const VERB: ibv_wr_opcode = IBV_WR_ATOMIC_CMP_AND_SWP;
                let operands = (*expected, *desired);
                self.post_lone_word(request.id, local, remote, (Opcode::CompareSwap, VERB), operands)
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn post_lone_word(
        &mut self,
        id: u64,
        local: &Slice,
        remote: &RemoteSlice,
        (opcode, verb): (Opcode, ibv_wr_opcode),
        (first, second): (u64, u64),
    ) -> Option<c_int> {
        let lone = &mut self.lone;
        if !lone.spend() {
            return None;
        }
        // SAFETY: as `spend` says.
        let familiar = unsafe { lone.familiar.as_ref().unwrap_unchecked() };
        let far = familiar.remote_address.wrapping_add(remote.offset as u64);
        if local.len != 8 || !familiar.covers(local, remote, familiar.len) || !far.is_multiple_of(8) {
            return None;
        }
        let (work, memory) = &mut *lone.atomic;
        work.wr_id = Ticket::number(lone.base, self.requests.next());
        work.opcode = verb;
        work.wr.atomic.remote_addr = far;
        work.wr.atomic.compare_add = first;
        work.wr.atomic.swap = second;
        memory.addr = familiar.address.wrapping_add(local.offset as u64);
        memory.length = 8;
        self.requests.push_counted(entry(id, local, opcode));
        // SAFETY: as for a read.
        Some(unsafe { (lone.post)(lone.pair, work, &mut lone.bad) })
    }
}
