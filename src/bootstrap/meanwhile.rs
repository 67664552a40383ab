//! What a rank does while it waits for all others to come: it looks whether it was interrupted, and moves on what
//! others may be waiting for before they come. Never blocks.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

type Work = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(super) struct Meanwhile {
    /// This rank is to wait for nobody any more.
    interrupted: AtomicBool,
    work: OnceLock<Work>,
}

impl Meanwhile {
    /// What to move on, from now on; the first stays.
    pub(super) fn set_work(&self, work: Work) {
        let _ = self.work.set(work);
    }

    pub(super) fn interrupt(&self) {
        // In one order with the lock that is tried afterwards, and let go of before it is read.
        self.interrupted.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// One turn of waiting: does what there is to do, and says whether this rank is to wait on.
    pub(super) fn waits_on(&self) -> bool {
        if let Some(work) = self.work.get() {
            work();
        }
        !self.is_interrupted()
    }
}

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meanwhile")
            .field("interrupted", &self.is_interrupted())
            .finish_non_exhaustive()
    }
}
