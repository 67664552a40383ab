//! What a training loop holds of the barrier: the gradient that it fills, the result, and the state to catch up with.

use super::core::Core;
use super::ground::Ground;
use super::mapped::Mapped;
use super::protocol::{Tag, Way};
use super::remote::Remote;
use super::{BackupError, Builder};
use crate::communicator::{Communicator, Keepsake, Window};
use crate::memory::Element;

/// How a step has ended for this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Its gradient is in the result.
    Member,
    /// It has the result, in which its gradient is not.
    Late,
    /// It was further behind than results are kept: its training state is another worker's now, and there is no result. (Or it
    /// was told that the step is decided, and all who knew by what have died: its state is as it was, and the step begins again.)
    CaughtUp {
        /// The step that it was in.
        from: u64,
    },
}

/// A step that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The step whose result has been applied with this; the first is 1.
    pub step: u64,
    /// How.
    pub how: How,
}

/// What the caller may touch.
#[derive(Debug)]
pub(super) struct Held<T: Element> {
    /// One for each place in which a gradient may be; none while an exchange has it. The last may be the spare one.
    pub gradients: Vec<Option<Window<T>>>,
    pub state: Window<T>,
}

/// A core, by what the workers' memory lies in.
#[allow(clippy::large_enum_variant, reason = "there is one for each barrier")]
pub(super) enum Driver {
    Mapped(Core<Mapped>),
    Remote(Core<Remote>),
}

/// The same on either.
macro_rules! either {
    ($driver:expr, $core:ident => $call:expr) => {
        match $driver {
            Driver::Mapped($core) => $call,
            Driver::Remote($core) => $call,
        }
    };
}

/// A vector that N of M = N + b workers average, step by step: the first N to arrive.
///
/// Workers are the ranks of a communicator that see each other's memory, or whose devices carry out atomic operations. Each fills [`Barrier::gradient`] and calls
/// [`Barrier::finish`]. The mean of the first N gradients is the result for all M, in the same bits; what comes later is dropped.
pub struct Barrier<T: Element> {
    // Refers to the windows' memory, which it keeps mapped by itself.
    pub(super) driver: Driver,
    held: Held<T>,
    /// The result of the step that ended last, unless that was jumped over.
    result: Option<Tag>,
    /// Its members.
    members: Vec<u32>,
    count: usize,
    /// For those who come back.
    pub(super) kept: Option<Keepsake>,
}

impl<T: Element> std::fmt::Debug for Barrier<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Barrier")
            .field("rank", &either!(&self.driver, core => core.me))
            .field("shape", &either!(&self.driver, core => core.shape))
            .field("step", &self.step())
            .finish_non_exhaustive()
    }
}

impl<T: Element> Barrier<T> {
    /// Settings to make one with, for gradients of `count` elements.
    pub fn builder(communicator: &Communicator, count: usize) -> Builder<'_> {
        Builder::new(communicator, count)
    }

    pub(super) fn new(driver: Driver, held: Held<T>, count: usize) -> Self {
        let workers = either!(&driver, core => core.shape.workers());
        Self {
            driver,
            held,
            result: None,
            members: Vec::with_capacity(workers as usize),
            count,
            kept: None,
        }
    }

    /// The step whose gradient is computed now; the first is 1.
    pub fn step(&self) -> u64 {
        either!(&self.driver, core => core.begun)
    }

    /// M: how many workers there are.
    pub fn workers(&self) -> u32 {
        either!(&self.driver, core => core.shape.workers()).into()
    }

    /// N: how many gradients a result is the mean of.
    pub fn needed(&self) -> u32 {
        either!(&self.driver, core => core.shape.members()).into()
    }

    /// How the sum is made.
    pub fn way(&self) -> Way {
        either!(&self.driver, core => core.way)
    }

    /// The workers whose memory this one has reached over a queue pair, itself included, ascending: pairs are made when they are
    /// first needed, and kept. None where memory is mapped.
    pub fn connections(&self) -> Vec<u32> {
        match &self.driver {
            Driver::Mapped(_) => Vec::new(),
            Driver::Remote(core) => core.ground.lines.connected().map(u32::from).collect(),
        }
    }

    /// The gradient of this step, to be filled: what lies there is of an earlier one.
    ///
    /// # Panics
    /// If an earlier step has failed: others may still read what is there.
    pub fn gradient(&mut self) -> &mut [T] {
        either!(&mut self.driver, core => core.reopen());
        let place = self.place();
        let gradient = self.held.gradients[place].as_mut();
        gradient.expect("given away only by an exchange, which does not call this")
    }

    /// For the exchange, which cuts them up: the places for gradients. [`Barrier::gradient`] is not called from then on.
    pub(crate) fn take_gradients(&mut self) -> Vec<Window<T>> {
        self.held.gradients.iter_mut().filter_map(Option::take).collect()
    }

    /// In which of the places for gradients the one of this step is.
    pub(crate) fn place(&self) -> usize {
        either!(&self.driver, core => core.place)
    }

    /// Whether the step is decided, so that the gradient which is being computed will not be in it: whoever sees this may
    /// stop computing and call [`Barrier::finish`]. Waits for nobody. Once said it is said until then; after [`Barrier::arrive`] it
    /// is not said any more.
    ///
    /// Where memory goes with its owner and the one has died that everybody's words lay with, it also does its part in finding
    /// out what to continue from: it reads a word of each worker, and copies a result if it must. Who has come back waits for
    /// workers that have state, so that one which does something else for long (evaluate, write a checkpoint) calls this now and
    /// then.
    pub fn sealed(&mut self) -> bool {
        either!(&mut self.driver, core => {
            core.reopen();
            core.is_decided()
        })
    }

    /// Says that the gradient is complete (unless the step is decided already), and waits for the result.
    ///
    /// # Errors
    /// More than b workers are missing at the deadline (the communicator's timeout), or dead; a member that stopped between
    /// its arrival and the end of the reduction, with nobody to take its place; a worker far behind without state to
    /// catch up with. Whatever failed, the barrier is over for this worker, and says the same from then on.
    pub fn finish(&mut self) -> Result<Ended, BackupError> {
        let driven = either!(&mut self.driver, core => {
            core.come().and_then(|()| {
                let looks = core.ground.patience().spins;
                Ground::go_straight(core, looks);
                match core.worker.applies() {
                    Some(_) if !core.caught => Ok(()),
                    _ => core.drive(),
                }
            })
        });
        driven.map_err(|error| self.failed(error))?;
        Ok(self.conclude())
    }

    /// Says that the gradient is complete, without waiting: it must not be changed until [`Barrier::finish`] has returned.
    /// (Which says so itself where this was not called.) Nothing happens where the step is decided already.
    ///
    /// # Errors
    /// An earlier step failed.
    pub fn arrive(&mut self) -> Result<(), BackupError> {
        let arrived = either!(&mut self.driver, core => {
            core.come().and_then(|()| {
                Ground::go_straight(core, 1);
                core.poll()
            })
        });
        arrived.map_err(|error| self.failed(error))
    }

    fn failed(&mut self, error: BackupError) -> BackupError {
        // Others may still read what this worker has shown.
        self.held.gradients.iter().flatten().for_each(Window::hold);
        either!(&mut self.driver, core => core.failure = Some(error.clone()));
        error
    }

    /// Nothing is left to be done in this step but to hand its result out.
    pub(super) fn conclude(&mut self) -> Ended {
        self.members.clear();
        either!(&self.driver, core => core.engine.caller().counters.operation());
        either!(&mut self.driver, core => {
            let from = core.begun;
            core.ready = false;
            let caught = std::mem::take(&mut core.caught);
            // After a jump it is the next step's.
            let Some(tag) = core.worker.applies().filter(|_| !caught) else {
                self.result = None;
                core.begin();
                return Ended {
                    step: core.worker.applied(),
                    how: How::CaughtUp { from },
                };
            };
            self.result = Some(tag);
            self.members.extend(core.members.iter().map(u32::from));
            core.applied(tag);
            core.begin();
            let how = match core.members.contains(core.me) {
                true => How::Member,
                false => How::Late,
            };
            Ended {
                step: tag.step(),
                how,
            }
        })
    }

    /// The mean of the members' gradients, until the next step ends. Empty before the first, and after a step that ended
    /// with [`How::CaughtUp`].
    pub fn result(&self) -> &[T] {
        self.result.map_or(&[], |tag| self.result_of(tag))
    }

    fn result_of(&self, tag: Tag) -> &[T] {
        let result = either!(&self.driver, core => core.ground.own().at(core.ground.places().result(tag)));
        // SAFETY: that many elements, initialised, which nobody writes before this worker's next step ends, for which
        // `finish` borrows `self` mutably. Others only read them.
        unsafe { std::slice::from_raw_parts(result.cast(), self.count) }
    }

    /// Whose gradients the result is of, ascending.
    pub fn members(&self) -> &[u32] {
        &self.members
    }

    /// When this worker sealed the step that has ended, in ticks of the [clock](Builder::clock) that it was given: one of
    /// the workers did.
    pub fn sealed_at(&self) -> Option<u64> {
        either!(&self.driver, core => {
            let (step, ticks) = core.sealed;
            (core.clock.is_some() && step == core.worker.applied()).then_some(ticks)
        })
    }

    /// The training state.
    pub fn state(&self) -> &[T] {
        &self.held.state
    }

    /// Lets `update` change the training state with the result: once after each step, before the next [`Barrier::finish`].
    /// While it does, no other worker takes the state for whole. (To fill the state at first, the same: with no result.)
    pub fn update<R>(&mut self, update: impl FnOnce(&[T], &mut [T]) -> R) -> R {
        either!(&mut self.driver, core => {
            core.reopen();
            core.hide_state();
        });
        let result = match self.result.map(|tag| std::ptr::from_ref(self.result_of(tag))) {
            // SAFETY: as in `result_of`; the state, which is borrowed beside it, is apart from it.
            Some(result) => unsafe { &*result },
            None => &[],
        };
        let answer = update(result, &mut self.held.state);
        // Before the first step there may be more to be filled in: it is whole when the first gradient is.
        if either!(&self.driver, core => core.worker.applied()) > 0 {
            either!(&self.driver, core => core.show_state());
        }
        answer
    }
}

impl<T: Element> Drop for Barrier<T> {
    fn drop(&mut self) {
        // A forked child leaves nothing; and who panics is not to be waited for.
        let engine = either!(&self.driver, core => core.engine.is_forked());
        if !engine && !std::thread::panicking() {
            either!(&mut self.driver, core => core.leave());
        }
    }
}
