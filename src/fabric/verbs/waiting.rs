//! How an endpoint waits (invariant 7): it spins about as long as a wake-up costs, yields, and then sleeps in poll(2)
//! on the completion channel, the device's events and its own alarm.
//!
//! Before it sleeps it asks the device for an event at the next completion, and then looks once more: what came before
//! the asking would wake nobody. It sleeps in slices, to ask for silent peers.

use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use super::endpoint::VerbsEndpoint;
use crate::fabric::FabricError;

/// The longest sleep between two looks.
const SLICE: Duration = Duration::from_millis(500);

impl VerbsEndpoint {
    /// Until `poll` has something to do (`true`) or the deadline has passed.
    pub(super) fn sleep_until(&mut self, deadline: Instant) -> Result<bool, FabricError> {
        for _ in 0..self.patience.spins {
            if self.has_work()? {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        for _ in 0..self.patience.yields {
            if self.has_work()? {
                return Ok(true);
            }
            std::thread::yield_now();
        }
        loop {
            let Some(descriptors) = self.arm_itself()? else {
                return Ok(true);
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.sleep(descriptors, left.min(SLICE))?;
            if self.has_work()? {
                return Ok(true);
            }
        }
    }

    /// Sees to it that whatever gives `poll` something to do makes one of the descriptors readable: those of the
    /// completion channel, of the device's events and of the alarm. `None` if there is something to do already.
    pub(super) fn arm_itself(&mut self) -> Result<Option<[RawFd; 3]>, FabricError> {
        self.look()?;
        self.queue.arm()?;
        if self.has_work()? {
            return Ok(None);
        }
        Ok(Some([
            self.queue.descriptor(),
            self.listener.descriptor().as_raw_fd(),
            self.bell.descriptor(),
        ]))
    }

    /// Takes in what made those descriptors readable.
    pub(super) fn woken_by(&mut self, readable: &[RawFd]) -> Result<(), FabricError> {
        if readable.contains(&self.bell.descriptor()) {
            self.bell.hush();
        }
        if readable.contains(&self.queue.descriptor()) {
            self.queue.take_events()?;
        }
        if readable.contains(&self.listener.descriptor().as_raw_fd()) {
            self.listener.read()?;
        }
        Ok(())
    }

    /// Sleeps once, and takes in what ended the sleep.
    fn sleep(&mut self, descriptors: [RawFd; 3], at_most: Duration) -> Result<(), FabricError> {
        let mut entries = descriptors.map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        let timeout = libc::timespec {
            tv_sec: at_most.as_secs().cast_signed(),
            tv_nsec: at_most.subsec_nanos().into(),
        };
        // SAFETY: three valid entries whose descriptors this endpoint keeps open, a valid time, and no signal mask.
        // Time-outs and interruptions both mean: look again.
        let ready = unsafe { libc::ppoll(entries.as_mut_ptr(), 3, &timeout, std::ptr::null()) };
        if ready <= 0 {
            return Ok(());
        }
        let mut readable = [-1; 3];
        for (entry, readable) in entries.iter().zip(&mut readable) {
            if entry.revents != 0 {
                *readable = entry.fd;
            }
        }
        self.woken_by(&readable)
    }
}
