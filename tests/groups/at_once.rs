//! Many communicators in one process, used at the same time by threads of their own: none of them waits for another,
//! not even for one whose thread stands still in the middle of an operation.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::time::Duration;

use sapwood::communicator::{Communicator, CommunicatorError};
use sapwood::engine::reduce::Operation;

use crate::{WAYS, sum, wait_for, with};

#[test]
fn many_are_used_at_once_by_threads_of_their_own() {
    for way in WAYS {
        with(2, way, |whole| {
            let rank = whole.rank();
            let twins: Vec<Communicator> = (0..8).map(|_| whole.duplicate().unwrap()).collect();
            std::thread::scope(|scope| {
                for (number, twin) in (0..).zip(twins) {
                    scope.spawn(move || {
                        // Neither the order nor the number of operations has to do with any other's.
                        for turn in 0..10 + number {
                            let mine = i64::from(rank) + turn * number;
                            assert_eq!(sum(&twin, mine), 1 + 2 * turn * number);
                        }
                    });
                }
                assert_eq!(sum(&whole, 1), 2);
            });
        });
    }
}

/// A thread stands still in the signal's handler.
static STANDS_STILL: AtomicBool = AtomicBool::new(false);
/// It may go on.
static GO_ON: AtomicBool = AtomicBool::new(false);

/// Where the signal finds its thread, that stays until it may go on.
extern "C" fn stand_still(_: libc::c_int) {
    STANDS_STILL.store(true, SeqCst);
    while !GO_ON.load(SeqCst) {
        let moment = libc::timespec {
            tv_sec: 0,
            tv_nsec: 50_000,
        };
        // SAFETY: a plain structure is read; the call is one of those that handlers of signals may make.
        unsafe { libc::nanosleep(&moment, std::ptr::null_mut()) };
    }
    STANDS_STILL.store(false, SeqCst);
}

/// Ends the others' work when it is dropped, also by a panic.
struct Last<'flag>(&'flag AtomicBool);

impl Drop for Last<'_> {
    fn drop(&mut self) {
        GO_ON.store(true, SeqCst);
        self.0.store(true, SeqCst);
    }
}

/// All-reduces, set up once so that nothing but the data path runs, until all ranks have heard that it is enough.
fn keep_busy(communicator: &Communicator, enough: &AtomicBool) -> Result<(), CommunicatorError> {
    let window = communicator.window::<i64>(20_000)?;
    let mut all_reduce = communicator.persistent_all_reduce(window, Operation::Max)?;
    loop {
        all_reduce.windows()[7] = i64::from(enough.load(SeqCst));
        all_reduce.start(communicator)?;
        all_reduce.wait()?;
        if all_reduce.windows()[7] == 1 {
            return Ok(());
        }
    }
}

/// If there were a lock that communicators share, the thread would be found in possession of it sooner or later.
#[test]
fn a_thread_that_stands_still_anywhere_holds_up_no_other_communicator() {
    const STOPS: usize = 60;
    const MEANWHILE: usize = 5;
    // SAFETY: the structure is filled before it is read, and the handler does nothing that handlers may not do.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = stand_still as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
    for way in WAYS {
        let enough = AtomicBool::new(false);
        with(2, way, |one| {
            let other = one.duplicate().unwrap();
            let (sender, receiver) = channel();
            std::thread::scope(|scope| {
                let enough = &enough;
                scope.spawn(move || {
                    // SAFETY: it has no preconditions.
                    sender.send(unsafe { libc::pthread_self() }).unwrap();
                    keep_busy(&one, enough).unwrap();
                });
                let busy = receiver.recv().unwrap();
                let window = other.window::<i64>(20_000).unwrap();
                let mut all_reduce = other.persistent_all_reduce(window, Operation::Sum).unwrap();
                let mut some = || {
                    (0..MEANWHILE).try_for_each(|_| {
                        all_reduce.start(&other)?;
                        all_reduce.wait()
                    })
                };
                if other.rank() == 1 {
                    (0..STOPS).for_each(|_| some().unwrap());
                    return;
                }
                let _last = Last(enough);
                for stop in 0..STOPS {
                    // At another moment each time.
                    std::thread::sleep(Duration::from_micros(stop as u64 * 37 % 500));
                    GO_ON.store(false, SeqCst);
                    // SAFETY: the thread lives: it ends after `_last`.
                    assert_eq!(unsafe { libc::pthread_kill(busy, libc::SIGUSR1) }, 0);
                    wait_for("the signal", || STANDS_STILL.load(SeqCst).then_some(()));
                    some().unwrap_or_else(|error| {
                        panic!("over {way:?} an operation waited for another communicator's thread: {error}")
                    });
                    GO_ON.store(true, SeqCst);
                    wait_for("the thread's going on", || {
                        (!STANDS_STILL.load(SeqCst)).then_some(())
                    });
                }
            });
        });
    }
}

/// Over tcp nobody but the rank itself answers those who call it: it may be busy elsewhere for longer than an address
/// that leads nowhere is tried.
#[test]
fn a_rank_may_let_the_others_wait_for_its_first_operation() {
    let wait = |way| {
        with(2, way, |whole| {
            let mut window = whole.window::<i64>(20_000).unwrap();
            if whole.rank() == 0 {
                std::thread::sleep(Duration::from_secs(6));
            }
            whole.all_reduce(&mut window, Operation::Sum).unwrap();
        });
    };
    // At the same time, since it is all waiting.
    std::thread::scope(|scope| {
        WAYS.into_iter()
            .for_each(|way| drop(scope.spawn(move || wait(way))))
    });
}
