//! Collectives that are started and go on while their caller does other things. Each names a request and starts it.
//!
//! Where ranks reach each other by messages, the first call of each shape (a collective, with its root and plan) waits
//! for all ranks: they connect for it. Later ones return at once.

use super::pending::{Pair, Started};
use super::request::{Fitted, Request};
use super::{Communicator, CommunicatorError, Pending, Window};
use crate::engine::reduce::Operation;
use crate::memory::Element;

impl Communicator {
    /// Starts a request in place; the window comes back when it has ended. Over messages the first of its shape waits
    /// for all ranks to connect. All ranks start it: one that calls it ([`Communicator::call`]) may have called something else.
    ///
    /// # Errors
    /// Wrong arguments, as for [`Communicator::call`], or an earlier failure. (How the operation itself ends, the
    /// handle says.)
    pub fn start<T: Element>(
        &self,
        request: &Request,
        mut window: Window<T>,
    ) -> Result<Pending<T>, CommunicatorError> {
        let all = 0..window.len();
        let piece = self.piece(request.name(), &mut window, all)?;
        let fitted = self.fit(request, T::TYPE, piece, None)?;
        let ticket = self.start_fitted(&fitted)?;
        Ok(Started::new(self.engine().clone(), ticket, window))
    }

    /// As [`Communicator::start`], out of place; both windows come back.
    ///
    /// # Errors
    /// As there.
    pub fn start_into<T: Element>(
        &self,
        request: &Request,
        input: Window<T>,
        mut result: Window<T>,
    ) -> Result<Started<Pair<T>>, CommunicatorError> {
        let (all, whole) = (0..input.len(), 0..result.len());
        let from = self.read_piece(request.name(), &input, all)?;
        let into = self.piece(request.name(), &mut result, whole)?;
        let fitted = self.fit(request, T::TYPE, from, Some(into))?;
        let ticket = self.start_fitted(&fitted)?;
        Ok(Started::new(self.engine().clone(), ticket, (input, result)))
    }

    fn start_fitted(&self, fitted: &Fitted<'_>) -> Result<crate::engine::Ticket, CommunicatorError> {
        let call = self.prepare(fitted, None)?;
        // SAFETY: the windows are moved into the handle, which gives them back only after the end.
        Ok(unsafe { self.engine().start(call) }?)
    }

    /// Starts an all-reduce, in place.
    ///
    /// # Errors
    /// As [`Communicator::start`], which says when it waits.
    pub fn start_all_reduce<T: Element>(
        &self,
        window: Window<T>,
        operation: Operation,
    ) -> Result<Pending<T>, CommunicatorError> {
        self.start(&Request::all_reduce(operation), window)
    }

    /// Starts an all-reduce, out of place.
    ///
    /// # Errors
    /// As [`Communicator::start_into`], which says when it waits.
    pub fn start_all_reduce_into<T: Element>(
        &self,
        input: Window<T>,
        result: Window<T>,
        operation: Operation,
    ) -> Result<Started<Pair<T>>, CommunicatorError> {
        self.start_into(&Request::all_reduce(operation), input, result)
    }

    /// Starts a reduction to the root, in place.
    ///
    /// # Errors
    /// As [`Communicator::start`], which says when it waits.
    pub fn start_reduce<T: Element>(
        &self,
        window: Window<T>,
        operation: Operation,
        root: u32,
    ) -> Result<Pending<T>, CommunicatorError> {
        self.start(&Request::reduce(operation, root), window)
    }

    /// Starts a reduction to the root, out of place.
    ///
    /// # Errors
    /// As [`Communicator::start_into`], which says when it waits.
    pub fn start_reduce_into<T: Element>(
        &self,
        input: Window<T>,
        result: Window<T>,
        operation: Operation,
        root: u32,
    ) -> Result<Started<Pair<T>>, CommunicatorError> {
        self.start_into(&Request::reduce(operation, root), input, result)
    }

    /// Starts a broadcast from the root, in place.
    ///
    /// # Errors
    /// As [`Communicator::start`], which says when it waits.
    pub fn start_broadcast<T: Element>(
        &self,
        window: Window<T>,
        root: u32,
    ) -> Result<Pending<T>, CommunicatorError> {
        self.start(&Request::broadcast(root), window)
    }

    /// Starts a broadcast from the root, out of place.
    ///
    /// # Errors
    /// As [`Communicator::start_into`], which says when it waits.
    pub fn start_broadcast_into<T: Element>(
        &self,
        input: Window<T>,
        result: Window<T>,
        root: u32,
    ) -> Result<Started<Pair<T>>, CommunicatorError> {
        self.start_into(&Request::broadcast(root), input, result)
    }

    /// Starts a reduce-scatter, in place.
    ///
    /// # Errors
    /// As [`Communicator::start`], which says when it waits.
    pub fn start_reduce_scatter<T: Element>(
        &self,
        window: Window<T>,
        operation: Operation,
    ) -> Result<Pending<T>, CommunicatorError> {
        self.start(&Request::reduce_scatter(operation), window)
    }

    /// Starts a reduce-scatter, out of place.
    ///
    /// # Errors
    /// As [`Communicator::start_into`], which says when it waits.
    pub fn start_reduce_scatter_into<T: Element>(
        &self,
        input: Window<T>,
        result: Window<T>,
        operation: Operation,
    ) -> Result<Started<Pair<T>>, CommunicatorError> {
        self.start_into(&Request::reduce_scatter(operation), input, result)
    }

    /// Starts an all-gather, in place.
    ///
    /// # Errors
    /// As [`Communicator::start`], which says when it waits.
    pub fn start_all_gather<T: Element>(&self, window: Window<T>) -> Result<Pending<T>, CommunicatorError> {
        self.start(&Request::all_gather(), window)
    }

    /// Starts an all-gather, out of place.
    ///
    /// # Errors
    /// As [`Communicator::start_into`], which says when it waits.
    pub fn start_all_gather_into<T: Element>(
        &self,
        input: Window<T>,
        result: Window<T>,
    ) -> Result<Started<Pair<T>>, CommunicatorError> {
        self.start_into(&Request::all_gather(), input, result)
    }

    /// Starts a gather to the root, in place.
    ///
    /// # Errors
    /// As [`Communicator::start`], which says when it waits.
    pub fn start_gather<T: Element>(
        &self,
        window: Window<T>,
        root: u32,
    ) -> Result<Pending<T>, CommunicatorError> {
        self.start(&Request::gather(root), window)
    }

    /// Starts a gather to the root, out of place.
    ///
    /// # Errors
    /// As [`Communicator::start_into`], which says when it waits.
    pub fn start_gather_into<T: Element>(
        &self,
        input: Window<T>,
        result: Window<T>,
        root: u32,
    ) -> Result<Started<Pair<T>>, CommunicatorError> {
        self.start_into(&Request::gather(root), input, result)
    }

    /// Starts a scatter from the root, in place.
    ///
    /// # Errors
    /// As [`Communicator::start`], which says when it waits.
    pub fn start_scatter<T: Element>(
        &self,
        window: Window<T>,
        root: u32,
    ) -> Result<Pending<T>, CommunicatorError> {
        self.start(&Request::scatter(root), window)
    }

    /// Starts a scatter from the root, out of place.
    ///
    /// # Errors
    /// As [`Communicator::start_into`], which says when it waits.
    pub fn start_scatter_into<T: Element>(
        &self,
        input: Window<T>,
        result: Window<T>,
        root: u32,
    ) -> Result<Started<Pair<T>>, CommunicatorError> {
        self.start_into(&Request::scatter(root), input, result)
    }

    /// Starts an all-to-all, out of place.
    ///
    /// # Errors
    /// As [`Communicator::start_into`], which says when it waits.
    pub fn start_all_to_all<T: Element>(
        &self,
        input: Window<T>,
        result: Window<T>,
    ) -> Result<Started<Pair<T>>, CommunicatorError> {
        self.start_into(&Request::all_to_all(), input, result)
    }
}
