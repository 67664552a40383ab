//! What ends an endpoint's wait from another thread: a flag, and an event for who sleeps. The owner lowers the flag in
//! `poll`; a ring that comes in between is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use mio::{Registry, Token, Waker};

use crate::fabric::FabricError;

/// See the module.
#[derive(Debug)]
pub(super) struct Bell {
    raised: AtomicBool,
    waker: Waker,
}

impl Bell {
    pub fn new(registry: &Registry, token: Token) -> Result<Self, FabricError> {
        let waker = Waker::new(registry, token);
        let waker = waker.map_err(|error| super::system("making the descriptor that ends a wait", error))?;
        let raised = AtomicBool::new(false);
        Ok(Self { raised, waker })
    }

    #[inline]
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Takes it back, by the owner. What the ringer stored before is seen by who looks afterwards.
    #[inline]
    pub fn lower(&self) {
        // Only loaded on the fast path.
        if self.is_raised() {
            self.raised.swap(false, Ordering::AcqRel);
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Whoever raised it before has written, or is about to.
        if !self.raised.swap(true, Ordering::AcqRel) {
            // Fails only once the endpoint is gone and its descriptors with it.
            let _ = self.waker.wake();
        }
    }
}
