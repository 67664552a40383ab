//! The training loop: what every worker runs, and what the single process runs that they are compared with.
//!
//! What a step computes depends on its number and on whose images are computed, never on what this process did before:
//! a worker may jump over steps.

use std::ops::Range;
use std::time::Duration;

use ndarray::{Array2, s};
use serde::{Deserialize, Serialize};

use super::dataset::{Dataset, PIXELS};
use super::gradients::{ExchangeError, GradientBucket, GradientExchange, GradientStep, StepOutcome};
use super::members::Members;
use super::model::{LAYERS, Model, Workspace};
use super::record::{Record, StepRecord};
use super::schedule::{Schedule, parts, share};
use super::spans::{Activity, Span, now};

const LEARNING_RATE: f32 = 0.1;
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
    /// How long this rank sleeps in each step, in equal parts before each layer of the backward pass.
    pub slow: Duration,
    /// The steps whose spans are kept.
    pub kept_steps: Range<usize>,
    /// What each epoch ends with.
    pub test: Test,
}

/// Which test images are classified at the end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// None.
    Nothing,
    /// This rank's share: where every rank sees every step.
    Share,
    /// All.
    Whole,
}

/// One rank's part of an epoch's figures.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct EpochShare {
    /// Cross-entropy summed over the rank's training images whose gradients were used.
    pub loss: f64,
    /// How many images these were.
    pub images: usize,
    /// How many of the rank's test images were classified rightly at the end of the epoch; none if the rank jumped over it.
    pub right: Option<usize>,
}

/// One rank's record of a training run.
#[derive(Debug)]
pub struct Trained {
    /// The weights at the end.
    pub model: Model,
    /// By epoch.
    pub epochs: Vec<EpochShare>,
    /// The steps that this rank took part in, or jumped from.
    pub steps: Vec<StepRecord>,
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
    let tested = match training.test {
        Test::Nothing => 0..0,
        Test::Share => share(&(0..data.testing()), ranks, rank),
        Test::Whole => 0..data.testing(),
    };
    let mut worker = Worker::new(training, data, tested.len());
    let mut record = Record::new(training, schedule.steps(), ranks);
    let steps = training.epochs * schedule.steps();
    let (mut order, mut ordered) = (Vec::new(), None);
    let mut step = 0;
    exchange.keep(&worker.model);
    while step < steps {
        progress(step);
        let epoch = step / schedule.steps();
        if ordered != Some(epoch) {
            (order, ordered) = (schedule.order(epoch), Some(epoch));
        }
        let batch = schedule.step(step % schedule.steps());
        let part = exchange.part(step);
        let mine: Vec<usize> = parts(&batch, ranks, part)
            .map(|position| order[position])
            .collect();
        data.gather(&mine, &mut worker.images, &mut worker.labels);
        // Of the mean over the members of (sum over a share) * ranks / batch, each image's part is the same, for unequal
        // shares too; and it is 1 / batch where all are members.
        let scale = ranks as f32 / (part.len() as usize * batch.len()) as f32;
        let begun = now();
        let done = worker
            .step(exchange, step, scale)
            .map_err(|source| TrainingError::Exchange { step, source })?;
        let until = done.caught_up.unwrap_or(step);
        record.add(
            StepRecord {
                step: step as u32,
                until: until as u32,
                begun,
                took: now() - begun,
                ready: done.ready,
                members: done.members,
            },
            &mut worker.spans,
        );
        if !done.loss.is_finite() {
            return Err(TrainingError::Diverged {
                step,
                loss: done.loss,
            });
        }
        if done.caught_up.is_some() {
            exchange.restore(&mut worker.model);
        } else {
            let used = part.iter().all(|rank| done.members.contains(rank));
            if used {
                record.used(epoch, done.loss, mine.len());
            }
            let ends_epoch = (step + 1).is_multiple_of(schedule.steps());
            if ends_epoch && training.test != Test::Nothing {
                let (images, labels) = data.test(tested.clone());
                let (_, right) = worker.test_workspace.forward(&worker.model, images, labels);
                record.tested(epoch, right);
            }
        }
        record.read(exchange, until);
        step = until + 1;
    }
    Ok(record.trained(worker.model))
}

struct Worker {
    model: Model,
    workspace: Workspace,
    test_workspace: Workspace,
    images: Array2<f32>,
    labels: Vec<u8>,
    learning_rate: f32,
    /// How long it sleeps before each layer.
    slow: Duration,
    spans: Vec<Span>,
}

/// What has become of a step.
struct Done {
    /// Summed over the images.
    loss: f64,
    /// How long after the step's begin the gradient was ready; never, if it was not wanted any more.
    ready: Option<u64>,
    members: Members,
    caught_up: Option<usize>,
}

impl Worker {
    fn new(training: &Training, data: &Dataset, tested: usize) -> Self {
        let largest = training.batch.min(data.training());
        Self {
            model: Model::new(training.seed),
            workspace: Workspace::new(largest),
            test_workspace: Workspace::new(tested),
            images: Array2::zeros((largest, PIXELS)),
            labels: Vec::with_capacity(largest),
            learning_rate: LEARNING_RATE * (training.batch as f32 / LEARNING_RATE_BATCH as f32).min(1.0),
            slow: training.slow / LAYERS as u32,
            spans: Vec::new(),
        }
    }

    /// One step of training.
    fn step(
        &mut self,
        exchange: &mut impl GradientExchange,
        step: usize,
        scale: f32,
    ) -> Result<Done, ExchangeError> {
        let begun = now();
        let mut clock = Clock {
            spans: &mut self.spans,
            step: step as u32,
            last: begun,
        };
        let samples = self.labels.len();
        let images = self.images.slice(s![..samples, ..]);
        let mut exchanged = exchange.begin()?;
        clock.ends(Activity::Blocked, None);
        let (loss, _) = self.workspace.forward(&self.model, images, &self.labels);
        self.workspace.begin_backward(&self.labels, scale);
        clock.ends(Activity::Compute, None);
        let mut wanted = true;
        for layer in (0..LAYERS).rev() {
            wanted = !exchanged.sealed();
            if !wanted {
                break;
            }
            if !self.slow.is_zero() {
                std::thread::sleep(self.slow);
                clock.ends(Activity::Slowed, None);
            }
            let mut bucket = exchanged.take(layer)?;
            self.workspace
                .layer_gradient(images, layer, bucket.as_mut_slice());
            bucket.ready()?;
            self.workspace.propagate(&self.model, layer, samples);
            clock.ends(Activity::Compute, Some(layer as u32));
        }
        let ready = wanted.then(|| clock.last - begun);
        let mut outcome = exchanged.finish()?;
        clock.ends(Activity::Blocked, None);
        let (members, caught_up) = (outcome.members(), outcome.caught_up());
        if caught_up.is_none() {
            outcome.apply(&mut self.model, self.learning_rate);
        }
        clock.ends(Activity::Update, None);
        Ok(Done {
            loss,
            ready,
            members,
            caught_up,
        })
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
            test: Test::Share,
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
                        let mut exchange = workers::exchanges(&job, plan, 0).unwrap().exchange;
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
        let right = first.epochs.last().unwrap().right.unwrap();
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
            let right: usize = workers.iter().filter_map(|worker| worker.epochs[1].right).sum();
            assert!(right.abs_diff(alone.epochs[1].right.unwrap()) <= 1);
        }
    }
}
