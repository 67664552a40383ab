//! An operation that was started and has its window: polled, waited for or awaited.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::CommunicatorError;
use super::window::Window;
use crate::engine::{Engine, Ticket};
use crate::memory::Element;

/// A started operation. It goes on whether or not this handle is kept: dropping it detaches it, and the window's
/// memory is given back when the operation has ended.
#[must_use = "the operation goes on by itself, but its window comes back only through this handle"]
#[derive(Debug)]
pub struct Pending<T: Element> {
    pub(super) engine: Arc<Engine>,
    pub(super) ticket: Ticket,
    /// `None` once it was handed back.
    pub(super) window: Option<Window<T>>,
}

impl<T: Element> Pending<T> {
    /// Moves the communicator's operations on, as far as they go without waiting; says whether this one has ended.
    pub fn poll(&self) -> bool {
        self.ticket.is_done() || {
            self.engine.poll();
            self.ticket.is_done()
        }
    }

    /// Waits for the end and hands the window back. The deadline is the one with which it was started.
    ///
    /// # Errors
    /// How the operation failed; the window's memory then stays with the peers that may still read it.
    pub fn wait(mut self) -> Result<Window<T>, CommunicatorError> {
        let outcome = self.engine.wait(&self.ticket);
        self.hand_back(outcome.map_err(Into::into))
    }

    /// Waits for the end, but no longer than until `deadline`; says whether it has ended. The operation goes on
    /// either way: it fails only at the deadline with which it was started.
    pub fn wait_until(&self, deadline: Instant) -> bool {
        self.engine
            .wait_until(|| self.ticket.is_done() || Instant::now() >= deadline);
        self.ticket.is_done()
    }

    fn hand_back(&mut self, outcome: Result<(), CommunicatorError>) -> Result<Window<T>, CommunicatorError> {
        let window = self.window.take().expect("handed back once");
        match outcome {
            Ok(()) => Ok(window),
            Err(error) => {
                window.hold();
                Err(error)
            }
        }
    }
}

// No part of it is pinned.
impl<T: Element> Unpin for Pending<T> {}

impl<T: Element> Future for Pending<T> {
    type Output = Result<Window<T>, CommunicatorError>;

    /// Drives the operation; between polls a progress thread (or any other call of the communicator) must.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.ticket.wake(context.waker());
        if !Pending::poll(&self) {
            return Poll::Pending;
        }
        let outcome = self.ticket.outcome().expect("it is done");
        Poll::Ready(self.hand_back(outcome.map_err(Into::into)))
    }
}
