//! One named part of the gradient, in the hands of the backward pass.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use super::ExchangeError;
use crate::communicator::{CommunicatorError, Starter, Window};
use crate::engine::Ticket;

/// A bucket's place in the exchange.
#[derive(Debug)]
pub(super) struct Slot {
    /// What starts its exchange; none where a whole step's gradients are exchanged at once.
    pub(super) starter: Option<Arc<Starter>>,
    /// `None` while the backward pass or the ranks have it.
    pub(super) window: Option<Window<f32>>,
}

/// How a bucket has come back.
#[derive(Debug)]
pub(super) enum Left {
    /// It was dropped and never made ready.
    Unready,
    Ready,
    Started(Ticket),
}

/// A bucket on its way back to the exchange.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) index: usize,
    pub(super) window: Window<f32>,
    pub(super) left: Left,
}

/// A gradient to be written: a `&mut [f32]` that may go to any thread. [`Bucket::ready`] starts its exchange.
#[must_use = "a bucket that is not made ready keeps every rank waiting"]
#[derive(Debug)]
pub struct Bucket {
    pub(super) index: usize,
    pub(super) sequence: u64,
    pub(super) starter: Option<Arc<Starter>>,
    /// `None` once it was made ready.
    pub(super) window: Option<Window<f32>>,
    pub(super) returned: Arc<Mutex<Vec<Returned>>>,
}

impl Bucket {
    /// The gradient, as it was left by the last step.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        self
    }

    /// Says that the gradient is written: the ranks begin to average it now, while the loop goes on. (With backup workers:
    /// once all buckets of the step are.)
    ///
    /// # Errors
    /// An earlier operation failed.
    pub fn ready(mut self) -> Result<(), ExchangeError> {
        let window = self.window.take().expect("taken here and in drop only");
        let Some(starter) = &self.starter else {
            self.give_back(window, Left::Ready);
            return Ok(());
        };
        // SAFETY: the window goes to the exchange, which lets nobody at it before the operation has ended; every
        // rank reserved the same numbers for the same buckets, which have the same plan.
        let (left, outcome) = match unsafe { starter.start(self.sequence) } {
            Ok(ticket) => (Left::Started(ticket), Ok(())),
            Err(error) => (Left::Unready, Err(CommunicatorError::from(error).into())),
        };
        self.give_back(window, left);
        outcome
    }

    fn give_back(&self, window: Window<f32>, left: Left) {
        // There is room for every bucket, so this does not allocate.
        let mut returned = self.returned.lock().expect("nothing panics with it in hand");
        returned.push(Returned {
            index: self.index,
            window,
            left,
        });
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        if let Some(window) = self.window.take() {
            self.give_back(window, Left::Unready);
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
