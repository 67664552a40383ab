//! Connections that a forked child must not keep: as long as any process holds one end of a connection, the other end
//! is not told that the process that made it is dead. Data loaders fork, and outlive a trainer that is killed.
//!
//! The table in here is the process's own and no rank's: it is what the C library's fork handler, which has no
//! argument, can reach. It must never be used to close anything in the process that opened it.

use std::os::fd::{AsFd, AsRawFd, IntoRawFd, RawFd};
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

const NONE: RawFd = -1;

/// One entry of a list that only grows: entries are used again, and never freed.
struct Entry {
    descriptor: AtomicI32,
    next: AtomicPtr<Entry>,
}

static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(std::ptr::null_mut());
/// What a child gets in the place of a connection. Open from the first entry on.
static NOTHING: AtomicI32 = AtomicI32::new(NONE);

/// Runs in the child, on its only thread, before `fork` returns there. The numbers stay taken, so that what still
/// owns them there closes nothing that is not its own.
extern "C" fn let_go() {
    let nothing = NOTHING.load(Ordering::Relaxed);
    for entry in entries() {
        let descriptor = entry.descriptor.load(Ordering::Relaxed);
        if descriptor != NONE && nothing != NONE {
            // SAFETY: both numbers are plain; whoever owns `descriptor` in this child may only use it for a membership
            // that refuses to work here, and close it.
            unsafe { libc::dup3(nothing, descriptor, libc::O_CLOEXEC) };
        }
    }
}

fn entries() -> impl Iterator<Item = &'static Entry> {
    let mut at = ENTRIES.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: every pointer in the list comes from a leaked box, which is never freed, and was published with
        // release.
        let entry = unsafe { at.as_ref() }?;
        at = entry.next.load(Ordering::Acquire);
        Some(entry)
    })
}

/// Keeps a descriptor from the children that are forked while this lives. It must be dropped before the descriptor
/// is closed.
pub(super) struct Unshared(&'static Entry);

impl Unshared {
    pub(super) fn new(descriptor: &impl AsFd) -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            if let Ok(file) = std::fs::File::open("/dev/null") {
                NOTHING.store(file.into_raw_fd(), Ordering::Relaxed);
            }
            // SAFETY: the handler is a plain function that lives as long as the program; it reads atomics and makes a
            // system call, which is safe to do in a forked child of a program with threads. Where the C library has no
            // memory left for it, a forked child delays the news of a death, and nothing else.
            unsafe { libc::pthread_atfork(None, None, Some(let_go)) };
        });
        let number = descriptor.as_fd().as_raw_fd();
        let free = |entry: &&'static Entry| {
            let taken = entry
                .descriptor
                .compare_exchange(NONE, number, Ordering::Relaxed, Ordering::Relaxed);
            taken.is_ok()
        };
        if let Some(entry) = entries().find(free) {
            return Self(entry);
        }
        let entry: &'static Entry = Box::leak(Box::new(Entry {
            descriptor: AtomicI32::new(number),
            next: AtomicPtr::default(),
        }));
        let mut head = ENTRIES.load(Ordering::Acquire);
        loop {
            entry.next.store(head, Ordering::Release);
            let own = std::ptr::from_ref(entry).cast_mut();
            match ENTRIES.compare_exchange(head, own, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Self(entry),
                Err(other) => head = other,
            }
        }
    }
}

impl Drop for Unshared {
    fn drop(&mut self) {
        self.0.descriptor.store(NONE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_child_holds_nothing_open() {
        let (kept, mut other) = UnixStream::pair().unwrap();
        let unshared = Unshared::new(&kept);
        // SAFETY: the child only sleeps, in a system call, until it is killed.
        let child = unsafe { libc::fork() };
        if child == 0 {
            loop {
                // SAFETY: a plain system call.
                unsafe { libc::pause() };
            }
        }
        drop(unshared);
        drop(kept);
        other
            .set_read_timeout(Some(std::time::Duration::from_secs(20)))
            .unwrap();
        let read = other.read(&mut [0]);
        // SAFETY: the child is this test's own and has not been waited for.
        let (killed, waited) = unsafe {
            let killed = libc::kill(child, libc::SIGKILL);
            (killed, libc::waitpid(child, std::ptr::null_mut(), 0))
        };
        assert_eq!((killed, waited), (0, child));
        assert_eq!(read.unwrap(), 0, "the child keeps the connection open");
    }
}
