//! The path of one small write: posted alone, its bytes taken at the post, its success reported. What latency is made
//! of, so every instruction of it was counted (`interop/instructions`). It does the same as the general path in
//! `posting` and `connection`, for this one case; whatever is not quite this case goes there, before anything was done.
//!
//! What it saves: handles are not resolved again where they are those of the write before ([`Known`]), the work request
//! is laid out already, and how many more fit is counted down instead of computed.

use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::ptr::{null_mut, read};
use std::sync::{Arc, Weak};

use sapwood_sys::verbs::bindings::*;

use super::connection::Connection;
use super::endpoint::VerbsEndpoint;
use super::in_flight::Outgoing;
use super::queue_pair::QueuePair;
use super::ticket::Ticket;
use super::work;
use crate::fabric::state::State;
use crate::fabric::{
    Completion, Opcode, Operation, PostError, Registration, RemoteRegion, RemoteSlice, Request, Slice, Status,
};

/// For the compiler: where this is called is not the straight way.
#[cold]
#[inline]
pub(super) fn cold_path() {}

/// Recognises one handle without keeping what it stands for alive: dropping the caller's last one must deregister.
struct Known<T: ?Sized> {
    /// A copy of the handle's pointer that is only ever compared, never followed and never dropped.
    handle: ManuallyDrop<Arc<T>>,
    /// Keeps the allocation, so that no other handle can ever have the same pointer meanwhile.
    _allocation: Weak<T>,
}

impl<T: ?Sized> Known<T> {
    fn new(handle: &Arc<T>) -> Self {
        Self {
            _allocation: Arc::downgrade(handle),
            // SAFETY: the copy is never dropped, so the count stays right, and it is used for `Arc::ptr_eq` alone,
            // which looks at the pointer and not at what it points to. That allocation stays, by the weak handle.
            handle: ManuallyDrop::new(unsafe { read(handle) }),
        }
    }

    #[inline(always)]
    fn is(&self, other: &Arc<T>) -> bool {
        Arc::ptr_eq(&self.handle, other)
    }
}

/// What the last such requests had in common.
pub(super) struct Familiar {
    registration: Known<dyn Registration>,
    /// Of the registration's first byte.
    pub address: u64,
    /// Its bytes.
    pub len: usize,
    /// The longest write of this kind from it.
    limit: usize,
    /// The longest read into it.
    pub longest_read: usize,
    region: Known<dyn RemoteRegion>,
    pub remote_address: u64,
}

impl Familiar {
    /// Whether these are its handles, and the bytes inside of the registration: neither none nor more than `limit`.
    #[inline(always)]
    pub fn covers(&self, local: &Slice, remote: &RemoteSlice, limit: usize) -> bool {
        local.len.wrapping_sub(1) < limit
            && self.registration.is(&local.registration)
            && self.region.is(&remote.region)
            && local.offset <= self.len.wrapping_sub(local.len)
    }
}

/// What the driver is called through.
pub(super) type PostSend =
    unsafe extern "C" fn(*mut ibv_qp, *mut ibv_send_wr, *mut *mut ibv_send_wr) -> c_int;

/// What cannot be posted this way.
unsafe extern "C" fn unsupported(_: *mut ibv_qp, _: *mut ibv_send_wr, _: *mut *mut ibv_send_wr) -> c_int {
    libc::EOPNOTSUPP
}

/// A reported work request with one entry of memory: all but numbers and addresses is laid out.
pub(super) type LaidOut = Box<(ibv_send_wr, ibv_sge)>;

fn laid_out(opcode: ibv_wr_opcode) -> LaidOut {
    // SAFETY: numbers, null pointers and unions of these.
    let mut request = Box::new(unsafe { std::mem::zeroed::<(ibv_send_wr, ibv_sge)>() });
    request.0.sg_list = &raw mut request.1;
    request.0.num_sge = 1;
    request.0.opcode = opcode;
    request.0.send_flags = IBV_SEND_SIGNALED;
    request
}

/// A connection's means for this path.
pub(super) struct Lone {
    /// So many more such writes certainly fit; below 0, one that did not was tried. Above 0 only while the connection is connected and something is familiar.
    pub credit: isize,
    pub familiar: Option<Familiar>,
    /// Laid out, the keys of what is familiar included.
    write: LaidOut,
    pub read: LaidOut,
    /// Which of them it is, and what it works with, is to be filled in, too.
    pub atomic: LaidOut,
    /// The only queue pair of the connection; live while that is connected.
    pub pair: *mut ibv_qp,
    pub post: PostSend,
    /// For the driver to say what it did not take.
    pub bad: *mut ibv_send_wr,
    /// Of the `wr_id`s.
    pub base: u64,
    /// The longest such write; 0 where there can be none.
    limit: usize,
    /// Whether the completion queue has room for all that every connection can have in flight: only then does such a
    /// write go without asking the budget.
    ample: bool,
    /// Where the last small write that was not familiar had its memory: only what comes twice in a row is learned.
    seen: (usize, usize),
}

// SAFETY: the pointers are to the object's own box and to a queue pair, which may be used from any thread.
unsafe impl Send for Lone {}

impl Lone {
    /// For a connection over these queue pairs; only where there is one, writes can take this path.
    pub fn new(lanes: &[QueuePair], base: u64, inline_size: usize) -> Self {
        let mut write = laid_out(IBV_WR_RDMA_WRITE);
        write.0.send_flags |= IBV_SEND_INLINE;
        let (pair, limit) = match lanes {
            [only] => (only.raw(), inline_size),
            _ => (null_mut(), 0),
        };
        // SAFETY: if there is a queue pair, it was just made, and its context's driver has filled the table.
        let post = (!pair.is_null())
            .then(|| unsafe { (*(*pair).context).ops.post_send })
            .flatten();
        Self {
            credit: 0,
            familiar: None,
            write,
            read: laid_out(IBV_WR_RDMA_READ),
            atomic: laid_out(IBV_WR_ATOMIC_FETCH_AND_ADD),
            pair,
            post: post.unwrap_or(unsupported),
            bad: null_mut(),
            base,
            limit,
            ample: false,
            seen: (0, 0),
        }
    }

    /// Uses up the credit for one such request; whether there was any. If so, something is familiar: that is where
    /// credit comes from (`renew`), and what is familiar is replaced but never taken away.
    #[inline(always)]
    pub fn spend(&mut self) -> bool {
        self.credit -= 1;
        self.credit >= 0
    }

    fn knows(&self, local: &Slice, remote: &RemoteSlice) -> bool {
        self.familiar.as_ref().is_some_and(|familiar| {
            familiar.registration.is(&local.registration) && familiar.region.is(&remote.region)
        })
    }

    /// The connection is connected no more.
    pub fn forbid(&mut self) {
        self.credit = 0;
    }
}

impl VerbsEndpoint {
    /// After another connection was made, each of which can have `depth` requests in flight: whether such writes may go
    /// without asking the budget.
    pub(super) fn admit_lone(&mut self, depth: usize) {
        let ample = self.budget.could_take(self.connections.len() * depth);
        for connection in &mut self.connections {
            if connection.lone.ample && !ample {
                connection.lone.forbid();
                // Those in flight are counted from here on.
                let counted = connection.requests.count_lone();
                for _ in 0..counted {
                    self.budget.take_request(1);
                }
            }
            connection.lone.ample = ample;
        }
    }
}

impl Connection {
    /// Posts the request if it is one for this path; what the device answered, 0 for that it was taken. `None`: nothing
    /// was done, it is for the general path.
    #[inline(always)]
    pub fn post_lone(&mut self, request: &Request) -> Option<c_int> {
        if !request.signaled {
            return None;
        }
        match &request.operation {
            Operation::Write {
                local,
                remote,
                immediate: None,
            } => self.post_lone_write(request.id, local, remote),
            operation => {
                // Not rare: but the way of a write shall be the straight one.
                cold_path();
                match operation {
                    Operation::Read { local, remote } => self.post_lone_read(request.id, local, remote),
                    _ => self.post_lone_atomic(request),
                }
            }
        }
    }

    #[inline(always)]
    fn post_lone_write(&mut self, id: u64, local: &Slice, remote: &RemoteSlice) -> Option<c_int> {
        let lone = &mut self.lone;
        if !lone.spend() {
            return None;
        }
        // SAFETY: as `spend` says.
        let familiar = unsafe { lone.familiar.as_ref().unwrap_unchecked() };
        if !familiar.covers(local, remote, familiar.limit) {
            return None;
        }
        let (work, memory) = &mut *lone.write;
        work.wr_id = Ticket::number(lone.base, self.requests.next());
        work.wr.rdma.remote_addr = familiar.remote_address.wrapping_add(remote.offset as u64);
        memory.addr = familiar.address.wrapping_add(local.offset as u64);
        memory.length = local.len as u32;
        self.requests.push_counted(Outgoing::lone(id, local.len));
        // SAFETY: with credit the connection is connected, so its queue pair is live; the device takes the bytes
        // during the call, while the caller's request keeps their registration.
        Some(unsafe { (lone.post)(lone.pair, work, &mut lone.bad) })
    }

    /// What the caller of [`Connection::post_lone`] says when the device did not take it.
    #[cold]
    #[inline(never)]
    pub fn lone_refused(&mut self, errno: c_int) -> Result<(), PostError> {
        self.requests.take_back();
        Err(self.refused_alone(errno))
    }

    /// After requests went the general way: counts what fits again, and remembers the handles of a write that this path
    /// could have taken, had it known them.
    #[inline]
    pub fn renew(&mut self, requests: &[Request]) {
        if let [request] = requests
            && request.signaled
            && let Some((local, remote)) = self.candidate(&request.operation)
            && !self.lone.knows(local, remote)
        {
            self.learn(local, remote);
        }
        self.lone.credit = match (self.state, &self.lone.familiar) {
            (State::Connected, Some(_)) if self.lone.ample => {
                (self.depth - self.requests.len().min(self.depth)) as isize
            }
            _ => 0,
        };
    }

    /// The memory of a request that could go this way (or that of `lone_fetch`).
    #[inline]
    fn candidate<'a>(&self, operation: &'a Operation) -> Option<(&'a Slice, &'a RemoteSlice)> {
        match operation {
            Operation::Write {
                local,
                remote,
                immediate: None,
            } => (local.len.wrapping_sub(1) < self.lone.limit).then_some((local, remote)),
            _ => super::lone_fetch::memory(operation).filter(|_| self.single),
        }
    }

    #[cold]
    #[inline(never)]
    fn learn(&mut self, local: &Slice, remote: &RemoteSlice) {
        let seen = (
            Arc::as_ptr(&local.registration).cast::<()>() as usize,
            Arc::as_ptr(&remote.region).cast::<()>() as usize,
        );
        if self.lone.seen != seen {
            self.lone.seen = seen;
            return;
        }
        let whole = Slice {
            registration: local.registration.clone(),
            offset: 0,
            len: local.registration.region().len(),
        };
        let start = RemoteSlice {
            region: remote.region.clone(),
            offset: 0,
        };
        let far = work::remote(&start, self.remote_scope);
        match work::local(&whole, self.scope) {
            Some(near) if near.host && far != work::NOWHERE => {
                self.lone.familiar = Some(Familiar {
                    registration: Known::new(&local.registration),
                    address: near.address,
                    len: whole.len,
                    limit: self.lone.limit.min(whole.len),
                    longest_read: self.largest_message.min(whole.len),
                    region: Known::new(&remote.region),
                    remote_address: far.address,
                });
                let lone = &mut self.lone;
                lone.write.0.wr.rdma.rkey = far.key;
                lone.read.0.wr.rdma.rkey = far.key;
                lone.atomic.0.wr.atomic.rkey = far.key;
                // What is written is taken at the post, and needs none.
                lone.read.1.lkey = near.key;
                lone.atomic.1.lkey = near.key;
            }
            _ => {}
        }
    }

    /// Takes in the report of such a request if it is that of the oldest one, and tells the caller; whether it was.
    ///
    /// # Safety
    /// `into` has capacity for one more.
    #[inline(always)]
    pub unsafe fn lone_completed(&mut self, report: &ibv_wc, into: &mut Vec<Completion>) -> bool {
        if report.status != IBV_WC_SUCCESS || !self.requests.has_oldest_number(report.wr_id) {
            return false;
        }
        let (place, oldest) = self.requests.oldest_place();
        let Some(entry) = place.as_mut().filter(|entry| entry.lone) else {
            return false;
        };
        *oldest += 1;
        let completion = Completion {
            id: entry.id,
            peer: self.peer,
            opcode: entry.opcode,
            status: Status::Success,
            bytes: entry.bytes,
            immediate: None,
        };
        let len = into.len();
        // SAFETY: the caller's contract: the place is inside of the allocation.
        unsafe {
            into.as_mut_ptr().add(len).write(completion);
            into.set_len(len + 1);
        }
        if entry.opcode != Opcode::Write {
            // The device is through with this memory.
            entry.registration = None;
        }
        // It holds nothing, or nothing any more: there is nothing to drop.
        std::mem::forget(place.take());
        true
    }
}
