//! The library's exchange as the trainer knows it. Adds nothing to it but names of layers and a reading of its events.

use sapwood::exchange::{Bucket, Exchange, Outcome, State, Step};
use sapwood::observe::{Event, Kind};
use sapwood::plan::lowered::Rank;

use super::gradients::{ExchangeError, GradientBucket, GradientExchange, GradientStep, StepOutcome, Traffic};
use super::members::Members;
use super::model::{LAYERS, Model, layer_size};
use super::spans::{Activity, Span};

/// The buckets' names, first layer to last.
pub const BUCKETS: [&str; LAYERS] = ["layer 1", "layer 2", "layer 3"];

/// The names of the training state: each layer's weights, and its momenta.
pub const STATE: [[&str; 2]; LAYERS] = [
    ["weights 1", "momenta 1"],
    ["weights 2", "momenta 2"],
    ["weights 3", "momenta 3"],
];

/// An exchange between processes with one bucket for each layer.
pub struct Exchanged {
    exchange: Exchange,
    /// Whether weights and momenta are kept where a worker that is far behind can copy them.
    keeps_state: bool,
    /// The newest event that was read; later reads begin after it.
    read_until: u64,
}

impl Exchanged {
    /// Takes an exchange whose buckets are [`BUCKETS`], and whose state is [`STATE`] if it `keeps_state`.
    pub fn new(exchange: Exchange, keeps_state: bool) -> Self {
        Self {
            exchange,
            keeps_state,
            read_until: 0,
        }
    }
}

/// A step, and whether the exchange keeps state.
pub struct ExchangedStep<'a> {
    step: Step<'a>,
    keeps_state: bool,
}

/// A step's outcome, and whether the exchange keeps state.
pub struct ExchangedOutcome<'a> {
    outcome: Outcome<'a>,
    keeps_state: bool,
}

fn write_state(model: &Model, state: &mut State<'_>) {
    for (layer, names) in STATE.into_iter().enumerate() {
        let [weights, momenta] = state.these(names);
        weights.copy_from_slice(model.parameters(layer));
        momenta.copy_from_slice(model.velocity(layer));
    }
}

impl GradientExchange for Exchanged {
    type Step<'a> = ExchangedStep<'a>;

    fn rank(&self) -> Rank {
        self.exchange.communicator().rank()
    }

    fn ranks(&self) -> u32 {
        self.exchange.communicator().size()
    }

    fn part(&self, _: usize) -> Members {
        [self.rank()].into_iter().collect()
    }

    fn keep(&mut self, model: &Model) {
        if self.keeps_state {
            self.exchange
                .set_state(|mut state| write_state(model, &mut state));
        }
    }

    fn restore(&self, model: &mut Model) {
        for (layer, [weights, momenta]) in STATE.into_iter().enumerate() {
            model.replace(layer, self.exchange.state(weights), self.exchange.state(momenta));
        }
    }

    fn begin(&mut self) -> Result<ExchangedStep<'_>, ExchangeError> {
        let keeps_state = self.keeps_state;
        let step = self.exchange.begin()?;
        Ok(ExchangedStep { step, keeps_state })
    }

    fn traffic(&self) -> Traffic {
        let counters = self.exchange.communicator().counters();
        Traffic {
            exchanged: counters.bytes_exchanged,
            copied: counters.bytes_copied,
        }
    }

    fn drain_spans(&mut self, spans: &mut Vec<Span>) {
        if self.keeps_state {
            // Backup workers: no plan runs, so there are no events.
            return;
        }
        let communicator = self.exchange.communicator();
        let conversion = communicator.recorder().clock().conversion();
        let mut events = communicator.events();
        events.retain(|event| event.ticks > self.read_until);
        self.read_until = events.last().map_or(self.read_until, |event| event.ticks);
        // Of two reads of one moment, one conversion: spans within a drain cannot overlap by rounding.
        read(&events, |ticks| conversion.nanoseconds(ticks), spans);
    }
}

/// Turns events into what the exchange did and whom it waited for. What began before the first event is left out.
fn read(events: &[Event], nanoseconds: impl Fn(u64) -> u64, spans: &mut Vec<Span>) {
    let mut layers: Vec<(u32, u32)> = Vec::new();
    let mut waits: Vec<Event> = Vec::new();
    let first = spans.len();
    let mut before = None;
    for event in events {
        let layer = layers
            .iter()
            .rev()
            .find(|(operation, _)| *operation == event.operation)
            .map(|&(_, layer)| layer);
        let peer = Some(event.peer).filter(|&peer| peer != sapwood::observe::NONE);
        let span = |activity, start, layer| Span {
            activity,
            step: 0,
            start: nanoseconds(start),
            end: nanoseconds(event.ticks),
            peer,
            layer,
        };
        match event.kind {
            Kind::Begin => {
                // Layers differ in size, so the size says which one an operation is about.
                let of_size =
                    (0..LAYERS).find(|&layer| (layer_size(layer) * size_of::<f32>()) as u64 == event.bytes);
                layers.extend(of_size.map(|layer| (event.operation, layer as u32)));
            }
            Kind::End => layers.retain(|(operation, _)| *operation != event.operation),
            Kind::WaitBegin => waits.push(*event),
            Kind::WaitEnd => {
                let key = |wait: &Event| (wait.operation, wait.task, wait.chunk, wait.peer);
                if let Some(index) = waits.iter().position(|wait| key(wait) == key(event)) {
                    let begun = waits.swap_remove(index).ticks;
                    spans.push(span(Activity::Wait, begun, layer));
                }
            }
            // Recorded when the chunk is done; it began when the engine had last done something else.
            Kind::Reduce | Kind::Pull => {
                spans.extend(before.map(|begun| span(Activity::Exchange, begun, layer)))
            }
            _ => {}
        }
        before = Some(event.ticks);
    }
    merge_waits(spans, first);
}

/// Several buckets may wait for one rank at the same time: that is one wait, of the bucket that began to wait first.
fn merge_waits(spans: &mut Vec<Span>, first: usize) {
    let mut waits: Vec<Span> = spans[first..]
        .iter()
        .filter(|span| span.activity == Activity::Wait)
        .copied()
        .collect();
    waits.sort_by_key(|wait| (wait.peer, wait.start));
    waits.dedup_by(|next, kept| {
        let one = kept.peer == next.peer && next.start <= kept.end;
        if one {
            kept.end = kept.end.max(next.end);
        }
        one
    });
    let mut index = 0;
    spans.retain(|span| {
        index += 1;
        index <= first || span.activity != Activity::Wait
    });
    spans.append(&mut waits);
}

impl<'a> GradientStep for ExchangedStep<'a> {
    type Bucket = Bucket;
    type Outcome = ExchangedOutcome<'a>;

    fn take(&mut self, layer: usize) -> Result<Bucket, ExchangeError> {
        Ok(self.step.take(BUCKETS[layer])?)
    }

    fn sealed(&mut self) -> bool {
        self.step.sealed()
    }

    fn finish(self) -> Result<ExchangedOutcome<'a>, ExchangeError> {
        Ok(ExchangedOutcome {
            outcome: self.step.finish()?,
            keeps_state: self.keeps_state,
        })
    }
}

impl GradientBucket for Bucket {
    fn as_mut_slice(&mut self) -> &mut [f32] {
        Bucket::as_mut_slice(self)
    }

    fn ready(self) -> Result<(), ExchangeError> {
        Ok(Bucket::ready(self)?)
    }
}

impl StepOutcome for ExchangedOutcome<'_> {
    fn members(&self) -> Members {
        self.outcome.contributors().iter().copied().collect()
    }

    fn caught_up(&self) -> Option<usize> {
        self.outcome.caught_up().map(|step| step as usize)
    }

    fn apply(&mut self, model: &mut Model, learning_rate: f32) {
        let keeps_state = self.keeps_state;
        self.outcome.update(|means, mut state| {
            for (layer, bucket) in BUCKETS.into_iter().enumerate() {
                model.update(layer, means.of(bucket), learning_rate);
            }
            if keeps_state {
                write_state(model, &mut state);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sapwood::observe::NONE;

    #[test]
    fn events_become_spans_with_layer_and_peer() {
        let event = |ticks, kind, operation, peer, bytes| Event {
            ticks,
            kind,
            operation,
            task: 0,
            chunk: 0,
            peer,
            bytes,
        };
        let bytes = |layer| (layer_size(layer) * 4) as u64;
        let events = [
            event(10, Kind::Begin, 7, NONE, bytes(2)),
            event(20, Kind::WaitBegin, 7, 3, 0),
            event(30, Kind::Begin, 6, NONE, bytes(1)),
            event(40, Kind::WaitBegin, 6, 3, 0),
            event(50, Kind::WaitEnd, 7, 3, 0),
            event(60, Kind::Reduce, 7, 3, 64),
            event(70, Kind::WaitEnd, 6, 3, 0),
            event(80, Kind::Pull, 6, 3, 64),
            event(90, Kind::WaitEnd, 5, 1, 0),
        ];
        let mut spans = Vec::new();
        read(&events, |ticks| ticks * 100, &mut spans);
        let short: Vec<_> = spans
            .iter()
            .map(|span| (span.activity, span.start, span.end, span.peer, span.layer))
            .collect();
        assert_eq!(
            short,
            [
                (Activity::Exchange, 5000, 6000, Some(3), Some(2)),
                (Activity::Exchange, 7000, 8000, Some(3), Some(1)),
                (Activity::Wait, 2000, 7000, Some(3), Some(2)),
            ],
            "two waits for one rank at a time are one; an end without a beginning is none"
        );
    }
}
