//! One worker's barrier, whatever its elements are and whatever they lie in: does what the protocol wants done.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::doubting::{Trust, Watched};
use super::ground::{Found, Ground};
use super::memory::SHOWN;
use super::protocol::{Access, Did, Doubts, Members, Seal, Shape, Want, Way, Word, Worker};
use super::tree::Taking;
use super::{BackupError, racing};
use crate::communicator::CommunicatorError;
use crate::engine::Engine;
use crate::engine::reduce::Kernel;
use crate::observe::Clock;

/// Bytes that are copied out of another worker's mapped memory before they are added up: so few that all of a pass stay in
/// the first-level cache.
pub(super) const PIECE: usize = 4 << 10;

/// Sources beside the first that are added up in one pass.
pub(super) const AT_ONCE: usize = 7;

/// What one turn has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is nothing to be done before the caller does something: compute, or apply the result.
    Over,
    Moved,
    Idle,
}

/// How something wanted stands.
pub(super) enum Progress {
    Did(Did),
    /// A part of it.
    Moved,
    /// What it needs is not there yet.
    Waits,
}

pub(super) struct Core<G: Ground> {
    pub ground: G,
    pub engine: Arc<Engine>,
    pub me: u16,
    pub shape: Shape,
    pub way: Way,
    pub worker: Worker,
    /// Bytes of an element.
    pub element: usize,
    pub sum: Kernel,
    pub mean: Kernel,
    /// Whose gradients the newest result is of.
    pub members: Members,
    pub taking: Taking,
    /// The step that the caller computes for, and whether its gradient is complete.
    pub begun: u64,
    pub ready: bool,
    /// The seal and the tickets when they were last looked at.
    looked: (u64, u64),
    pub timeout: Duration,
    pub suspicion: Duration,
    pub attempt: Watched<Seal>,
    pub hole: Watched<(u64, Option<u16>)>,
    pub failure: Option<BackupError>,
    /// Set where somebody measures.
    pub clock: Option<Clock>,
    /// The newest step that this worker itself has sealed while there was a clock, and when.
    pub sealed: (u64, u64),
}

/// What a core is made of.
pub(super) struct Parts {
    pub engine: Arc<Engine>,
    pub shape: Shape,
    pub way: Way,
    pub element: usize,
    pub kernels: (Kernel, Kernel),
    pub timeout: Duration,
    pub suspicion: Duration,
    pub clock: Option<Clock>,
}

impl<G: Ground> Core<G> {
    pub fn new(parts: Parts, ground: G) -> Self {
        let me = parts.engine.rank() as u16;
        let (sum, mean) = parts.kernels;
        let core = Self {
            ground,
            worker: Worker::new(parts.shape, me),
            engine: parts.engine,
            me,
            shape: parts.shape,
            way: parts.way,
            element: parts.element,
            sum,
            mean,
            members: Members::default(),
            taking: Taking::default(),
            begun: 1,
            ready: false,
            looked: (0, 0),
            timeout: parts.timeout,
            suspicion: parts.suspicion,
            attempt: Watched::new(),
            hole: Watched::new(),
            failure: None,
            clock: parts.clock,
            sealed: (0, 0),
        };
        core.show_state();
        core
    }

    /// Does what is wanted next, or a part of it. Waits for nobody else's doing.
    pub fn turn(&mut self) -> Result<Turn, BackupError> {
        match self.worker.want() {
            Want::Compute | Want::Apply { .. } => Ok(Turn::Over),
            Want::Look | Want::Crowded => Ok(self.look_if_changed()),
            want => match self.carry_out(want)? {
                Progress::Did(did) => {
                    self.worker.did(did);
                    // What went wrong may do so because the attempt is no more.
                    Ok(match self.worker.want() == want {
                        true => self.look_if_changed(),
                        false => Turn::Moved,
                    })
                }
                Progress::Moved => Ok(Turn::Moved),
                Progress::Waits => Ok(self.look_if_changed()),
            },
        }
    }

    /// Takes turns as long as something moves.
    pub fn poll(&mut self) -> Result<(), BackupError> {
        while self.turn()? == Turn::Moved {}
        Ok(())
    }

    /// Says that the gradient is complete, if it is still wanted.
    pub fn arrive(&mut self) {
        self.ready |= self.worker.want() == Want::Compute;
        self.worker.arrive();
    }

    /// Whether the step has a result in which the own gradient is not.
    pub fn is_decided(&mut self) -> bool {
        if self.worker.want() == Want::Compute {
            self.look_if_changed();
        }
        matches!(
            self.worker.want(),
            Want::Pull { .. } | Want::Sum { .. } | Want::Apply { .. } | Want::CatchUp { .. }
        )
    }

    /// Looks, if there may be something to be seen that was not seen before. (A slot that is filled late is no reason:
    /// who filled it looks, and whoever is about to sleep does.)
    pub fn look_if_changed(&mut self) -> Turn {
        let now = match self.ground.glance(self.worker.view(), self.worker.step()) {
            Ok(now) => now,
            Err(found) => return self.blind(found),
        };
        if self.looked == now {
            return Turn::Idle;
        }
        self.looked = now;
        self.look(&Trust)
    }

    /// Looks at the step's words.
    pub fn look(&mut self, doubts: &impl Doubts) -> Turn {
        let before = self.worker.want();
        let words = self.ground.words(self.worker.view(), self.worker.step());
        let looked = words.map(|words| self.worker.look(&words, doubts));
        if let Err(found) = looked {
            return self.blind(found);
        }
        match self.worker.want() == before {
            true => Turn::Idle,
            false => {
                self.looked = (0, 0);
                Turn::Moved
            }
        }
    }

    /// The words cannot be seen.
    fn blind(&mut self, found: Found) -> Turn {
        if found != Found::Lost || !self.worker.attentive() {
            return Turn::Idle;
        }
        self.worker.did(Did::Lost);
        self.looked = (0, 0);
        Turn::Moved
    }

    fn carry_out(&mut self, want: Want) -> Result<Progress, BackupError> {
        Ok(match want {
            Want::Word(access) => self.access(access),
            Want::Sum { tag } => Progress::Did(G::sum_up(self, tag)),
            Want::Take { tag, from, child } => self.take(tag, from, child),
            Want::Publish { tag, to, leaf, .. } => Progress::Did(self.publish(tag, to, leaf)),
            Want::Hold { tag, leaf } => Progress::Did(self.hold(tag, leaf)),
            Want::Pull { tag } => self.pull(tag),
            Want::Gather { tag } => self.gather(tag),
            Want::Adopt { tag, from } => self.adopt(tag, from),
            Want::Survey => Progress::Did(self.survey()),
            Want::CatchUp { step } => self.catch_up(step)?,
            Want::Compute | Want::Apply { .. } | Want::Look | Want::Crowded => {
                unreachable!("nothing to be carried out")
            }
            Want::Fence { .. } | Want::Ready { .. } => {
                unreachable!("only where parts are written into a parent's memory")
            }
        })
    }

    fn access(&mut self, access: Access) -> Progress {
        let found = match self.ground.home(self.worker.view(), access) {
            Found::Value(found) => found,
            Found::Later => return Progress::Waits,
            Found::Lost => return Progress::Did(Did::Lost),
        };
        // Whatever changes the seal is waited for by others, who may sleep.
        if let Access::Swap {
            word: Word::Seal(step),
            expected,
            ..
        } = access
            && found == expected
        {
            if let Some(clock) = self.clock.as_ref().filter(|_| self.sealed.0 != step) {
                self.sealed = (step, clock.now());
            }
            self.ground.wake_others();
        }
        Progress::Did(Did::Found(found))
    }

    /// The step's result was handed out: from here on the gradient may be written.
    pub fn applied(&mut self) {
        self.ground.own().words[SHOWN].store(0, Ordering::Relaxed);
        racing::before_writing();
        self.worker.did(Did::Done);
        self.looked = (0, 0);
    }

    /// Refuses work after a failure, and in a forked child.
    pub fn check(&self) -> Result<(), BackupError> {
        if let Some(failure) = &self.failure {
            return Err(BackupError::Poisoned {
                rank: u32::from(self.me),
                reason: failure.to_string(),
            });
        }
        self.check_fork()
    }

    pub fn check_fork(&self) -> Result<(), BackupError> {
        match self.engine.is_forked() {
            true => self
                .engine
                .check()
                .map_err(|error| CommunicatorError::from(error).into()),
            false => Ok(()),
        }
    }
}
