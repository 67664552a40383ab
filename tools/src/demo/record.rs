//! One rank's record of a training run, kept step by step. Decides nothing.

use serde::{Deserialize, Serialize};

use super::gradients::GradientExchange;
use super::members::Members;
use super::model::Model;
use super::spans::{Activity, Span};
use super::trainer::{EpochShare, Trained, Training};

/// Reading the exchange's events costs about a millisecond, so that is not done in each step.
const STEPS_BETWEEN_READINGS: usize = 8;
/// How far behind the others a worker may be without having jumped, at the most: more than the exchange keeps.
const LATE_STEPS: usize = 16;

/// A step as one rank has seen it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct StepRecord {
    /// Which, from 0.
    pub step: u32,
    /// The last step that this rank jumped over from here; the step itself, if it has its mean.
    pub until: u32,
    /// When it began: nanoseconds of the clock that all processes of a host share.
    pub begun: u64,
    /// Nanoseconds until the last weight was updated.
    pub took: u64,
    /// Nanoseconds until the own gradient was ready; none if it was not wanted any more.
    pub ready: Option<u64>,
    /// Whose gradients the mean is of; nobody's if the step was jumped over.
    pub members: Members,
}

/// What is known so far.
pub struct Record<'a> {
    training: &'a Training,
    epochs: Vec<EpochShare>,
    steps: Vec<StepRecord>,
    waited: Vec<u64>,
    spans: Vec<Span>,
    last_read: usize,
    last_step: usize,
}

impl<'a> Record<'a> {
    /// Nothing yet.
    pub fn new(training: &'a Training, steps_of_epoch: usize, ranks: u32) -> Self {
        let steps = training.epochs * steps_of_epoch;
        Self {
            training,
            epochs: vec![EpochShare::default(); training.epochs],
            steps: Vec::with_capacity(steps),
            waited: vec![0; ranks as usize],
            spans: Vec::new(),
            last_read: 0,
            last_step: steps.saturating_sub(1),
        }
    }

    /// Adds a step, and what the training thread did in it if that is to be shown.
    pub fn add(&mut self, step: StepRecord, spans: &mut Vec<Span>) {
        // The others may have been a few steps further meanwhile: what is shown is a time, in which this is what it did.
        let late = match step.ready {
            Some(_) if step.members.len() as usize == self.waited.len() => 0,
            _ => LATE_STEPS,
        };
        let kept = &self.training.kept_steps;
        if (step.step as usize) < kept.end && step.until as usize + late >= kept.start {
            self.spans.append(spans);
        }
        spans.clear();
        self.steps.push(step);
    }

    /// Adds images whose gradients were in a step's mean.
    pub fn used(&mut self, epoch: usize, loss: f64, images: usize) {
        self.epochs[epoch].loss += loss;
        self.epochs[epoch].images += images;
    }

    /// Adds the result of an epoch's test.
    pub fn tested(&mut self, epoch: usize, right: usize) {
        self.epochs[epoch].right = Some(right);
    }

    /// Reads now and then, and at the end, what the exchange did since the last reading; the clock says in which step.
    pub fn read(&mut self, exchange: &mut impl GradientExchange, step: usize) {
        if step < self.last_read + STEPS_BETWEEN_READINGS && step < self.last_step {
            return;
        }
        self.last_read = step;
        let mut spans = Vec::new();
        exchange.drain_spans(&mut spans);
        for mut span in spans {
            // What was before the first step (meeting, an earlier training) is none of its figures.
            let before = self.steps.partition_point(|step| step.begun <= span.end);
            let Some(index) = before.checked_sub(1) else {
                continue;
            };
            span.step = self.steps[index].step;
            if let (Activity::Wait, Some(peer)) = (span.activity, span.peer) {
                self.waited[peer as usize] += span.end - span.start;
            }
            if self.training.kept_steps.contains(&(span.step as usize)) {
                self.spans.push(span);
            }
        }
    }

    /// The whole, with the weights that the run has ended with.
    pub fn trained(self, model: Model) -> Trained {
        Trained {
            model,
            epochs: self.epochs,
            steps: self.steps,
            waited: self.waited,
            spans: self.spans,
        }
    }
}
