//! What is the same whether all ranks are waited for or only the first: buckets by name, steps, state.

use std::sync::{Arc, Mutex};

use super::backups::Backups;
use super::bucket::{Bucket, Left, Returned, Slot};
use super::collective::Collective;
use super::state::{Averaged, Means, Names, State};
use super::{Builder, ExchangeError, Participation, Step};
use crate::bootstrap::Rank;
use crate::communicator::Communicator;

/// How gradients are averaged.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one for each exchange")]
pub(super) enum Way {
    /// Over all ranks, each bucket by an all-reduce of its own.
    Collective(Collective),
    /// Over the first ranks to be ready, all buckets at once.
    Backups(Backups),
}

/// How a step has ended for this rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Member,
    Late,
    CaughtUp { applied: u64 },
}

/// Gradients that all ranks average, step by step.
#[derive(Debug)]
pub struct Exchange {
    // Dropped first: it drives the communicator's engine.
    pub(super) way: Way,
    pub(super) names: Names,
    pub(super) state: Names,
    pub(super) returned: Arc<Mutex<Vec<Returned>>>,
    pub(super) participation: Participation,
    pub(super) communicator: Communicator,
}

impl Exchange {
    /// Settings to make one with. The exchange takes the communicator over.
    pub fn builder(communicator: Communicator) -> Builder {
        Builder::new(communicator)
    }

    /// The communicator, for barriers, broadcasts and figures between steps.
    pub fn communicator(&self) -> &Communicator {
        &self.communicator
    }

    /// The number of the step that is to be done next, from 0. (It may be a later one than was done last: see
    /// [`Outcome::caught_up`](super::Outcome::caught_up) and [`Communicator::has_returned`].)
    pub fn next_step(&self) -> u64 {
        match &self.way {
            Way::Collective(way) => way.number(),
            Way::Backups(way) => way.number(),
        }
    }

    /// Whether exchanges move on while the loop computes.
    pub fn has_progress_thread(&self) -> bool {
        matches!(&self.way, Way::Collective(way) if way.has_progress_thread())
    }

    /// Begins the next step: every rank does, and takes and readies every bucket once in it.
    ///
    /// # Errors
    /// An earlier step failed, or was not finished: then the exchange is over, on every rank. (With backup workers, where
    /// nobody waits for this rank, an unfinished step is simply begun again, once its buckets are back.)
    pub fn begin(&mut self) -> Result<Step<'_>, ExchangeError> {
        let (number, first) = match &mut self.way {
            Way::Collective(way) => way.begin(&self.communicator, self.names.len())?,
            Way::Backups(way) => {
                way.take_back(&self.returned);
                (way.number(), 0)
            }
        };
        Ok(Step::new(self, number, first))
    }

    /// A part of the training state.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn state(&self, name: &str) -> &[f32] {
        let index = self.state.index(name);
        let range = self
            .state
            .range(index.unwrap_or_else(|| panic!("there is no state {name:?}")));
        match &self.way {
            Way::Collective(way) => &way.state[range],
            Way::Backups(way) => &way.state()[range],
        }
    }

    /// Lets `set` fill the training state before the first step.
    pub fn set_state<R>(&mut self, set: impl FnOnce(State<'_>) -> R) -> R {
        self.update(|_, state| set(state))
    }

    /// How often each rank's gradient was in the mean so far.
    pub fn participation(&self) -> &Participation {
        &self.participation
    }

    pub(super) fn take(&mut self, name: &str, first: u64) -> Result<Bucket, ExchangeError> {
        let wrong = |what| ExchangeError::Bucket {
            name: name.to_owned(),
            what,
        };
        let index = self.names.index(name).ok_or_else(|| wrong("there is none"))?;
        let slots = match &mut self.way {
            Way::Collective(way) => &mut way.slots,
            Way::Backups(way) => way.slots(),
        };
        let slot = &mut slots[index];
        let window = slot.window.take();
        Ok(Bucket {
            index,
            sequence: first + index as u64,
            starter: slot.starter.clone(),
            window: Some(window.ok_or_else(|| wrong("it was taken in this step already"))?),
            returned: self.returned.clone(),
        })
    }

    pub(super) fn sealed(&mut self) -> bool {
        match &mut self.way {
            Way::Collective(_) => false,
            Way::Backups(way) => way.sealed(),
        }
    }

    pub(super) fn finish(&mut self, number: u64) -> Result<How, ExchangeError> {
        let not_ready = |names: String| ExchangeError::NotReady {
            rank: self.communicator.rank(),
            step: number,
            names,
        };
        let how = match &mut self.way {
            Way::Collective(way) => {
                let unready = way.finish(&self.communicator, &self.returned)?;
                if unready.contains(&true) {
                    self.communicator.abort_handle().abort();
                    return Err(not_ready(listed(&self.names, &unready)));
                }
                How::Member
            }
            Way::Backups(way) => {
                let unready = way.take_back(&self.returned);
                let missing = way.slots().iter().any(|slot| slot.window.is_none());
                if missing || unready.contains(&true) && !way.sealed() {
                    return Err(not_ready(listed(&self.names, &unready)));
                }
                way.finish()?
            }
        };
        match how {
            How::CaughtUp { applied } => self.participation.jumped_over(applied - number),
            How::Member | How::Late => {
                let contributors = match &self.way {
                    Way::Collective(way) => &way.contributors,
                    Way::Backups(way) => way.contributors(),
                };
                self.participation.saw(contributors);
            }
        }
        Ok(how)
    }

    pub(super) fn give_up(&mut self) {
        match &self.way {
            Way::Collective(_) => self.communicator.abort_handle().abort(),
            Way::Backups(_) => {}
        }
    }

    pub(super) fn means(&self) -> Means<'_> {
        let buckets = match &self.way {
            Way::Collective(way) => Averaged::Apart(&way.slots),
            Way::Backups(way) => Averaged::Together(way.result()),
        };
        Means {
            names: &self.names,
            buckets,
        }
    }

    pub(super) fn contributors(&self) -> &[Rank] {
        match &self.way {
            Way::Collective(way) => &way.contributors,
            Way::Backups(way) => way.contributors(),
        }
    }

    pub(super) fn update<R>(&mut self, update: impl FnOnce(Means<'_>, State<'_>) -> R) -> R {
        let (names, state) = (&self.names, &self.state);
        match &mut self.way {
            Way::Collective(way) => {
                let buckets = Averaged::Apart(&way.slots);
                let whole = &mut way.state;
                update(Means { names, buckets }, State { names: state, whole })
            }
            Way::Backups(way) => way.update(|result, whole| {
                let buckets = Averaged::Together(result);
                update(Means { names, buckets }, State { names: state, whole })
            }),
        }
    }
}

/// The names of the buckets for which it says so.
fn listed(names: &Names, which: &[bool]) -> String {
    let named = (0..).zip(which).filter(|(_, which)| **which);
    let named = named.map(|(index, _)| names.name(index));
    named.collect::<Vec<_>>().join(", ")
}

/// Puts buckets back into their places; says of each whether it is missing, or was dropped before it was ready.
pub(super) fn put_back(
    slots: &mut [Slot],
    returned: &Mutex<Vec<Returned>>,
    mut each: impl FnMut(&Returned),
) -> Vec<bool> {
    let mut unready = vec![true; slots.len()];
    let mut returned = returned.lock().expect("nothing panics with it in hand");
    for bucket in returned.drain(..) {
        each(&bucket);
        unready[bucket.index] = matches!(bucket.left, Left::Unready);
        slots[bucket.index].window = Some(bucket.window);
    }
    unready
}
