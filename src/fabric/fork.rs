//! Tells a forked child from the process that opened something: data loaders fork, and a child that used or dropped
//! what it inherited would disturb its parent through the sockets and the memory they share.
//!
//! The one process-wide thing in here is the count of forks, which is the process's own and no rank's.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many forks lie between the first process that used this library and this one.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// Runs in the child, on its only thread, before `fork` returns there.
extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Remembers the process that it was made in.
///
/// A child made by a bare `clone` system call, without the C library's `fork`, is not noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birthplace(u64);

impl Birthplace {
    /// This process.
    ///
    /// # Panics
    /// If the C library has no memory left for the fork handler.
    pub fn here() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            // SAFETY: the handler is a plain function that lives as long as the program, and it only adds to an
            // atomic, which is safe to do in a forked child of a program with threads.
            let code = unsafe { libc::pthread_atfork(None, None, Some(count_fork)) };
            assert_eq!(code, 0, "pthread_atfork could not register the fork handler");
        });
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Whether this is still the process it was made in. One relaxed load.
    #[inline]
    pub fn is_here(self) -> bool {
        FORKS.load(Ordering::Relaxed) == self.0
    }

    /// Passes where it was made, and gives the caller's own error in a forked child.
    ///
    /// # Errors
    /// `forked`.
    #[inline]
    pub fn check<E>(self, forked: E) -> Result<(), E> {
        if self.is_here() { Ok(()) } else { Err(forked) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_is_told_apart_and_the_parent_goes_on() {
        let here = Birthplace::here();
        // SAFETY: the child only loads atomics and leaves with `_exit`; it allocates nothing and takes no lock.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork failed");
        if child == 0 {
            let refused = here.check(()).is_err() && Birthplace::here().is_here();
            // SAFETY: ends the child at once, without running anything of the parent's.
            unsafe { libc::_exit(if refused { 0 } else { 1 }) };
        }
        let mut status = -1;
        // SAFETY: `child` is our own child, not yet waited for, and `status` is a valid place for its status.
        let waited = unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(
            (waited, status),
            (child, 0),
            "the child took itself for the parent"
        );
        assert!(here.is_here());
    }
}
