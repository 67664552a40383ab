//! The alarm of an endpoint: [`Flag`] with a descriptor that ends poll(2).

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::task::Wake;

use rustix::event::EventfdFlags;

use super::alarm::Flag;
use crate::fabric::FabricError;

/// See the module.
#[derive(Debug)]
pub(super) struct Bell {
    flag: Flag,
    descriptor: OwnedFd,
}

impl Bell {
    pub fn new() -> Result<Self, FabricError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let descriptor = rustix::event::eventfd(0, flags).map_err(|errno| FabricError::System {
            fabric: super::NAME,
            what: "making the descriptor that ends a wait".into(),
            source: errno.into(),
        })?;
        Ok(Self {
            flag: Flag::new(),
            descriptor,
        })
    }

    #[inline]
    pub fn is_raised(&self) -> bool {
        self.flag.is_raised()
    }

    #[inline]
    pub fn lower(&self) {
        self.flag.lower();
    }

    /// Readable when it was raised since [`Bell::hush`].
    pub fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Makes the descriptor unreadable. The flag is looked at afterwards.
    pub fn hush(&self) {
        // Empty, if somebody was quicker to be seen than to write; nothing else can fail.
        let _ = rustix::io::read(&self.descriptor, &mut [0; 8]);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.flag.raise(|| {
            // Full after 2^64 - 2 rings that nobody took back: then it is readable already.
            let _ = rustix::io::write(&self.descriptor, &1u64.to_ne_bytes());
        });
    }
}
