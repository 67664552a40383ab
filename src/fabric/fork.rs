//! Tells a forked child from the process that opened a fabric: data loaders fork, and a child that used or dropped
//! what it inherited would disturb its parent through the memory they share.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use super::FabricError;

/// How many forks lie between the first process and this one. Not a rank's state: a property of the process.
static FORKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Remembers the process it was made in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Birthplace(u64);

impl Birthplace {
    /// This process.
    pub fn here() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            // SAFETY: the handler only adds to an atomic, which is allowed between fork and exec. A refusal
            // (no memory) leaves forks undetected and nothing else.
            unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Whether this is still the process it was made in. One load.
    #[inline]
    pub fn is_here(self) -> bool {
        FORKS.load(Ordering::Relaxed) == self.0
    }

    /// # Errors
    /// This is a forked child.
    pub fn check(self) -> Result<(), FabricError> {
        if self.is_here() {
            Ok(())
        } else {
            Err(FabricError::Forked)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_is_told_apart() {
        let here = Birthplace::here();
        // SAFETY: the child only loads an atomic and leaves by _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(i32::from(here.is_here())) };
        }
        let mut status = -1;
        // SAFETY: waits for the child forked above.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0, "the child took itself for the parent");
        assert!(here.is_here());
    }
}
