//! Tests that run for a time: a margin at each end that is not counted, and the window between them that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BEFORE: u8 = 0;
const COUNTING: u8 = 1;
const AFTER: u8 = 2;
const OVER: u8 = 3;

/// Counts what happens inside the window. A thread that sleeps says where in time we are, so that asking costs one
/// load and no look at a clock.
pub(super) struct Window {
    phase: Arc<AtomicU8>,
    seen: u8,
    begun: Instant,
    ended: Instant,
    count: u64,
    stop: Option<Sender<()>>,
    timer: Option<JoinHandle<()>>,
}

impl Window {
    /// Starts now and is over after `time`, of which a quarter at each end (in whole seconds) is not counted.
    pub(super) fn start(time: Duration) -> std::io::Result<Self> {
        let margin = Duration::from_secs(time.as_secs() / 4);
        let phase = Arc::new(AtomicU8::new(if margin.is_zero() { COUNTING } else { BEFORE }));
        let (stop, stopped) = channel::<()>();
        let shared = phase.clone();
        let timer = std::thread::Builder::new().name("timer".into()).spawn(move || {
            for (after, next) in [(margin, COUNTING), (time - 2 * margin, AFTER), (margin, OVER)] {
                if stopped.recv_timeout(after) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                shared.store(next, Ordering::Relaxed);
            }
        })?;
        let now = Instant::now();
        Ok(Self {
            seen: phase.load(Ordering::Relaxed),
            phase,
            begun: now,
            ended: now,
            count: 0,
            stop: Some(stop),
            timer: Some(timer),
        })
    }

    /// `happened` more; whether it is over.
    #[inline]
    pub(super) fn add(&mut self, happened: u64) -> bool {
        let phase = self.phase.load(Ordering::Relaxed);
        if phase != self.seen {
            self.turn(phase);
        }
        if phase == COUNTING {
            self.count += happened;
        }
        phase == OVER
    }

    #[cold]
    fn turn(&mut self, phase: u8) {
        let now = Instant::now();
        if self.seen == BEFORE {
            self.begun = now;
        }
        if self.seen <= COUNTING {
            self.ended = now;
        }
        self.seen = phase;
    }

    /// What was counted, and in which time. A window that was left early ends now.
    pub(super) fn close(mut self) -> (u64, Duration) {
        if self.seen <= COUNTING {
            self.turn(OVER);
        }
        (self.count, self.ended.saturating_duration_since(self.begun))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(timer) = self.timer.take() {
            let _ = timer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_are_not_counted() {
        let mut window = Window::start(Duration::from_secs(4)).unwrap();
        assert_eq!(
            window.phase.load(Ordering::Relaxed),
            BEFORE,
            "a second at each end"
        );
        window.add(7);
        window.phase.store(COUNTING, Ordering::Relaxed);
        window.add(3);
        window.add(2);
        window.phase.store(AFTER, Ordering::Relaxed);
        assert!(!window.add(5));
        window.phase.store(OVER, Ordering::Relaxed);
        assert!(window.add(5));
        assert_eq!(window.close().0, 5);
    }

    #[test]
    fn a_short_test_has_no_margins() {
        let mut window = Window::start(Duration::from_secs(1)).unwrap();
        let mut calls = 1;
        while !window.add(1) {
            calls += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        let (count, time) = window.close();
        assert!(count > 0 && count < calls, "{count} of {calls}");
        assert!(time >= Duration::from_millis(900), "{time:?}");
    }
}
