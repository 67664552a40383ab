//! What the trainer needs of an exchange, and the exchange of one process with itself.
//!
//! The traits say no more than the library's own training-loop API, so that one trainer runs on it and on [`Alone`],
//! which the result of the workers is compared with.

use std::cell::Cell;
use std::rc::Rc;

use sapwood::plan::lowered::Rank;
use serde::{Deserialize, Serialize};

use super::members::Members;
use super::model::{LAYERS, Model, layer_size};
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
    /// How many workers share a step's images.
    fn ranks(&self) -> u32;
    /// Whose images of a step this process computes a gradient of.
    fn part(&self, step: usize) -> Members;
    /// Takes the first weights, where others may come to copy them.
    fn keep(&mut self, _: &Model) {}
    /// Replaces the weights by those that were copied from another, after a step that was jumped over.
    fn restore(&self, _: &mut Model) {}
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
    /// Whether the step is decided without this gradient.
    fn sealed(&mut self) -> bool;
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
    /// Whose gradients the mean is of. Nobody's, if the step was jumped over.
    fn members(&self) -> Members;
    /// If this worker was so far behind that it has copied another's weights: the last step that these have seen.
    fn caught_up(&self) -> Option<usize>;
    /// Lets the means change the weights.
    fn apply(&mut self, model: &mut Model, learning_rate: f32);
}

/// One process that computes the gradient of some workers' images: the mean is what it wrote.
pub struct Alone {
    gradients: [Rc<Cell<Vec<f32>>>; LAYERS],
    workers: u32,
    /// By step; where it ends, all are members.
    members: Vec<Members>,
}

impl Alone {
    /// Takes all images of every step.
    #[cfg(test)]
    pub fn new() -> Self {
        Self::replaying(1, Vec::new())
    }

    /// Takes, in each step, the images of those of `workers` workers whose gradients were in the mean.
    pub fn replaying(workers: u32, members: Vec<Members>) -> Self {
        Self {
            gradients: std::array::from_fn(|layer| Rc::new(Cell::new(vec![0.0; layer_size(layer)]))),
            workers,
            members,
        }
    }
}

impl GradientExchange for Alone {
    type Step<'a> = AloneStep<'a>;

    fn rank(&self) -> Rank {
        0
    }

    fn ranks(&self) -> u32 {
        self.workers
    }

    fn part(&self, step: usize) -> Members {
        let everyone = || Members::everyone(self.workers);
        self.members.get(step).copied().unwrap_or_else(everyone)
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

    fn sealed(&mut self) -> bool {
        false
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
    fn members(&self) -> Members {
        Members::everyone(self.homes.workers)
    }

    fn caught_up(&self) -> Option<usize> {
        None
    }

    fn apply(&mut self, model: &mut Model, learning_rate: f32) {
        for (layer, mean) in self.means.iter().enumerate() {
            model.update(layer, mean, learning_rate);
        }
    }
}

impl Drop for AloneOutcome<'_> {
    fn drop(&mut self) {
        for (home, mean) in self.homes.gradients.iter().zip(&mut self.means) {
            home.set(std::mem::take(mean));
        }
    }
}
