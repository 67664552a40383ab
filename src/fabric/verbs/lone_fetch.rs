//! The path of one read or atomic, posted alone, its success reported: as `lone`, for what brings something back. Memory
//! that is written by the device until then is held by the entry (invariant 1).

use std::ffi::c_int;

use sapwood_sys::verbs::bindings::*;

use super::connection::Connection;
use super::in_flight::Outgoing;
use super::ticket::Ticket;
use crate::fabric::{Opcode, Operation, RemoteSlice, Request, Slice};

/// What such a request is, taken apart.
struct Fetch<'a> {
    local: &'a Slice,
    remote: &'a RemoteSlice,
    opcode: Opcode,
    verb: ibv_wr_opcode,
    /// What an atomic works with.
    operands: Option<(u64, u64)>,
}

impl<'a> Fetch<'a> {
    #[inline(always)]
    fn of(operation: &'a Operation) -> Option<Self> {
        let (local, remote, opcode, verb, operands) = match operation {
            Operation::Read { local, remote } => (local, remote, Opcode::Read, IBV_WR_RDMA_READ, None),
            Operation::FetchAdd { local, remote, add } => (
                local,
                remote,
                Opcode::FetchAdd,
                IBV_WR_ATOMIC_FETCH_AND_ADD,
                Some((*add, 0)),
            ),
            Operation::CompareSwap {
                local,
                remote,
                expected,
                desired,
            } => (
                local,
                remote,
                Opcode::CompareSwap,
                IBV_WR_ATOMIC_CMP_AND_SWP,
                Some((*expected, *desired)),
            ),
            Operation::Write { .. } | Operation::Send { .. } => return None,
        };
        Some(Self {
            local,
            remote,
            opcode,
            verb,
            operands,
        })
    }
}

/// The memory of a read or atomic that the path could take.
#[inline]
pub(super) fn memory(operation: &Operation) -> Option<(&Slice, &RemoteSlice)> {
    Fetch::of(operation).map(|fetch| (fetch.local, fetch.remote))
}

impl Connection {
    /// As [`Connection::post_lone`], for these requests.
    #[inline(always)]
    pub fn post_lone_fetch(&mut self, request: &Request) -> Option<c_int> {
        let Fetch {
            local,
            remote,
            opcode,
            verb,
            operands,
        } = Fetch::of(&request.operation)?;
        let lone = &mut self.lone;
        if !request.signaled || lone.credit <= 0 {
            return None;
        }
        let familiar = lone.familiar.as_ref()?;
        if !familiar.covers(local, remote, familiar.len.min(self.largest_message)) {
            return None;
        }
        let far = familiar.remote_address.wrapping_add(remote.offset as u64);
        let (work, memory) = &mut *lone.fetch;
        match operands {
            None => {
                work.wr.rdma.remote_addr = far;
                work.wr.rdma.rkey = familiar.remote_key;
            }
            Some((first, second)) => {
                if local.len != 8 || !far.is_multiple_of(8) {
                    return None;
                }
                work.wr.atomic.remote_addr = far;
                work.wr.atomic.rkey = familiar.remote_key;
                work.wr.atomic.compare_add = first;
                work.wr.atomic.swap = second;
            }
        }
        work.opcode = verb;
        work.wr_id = Ticket::number(lone.base, self.requests.next());
        memory.addr = familiar.address.wrapping_add(local.offset as u64);
        memory.length = local.len as u32;
        memory.lkey = familiar.key;
        lone.credit -= 1;
        self.requests.push(Outgoing {
            registration: Some(local.registration.clone()),
            opcode,
            lone: false,
            ..Outgoing::lone(request.id, local.len)
        });
        // SAFETY: with credit the connection is connected, so its queue pair is live; the entry keeps the registration
        // of the memory until the device is through with it.
        Some(unsafe { (lone.post)(lone.pair, work, &mut lone.bad) })
    }
}
