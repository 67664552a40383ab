//! An endpoint's completion queue and the channel through which the device ends its sleep. It grows as connections are
//! added, up to the device's limit; that it never overflows is seen to by [`super::budget`].

use std::ffi::c_int;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::null_mut;
use std::sync::Arc;

use sapwood_sys::verbs::bindings::*;
use sapwood_sys::verbs::req_notify_cq;

use super::device::Device;
use super::error::{VerbError, VerbsError, last_errno};
use crate::fabric::Rank;

/// Completions taken from the device at a time.
pub(super) const BATCH: usize = 32;

/// Events that are acknowledged together: each acknowledgement takes a lock.
const ACKNOWLEDGE_EVERY: u32 = 64;

/// Completions that fit before the first connection is made.
const FIRST_CAPACITY: usize = 1024;

/// What the driver is called through.
type PollQueue = unsafe extern "C" fn(*mut ibv_cq, c_int, *mut ibv_wc) -> c_int;

/// What cannot be polled.
unsafe extern "C" fn unsupported(_: *mut ibv_cq, _: c_int, _: *mut ibv_wc) -> c_int {
    -libc::EOPNOTSUPP
}

/// See the module.
pub(super) struct CompletionQueue {
    device: Arc<Device>,
    queue: *mut ibv_cq,
    /// What `ibv_poll_cq` calls: a driver fills its table when the device is opened.
    poll: PollQueue,
    channel: *mut ibv_comp_channel,
    /// Completions that fit.
    capacity: usize,
    /// Completions that connections may have in it at once.
    reserved: usize,
    /// Events taken from the channel and not acknowledged; destroying the queue waits for them.
    unacknowledged: u32,
    /// Asked for an event, and none came since.
    armed: bool,
    scratch: Box<[ibv_wc; BATCH]>,
}

// SAFETY: verbs objects may be used from any thread; that it is one at a time is seen to by `&mut`.
unsafe impl Send for CompletionQueue {}

impl CompletionQueue {
    /// Ranks of one process have their events delivered by different interrupts, where the device has several.
    pub fn create(device: Arc<Device>, rank: Rank) -> Result<Self, VerbsError> {
        let entries = FIRST_CAPACITY.min(device.limits().completion_depth as usize);
        let vector = (rank as usize % device.completion_vectors()) as i32;
        let place = device.place();
        // SAFETY: an open device.
        let channel = unsafe { (device.library().create_comp_channel)(device.context()) };
        if channel.is_null() {
            return Err(place.failed_now(VerbError::CreateCompletionChannel));
        }
        // SAFETY: the channel was just made, and so was its descriptor; the queue is told of no user data.
        let queue = unsafe {
            let descriptor = BorrowedFd::borrow_raw((*channel).fd);
            let result = rustix::fs::fcntl_setfl(descriptor, rustix::fs::OFlags::NONBLOCK);
            debug_assert!(result.is_ok(), "a descriptor that was just made");
            (device.library().create_cq)(device.context(), entries as i32, null_mut(), channel, vector)
        };
        if queue.is_null() {
            let errno = last_errno();
            // SAFETY: made above, used by nothing.
            unsafe { (device.library().destroy_comp_channel)(channel) };
            let asked = format!("{entries} completions");
            return Err(place.failed_with(VerbError::CreateCompletionQueue, errno, asked));
        }
        Ok(Self {
            // SAFETY: the queue was just made.
            capacity: unsafe { (*queue).cqe }.max(0) as usize,
            device,
            queue,
            // SAFETY: as above; its context's driver has filled the table.
            poll: unsafe { (*(*queue).context).ops.poll_cq }.unwrap_or(unsupported),
            channel,
            reserved: 0,
            unacknowledged: 0,
            armed: false,
            // SAFETY: a completion is numbers only.
            scratch: unsafe { Box::new(std::mem::zeroed()) },
        })
    }

    /// For creating queue pairs on it.
    pub fn raw(&self) -> *mut ibv_cq {
        self.queue
    }

    /// Makes room for `entries` more completions, as far as the device has it; how many fit altogether.
    pub fn reserve(&mut self, entries: usize) -> Result<usize, VerbsError> {
        let needed = self.reserved + entries;
        let limit = self.device.limits().completion_depth as usize;
        if needed > self.capacity && self.capacity < limit {
            let asked = needed.next_power_of_two().min(limit);
            // SAFETY: a live queue; completions in it are kept by the call.
            let errno = unsafe { (self.device.library().resize_cq)(self.queue, asked as i32) };
            if errno != 0 {
                let asked = format!("from {} to {asked} completions", self.capacity);
                return Err(self
                    .device
                    .place()
                    .failed_with(VerbError::ResizeCompletionQueue, errno, asked));
            }
            // SAFETY: as above.
            self.capacity = unsafe { (*self.queue).cqe }.max(0) as usize;
        }
        self.reserved = needed;
        Ok(self.capacity)
    }

    /// Gives up what was reserved: nothing of it can be in the queue any more.
    pub fn release(&mut self, entries: usize) {
        self.reserved -= entries;
    }

    /// Takes at most `limit` completions from the device: how many, or an errno below 0. No system call of ours, no
    /// allocation.
    #[inline(always)]
    pub fn take(&mut self, limit: usize) -> i32 {
        let limit = limit.min(BATCH) as i32;
        // SAFETY: a live queue, and room for at least `limit`.
        unsafe { (self.poll)(self.queue, limit, self.scratch.as_mut_ptr()) }
    }

    /// The first of those that [`CompletionQueue::take`] took.
    #[inline(always)]
    pub fn first(&self) -> &ibv_wc {
        &self.scratch[0]
    }

    /// Whether something was flushed of those that [`CompletionQueue::take`] took, from what it answered.
    #[inline(always)]
    pub fn has_flushed(&self, count: i32) -> bool {
        let taken = self.scratch.iter().take(count.max(0) as usize);
        taken
            .map(|report| report.status)
            .any(|status| status == IBV_WC_WR_FLUSH_ERR)
    }

    /// Those that [`CompletionQueue::take`] took, from what it answered.
    #[inline(always)]
    pub fn taken(&self, count: i32) -> Result<&[ibv_wc], VerbsError> {
        if count < 0 {
            return Err(self.device.place().failed(VerbError::PollCompletionQueue, -count));
        }
        Ok(&self.scratch[..count as usize])
    }

    /// Asks for an event at the next completion, unless that was done already and none came. What came before must be
    /// polled for once more afterwards.
    pub fn arm(&mut self) -> Result<(), VerbsError> {
        if !self.armed {
            // SAFETY: a live queue.
            let errno = unsafe { req_notify_cq(self.queue, false) };
            if errno != 0 {
                return Err(self.device.place().failed(VerbError::ArmCompletionQueue, errno));
            }
            self.armed = true;
        }
        Ok(())
    }

    /// Takes the events that have come.
    pub fn take_events(&mut self) -> Result<(), VerbsError> {
        loop {
            let (mut queue, mut user) = (null_mut(), null_mut());
            // SAFETY: a live channel, which does not block, and places for the answers.
            let result = unsafe { (self.device.library().get_cq_event)(self.channel, &mut queue, &mut user) };
            if result != 0 {
                return match last_errno() {
                    libc::EAGAIN | libc::EINTR => Ok(()),
                    errno => Err(self.device.place().failed(VerbError::GetCompletionEvent, errno)),
                };
            }
            self.armed = false;
            self.unacknowledged += 1;
            if self.unacknowledged == ACKNOWLEDGE_EVERY {
                self.acknowledge();
            }
        }
    }

    fn acknowledge(&mut self) {
        // SAFETY: so many events of this queue were taken and not acknowledged yet.
        unsafe { (self.device.library().ack_cq_events)(self.queue, self.unacknowledged) };
        self.unacknowledged = 0;
    }

    /// Readable when an event has come.
    pub fn descriptor(&self) -> RawFd {
        // SAFETY: a live channel.
        unsafe { (*self.channel).fd }
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        if !self.device.birthplace().is_here() {
            return;
        }
        self.acknowledge();
        // SAFETY: made by this object and used by no queue pair any more: the endpoint destroys those first. What the
        // device refuses to destroy stays with it until its context is closed.
        unsafe {
            let errno = (self.device.library().destroy_cq)(self.queue);
            if errno != 0 {
                let error = self
                    .device
                    .place()
                    .failed(VerbError::DestroyCompletionQueue, errno);
                tracing::error!(%error, "a completion queue is left to the device");
                return;
            }
            let errno = (self.device.library().destroy_comp_channel)(self.channel);
            if errno != 0 {
                let error = self
                    .device
                    .place()
                    .failed(VerbError::DestroyCompletionChannel, errno);
                tracing::error!(%error, "a completion channel is left to the device");
            }
        }
    }
}
