//! Asks the device for a queue pair as endpoints will make them and notes what it grants: drivers round queue depths
//! and inline sizes, and tell the largest inline size nowhere else. The queue pair is destroyed again.

use std::ptr::null_mut;

use sapwood_sys::verbs::bindings::{IBV_QPT_RC, ibv_qp_cap, ibv_qp_init_attr};

use super::context::{Context, ProtectionDomain};
use super::error::{Place, VerbError, VerbsError, last_errno};
use super::inventory::Limits;
use super::settings::Settings;

/// Requests of the endpoint's own that must always fit beside the caller's: one that asks whether the peer is there,
/// one that stands for all that was flushed, and one that tells what nobody was told.
pub(super) const SPARE_REQUESTS: u32 = 3;

/// What every queue pair of the device asks for and gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    /// Requests that one queue pair holds.
    pub send_depth: u32,
    /// Receives that one queue pair holds.
    pub receive_depth: u32,
    /// Bytes of a message that are taken at the post.
    pub inline_size: u32,
}

impl Granted {
    /// Requests, and receives, that a caller may have in flight.
    pub fn depth(&self) -> usize {
        self.send_depth
            .saturating_sub(SPARE_REQUESTS)
            .clamp(1, self.receive_depth.max(1)) as usize
    }

    /// To ask for exactly this again; one piece for each request.
    pub fn capacities(&self) -> ibv_qp_cap {
        ibv_qp_cap {
            max_send_wr: self.send_depth,
            max_recv_wr: self.receive_depth,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: self.inline_size,
        }
    }
}

/// Tries the sizes of the settings, then smaller inline sizes: they share their room with the depth.
pub(super) fn queue_pair(
    context: &Context,
    domain: &ProtectionDomain,
    settings: &Settings,
    limits: &Limits,
) -> Result<Granted, VerbsError> {
    // SAFETY: the context is open; no channel and no user data are given.
    let queue = unsafe { (context.library.create_cq)(context.raw(), 1, null_mut(), null_mut(), 0) };
    if queue.is_null() {
        let place = Place::device(context.name());
        return Err(place.failed_with(VerbError::CreateCompletionQueue, last_errno(), "1 entry".into()));
    }
    let depth = u32::try_from(settings.queue_depth)
        .unwrap_or(u32::MAX)
        .min(limits.queue_depth);
    // What the endpoint posts on its own account comes on top, where the device has room for it.
    let send_depth = (depth + SPARE_REQUESTS).min(limits.queue_depth);
    let mut inline_size = u32::try_from(settings.inline_size).unwrap_or(u32::MAX);
    let result = loop {
        let wanted = Granted {
            send_depth,
            receive_depth: depth,
            inline_size,
        };
        let mut attributes = ibv_qp_init_attr {
            qp_context: null_mut(),
            send_cq: queue,
            recv_cq: queue,
            srq: null_mut(),
            cap: wanted.capacities(),
            qp_type: IBV_QPT_RC,
            sq_sig_all: 0,
        };
        // SAFETY: the domain and the queue are live and of the same context.
        let pair = unsafe { (context.library.create_qp)(domain.raw(), &mut attributes) };
        if !pair.is_null() {
            // SAFETY: made just above and used by nobody.
            unsafe { (context.library.destroy_qp)(pair) };
            // Drivers may grant more; what was asked for is what was tried.
            break Ok(Granted {
                inline_size: attributes.cap.max_inline_data.max(inline_size),
                ..wanted
            });
        }
        let errno = last_errno();
        if inline_size == 0 {
            let asked = format!("reliable connection, {depth} requests, {depth} receives, inline 0");
            break Err(Place::device(context.name()).failed_with(VerbError::CreateQueuePair, errno, asked));
        }
        inline_size /= 2;
    };
    // SAFETY: made above; its queue pairs are destroyed.
    unsafe { (context.library.destroy_cq)(queue) };
    result
}
