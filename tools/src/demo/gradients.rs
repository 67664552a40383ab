//! What the trainer needs of an exchange, and the exchange of one process with itself.
//!
//! The traits say no more than the library's own training-loop API, so that one trainer runs on it and on [`Alone`],
//! which the result of the workers is compared with.

use std::cell::Cell;
use std::rc::Rc;

use sapwood::plan::lowered::Rank;
use serde::{Deserialize, Serialize};

use super::model::{LAYERS, layer_size};
use super::spans::Span;

/// Any failure of an exchange; its text is a sentence for people.
pub type ExchangeError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes that this rank's exchanges have moved so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Moved between ranks by the plan, counted where they arrive.
    pub exchanged: u64,
    /// Moved by anything else: staging, bounce buffers.
    pub copied: u64,
}

/// Averages gradients over the ranks, a step at a time.
pub trait GradientExchange {
    /// A step under way.
    type Step<'a>: GradientStep
    where
        Self: 'a;
    /// This process's rank.
    fn rank(&self) -> Rank;
    /// How many ranks exchange.
    fn ranks(&self) -> u32;
    /// Hands the buckets out again.
    fn begin(&mut self) -> Result<Self::Step<'_>, ExchangeError>;
    /// What was moved since the exchange was made.
    fn traffic(&self) -> Traffic;
    /// Appends what happened since the last call: pulls, reductions, waits and for whom.
    fn drain_spans(&mut self, spans: &mut Vec<Span>);
}

/// A step under way; buckets are taken from the last layer to the first.
pub trait GradientStep {
    /// A layer's gradient memory.
    type Bucket: GradientBucket;
    /// The step's result.
    type Outcome: StepOutcome;
    /// The bucket of a layer.
    fn take(&mut self, layer: usize) -> Result<Self::Bucket, ExchangeError>;
    /// Waits until every bucket's mean is there.
    fn finish(self) -> Result<Self::Outcome, ExchangeError>;
}

/// Registered memory that the backward pass writes a gradient into.
pub trait GradientBucket {
    /// The gradient: weights, then biases.
    fn as_mut_slice(&mut self) -> &mut [f32];
    /// Gives the bucket away: its exchange starts now.
    fn ready(self) -> Result<(), ExchangeError>;
}

/// The averaged gradients.
pub trait StepOutcome {
    /// A layer's mean over all ranks.
    fn mean(&self, layer: usize) -> &[f32];
}

/// One rank: the mean is what it wrote.
pub struct Alone {
    gradients: [Rc<Cell<Vec<f32>>>; LAYERS],
}

impl Alone {
    /// Plain memory for every layer.
    pub fn new() -> Self {
        Self {
            gradients: std::array::from_fn(|layer| Rc::new(Cell::new(vec![0.0; layer_size(layer)]))),
        }
    }
}

impl GradientExchange for Alone {
    type Step<'a> = AloneStep<'a>;

    fn rank(&self) -> Rank {
        0
    }

    fn ranks(&self) -> u32 {
        1
    }

    fn begin(&mut self) -> Result<AloneStep<'_>, ExchangeError> {
        Ok(AloneStep(self))
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn drain_spans(&mut self, _: &mut Vec<Span>) {}
}

/// A step of [`Alone`].
pub struct AloneStep<'a>(&'a mut Alone);

impl<'a> GradientStep for AloneStep<'a> {
    type Bucket = AloneBucket;
    type Outcome = AloneOutcome<'a>;

    fn take(&mut self, layer: usize) -> Result<AloneBucket, ExchangeError> {
        let home = Rc::clone(&self.0.gradients[layer]);
        Ok(AloneBucket {
            gradient: home.take(),
            home,
        })
    }

    fn finish(self) -> Result<AloneOutcome<'a>, ExchangeError> {
        let means = std::array::from_fn(|layer| self.0.gradients[layer].take());
        Ok(AloneOutcome { means, homes: self.0 })
    }
}

/// A bucket of [`Alone`].
pub struct AloneBucket {
    gradient: Vec<f32>,
    home: Rc<Cell<Vec<f32>>>,
}

impl GradientBucket for AloneBucket {
    fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.gradient
    }

    fn ready(self) -> Result<(), ExchangeError> {
        self.home.set(self.gradient);
        Ok(())
    }
}

/// A result of [`Alone`]; gives the memory back when dropped.
pub struct AloneOutcome<'a> {
    means: [Vec<f32>; LAYERS],
    homes: &'a mut Alone,
}

impl StepOutcome for AloneOutcome<'_> {
    fn mean(&self, layer: usize) -> &[f32] {
        &self.means[layer]
    }
}

impl Drop for AloneOutcome<'_> {
    fn drop(&mut self) {
        for (home, mean) in self.homes.gradients.iter().zip(&mut self.means) {
            home.set(std::mem::take(mean));
        }
    }
}
