//! Queue pairs and completion queues. A pair or a queue is driven by one thread at a time here, as the fabric does.
#![allow(clippy::missing_safety_doc, reason = "the C functions' own contracts")]

use std::ffi::{c_int, c_uint, c_void};
use std::mem::zeroed;
use std::ptr::copy_nonoverlapping;
use std::sync::atomic::{AtomicU32, Ordering};

use sapwood_sys::verbs::bindings::*;

use super::device::{close_descriptor, failed, silent_descriptor};

/// Completions that a queue holds, whatever was asked for; more at once is the end of a test.
const COMPLETIONS: usize = 1 << 14;

/// Numbers of queue pairs; 0 and 1 are taken.
static NEXT_NUMBER: AtomicU32 = AtomicU32::new(2);

/// A completion queue: what C sees of it, then a ring.
#[repr(C)]
struct Queue {
    seen: ibv_cq,
    ring: Box<[ibv_wc]>,
    pushed: usize,
    taken: usize,
}

impl Queue {
    fn push(&mut self, completion: ibv_wc) {
        assert!(
            self.pushed - self.taken < self.ring.len(),
            "the completion queue overran"
        );
        let at = self.pushed % self.ring.len();
        self.ring[at] = completion;
        self.pushed += 1;
    }
}

/// A queue pair: what C sees of it, then the receives that wait.
#[repr(C)]
struct Pair {
    seen: ibv_qp,
    capacities: ibv_qp_cap,
    receives: Vec<u64>,
}

fn completion(wr_id: u64, status: ibv_wc_status, opcode: ibv_wc_opcode, pair: &ibv_qp) -> ibv_wc {
    // SAFETY: numbers only.
    let mut completion: ibv_wc = unsafe { zeroed() };
    completion.wr_id = wr_id;
    completion.status = status;
    completion.opcode = opcode;
    completion.qp_num = pair.qp_num;
    completion
}

pub unsafe extern "C" fn create_comp_channel(context: *mut ibv_context) -> *mut ibv_comp_channel {
    Box::into_raw(Box::new(ibv_comp_channel {
        context,
        fd: silent_descriptor(),
        refcnt: 0,
    }))
}

pub unsafe extern "C" fn destroy_comp_channel(channel: *mut ibv_comp_channel) -> c_int {
    // SAFETY: made by `create_comp_channel`, freed once.
    unsafe {
        close_descriptor((*channel).fd);
        drop(Box::from_raw(channel));
    }
    0
}

pub unsafe extern "C" fn create_cq(
    context: *mut ibv_context,
    entries: c_int,
    user: *mut c_void,
    channel: *mut ibv_comp_channel,
    _: c_int,
) -> *mut ibv_cq {
    // SAFETY: pointers and numbers; mutexes of zeros are unlocked ones.
    let mut seen: ibv_cq = unsafe { zeroed() };
    seen.context = context;
    seen.channel = channel;
    seen.cq_context = user;
    seen.cqe = entries;
    // SAFETY: numbers only.
    let nothing: ibv_wc = unsafe { zeroed() };
    Box::into_raw(Box::new(Queue {
        seen,
        ring: vec![nothing; COMPLETIONS].into_boxed_slice(),
        pushed: 0,
        taken: 0,
    }))
    .cast()
}

pub unsafe extern "C" fn resize_cq(queue: *mut ibv_cq, entries: c_int) -> c_int {
    // SAFETY: a live queue.
    unsafe { (*queue).cqe = entries };
    0
}

pub unsafe extern "C" fn destroy_cq(queue: *mut ibv_cq) -> c_int {
    // SAFETY: made by `create_cq`, freed once.
    drop(unsafe { Box::from_raw(queue.cast::<Queue>()) });
    0
}

pub unsafe extern "C" fn get_cq_event(
    _: *mut ibv_comp_channel,
    _: *mut *mut ibv_cq,
    _: *mut *mut c_void,
) -> c_int {
    failed::<c_void>(libc::EAGAIN);
    -1
}

pub unsafe extern "C" fn ack_cq_events(_: *mut ibv_cq, _: c_uint) {}

pub unsafe extern "C" fn req_notify_cq(_: *mut ibv_cq, _: c_int) -> c_int {
    0
}

pub unsafe extern "C" fn create_qp(domain: *mut ibv_pd, asked: *mut ibv_qp_init_attr) -> *mut ibv_qp {
    // SAFETY: a live domain and attributes of the caller's.
    let (domain_seen, asked) = unsafe { (&*domain, &*asked) };
    if asked.cap.max_inline_data > 1024 {
        return failed(libc::EINVAL);
    }
    // SAFETY: as in `create_cq`.
    let mut seen: ibv_qp = unsafe { zeroed() };
    seen.context = domain_seen.context;
    seen.pd = domain;
    seen.send_cq = asked.send_cq;
    seen.recv_cq = asked.recv_cq;
    seen.qp_num = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
    seen.state = IBV_QPS_RESET;
    seen.qp_type = asked.qp_type;
    Box::into_raw(Box::new(Pair {
        seen,
        capacities: asked.cap,
        receives: Vec::with_capacity(asked.cap.max_recv_wr as usize),
    }))
    .cast()
}

pub unsafe extern "C" fn modify_qp(pair: *mut ibv_qp, asked: *mut ibv_qp_attr, mask: c_int) -> c_int {
    // SAFETY: a live queue pair of this driver and attributes of the caller's.
    let (pair, asked) = unsafe { (&mut *pair.cast::<Pair>(), &*asked) };
    if mask.cast_unsigned() & IBV_QP_STATE != 0 {
        pair.seen.state = asked.qp_state;
        if asked.qp_state == IBV_QPS_ERR {
            for wr_id in pair.receives.drain(..) {
                let flushed = completion(wr_id, IBV_WC_WR_FLUSH_ERR, IBV_WC_RECV, &pair.seen);
                // SAFETY: the pair's completion queue lives as long as it.
                unsafe { (*pair.seen.recv_cq.cast::<Queue>()).push(flushed) };
            }
        }
    }
    0
}

pub unsafe extern "C" fn query_qp(
    pair: *mut ibv_qp,
    into: *mut ibv_qp_attr,
    _: c_int,
    initial: *mut ibv_qp_init_attr,
) -> c_int {
    // SAFETY: a live queue pair of this driver, and places for the answers; zero is a value of all their fields.
    unsafe {
        let pair = &*pair.cast::<Pair>();
        *into = zeroed();
        *initial = zeroed();
        (*into).qp_state = pair.seen.state;
        (*into).cap = pair.capacities;
        (*initial).cap = pair.capacities;
        (*initial).qp_type = pair.seen.qp_type;
    }
    0
}

pub unsafe extern "C" fn destroy_qp(pair: *mut ibv_qp) -> c_int {
    // SAFETY: made by `create_qp`, freed once.
    drop(unsafe { Box::from_raw(pair.cast::<Pair>()) });
    0
}

#[inline(never)]
pub unsafe extern "C" fn stub_post_send(
    pair: *mut ibv_qp,
    mut request: *mut ibv_send_wr,
    _: *mut *mut ibv_send_wr,
) -> c_int {
    // SAFETY: a live queue pair of this driver with its completion queue, and a list of valid requests.
    unsafe {
        let pair = &mut *pair.cast::<Pair>();
        let queue = &mut *pair.seen.send_cq.cast::<Queue>();
        while let Some(one) = request.as_ref() {
            let opcode = match one.opcode {
                IBV_WR_RDMA_WRITE | IBV_WR_RDMA_WRITE_WITH_IMM => IBV_WC_RDMA_WRITE,
                IBV_WR_RDMA_READ => IBV_WC_RDMA_READ,
                IBV_WR_ATOMIC_CMP_AND_SWP => IBV_WC_COMP_SWAP,
                IBV_WR_ATOMIC_FETCH_AND_ADD => IBV_WC_FETCH_ADD,
                _ => IBV_WC_SEND,
            };
            if pair.seen.state != IBV_QPS_RTS {
                queue.push(completion(one.wr_id, IBV_WC_WR_FLUSH_ERR, opcode, &pair.seen));
            } else {
                if one.num_sge == 1 && one.wr.rdma.rkey != 0 {
                    let (local, remote) = (&*one.sg_list, one.wr.rdma.remote_addr);
                    let (from, to) = match opcode {
                        IBV_WC_RDMA_WRITE => (local.addr, remote),
                        IBV_WC_RDMA_READ => (remote, local.addr),
                        _ => (local.addr, local.addr),
                    };
                    if from != to {
                        copy_nonoverlapping(from as *const u8, to as *mut u8, local.length as usize);
                    }
                }
                if one.send_flags & IBV_SEND_SIGNALED != 0 {
                    queue.push(completion(one.wr_id, IBV_WC_SUCCESS, opcode, &pair.seen));
                }
            }
            request = one.next;
        }
    }
    0
}

#[inline(never)]
pub unsafe extern "C" fn stub_post_recv(
    pair: *mut ibv_qp,
    mut request: *mut ibv_recv_wr,
    bad: *mut *mut ibv_recv_wr,
) -> c_int {
    // SAFETY: a live queue pair of this driver, and a list of valid requests.
    unsafe {
        let pair = &mut *pair.cast::<Pair>();
        while let Some(one) = request.as_ref() {
            if pair.receives.len() == pair.receives.capacity() {
                *bad = request;
                return libc::ENOMEM;
            }
            pair.receives.push(one.wr_id);
            request = one.next;
        }
    }
    0
}

#[inline(never)]
pub unsafe extern "C" fn stub_poll_cq(queue: *mut ibv_cq, entries: c_int, into: *mut ibv_wc) -> c_int {
    // SAFETY: a live queue of this driver, and room for so many completions.
    unsafe {
        let queue = &mut *queue.cast::<Queue>();
        let count = (queue.pushed - queue.taken).min(entries.max(0) as usize);
        for number in 0..count {
            let at = queue.taken % queue.ring.len();
            into.add(number).write(queue.ring[at]);
            queue.taken += 1;
        }
        count as c_int
    }
}
