//! Operations that are set up once and started many times: everything that can be checked, chosen, proved and
//! connected is by then, so that a start allocates nothing, and calls the system only where somebody sleeps.

use std::sync::Arc;

use super::pending::{Pair, Windows};
use super::request::{Fitted, Request};
use super::{Communicator, CommunicatorError, Window};
use crate::engine::reduce::Operation;
use crate::engine::{Call, Engine, Ticket};
use crate::memory::Element;

/// An operation with its windows, to be started any number of times. Every rank starts it as often, in the same order
/// as its other calls. While it is not under way its windows are to be written and read; dropped while it is, it goes
/// on, and their memory is given back at its end.
///
/// ```
/// use sapwood::{bootstrap::Job, communicator::Communicator, engine::reduce::Operation};
///
/// let job = Job::local(1)?.remove(0);
/// let communicator = Communicator::builder().join(&job)?;
/// let mut sum = communicator.persistent_all_reduce(communicator.window::<f32>(1000)?, Operation::Sum)?;
/// for step in 0..3 {
///     sum.windows().fill(step as f32);
///     sum.start(&communicator)?;
///     // other work
///     sum.wait()?;
///     assert_eq!(sum.windows()[0], step as f32);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Persistent<W: Windows> {
    engine: Arc<Engine>,
    owner: u64,
    call: Call,
    ticket: Ticket,
    started: bool,
    windows: W,
}

impl Communicator {
    /// Sets a request up, in place. Collective: every rank sets up the same, and where they reach each other by
    /// messages they connect for it.
    ///
    /// # Errors
    /// As [`Communicator::start`].
    pub fn persistent<T: Element>(
        &self,
        request: &Request,
        mut window: Window<T>,
    ) -> Result<Persistent<Window<T>>, CommunicatorError> {
        let all = 0..window.len();
        let piece = self.piece(request.name(), &mut window, all)?;
        let fitted = self.fit(request, T::TYPE, piece, None)?;
        let call = self.set_up(&fitted)?;
        Ok(self.lasting(call, window))
    }

    /// As [`Communicator::persistent`], out of place.
    ///
    /// # Errors
    /// As there.
    pub fn persistent_into<T: Element>(
        &self,
        request: &Request,
        input: Window<T>,
        mut result: Window<T>,
    ) -> Result<Persistent<Pair<T>>, CommunicatorError> {
        let (all, whole) = (0..input.len(), 0..result.len());
        let from = self.read_piece(request.name(), &input, all)?;
        let into = self.piece(request.name(), &mut result, whole)?;
        let fitted = self.fit(request, T::TYPE, from, Some(into))?;
        let call = self.set_up(&fitted)?;
        Ok(self.lasting(call, (input, result)))
    }

    /// As [`Communicator::persistent`], an all-reduce.
    ///
    /// # Errors
    /// As there.
    pub fn persistent_all_reduce<T: Element>(
        &self,
        window: Window<T>,
        operation: Operation,
    ) -> Result<Persistent<Window<T>>, CommunicatorError> {
        self.persistent(&Request::all_reduce(operation), window)
    }

    fn set_up(&self, fitted: &Fitted<'_>) -> Result<Call, CommunicatorError> {
        // It gets its number when it is started.
        self.prepare(fitted, Some(0))
    }

    fn lasting<W: Windows>(&self, call: Call, windows: W) -> Persistent<W> {
        Persistent {
            engine: self.engine().clone(),
            owner: self.id,
            call,
            ticket: Ticket::default(),
            started: false,
            windows,
        }
    }
}

impl<W: Windows> Persistent<W> {
    /// Starts it, with the communicator's deadline.
    ///
    /// # Errors
    /// It is under way, or belongs to another communicator; an earlier failure.
    pub fn start(&mut self, communicator: &Communicator) -> Result<(), CommunicatorError> {
        communicator.usable()?;
        let call = self.call.signature.collective();
        if self.owner != communicator.id {
            return Err(communicator.argument(call, "it was set up with another communicator".into()));
        }
        if self.started {
            return Err(communicator.argument(call, "it was started and not waited for".into()));
        }
        communicator.make_room(1)?;
        self.ticket.reset();
        let call = Call {
            sequence: communicator.reserve(1),
            timeout: communicator.timeout(),
            ..self.call.clone()
        };
        // SAFETY: the windows are out of reach until `wait` or `poll` has seen the end.
        unsafe { self.engine.start_as(call, self.ticket.clone()) }?;
        self.started = true;
        Ok(())
    }

    /// Moves the communicator's operations on, as far as they go without waiting; says whether this one has ended, or
    /// was not started. How it ended, [`Persistent::wait`] says.
    pub fn poll(&self) -> bool {
        !self.started || self.ticket.is_done() || {
            self.engine.poll();
            self.ticket.is_done()
        }
    }

    /// Waits for the end, if it was started.
    ///
    /// # Errors
    /// How the operation failed; the windows are in custody then.
    pub fn wait(&mut self) -> Result<(), CommunicatorError> {
        if !self.started {
            return Ok(());
        }
        let outcome = self.engine.wait(&self.ticket);
        self.started = false;
        if outcome.is_err() {
            self.windows.hold();
        }
        Ok(outcome?)
    }

    /// Its windows.
    ///
    /// # Panics
    /// While it is under way: between [`Persistent::start`] and [`Persistent::wait`].
    pub fn windows(&mut self) -> &mut W {
        assert!(
            !self.started,
            "this operation was started and not waited for: its windows are in use"
        );
        &mut self.windows
    }

    /// Its windows, waited for.
    ///
    /// # Errors
    /// As [`Persistent::wait`].
    pub fn into_windows(mut self) -> Result<W, CommunicatorError> {
        self.wait()?;
        Ok(self.windows)
    }
}
