//! Every interleaving, and every reordering that the memory model allows, of the fabric's two handshakes.
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release --test loom_fabric`; otherwise this file is empty.
#![cfg(loom)]

mod atomics {
    pub(crate) use loom::sync::atomic::{AtomicU32, Ordering, fence};
}

// The very code that the library runs.
#[allow(dead_code)]
#[path = "../src/fabric/handshake.rs"]
mod handshake;

use handshake::{Activity, Bell, Revocation};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};

/// A futex: sleeps while the word is unchanged. Whoever is never woken hangs, which loom reports.
#[derive(Default)]
struct Futex {
    lock: Mutex<()>,
    changed: Condvar,
}

impl Futex {
    fn wait(&self, word: &AtomicU32, while_it_is: u32) {
        let guard = self.lock.lock().unwrap();
        if word.load(Ordering::Relaxed) == while_it_is {
            drop(self.changed.wait(guard).unwrap());
        }
    }

    fn wake(&self) {
        let _guard = self.lock.lock().unwrap();
        self.changed.notify_all();
    }
}

/// So many ringers publish and ring once each; a sleeper waits for all of them.
fn sleeper_and(ringers: u32) {
    let shared = Arc::new((Bell::for_a_model(), Futex::default(), AtomicU32::new(0)));
    let threads: Vec<_> = (0..ringers)
        .map(|_| {
            let shared = shared.clone();
            loom::thread::spawn(move || {
                let (bell, futex, news) = &*shared;
                news.fetch_add(1, Ordering::Release);
                bell.ring(|_, sleepers| {
                    assert!(sleepers.on_word() && !sleepers.on_descriptor());
                    futex.wake();
                });
            })
        })
        .collect();
    let (bell, futex, news) = &*shared;
    let ready = || news.load(Ordering::Acquire) == ringers;
    while !ready() {
        bell.sleep(ready, |word, before| futex.wait(word, before));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn no_wake_up_is_lost() {
    loom::model(|| sleeper_and(1));
}

/// All interleavings of three threads are too many: those with up to two preemptions.
#[test]
fn no_wake_up_is_lost_between_two_ringers() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| sleeper_and(2));
}

/// A descriptor that poll(2) finds readable, and the poll: sleeps until one of all its descriptors is.
#[derive(Default)]
struct Descriptors {
    readable: Mutex<[bool; 2]>,
    changed: Condvar,
}

impl Descriptors {
    fn write(&self, which: usize) {
        self.readable.lock().unwrap()[which] = true;
        self.changed.notify_all();
    }

    /// What was readable, and is not any more.
    fn poll(&self) -> [bool; 2] {
        let mut readable = self.readable.lock().unwrap();
        while *readable == [false; 2] {
            readable = self.changed.wait(readable).unwrap();
        }
        *readable
    }

    fn hush(&self, which: usize) {
        self.readable.lock().unwrap()[which] = false;
    }
}

/// A device's completion queue: an event for the first completion after it was armed.
#[derive(Default)]
struct Device {
    completed_and_armed: Mutex<(bool, bool)>,
}

/// A sleep on two sources, as `fabric::mixed` does it: arm both, look at both, poll, disarm, hush, look. One thread
/// rings the bell, another is a device.
#[test]
fn no_wake_up_is_lost_between_a_bell_and_a_device() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = Arc::new((
            Bell::for_a_model(),
            AtomicU32::new(0),
            Device::default(),
            Descriptors::default(),
        ));
        let ringer = shared.clone();
        let ringer = loom::thread::spawn(move || {
            let (bell, news, _, descriptors) = &*ringer;
            news.store(1, Ordering::Release);
            bell.ring(|_, sleepers| {
                if sleepers.on_descriptor() {
                    descriptors.write(0);
                }
            });
        });
        let device = shared.clone();
        let device = loom::thread::spawn(move || {
            let (_, _, device, descriptors) = &*device;
            let mut state = device.completed_and_armed.lock().unwrap();
            state.0 = true;
            if std::mem::take(&mut state.1) {
                descriptors.write(1);
            }
        });
        let (bell, news, queue, descriptors) = &*shared;
        let rung = || news.load(Ordering::Acquire) == 1;
        let completed = || queue.completed_and_armed.lock().unwrap().0;
        let (mut seen_ring, mut seen_completion) = (false, false);
        while !(seen_ring && seen_completion) {
            bell.arm();
            let mut ready = rung() && !seen_ring;
            if !ready {
                queue.completed_and_armed.lock().unwrap().1 = true;
                ready = completed() && !seen_completion;
            }
            if ready {
                bell.disarm();
            } else {
                let readable = descriptors.poll();
                bell.disarm();
                (0..2)
                    .filter(|&which| readable[which])
                    .for_each(|which| descriptors.hush(which));
            }
            // What a poll takes in.
            seen_ring |= rung();
            seen_completion |= completed();
        }
        ringer.join().unwrap();
        device.join().unwrap();
    });
}

#[test]
fn nothing_lands_after_the_fence() {
    loom::model(|| {
        let shared = Arc::new((
            Activity::for_a_model(),
            Revocation::for_a_model(),
            UnsafeCell::new(0u32),
        ));
        let writer = {
            let shared = shared.clone();
            loom::thread::spawn(move || {
                let (activity, revocation, data) = &*shared;
                let mut ends = 0;
                for value in 1..=2 {
                    // Loom reports an access of the cell that runs beside, or is not ordered with, another one.
                    // SAFETY: that is what this test finds out.
                    activity.operate(&mut ends, revocation, || {
                        data.with_mut(|data| unsafe { *data = value })
                    });
                }
            })
        };
        let (activity, revocation, data) = &*shared;
        revocation.revoke();
        while activity.in_progress().is_some() {
            loom::thread::yield_now();
        }
        // SAFETY: as above.
        data.with_mut(|data| unsafe { *data = 100 });
        writer.join().unwrap();
        // SAFETY: the writer has ended.
        assert_eq!(data.with(|data| unsafe { *data }), 100);
    });
}

/// The model can fail: the same handshake without its fences does.
#[test]
#[should_panic]
fn without_fences_the_model_finds_the_loss() {
    loom::model(|| {
        let shared = Arc::new((AtomicU32::new(0), AtomicU32::new(0)));
        let other = shared.clone();
        let thread = loom::thread::spawn(move || {
            other.0.store(1, Ordering::Release);
            other.1.load(Ordering::Acquire)
        });
        shared.1.store(1, Ordering::Release);
        let seen = shared.0.load(Ordering::Acquire);
        assert!(seen + thread.join().unwrap() > 0, "both missed each other");
    });
}

/// And with them it does not: loom knows these fences.
#[test]
fn with_fences_it_finds_none() {
    loom::model(|| {
        let shared = Arc::new((AtomicU32::new(0), AtomicU32::new(0)));
        let other = shared.clone();
        let thread = loom::thread::spawn(move || {
            other.0.store(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            other.1.load(Ordering::Relaxed)
        });
        shared.1.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let seen = shared.0.load(Ordering::Relaxed);
        assert!(seen + thread.join().unwrap() > 0, "both missed each other");
    });
}
