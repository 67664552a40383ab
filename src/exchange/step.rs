//! One step: hands out the buckets, waits for their exchanges, hands back the mean.

use super::bucket::Bucket;
use super::exchange::{Exchange, How};
use super::state::{Means, State};
use super::{ExchangeError, Participation};
use crate::bootstrap::Rank;

/// A step in progress. Dropped before it is finished, it gives the exchange up, on every rank: its buckets may be in
/// flight, and the other ranks wait for them. (With backup workers nobody waits: the same step may be begun again.)
#[must_use = "a step that is not finished ends the exchange"]
#[derive(Debug)]
pub struct Step<'a> {
    /// `None` once it was finished.
    exchange: Option<&'a mut Exchange>,
    number: u64,
    /// The operation number of the first bucket.
    first: u64,
}

impl<'a> Step<'a> {
    pub(super) fn new(exchange: &'a mut Exchange, number: u64, first: u64) -> Self {
        Self {
            exchange: Some(exchange),
            number,
            first,
        }
    }

    /// The step's number, from 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Hands out a bucket.
    ///
    /// # Errors
    /// There is none of that name, or it was taken in this step already.
    pub fn take(&mut self, name: &str) -> Result<Bucket, ExchangeError> {
        let exchange = self.exchange.as_mut().expect(UNFINISHED);
        exchange.take(name, self.first)
    }

    /// Whether the step is decided without this worker's gradient, which nobody wants any more: whoever sees this between
    /// two layers may stop computing, drop its buckets and [finish](Step::finish). Never without backup workers; waits for
    /// nobody. (What else it does is said at [`Barrier::sealed`](crate::backup::Barrier::sealed).)
    pub fn sealed(&mut self) -> bool {
        self.exchange.as_mut().expect(UNFINISHED).sealed()
    }

    /// Waits until every bucket has been averaged: over all ranks, or with backup workers over the first N to be ready.
    ///
    /// # Errors
    /// A bucket that was not made ready (the other ranks are told; with backup workers that is none if the step is
    /// [sealed](Step::sealed)), or how the communicator failed: it names the rank, the operation and the step of the plan
    /// waited for.
    pub fn finish(mut self) -> Result<Outcome<'a>, ExchangeError> {
        let number = self.number;
        let exchange = self.exchange.take().expect(UNFINISHED);
        let how = exchange.finish(number)?;
        Ok(Outcome {
            exchange,
            number,
            how,
        })
    }
}

const UNFINISHED: &str = "taken in finish only, which consumes the step";

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.give_up();
        }
    }
}

/// A finished step: what the optimizer reads. While it is held, the next step cannot begin.
#[derive(Debug)]
pub struct Outcome<'a> {
    exchange: &'a mut Exchange,
    number: u64,
    how: How,
}

impl Outcome<'_> {
    /// The mean gradient of a bucket.
    ///
    /// # Panics
    /// If there is no bucket of that name, or [the step was jumped over](Outcome::caught_up).
    pub fn mean(&self, name: &str) -> &[f32] {
        self.means().of(name)
    }

    /// The mean gradients of all buckets.
    pub fn means(&self) -> Means<'_> {
        self.exchange.means()
    }

    /// Whose gradients the mean is of, ascending. Nobody's, if [the step was jumped over](Outcome::caught_up).
    pub fn contributors(&self) -> &[Rank] {
        self.exchange.contributors()
    }

    /// What the sum was divided by: the number of contributors.
    pub fn divisor(&self) -> u32 {
        self.contributors().len() as u32
    }

    /// The step's number, from 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether this worker's own gradient is not in the mean: N others were faster.
    pub fn is_late(&self) -> bool {
        self.how == How::Late
    }

    /// With backup workers: this worker was so far behind that its training state has been replaced by that of another,
    /// which had applied the step with this number. There is no mean, and nothing to be applied. (Where all who knew how a step
    /// was decided have died after [`Step::sealed`] said so, nothing is jumped over: the step begins again.)
    pub fn caught_up(&self) -> Option<u64> {
        match self.how {
            How::CaughtUp { applied } => Some(applied.saturating_sub(1)),
            How::Member | How::Late => None,
        }
    }

    /// Lets `update` change the training state by the mean gradients: once for each step that was not
    /// [jumped over](Outcome::caught_up). Only state that is changed here can be caught up with by others.
    pub fn update<R>(&mut self, update: impl FnOnce(Means<'_>, State<'_>) -> R) -> R {
        self.exchange.update(update)
    }

    /// How often each worker's gradient was in the mean so far.
    pub fn participation(&self) -> &Participation {
        self.exchange.participation()
    }
}
