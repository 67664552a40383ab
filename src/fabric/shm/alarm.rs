//! What ends an endpoint's wait from another thread of its process: a flag beside the endpoint's own bell.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use crate::fabric::Doorbell;

#[derive(Debug)]
pub(super) struct Alarm {
    raised: AtomicBool,
    bell: Doorbell,
}

impl Alarm {
    pub(super) fn new(bell: Doorbell) -> Self {
        Self {
            raised: AtomicBool::new(false),
            bell,
        }
    }

    pub(super) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    pub(super) fn lower(&self) {
        // Only loaded on the fast path. What the ringer stored before is seen by who finds nothing to do afterwards.
        if self.is_raised() {
            self.raised.swap(false, Ordering::AcqRel);
        }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raised.store(true, Ordering::Release);
        self.bell.ring();
    }
}
