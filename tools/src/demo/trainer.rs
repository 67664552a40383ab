//! The training loop: what every worker runs, and what the single process runs that they are compared with.

use std::ops::Range;
use std::time::Duration;

use ndarray::{Array2, s};
use serde::{Deserialize, Serialize};

use super::dataset::{Dataset, PIXELS};
use super::gradients::{ExchangeError, GradientBucket, GradientExchange, GradientStep, StepOutcome};
use super::model::{LAYERS, Model, Workspace};
use super::schedule::{Schedule, share};
use super::spans::{Activity, Span, now};

const LEARNING_RATE: f32 = 0.1;
/// Reading the exchange's events costs about a millisecond, so that is not done in each step.
const STEPS_BETWEEN_READINGS: usize = 8;
/// Smaller batches take proportionally smaller steps, since they take more of them.
const LEARNING_RATE_BATCH: usize = 128;

/// What to train.
#[derive(Clone, Debug)]
pub struct Training {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images of a step, all workers together.
    pub batch: usize,
    /// Decides weights and order.
    pub seed: u64,
    /// How long this rank sleeps in each step, between forward and backward.
    pub slow: Duration,
    /// The steps whose spans are kept.
    pub kept_steps: Range<usize>,
    /// Whether each epoch ends with this rank's share of the test images.
    pub test: bool,
}

/// One rank's part of an epoch's figures; the sums over all ranks are the epoch's.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct EpochShare {
    /// Cross-entropy summed over the rank's training images, as they were used.
    pub loss: f64,
    /// How many of the rank's test images were classified rightly at the end of the epoch.
    pub right: usize,
}

/// One rank's record of a training run.
#[derive(Debug)]
pub struct Trained {
    /// The weights at the end.
    pub model: Model,
    /// By epoch.
    pub epochs: Vec<EpochShare>,
    /// Nanoseconds of each step, from handing out the buckets to the last updated weight.
    pub steps: Vec<u64>,
    /// Nanoseconds that this rank's exchange waited for each rank.
    pub waited: Vec<u64>,
    /// The spans of the kept steps.
    pub spans: Vec<Span>,
}

/// Why a training run broke off.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The exchange failed.
    #[error("step {step}: {source}")]
    Exchange {
        /// Counted from 0.
        step: usize,
        /// The exchange's own words.
        source: ExchangeError,
    },
    /// The loss is no number any more.
    #[error("step {step}: the loss is {loss}; training diverged: try another --seed or a larger --batch")]
    Diverged {
        /// Counted from 0.
        step: usize,
        /// What it is.
        loss: f64,
    },
}

/// Trains; `progress` hears the number of each step that begins.
pub fn train<E: GradientExchange>(
    exchange: &mut E,
    data: &Dataset,
    training: &Training,
    progress: &mut dyn FnMut(usize),
) -> Result<Trained, TrainingError> {
    let (rank, ranks) = (exchange.rank(), exchange.ranks());
    let schedule = Schedule {
        training: data.training(),
        batch: training.batch,
        seed: training.seed,
    };
    let my_test = share(&(0..data.testing()), ranks, rank);
    let largest = training.batch.min(data.training()).div_ceil(ranks as usize);
    let mut worker = Worker {
        model: Model::new(training.seed),
        workspace: Workspace::new(largest),
        test_workspace: Workspace::new(if training.test { my_test.len() } else { 0 }),
        images: Array2::zeros((largest, PIXELS)),
        labels: Vec::with_capacity(largest),
        learning_rate: LEARNING_RATE * (training.batch as f32 / LEARNING_RATE_BATCH as f32).min(1.0),
        slow: training.slow,
        spans: Vec::new(),
    };
    let mut record = Record {
        starts: Vec::with_capacity(training.epochs * schedule.steps()),
        epochs: Vec::with_capacity(training.epochs),
        steps: Vec::with_capacity(training.epochs * schedule.steps()),
        waited: vec![0; ranks as usize],
        spans: Vec::new(),
    };
    for epoch in 0..training.epochs {
        let order = schedule.order(epoch);
        let mut figures = EpochShare::default();
        for step_of_epoch in 0..schedule.steps() {
            let step = epoch * schedule.steps() + step_of_epoch;
            progress(step);
            let batch = schedule.step(step_of_epoch);
            let mine = share(&batch, ranks, rank);
            data.gather(&order[mine], &mut worker.images, &mut worker.labels);
            // The mean over ranks of (sum over a share) * ranks / batch is the mean over the batch, for unequal shares too.
            let scale = ranks as f32 / batch.len() as f32;
            let started = now();
            let loss = worker
                .step(exchange, step, scale)
                .map_err(|source| TrainingError::Exchange { step, source })?;
            record.starts.push(started);
            record.steps.push(now() - started);
            if !loss.is_finite() {
                return Err(TrainingError::Diverged { step, loss });
            }
            figures.loss += loss;
            record.keep(&mut worker.spans, training);
            if step.is_multiple_of(STEPS_BETWEEN_READINGS) {
                record.read(exchange, training);
            }
        }
        if training.test {
            let (images, labels) = data.test(my_test.clone());
            figures.right = worker.test_workspace.forward(&worker.model, images, labels).1;
        }
        record.epochs.push(figures);
    }
    let Record {
        epochs,
        steps,
        waited,
        spans,
        ..
    } = record;
    Ok(Trained {
        model: worker.model,
        epochs,
        steps,
        waited,
        spans,
    })
}

struct Record {
    /// When each step began.
    starts: Vec<u64>,
    epochs: Vec<EpochShare>,
    steps: Vec<u64>,
    waited: Vec<u64>,
    spans: Vec<Span>,
}

impl Record {
    /// Keeps what the training thread did, if it was in a step that is to be shown.
    fn keep(&mut self, spans: &mut Vec<Span>, training: &Training) {
        spans.retain(|span| training.kept_steps.contains(&(span.step as usize)));
        self.spans.append(spans);
    }

    /// Reads what the exchange did since the last reading; the clock says in which step that was.
    fn read(&mut self, exchange: &mut impl GradientExchange, training: &Training) {
        let mut spans = Vec::new();
        exchange.drain_spans(&mut spans);
        for mut span in spans {
            // What was before the first step (meeting, an earlier training) is none of its figures.
            let Some(step) = self
                .starts
                .partition_point(|&start| start <= span.end)
                .checked_sub(1)
            else {
                continue;
            };
            span.step = step as u32;
            if let (Activity::Wait, Some(peer)) = (span.activity, span.peer) {
                self.waited[peer as usize] += span.end - span.start;
            }
            if training.kept_steps.contains(&step) {
                self.spans.push(span);
            }
        }
    }
}

struct Worker {
    model: Model,
    workspace: Workspace,
    test_workspace: Workspace,
    images: Array2<f32>,
    labels: Vec<u8>,
    learning_rate: f32,
    slow: Duration,
    spans: Vec<Span>,
}

impl Worker {
    /// One step of training; returns the loss summed over this rank's images.
    fn step(
        &mut self,
        exchange: &mut impl GradientExchange,
        step: usize,
        scale: f32,
    ) -> Result<f64, ExchangeError> {
        let mut clock = Clock {
            spans: &mut self.spans,
            step: step as u32,
            last: now(),
        };
        let samples = self.labels.len();
        let images = self.images.slice(s![..samples, ..]);
        let mut exchanged = exchange.begin()?;
        clock.ends(Activity::Blocked, None);
        let (loss, _) = self.workspace.forward(&self.model, images, &self.labels);
        if !self.slow.is_zero() {
            clock.ends(Activity::Compute, None);
            std::thread::sleep(self.slow);
            clock.ends(Activity::Slowed, None);
        }
        self.workspace.begin_backward(&self.labels, scale);
        for layer in (0..LAYERS).rev() {
            let mut bucket = exchanged.take(layer)?;
            self.workspace
                .layer_gradient(images, layer, bucket.as_mut_slice());
            bucket.ready()?;
            self.workspace.propagate(&self.model, layer, samples);
            clock.ends(Activity::Compute, Some(layer as u32));
        }
        let outcome = exchanged.finish()?;
        clock.ends(Activity::Blocked, None);
        for layer in 0..LAYERS {
            self.model.update(layer, outcome.mean(layer), self.learning_rate);
        }
        clock.ends(Activity::Update, None);
        Ok(loss)
    }
}

struct Clock<'a> {
    spans: &'a mut Vec<Span>,
    step: u32,
    last: u64,
}

impl Clock<'_> {
    /// Says that what went on since the last call was this.
    fn ends(&mut self, activity: Activity, layer: Option<u32>) {
        let end = now();
        self.spans.push(Span {
            activity,
            step: self.step,
            start: self.last,
            end,
            peer: None,
            layer,
        });
        self.last = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::gradients::{Alone, Traffic};
    use crate::demo::workers;
    use sapwood::bootstrap::Job;

    fn training(epochs: usize, batch: usize) -> Training {
        Training {
            epochs,
            batch,
            seed: 1,
            slow: Duration::ZERO,
            kept_steps: 2..4,
            test: true,
        }
    }

    fn bits(trained: &Trained) -> Vec<u32> {
        trained.model.weights().map(f32::to_bits).collect()
    }

    fn in_threads(ranks: u32, plan: &str, training: &Training) -> Vec<(Trained, Traffic)> {
        let data = Dataset::load(None, training.seed).unwrap();
        std::thread::scope(|scope| {
            let threads: Vec<_> = Job::local(ranks)
                .unwrap()
                .into_iter()
                .map(|job| {
                    let data = &data;
                    scope.spawn(move || {
                        let mut exchange = workers::exchange(&job, plan).unwrap().exchange;
                        let trained = train(&mut exchange, data, training, &mut |_| ()).unwrap();
                        (trained, exchange.traffic())
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn one_process_learns_to_read_digits_and_does_so_the_same_way_twice() {
        let data = Dataset::load(None, 1).unwrap();
        let run = || train(&mut Alone::new(), &data, &training(8, 64), &mut |_| ()).unwrap();
        let (first, second) = (run(), run());
        assert_eq!(bits(&first), bits(&second));
        let right = first.epochs.last().unwrap().right;
        assert!(
            right * 100 >= 95 * data.testing(),
            "{right} of {}",
            data.testing()
        );
        assert!(first.epochs[0].loss > 5.0 * first.epochs[7].loss);
        assert_eq!(first.steps.len(), 8 * 23);
        assert!(
            first
                .spans
                .iter()
                .all(|span| (2..4).contains(&span.step) && span.start <= span.end)
        );
    }

    #[test]
    fn ranks_end_alike_and_like_one_process_even_with_unequal_and_empty_shares() {
        let data = Dataset::load(None, 1).unwrap();
        // 1437 = 14 * 100 + 37: the last batch of an epoch is smaller; with batches of 239 it holds 3 images for 4 ranks.
        for (ranks, batch, plan) in [
            (3, 100, "double-binary-tree"),
            (4, 239, "ring"),
            (4, 100, "binomial-tree"),
        ] {
            let training = training(2, batch);
            let workers = in_threads(ranks, plan, &training);
            let alone = train(&mut Alone::new(), &data, &training, &mut |_| ()).unwrap();
            for (worker, traffic) in &workers {
                assert_eq!(bits(worker), bits(&workers[0].0), "{plan}");
                assert_eq!(traffic.copied, 0, "{plan}");
            }
            let exchanged: u64 = workers.iter().map(|(_, traffic)| traffic.exchanged).sum();
            assert!(exchanged > 0);
            let workers: Vec<Trained> = workers.into_iter().map(|(worker, _)| worker).collect();
            let difference = workers[0]
                .model
                .weights()
                .zip(alone.model.weights())
                .map(|(a, b)| (a - b).abs());
            let largest = difference.fold(0.0, f32::max);
            assert!(largest < 1e-5, "{plan}: {largest}");
            let right: usize = workers.iter().map(|worker| worker.epochs[1].right).sum();
            assert!(right.abs_diff(alone.epochs[1].right) <= 1);
        }
    }
}
