//! What the header defines inline: calls through the table of functions that a context carries, and the choice
//! between a function of today and its predecessor.

use std::ffi::{c_int, c_uint, c_void};
use std::mem::{offset_of, size_of};

use super::bindings::*;
use super::loader::Verbs;

/// In `abi_compat` of a context that lies inside a [`verbs_context`].
const EXTENDED: *mut c_void = usize::MAX as *mut c_void;

/// Access flags from bit 20 to 29 may be ignored where a driver or kernel does not know them.
const OPTIONAL_ACCESS: c_uint = 0x3FF0_0000;

/// `ibv_post_send`: 0, or an errno and in `bad` the first request that was not posted.
///
/// # Safety
/// `pair` is a live queue pair; `requests` is a list of requests whose scatter entries and regions are valid, until
/// completion unless inlined; `bad` is writable.
#[inline]
pub unsafe fn post_send(pair: *mut ibv_qp, requests: *mut ibv_send_wr, bad: *mut *mut ibv_send_wr) -> c_int {
    // SAFETY: a live queue pair points to its context, whose driver has filled the table.
    unsafe {
        match (*(*pair).context).ops.post_send {
            Some(post_send) => post_send(pair, requests, bad),
            None => libc::EOPNOTSUPP,
        }
    }
}

/// `ibv_post_recv`: 0, or an errno and in `bad` the first request that was not posted.
///
/// # Safety
/// As [`post_send`]; the memory behind the requests is written until they complete.
#[inline]
pub unsafe fn post_recv(pair: *mut ibv_qp, requests: *mut ibv_recv_wr, bad: *mut *mut ibv_recv_wr) -> c_int {
    // SAFETY: as in `post_send`.
    unsafe {
        match (*(*pair).context).ops.post_recv {
            Some(post_recv) => post_recv(pair, requests, bad),
            None => libc::EOPNOTSUPP,
        }
    }
}

/// `ibv_poll_cq`: how many completions were taken, or a negative number.
///
/// # Safety
/// `queue` is a live completion queue; `completions` is writable for `entries` of them.
#[inline]
pub unsafe fn poll_cq(queue: *mut ibv_cq, entries: c_int, completions: *mut ibv_wc) -> c_int {
    // SAFETY: as in `post_send`.
    unsafe {
        match (*(*queue).context).ops.poll_cq {
            Some(poll_cq) => poll_cq(queue, entries, completions),
            None => -libc::EOPNOTSUPP,
        }
    }
}

/// `ibv_req_notify_cq`: 0 or an errno.
///
/// # Safety
/// `queue` is a live completion queue.
#[inline]
pub unsafe fn req_notify_cq(queue: *mut ibv_cq, solicited_only: bool) -> c_int {
    // SAFETY: as in `post_send`.
    unsafe {
        match (*(*queue).context).ops.req_notify_cq {
            Some(req_notify_cq) => req_notify_cq(queue, c_int::from(solicited_only)),
            None => libc::EOPNOTSUPP,
        }
    }
}

impl Verbs {
    /// `ibv_query_port`, with all attributes where the driver fills them and the newer ones zero otherwise: 0 or an
    /// errno.
    ///
    /// # Safety
    /// `context` is an open device; `attributes` is writable.
    pub unsafe fn query_port(
        &self,
        context: *mut ibv_context,
        port: u8,
        attributes: *mut ibv_port_attr,
    ) -> c_int {
        // SAFETY: the caller's contract. A context that says so lies inside a `verbs_context`, of which the last
        // `sz` bytes are there; `query_port` is read only if it is among them.
        unsafe {
            if (*context).abi_compat == EXTENDED {
                let extended = context
                    .byte_sub(offset_of!(verbs_context, context))
                    .cast::<verbs_context>();
                let needed = size_of::<verbs_context>() - offset_of!(verbs_context, query_port);
                if (*extended).sz >= needed
                    && let Some(query_port) = (*extended).query_port
                {
                    return query_port(context, port, attributes, size_of::<ibv_port_attr>());
                }
            }
            attributes.write_bytes(0, 1);
            (self.query_port_compatible)(context, port, attributes.cast())
        }
    }

    /// `ibv_reg_mr`: a region, or null and errno. Where the library is too old for them, the optional access flags
    /// (relaxed ordering) are left out, as the header allows.
    ///
    /// # Safety
    /// `domain` is live; the memory stays mapped until the region is deregistered.
    pub unsafe fn reg_mr(
        &self,
        domain: *mut ibv_pd,
        address: *mut c_void,
        length: usize,
        access: c_uint,
    ) -> *mut ibv_mr {
        // SAFETY: the caller's contract.
        unsafe {
            match self.reg_mr_iova2 {
                Some(register) if access & OPTIONAL_ACCESS != 0 => {
                    register(domain, address, length, address as u64, access)
                }
                _ => (self.reg_mr_plain)(domain, address, length, (access & !OPTIONAL_ACCESS).cast_signed()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::null_mut;

    use super::*;

    /// Answers with what it was given, so that a call through the wrong entry or with swapped arguments shows.
    unsafe extern "C" fn send(
        _: *mut ibv_qp,
        request: *mut ibv_send_wr,
        bad: *mut *mut ibv_send_wr,
    ) -> c_int {
        // SAFETY: the test passes a place for it.
        unsafe { *bad = request };
        11
    }

    unsafe extern "C" fn receive(
        _: *mut ibv_qp,
        request: *mut ibv_recv_wr,
        bad: *mut *mut ibv_recv_wr,
    ) -> c_int {
        // SAFETY: the test passes a place for it.
        unsafe { *bad = request };
        22
    }

    unsafe extern "C" fn poll(_: *mut ibv_cq, entries: c_int, completions: *mut ibv_wc) -> c_int {
        // SAFETY: the test passes a place for it.
        unsafe { (*completions).wr_id = 77 };
        entries
    }

    unsafe extern "C" fn notify(_: *mut ibv_cq, solicited_only: c_int) -> c_int {
        33 + solicited_only
    }

    unsafe extern "C" fn port(_: *mut ibv_context, port: u8, into: *mut ibv_port_attr, size: usize) -> c_int {
        assert_eq!(size, size_of::<ibv_port_attr>());
        // SAFETY: the test passes a place for it.
        unsafe { (*into).lid = port.into() };
        0
    }

    /// All null: every field of these structures is a number, a pointer, an `Option` of a function or a mutex.
    fn zeroed<T>() -> Box<T> {
        // SAFETY: only instantiated for such structures.
        unsafe { Box::<T>::new_zeroed().assume_init() }
    }

    #[test]
    fn posting_goes_through_the_context_of_the_queue_pair() {
        let (mut context, mut pair) = (zeroed::<ibv_context>(), zeroed::<ibv_qp>());
        let (mut request, mut bad) = (zeroed::<ibv_send_wr>(), null_mut());
        let (mut receive_request, mut bad_receive) = (zeroed::<ibv_recv_wr>(), null_mut());
        pair.context = &raw mut *context;
        // SAFETY: the pair points to a context whose table holds the functions above, or nothing.
        unsafe {
            assert_eq!(post_send(&mut *pair, &mut *request, &mut bad), libc::EOPNOTSUPP);
            (*pair.context).ops.post_send = Some(send);
            (*pair.context).ops.post_recv = Some(receive);
            assert_eq!(post_send(&mut *pair, &mut *request, &mut bad), 11);
            assert_eq!(post_recv(&mut *pair, &mut *receive_request, &mut bad_receive), 22);
        }
        assert_eq!((bad, bad_receive), (&raw mut *request, &raw mut *receive_request));
    }

    #[test]
    fn completions_go_through_the_context_of_the_queue() {
        let (mut context, mut queue) = (zeroed::<ibv_context>(), zeroed::<ibv_cq>());
        let mut completion = zeroed::<ibv_wc>();
        context.ops.poll_cq = Some(poll);
        context.ops.req_notify_cq = Some(notify);
        queue.context = &raw mut *context;
        // SAFETY: the queue points to a context whose table holds the functions above.
        unsafe {
            assert_eq!(poll_cq(&mut *queue, 1, &mut *completion), 1);
            assert_eq!(req_notify_cq(&mut *queue, false), 33);
            assert_eq!(req_notify_cq(&mut *queue, true), 34);
        }
        assert_eq!(completion.wr_id, 77);
    }

    #[test]
    fn a_port_is_queried_by_the_driver_where_its_context_reaches_that_far() {
        let Ok(verbs) = Verbs::load() else {
            eprintln!("SKIPPED: no libibverbs here to fall back to");
            return;
        };
        let (mut device, mut attributes) = (zeroed::<verbs_context>(), zeroed::<ibv_port_attr>());
        device.sz = size_of::<verbs_context>();
        device.context.abi_compat = EXTENDED;
        device.query_port = Some(port);
        let device = &raw mut *device;
        // SAFETY: the context lies inside a `verbs_context`, and says so.
        let result = unsafe { verbs.query_port(&raw mut (*device).context, 9, &mut *attributes) };
        assert_eq!((result, attributes.lid), (0, 9));
    }
}
