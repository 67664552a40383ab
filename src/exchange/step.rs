//! One step: hands out the buckets, waits for their exchanges, hands back the mean.

use super::bucket::{Bucket, Returned};
use super::{Exchange, ExchangeError};
use crate::bootstrap::Rank;
use crate::communicator::CommunicatorError;

/// A step in progress. Dropped before it is finished, it gives the exchange up, on every rank: its buckets may be in
/// flight, and the other ranks wait for them.
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
        let wrong = |what| ExchangeError::Bucket {
            name: name.to_owned(),
            what,
        };
        let exchange = self.exchange.as_mut().expect(UNFINISHED);
        let slots = &mut exchange.slots;
        let index = slots
            .iter()
            .position(|slot| slot.name == name)
            .ok_or_else(|| wrong("there is none"))?;
        let slot = &mut slots[index];
        let window = slot
            .window
            .take()
            .ok_or_else(|| wrong("it was taken in this step already"))?;
        Ok(Bucket {
            index,
            sequence: self.first + index as u64,
            starter: slot.starter.clone(),
            window: Some(window),
            returned: exchange.returned.clone(),
        })
    }

    /// Waits until every bucket has been averaged over all ranks.
    ///
    /// # Errors
    /// A bucket that was not made ready (the other ranks are told), or how the communicator failed: it names the
    /// rank, the operation and the step of the plan waited for.
    pub fn finish(mut self) -> Result<Outcome<'a>, ExchangeError> {
        let number = self.number;
        let exchange = self.exchange.take().expect(UNFINISHED);
        // From here on every way out leaves nothing in flight, or the communicator refusing all work.
        exchange.communicator.end_step();
        let engine = exchange.communicator.engine();
        // Of each bucket: whether its exchange was started in this step.
        let mut ready = vec![false; exchange.slots.len()];
        let mut failure = None;
        let mut returned = exchange.returned.lock().expect("nothing panics with it in hand");
        for Returned {
            index,
            window,
            ticket,
        } in returned.drain(..)
        {
            if let Some(ticket) = ticket {
                ready[index] = true;
                if let Err(error) = engine.wait(&ticket) {
                    window.hold();
                    failure.get_or_insert(error);
                }
            }
            exchange.slots[index].window = Some(window);
        }
        drop(returned);
        if let Some(error) = failure {
            return Err(CommunicatorError::from(error).into());
        }
        if ready.contains(&false) {
            let missing = exchange.slots.iter().zip(&ready).filter(|(_, ready)| !**ready);
            let names = missing
                .map(|(slot, _)| slot.name.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            exchange.communicator.abort_handle().abort();
            return Err(ExchangeError::NotReady {
                rank: exchange.communicator.rank(),
                step: number,
                names,
            });
        }
        Ok(Outcome { exchange, number })
    }
}

const UNFINISHED: &str = "taken in finish only, which consumes the step";

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if let Some(exchange) = &self.exchange {
            exchange.communicator.abort_handle().abort();
        }
    }
}

/// A finished step: what the optimizer reads. While it is held, the next step cannot begin.
#[derive(Debug)]
pub struct Outcome<'a> {
    exchange: &'a Exchange,
    number: u64,
}

impl Outcome<'_> {
    /// The mean gradient of a bucket.
    ///
    /// # Panics
    /// If there is no bucket of that name.
    pub fn mean(&self, name: &str) -> &[f32] {
        let slot = self.exchange.slots.iter().find(|slot| slot.name == name);
        let slot = slot.unwrap_or_else(|| panic!("there is no bucket {name:?}"));
        slot.window
            .as_ref()
            .expect("every bucket is back when a step has finished")
    }

    /// Whose gradients the mean is of, ascending.
    pub fn contributors(&self) -> &[Rank] {
        &self.exchange.contributors
    }

    /// What the sum was divided by: the number of contributors.
    pub fn divisor(&self) -> u32 {
        self.exchange.contributors.len() as u32
    }

    /// The step's number, from 0.
    pub fn number(&self) -> u64 {
        self.number
    }
}
