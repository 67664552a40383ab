//! Waiting on two fabrics at once (invariant 7): look at both as often as a wake-up costs, yield, then sleep in one
//! poll(2) on what both say that wakes them.
//!
//! No wake-up is lost: both are armed first, and each looks once more after it was armed ([`Endpoint::arm`]). What
//! comes before that look is found by it; what comes after makes a descriptor readable, and stays readable.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::endpoint::MixedEndpoint;
use crate::fabric::{Endpoint, FabricError, Sleep};

/// How long is slept at most beside a fabric that has no descriptor to be woken by.
const WITHOUT_DESCRIPTOR: Duration = Duration::from_millis(1);

/// The longest sleep between two looks at silent peers. That a process ends is no silence: it wakes.
const LONGEST: Duration = Duration::from_millis(500);

impl MixedEndpoint {
    /// Until `poll` has something to do (`true`) or the deadline has passed.
    pub(super) fn sleep_until(&mut self, deadline: Instant) -> Result<bool, FabricError> {
        // Each of these looks at two.
        for _ in 0..self.patience.spins / 2 {
            if self.ready()? {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        for _ in 0..self.patience.yields {
            if self.ready()? {
                return Ok(true);
            }
            std::thread::yield_now();
        }
        // It ends now and then, so that fabrics look after silent peers.
        let mut nap = self.patience.nap;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.sleep(nap.min(left))? || self.ready()? {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
            nap = (nap * 2).min(LONGEST);
        }
    }

    /// Sleeps once; `true` if there was no need.
    fn sleep(&mut self, at_most: Duration) -> Result<bool, FabricError> {
        let mut descriptors = std::mem::take(&mut self.descriptors);
        descriptors.clear();
        let armed = self.arm_both(&mut descriptors);
        let outcome = match armed {
            Ok(Sleep::Needless) => Ok(true),
            Ok(Sleep::Armed) => self.poll_armed(&mut descriptors, at_most).map(|()| false),
            Ok(Sleep::Impossible) => {
                std::thread::sleep(at_most.min(WITHOUT_DESCRIPTOR));
                Ok(false)
            }
            Err(error) => Err(error),
        };
        self.descriptors = descriptors;
        outcome
    }

    fn poll_armed(&mut self, descriptors: &mut Vec<RawFd>, at_most: Duration) -> Result<(), FabricError> {
        self.polled.clear();
        self.polled.extend(descriptors.iter().map(|&fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        }));
        let timeout = libc::timespec {
            tv_sec: at_most.as_secs().cast_signed(),
            tv_nsec: at_most.subsec_nanos().into(),
        };
        let count = self.polled.len() as libc::nfds_t;
        // SAFETY: `count` valid entries whose descriptors the armed endpoints keep open until they are disarmed, a
        // valid time, and no signal mask. Time-outs and interruptions both mean: look again.
        let ready = unsafe { libc::ppoll(self.polled.as_mut_ptr(), count, &timeout, std::ptr::null()) };
        descriptors.clear();
        if ready > 0 {
            let readable = self.polled.iter().filter(|entry| entry.revents != 0);
            descriptors.extend(readable.map(|entry| entry.fd));
        }
        self.disarm_both(descriptors)
    }

    /// Both or none.
    pub(super) fn arm_both(&mut self, descriptors: &mut Vec<RawFd>) -> Result<Sleep, FabricError> {
        let before = descriptors.len();
        let near = self.near.arm(descriptors)?;
        if near != Sleep::Armed {
            return Ok(near);
        }
        let far = self.far.arm(descriptors);
        if !matches!(far, Ok(Sleep::Armed)) {
            descriptors.truncate(before);
            self.near.disarm(&[])?;
        }
        far
    }

    pub(super) fn disarm_both(&mut self, readable: &[RawFd]) -> Result<(), FabricError> {
        let near = self.near.disarm(readable);
        self.far.disarm(readable).and(near)
    }
}
