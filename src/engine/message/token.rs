//! Who drives the endpoint of one rank. One thread at a time has it, in hand also while it sleeps on it; the others
//! of the rank sleep beside it, until what they wait for has happened or it is their turn.
//!
//! Wake-ups cannot be lost. Who wants the token says so, then raises the endpoint's alarm; who has it looks after
//! everybody's wishes between its last poll (which takes the alarm back) and its sleep. Who stands by counts itself,
//! then looks whether the token is free; who gives it back does so, then looks at the count.

use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

/// How long one stands by before one looks again in any case.
const STAND_BY: Duration = Duration::from_millis(50);

/// What one thread at a time has in hand.
pub(super) struct Token<T> {
    held: Mutex<T>,
    /// Threads that want it for a moment.
    asking: AtomicUsize,
    /// Ends the sleep of who has it.
    alarm: Waker,
    /// Threads that stand by.
    standing: AtomicUsize,
    bell: (Mutex<()>, Condvar),
}

const SOUND: &str = "nothing panics with the token in hand";

impl<T> Token<T> {
    pub fn new(held: T, alarm: Waker) -> Self {
        Self {
            held: Mutex::new(held),
            asking: AtomicUsize::new(0),
            alarm,
            standing: AtomicUsize::new(0),
            bell: (Mutex::new(()), Condvar::new()),
        }
    }

    /// The token, if nobody has it.
    pub fn try_take(&self) -> Option<MutexGuard<'_, T>> {
        match self.held.try_lock() {
            Ok(held) => Some(held),
            Err(std::sync::TryLockError::WouldBlock) => None,
            Err(std::sync::TryLockError::Poisoned(_)) => panic!("{SOUND}"),
        }
    }

    /// The token, as soon as who has it lets this thread in.
    pub fn take(&self) -> MutexGuard<'_, T> {
        if let Some(held) = self.try_take() {
            return held;
        }
        self.asking.fetch_add(1, Ordering::SeqCst);
        self.alarm.wake_by_ref();
        let held = self.held.lock().expect(SOUND);
        self.asking.fetch_sub(1, Ordering::SeqCst);
        held
    }

    /// Whether somebody wants the token: who has it must not sleep now, and give it back soon.
    pub fn is_wanted(&self) -> bool {
        self.asking.load(Ordering::SeqCst) != 0
    }

    /// Gives the token back, and wakes who stands by.
    pub fn give_back(&self, held: MutexGuard<'_, T>) {
        drop(held);
        self.ring();
    }

    /// Lets those in who asked.
    pub fn let_in(&self) {
        let mut looks = 0;
        while self.is_wanted() && looks < 10_000 {
            std::thread::yield_now();
            looks += 1;
        }
    }

    /// Ends the sleep of who has the token: there is something for it to see.
    pub fn alarm(&self) {
        self.alarm.wake_by_ref();
    }

    /// Wakes who stands by: to look again.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.standing.load(Ordering::Relaxed) != 0 {
            drop(self.bell.0.lock().expect(SOUND));
            self.bell.1.notify_all();
        }
    }

    /// Sleeps while another thread has the token and `until` does not hold, but for a while only.
    pub fn stand_by(&self, until: impl Fn() -> bool) {
        self.standing.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let guard = self.bell.0.lock().expect(SOUND);
        if !until() && self.try_take().is_none() {
            drop(self.bell.1.wait_timeout(guard, STAND_BY).expect(SOUND));
        }
        self.standing.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;
    use std::time::Instant;

    /// The alarm of an endpoint that sleeps on a condition.
    #[derive(Default)]
    struct Sleep {
        raised: Mutex<bool>,
        condition: Condvar,
    }

    impl Wake for Sleep {
        fn wake(self: Arc<Self>) {
            *self.raised.lock().unwrap() = true;
            self.condition.notify_all();
        }
    }

    #[test]
    fn who_asks_is_let_in_by_who_sleeps() {
        let sleep = Arc::new(Sleep::default());
        let token = Token::new(0u32, sleep.clone().into());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    let held = token.take();
                    *sleep.raised.lock().unwrap() = false;
                    if !token.is_wanted() && !stop.load(Ordering::Acquire) {
                        let mut raised = sleep.raised.lock().unwrap();
                        let until = Instant::now() + Duration::from_secs(20);
                        while !*raised && Instant::now() < until {
                            raised = sleep
                                .condition
                                .wait_timeout(raised, Duration::from_secs(20))
                                .unwrap()
                                .0;
                        }
                    }
                    token.give_back(held);
                    token.let_in();
                }
            });
            let began = Instant::now();
            for _ in 0..2_000 {
                let mut held = token.take();
                *held += 1;
                token.give_back(held);
            }
            assert!(
                began.elapsed() < Duration::from_secs(15),
                "nobody sat a sleep out"
            );
            stop.store(true, Ordering::Release);
            token.alarm();
        });
    }
}
