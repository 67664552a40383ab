//! Every interleaving of a verbs endpoint's alarm: threads that raise it, and the owner that sleeps on a descriptor
//! which they make readable, takes alarms back when it polls, and must miss none.
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release --test loom_verbs`; otherwise this file is empty.
#![cfg(loom)]

mod atomics {
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering};
}

// The very code that the library runs.
#[allow(dead_code)]
#[path = "../src/fabric/verbs/alarm.rs"]
mod alarm;

use alarm::Flag;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};

/// An eventfd: readable while its count is not zero; reading it makes it zero. Who is never woken hangs, which loom
/// reports.
#[derive(Default)]
struct EventFd {
    count: Mutex<u64>,
    changed: Condvar,
}

impl EventFd {
    fn write(&self) {
        *self.count.lock().unwrap() += 1;
        self.changed.notify_all();
    }

    /// poll(2) without an end, then read(2).
    fn sleep_and_read(&self) {
        let mut count = self.count.lock().unwrap();
        while *count == 0 {
            count = self.changed.wait(count).unwrap();
        }
        *count = 0;
    }
}

struct Shared {
    flag: Flag,
    descriptor: EventFd,
    published: AtomicU32,
}

/// So many threads publish something and raise the alarm; the owner waits and polls until it has seen all of it.
fn all_is_seen(ringers: u32) {
    let mut model = loom::model::Builder::new();
    // Three threads have too many interleavings for all of them to be tried; a lost wake-up takes two changes of mind.
    model.preemption_bound = (ringers > 1).then_some(3);
    model.check(move || {
        let shared = Arc::new(Shared {
            flag: Flag::new(),
            descriptor: EventFd::default(),
            published: AtomicU32::new(0),
        });
        let threads: Vec<_> = (0..ringers)
            .map(|_| {
                let shared = shared.clone();
                loom::thread::spawn(move || {
                    shared.published.fetch_add(1, Ordering::Relaxed);
                    shared.flag.raise(|| shared.descriptor.write());
                })
            })
            .collect();
        loop {
            // As `poll` does: first the alarm is taken back, then everything is looked at.
            shared.flag.lower();
            if shared.published.load(Ordering::Relaxed) == ringers {
                break;
            }
            // As `wait` does.
            while !shared.flag.is_raised() {
                shared.descriptor.sleep_and_read();
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn one_ring_is_heard() {
    all_is_seen(1);
}

#[test]
fn no_ring_of_two_is_lost() {
    all_is_seen(2);
}
