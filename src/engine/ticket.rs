//! The end of an operation, as those see it who wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use super::EngineError;

#[derive(Debug, Default)]
struct Completion {
    done: AtomicBool,
    outcome: Mutex<Outcome>,
}

#[derive(Debug, Default)]
struct Outcome {
    error: Option<EngineError>,
    /// Of a message: bytes.
    moved: usize,
    waker: Option<Waker>,
}

/// The end of an operation, to be waited for. Dropping it changes nothing: the operation goes on.
#[derive(Clone, Debug, Default)]
pub struct Ticket(Arc<Completion>);

impl Ticket {
    /// Whether the operation has ended, well or not.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.0.done.load(Ordering::Acquire)
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<Result<(), EngineError>> {
        if !self.is_done() {
            return None;
        }
        let outcome = self.0.outcome.lock().expect("nothing panics with it in hand");
        Some(outcome.error.clone().map_or(Ok(()), Err))
    }

    /// Makes it a new operation's. Nothing may be in progress that it was given to.
    pub fn reset(&self) {
        let mut outcome = self.0.outcome.lock().expect("nothing panics with it in hand");
        *outcome = Outcome::default();
        self.0.done.store(false, Ordering::Release);
    }

    /// Has a task woken at the end. Call [`Ticket::is_done`] again afterwards.
    pub fn wake(&self, waker: &Waker) {
        self.0
            .outcome
            .lock()
            .expect("nothing panics with it in hand")
            .waker = Some(waker.clone());
    }

    /// How many bytes a message had, once it has ended.
    pub fn moved(&self) -> usize {
        self.0
            .outcome
            .lock()
            .expect("nothing panics with it in hand")
            .moved
    }

    /// The end of a message. Answers whom to wake.
    pub(super) fn end_with(&self, outcome: Result<usize, EngineError>) -> Option<Waker> {
        let (moved, error) = match outcome {
            Ok(moved) => (moved, None),
            Err(error) => (0, Some(error)),
        };
        self.0
            .outcome
            .lock()
            .expect("nothing panics with it in hand")
            .moved = moved;
        self.end(error)
    }

    /// Answers whom to wake.
    pub(super) fn end(&self, error: Option<EngineError>) -> Option<Waker> {
        let mut outcome = self.0.outcome.lock().expect("nothing panics with it in hand");
        outcome.error = error;
        self.0.done.store(true, Ordering::Release);
        outcome.waker.take()
    }
}
