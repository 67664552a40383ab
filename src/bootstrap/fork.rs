//! Notices that this process is a forked child of the one that made a handle, so that the handle refuses to work.
//!
//! Data loaders fork. A child shares its parent's sockets and mappings; used from both sides they would mix two
//! streams into one. The one process-wide thing in here is the count of forks, which is the process's own.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use super::BootstrapError;

/// How many forks lie between the first process that used this library and this one.
static FORKS: AtomicU64 = AtomicU64::new(0);
static INSTALL: Once = Once::new();

unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> libc::c_int;
}

/// Runs in the child, on its only thread, before `fork` returns there.
extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Remembers the process that it was made in.
///
/// A child made by a bare `clone` system call, without the C library's `fork`, is not noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkGuard(u64);

impl ForkGuard {
    /// A guard for things that belong to this process.
    ///
    /// # Panics
    /// If the C library has no memory left for the fork handler.
    #[allow(
        clippy::new_without_default,
        reason = "a default that depends on the process would surprise"
    )]
    pub fn new() -> Self {
        INSTALL.call_once(|| {
            // SAFETY: the handler is a plain function that lives as long as the program, and it only adds to an
            // atomic, which is safe to do in a forked child of a program with threads.
            let code = unsafe { pthread_atfork(None, None, Some(count_fork)) };
            assert_eq!(code, 0, "pthread_atfork could not register the fork handler");
        });
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Refuses if this is a forked child of the process that made the guard. One relaxed load.
    ///
    /// # Errors
    /// [`BootstrapError::Forked`].
    #[inline]
    pub fn check(&self) -> Result<(), BootstrapError> {
        if FORKS.load(Ordering::Relaxed) == self.0 {
            Ok(())
        } else {
            Err(BootstrapError::Forked)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_refuses_and_the_parent_goes_on() {
        let guard = ForkGuard::new();
        // SAFETY: the child only loads atomics and leaves with `_exit`; it allocates nothing and takes no lock.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork failed");
        if child == 0 {
            let refused = guard.check().is_err() && ForkGuard::new().check().is_ok();
            // SAFETY: ends the child at once, without running anything of the parent's.
            unsafe { libc::_exit(if refused { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: `child` is our own child, not yet waited for, and `status` is a valid place for its status.
        let waited = unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!((waited, status), (child, 0));
        assert!(guard.check().is_ok());
    }
}
