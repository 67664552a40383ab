//! One named part of the gradient, in the hands of the backward pass.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use super::ExchangeError;
use crate::communicator::{CommunicatorError, Starter, Window};
use crate::engine::Ticket;

/// A bucket's place in the exchange.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) starter: Arc<Starter>,
    /// `None` while the backward pass or the ranks have it.
    pub(super) window: Option<Window<f32>>,
}

/// A bucket on its way back to the exchange.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) index: usize,
    pub(super) window: Window<f32>,
    /// `None`: it was dropped and never made ready.
    pub(super) ticket: Option<Ticket>,
}

/// A gradient to be written: a `&mut [f32]` that may go to any thread. [`Bucket::ready`] starts its exchange.
#[must_use = "a bucket that is not made ready keeps every rank waiting"]
#[derive(Debug)]
pub struct Bucket {
    pub(super) index: usize,
    pub(super) sequence: u64,
    pub(super) starter: Arc<Starter>,
    /// `None` once it was made ready.
    pub(super) window: Option<Window<f32>>,
    pub(super) returned: Arc<Mutex<Vec<Returned>>>,
}

impl Bucket {
    /// The gradient, as it was left by the last step.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        self
    }

    /// Says that the gradient is written: the ranks begin to average it now, while the loop goes on.
    ///
    /// # Errors
    /// An earlier operation failed.
    pub fn ready(mut self) -> Result<(), ExchangeError> {
        let window = self.window.take().expect("taken here and in drop only");
        // SAFETY: the window goes to the exchange, which lets nobody at it before the operation has ended; every
        // rank reserved the same numbers for the same buckets, which have the same plan.
        let ticket = unsafe { self.starter.start(self.sequence) };
        let (ticket, outcome) = match ticket {
            Ok(ticket) => (Some(ticket), Ok(())),
            Err(error) => (None, Err(CommunicatorError::from(error).into())),
        };
        self.give_back(window, ticket);
        outcome
    }

    fn give_back(&self, window: Window<f32>, ticket: Option<Ticket>) {
        // There is room for every bucket, so this does not allocate.
        let mut returned = self.returned.lock().expect("nothing panics with it in hand");
        returned.push(Returned {
            index: self.index,
            window,
            ticket,
        });
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        if let Some(window) = self.window.take() {
            self.give_back(window, None);
        }
    }
}

impl Deref for Bucket {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.window
            .as_ref()
            .expect("taken in ready only, which consumes the bucket")
    }
}

impl DerefMut for Bucket {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.window
            .as_mut()
            .expect("taken in ready only, which consumes the bucket")
    }
}
