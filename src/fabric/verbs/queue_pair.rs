//! One queue pair of the device: created, taken through its states, destroyed once. What it is used for is decided by
//! its connection. The memory that posted work needs is kept by the in-flight table, and must be kept until
//! [`QueuePair::destroy`] has succeeded.

use std::ptr::null_mut;
use std::sync::Arc;

use sapwood_sys::verbs::bindings::*;
use sapwood_sys::verbs::{post_recv, post_send};

use super::attributes::{Attributes, State};
use super::device::Device;
use super::error::{Place, VerbError, VerbsError, last_errno};
use super::parcel::{LaneAddress, NUMBER_MASK};
use super::transition::Remote;
use crate::fabric::{FabricError, Rank};

/// See the module.
pub(super) struct QueuePair {
    device: Arc<Device>,
    /// Null once destroyed.
    pair: *mut ibv_qp,
    peer: Rank,
    state: State,
    address: LaneAddress,
    inline_size: usize,
}

/// Flow labels have 20 bits.
const FLOW_LABEL_MASK: u32 = (1 << 20) - 1;

// SAFETY: verbs objects may be used from any thread; that it is one at a time is seen to by `&mut`.
unsafe impl Send for QueuePair {}

/// 24 random bits: a packet of an earlier queue pair with the same number is then not taken for one of this.
fn random_packet_number() -> Result<u32, FabricError> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(|errno| {
        FabricError::System {
            fabric: super::NAME,
            what: "drawing a packet number".into(),
            source: errno.into(),
        }
    })?;
    Ok(u32::from_ne_bytes(bytes) & NUMBER_MASK)
}

/// Some drivers answer -1 to a post and leave the reason in errno.
#[cold]
pub(super) fn reason(answer: i32) -> i32 {
    if answer < 0 { last_errno() } else { answer }
}

/// The first work request of a list that was not taken, and why.
#[derive(Debug)]
pub(super) struct NotTaken<T> {
    pub first: *const T,
    pub errno: i32,
}

impl<T> NotTaken<T> {
    #[cold]
    fn new(first: *const T, answer: i32) -> Self {
        let errno = reason(answer);
        Self { first, errno }
    }
}

impl QueuePair {
    /// A reliable connection's half, in the state INIT: it takes receives.
    pub fn create(device: Arc<Device>, queue: *mut ibv_cq, peer: Rank) -> Result<Self, FabricError> {
        let first_packet = random_packet_number()?;
        let granted = device.granted();
        let mut attributes = ibv_qp_init_attr {
            qp_context: null_mut(),
            send_cq: queue,
            recv_cq: queue,
            srq: null_mut(),
            cap: granted.capacities(),
            qp_type: IBV_QPT_RC,
            // Each request says whether it is reported.
            sq_sig_all: 0,
        };
        // SAFETY: the domain is the device's, the queue is live and of the same device, and outlives the pair.
        let pair = unsafe { (device.library().create_qp)(device.domain(), &mut attributes) };
        if pair.is_null() {
            let errno = last_errno();
            let asked = format!(
                "{} requests, {} receives, inline {}",
                granted.send_depth, granted.receive_depth, granted.inline_size
            );
            let place = device.place_of_peer(peer);
            return Err(place.failed_with(VerbError::CreateQueuePair, errno, asked).into());
        }
        // SAFETY: just made.
        let number = unsafe { (*pair).qp_num };
        let mut made = Self {
            inline_size: attributes.cap.max_inline_data.min(granted.inline_size) as usize,
            address: LaneAddress { number, first_packet },
            device,
            pair,
            peer,
            state: State::Reset,
        };
        let initial = made.device.initial();
        made.change(State::Init, &initial)?;
        Ok(made)
    }

    /// What the peer must know.
    pub fn address(&self) -> LaneAddress {
        self.address
    }

    /// Bytes that it takes at the post.
    pub fn inline_size(&self) -> usize {
        self.inline_size
    }

    fn place(&self) -> Place {
        self.device.place_of_peer(self.peer)
    }

    fn change(&mut self, to: State, attributes: &Attributes) -> Result<(), VerbsError> {
        // SAFETY: a live queue pair of this device: nobody calls this after it was destroyed.
        unsafe {
            self.device
                .modify(self.pair, self.state, to, attributes, self.peer)?
        };
        self.state = to;
        Ok(())
    }

    /// Valid until [`QueuePair::destroy`].
    pub fn raw(&self) -> *mut ibv_qp {
        self.pair
    }

    /// Connects it to the peer's queue pair: from INIT over RTR to RTS. `lane` is its position among those of the
    /// connection.
    pub fn connect(&mut self, remote: &Remote, lane: usize) -> Result<(), VerbsError> {
        // A label of its own for each, where one was chosen: routers then spread them. 0 leaves that to the driver.
        let chosen = self.device.settings().flow_label;
        let flow_label = if chosen == 0 {
            0
        } else {
            (chosen + lane as u32) & FLOW_LABEL_MASK
        };
        let path = self.device.path_to(remote, flow_label);
        let receiving = self.device.receiving(remote, path);
        self.change(State::ReadyToReceive, &receiving)?;
        let sending = self.device.sending(remote, self.address.first_packet);
        self.change(State::ReadyToSend, &sending)
    }

    /// To the error state: what is in flight comes back, and nothing of the peer's begins to land any more.
    pub fn enter_error(&mut self) -> Result<(), VerbsError> {
        if self.pair.is_null() {
            return Ok(());
        }
        self.change(State::Error, &Attributes::default())
    }

    /// Posts a list of work requests. On refusal: the first that was not taken, and why.
    ///
    /// # Safety
    /// The memory that the list names stays registered, and what it reads or writes untouched by others, until the
    /// requests are over or this queue pair is destroyed; inline memory until the call returns.
    #[inline(always)]
    pub unsafe fn post(&mut self, list: *mut ibv_send_wr) -> Result<(), NotTaken<ibv_send_wr>> {
        let mut bad = null_mut();
        // SAFETY: the pair is live: nothing is posted after it was destroyed. The rest is the caller's contract.
        match unsafe { post_send(self.pair, list, &mut bad) } {
            0 => Ok(()),
            answer => Err(NotTaken::new(bad, answer)),
        }
    }

    /// As [`QueuePair::post`], for receives.
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub unsafe fn post_receives(&mut self, list: *mut ibv_recv_wr) -> Result<(), NotTaken<ibv_recv_wr>> {
        let mut bad = null_mut();
        // SAFETY: as in `post`.
        match unsafe { post_recv(self.pair, list, &mut bad) } {
            0 => Ok(()),
            answer => Err(NotTaken::new(bad, answer)),
        }
    }

    /// The error of a post that was refused with this errno.
    #[cold]
    pub fn refusal(&self, variant: fn(super::error::Failure) -> VerbError, errno: i32) -> VerbsError {
        self.place().failed(variant, errno)
    }

    /// Destroys it: from here on nothing that was posted to it, here or by the peer, can touch memory.
    pub fn destroy(&mut self) -> Result<(), VerbsError> {
        if self.pair.is_null() {
            return Ok(());
        }
        // SAFETY: made by `create` and not destroyed yet; events of it are acknowledged as they are read.
        let errno = unsafe { (self.device.library().destroy_qp)(self.pair) };
        if errno != 0 {
            return Err(self.place().failed(VerbError::DestroyQueuePair, errno));
        }
        self.pair = null_mut();
        Ok(())
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        // Only where making or connecting it failed, or in a forked child: connections destroy theirs, and see to
        // the memory.
        if !self.device.birthplace().is_here() {
            return;
        }
        if let Err(error) = self.destroy() {
            tracing::error!(%error, "a queue pair is left to the device");
        }
    }
}
