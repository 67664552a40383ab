//! Only the first ranks are waited for: all buckets of a step are one gradient of the backup-worker barrier.

use std::sync::Mutex;

use super::ExchangeError;
use super::bucket::{Returned, Slot};
use super::building::Spares;
use super::collective::cut;
use super::exchange::{How, put_back};
use super::state::Names;
use crate::backup::{self, Barrier};
use crate::bootstrap::Rank;
use crate::communicator::Communicator;

#[derive(Debug)]
pub(super) struct Backups {
    barrier: Barrier<f32>,
    /// The buckets in each of the places where the barrier has gradients.
    places: Vec<Vec<Slot>>,
}

impl Backups {
    pub fn new(
        communicator: &Communicator,
        names: &Names,
        state: &Names,
        spares: Spares,
        label: String,
    ) -> Result<Self, ExchangeError> {
        let mut builder = Barrier::<f32>::builder(communicator, names.total())
            .backups(spares.backups)
            .label(label)
            .state(state.total());
        if let Some(history) = spares.history {
            builder = builder.history(history);
        }
        if let Some(suspicion) = spares.suspicion {
            builder = builder.suspicion(suspicion);
        }
        let mut barrier = builder.build()?;
        let slot = |window| Slot {
            starter: None,
            window: Some(window),
        };
        let gradients = barrier.take_gradients().into_iter();
        let places = gradients.map(|gradient| cut(gradient, names).into_iter().map(slot).collect());
        Ok(Self {
            places: places.collect(),
            barrier,
        })
    }

    /// The number of the step that is to be done, from 0.
    pub fn number(&self) -> u64 {
        self.barrier.step() - 1
    }

    /// The buckets of this step.
    pub fn slots(&mut self) -> &mut Vec<Slot> {
        &mut self.places[self.barrier.place()]
    }

    /// Puts back what the backward pass has given back. Says of each bucket whether it was not made ready.
    pub fn take_back(&mut self, returned: &Mutex<Vec<Returned>>) -> Vec<bool> {
        put_back(self.slots(), returned, |_| {})
    }

    pub fn sealed(&mut self) -> bool {
        self.barrier.sealed()
    }

    pub fn finish(&mut self) -> Result<How, ExchangeError> {
        let failed = |error| {
            // Others may still read them.
            let windows = self
                .places
                .iter()
                .flatten()
                .filter_map(|slot| slot.window.as_ref());
            windows.for_each(|window| window.hold());
            error
        };
        let ended = self.barrier.finish().map_err(failed)?;
        Ok(match ended.how {
            backup::How::Member => How::Member,
            backup::How::Late => How::Late,
            backup::How::CaughtUp { .. } => How::CaughtUp { applied: ended.step },
        })
    }

    /// The mean of the last step; empty if that was jumped over.
    pub fn result(&self) -> &[f32] {
        self.barrier.result()
    }

    pub fn contributors(&self) -> &[Rank] {
        self.barrier.members()
    }

    pub fn state(&self) -> &[f32] {
        self.barrier.state()
    }

    pub fn update<R>(&mut self, update: impl FnOnce(&[f32], &mut [f32]) -> R) -> R {
        self.barrier.update(update)
    }
}
