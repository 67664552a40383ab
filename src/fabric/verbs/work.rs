//! From a request to the numbers that a work request consists of: addresses, keys, lengths. Slices that leave their
//! registration and handles of other fabrics become work requests that the device itself refuses, so that they fail
//! in their turn, with everything behind them flushed.

use sapwood_sys::verbs::bindings::*;

use crate::fabric::{RemoteSlice, Slice};

/// Local memory as the device is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Local {
    pub address: u64,
    pub key: u32,
    /// Whether this process's CPU may read it, as inline sends do.
    pub host: bool,
}

/// A peer's memory as the device is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub address: u64,
    pub key: u32,
}

/// `None` if the slice leaves its registration, or the registration is not one of the device with this scope.
#[inline(always)]
pub(super) fn local(slice: &Slice, scope: u64) -> Option<Local> {
    let memory = slice.registration.device_memory()?;
    let end = slice.offset.checked_add(slice.len)?;
    (memory.scope == scope && end <= memory.len).then(|| Local {
        address: memory.address + slice.offset as u64,
        key: memory.key,
        host: memory.host_accessible,
    })
}

/// Memory that no device accepts: key 0 is nobody's.
pub(super) const NOWHERE: Remote = Remote { address: 0, key: 0 };

/// Bounds and rights are the peer's device to judge. What is no region of the peer with this scope is nowhere.
#[inline(always)]
pub(super) fn remote(slice: &RemoteSlice, scope: u64) -> Remote {
    match slice.region.device_memory() {
        Some(memory) if memory.scope == scope => Remote {
            address: memory.address.wrapping_add(slice.offset as u64),
            key: memory.key,
        },
        _ => NOWHERE,
    }
}

/// A work request that fails here, before anything leaves: it reads a byte that no registration covers.
#[cold]
pub(super) fn impossible(request: &mut ibv_send_wr, memory: &mut ibv_sge) {
    *memory = ibv_sge {
        addr: 0,
        length: 1,
        lkey: 0,
    };
    request.num_sge = 1;
    request.opcode = IBV_WR_RDMA_WRITE;
    request.wr.rdma.remote_addr = 0;
    request.wr.rdma.rkey = 0;
}
