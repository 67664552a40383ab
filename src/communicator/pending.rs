//! An operation that was started and has its windows: polled, waited for or awaited.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::CommunicatorError;
use super::window::Window;
use crate::engine::{Engine, EngineError, Ticket};
use crate::memory::Element;

/// Windows that an operation has: one, or an input and a result.
pub trait Windows {
    /// An operation on them has failed.
    #[doc(hidden)]
    fn hold(&self);
}

impl<T: Element> Windows for Window<T> {
    fn hold(&self) {
        Window::hold(self);
    }
}

/// An input and a result.
pub type Pair<T> = (Window<T>, Window<T>);

impl<T: Element> Windows for Pair<T> {
    fn hold(&self) {
        self.0.hold();
        self.1.hold();
    }
}

/// A started operation on one window.
pub type Pending<T> = Started<Window<T>>;

/// A started operation. It goes on whether or not this handle is kept: dropping it detaches it, and the windows'
/// memory is given back when the operation has ended.
#[must_use = "the operation goes on by itself, but its windows come back only through this handle"]
#[derive(Debug)]
pub struct Started<W: Windows> {
    engine: Arc<Engine>,
    ticket: Ticket,
    /// `None` once they were handed back.
    windows: Option<W>,
}

impl<W: Windows> Started<W> {
    pub(super) fn new(engine: Arc<Engine>, ticket: Ticket, windows: W) -> Self {
        Self {
            engine,
            ticket,
            windows: Some(windows),
        }
    }

    /// Moves the communicator's operations on, as far as they go without waiting; says whether this one has ended.
    pub fn poll(&self) -> bool {
        self.ticket.is_done() || {
            self.engine.poll();
            self.ticket.is_done()
        }
    }

    /// Waits for the end and hands the windows back. The deadline is the one with which it was started.
    ///
    /// # Errors
    /// How the operation failed; the windows' memory then stays with the peers that may still reach it.
    pub fn wait(mut self) -> Result<W, CommunicatorError> {
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

    /// Of a message between two ranks: how many bytes it had, once it has ended. 0 for other operations.
    pub fn moved(&self) -> usize {
        self.ticket.moved()
    }

    fn hand_back(&mut self, outcome: Result<(), CommunicatorError>) -> Result<W, CommunicatorError> {
        let windows = self.windows.take().expect("handed back once");
        match outcome {
            Ok(()) => Ok(windows),
            Err(error) => {
                // A message that was refused has not touched them.
                if !matches!(error, CommunicatorError::Engine(EngineError::Letter { .. })) {
                    windows.hold();
                }
                Err(error)
            }
        }
    }
}

// No part of it is pinned.
impl<W: Windows> Unpin for Started<W> {}

impl<W: Windows> Future for Started<W> {
    type Output = Result<W, CommunicatorError>;

    /// Drives the operation; between polls a progress thread (or any other call of the communicator) must.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.ticket.wake(context.waker());
        if !Started::poll(&self) {
            return Poll::Pending;
        }
        let outcome = self.ticket.outcome().expect("it is done");
        Poll::Ready(self.hand_back(outcome.map_err(Into::into)))
    }
}
