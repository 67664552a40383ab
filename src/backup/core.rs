//! One worker's barrier, whatever its elements are: does what the protocol wants done, in the memory of one host.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::doubting::{Trust, Watched};
use super::home::{self, Entry};
use super::memory::Memory;
use super::protocol::{Access, Did, Doubts, Members, Seal, Shape, Tag, Want, Way, Word, Worker};
use super::tree::Taking;
use super::{BackupError, racing};
use crate::communicator::CommunicatorError;
use crate::engine::reduce::Kernel;
use crate::engine::{Engine, Group};
use crate::memory::Buffer;

/// Bytes that are copied out of another worker's memory before they are added up: so few that all of a pass stay in the
/// first-level cache.
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

pub(super) struct Core {
    pub engine: Arc<Engine>,
    pub me: u16,
    pub shape: Shape,
    pub way: Way,
    pub worker: Worker,
    pub memory: Memory,
    /// Bytes of an element.
    pub element: usize,
    pub sum: Kernel,
    pub mean: Kernel,
    pub scratch: Buffer<u64>,
    /// Whose gradients the newest result is of.
    pub members: Members,
    pub taking: Taking,
    /// The seal and the tickets when they were last looked at.
    looked: (u64, u64),
    pub timeout: Duration,
    pub suspicion: Duration,
    pub attempt: Watched<Seal>,
    pub hole: Watched<(u64, Option<u16>)>,
    pub failure: Option<BackupError>,
}

/// What a core is made of.
pub(super) struct Parts {
    pub engine: Arc<Engine>,
    pub shape: Shape,
    pub way: Way,
    pub memory: Memory,
    pub element: usize,
    pub kernels: (Kernel, Kernel),
    pub scratch: Buffer<u64>,
    pub timeout: Duration,
    pub suspicion: Duration,
}

impl Core {
    /// Bytes of scratch memory.
    pub const SCRATCH: usize = AT_ONCE * PIECE;

    pub fn new(parts: Parts) -> Self {
        let me = parts.engine.rank() as u16;
        let (sum, mean) = parts.kernels;
        let core = Self {
            worker: Worker::new(parts.shape, me),
            engine: parts.engine,
            me,
            shape: parts.shape,
            way: parts.way,
            memory: parts.memory,
            element: parts.element,
            sum,
            mean,
            scratch: parts.scratch,
            members: Members::default(),
            taking: Taking::default(),
            looked: (0, 0),
            timeout: parts.timeout,
            suspicion: parts.suspicion,
            attempt: Watched::new(),
            hole: Watched::new(),
            failure: None,
        };
        core.show_state();
        core
    }

    pub fn group(&self) -> &Group {
        match &*self.engine {
            Engine::Boards(core) => core.group(),
            Engine::Messages(_) => unreachable!("refused when the barrier was made"),
        }
    }

    /// Scratch memory: [`AT_ONCE`] pieces.
    pub fn scratch(&mut self) -> *mut u8 {
        self.scratch.as_mut_ptr().cast()
    }

    /// Does what is wanted next, or a part of it. Never blocks.
    pub fn turn(&mut self) -> Result<Turn, BackupError> {
        match self.worker.want() {
            Want::Compute | Want::Apply { .. } => Ok(Turn::Over),
            Want::Look | Want::Crowded => Ok(self.look_if_changed()),
            want => match self.carry_out(want)? {
                Progress::Did(did) => {
                    self.worker.did(did);
                    Ok(Turn::Moved)
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

    /// Looks, if there may be something to be seen that was not seen before. (A slot that is filled late is no reason:
    /// who filled it looks, and whoever is about to sleep does.)
    pub fn look_if_changed(&mut self) -> Turn {
        let step = self.worker.step();
        let now = [Word::Seal(step), Word::Tickets(step)]
            .map(|word| self.memory.home(word).load(Ordering::Acquire));
        if self.looked == (now[0], now[1]) {
            return Turn::Idle;
        }
        self.looked = (now[0], now[1]);
        self.look(&Trust)
    }

    /// Looks at the step's words.
    pub fn look(&mut self, doubts: &impl Doubts) -> Turn {
        let entry = Entry {
            memory: &self.memory,
            step: self.worker.step(),
        };
        let before = self.worker.want();
        self.worker.look(&entry, doubts);
        match self.worker.want() == before {
            true => Turn::Idle,
            false => {
                self.looked = (0, 0);
                Turn::Moved
            }
        }
    }

    fn carry_out(&mut self, want: Want) -> Result<Progress, BackupError> {
        Ok(match want {
            Want::Word(access) => Progress::Did(Did::Found(self.access(access))),
            Want::Sum { tag } => Progress::Did(self.sum_up(tag)),
            Want::Take { tag, from, child } => self.take(tag, from, child),
            Want::Publish { tag, to, leaf, .. } => Progress::Did(self.publish(tag, to, leaf)),
            Want::Hold { tag, leaf } => Progress::Did(self.hold(tag, leaf)),
            Want::Pull { tag } => self.pull(tag),
            Want::CatchUp { step } => self.catch_up(step)?,
            Want::Compute | Want::Apply { .. } | Want::Look | Want::Crowded => {
                unreachable!("nothing to be carried out")
            }
            Want::Fence { .. }
            | Want::Ready { .. }
            | Want::Gather { .. }
            | Want::Survey
            | Want::Adopt { .. } => unreachable!("only where workers reach each other by messages"),
        })
    }

    fn access(&self, access: Access) -> u64 {
        let found = home::access(&self.memory, access);
        // Whatever changes the seal is waited for by others, who may sleep.
        if let Access::Swap {
            word: Word::Seal(_),
            expected,
            ..
        } = access
            && found == expected
        {
            self.group().wake_others();
        }
        found
    }

    /// The step's result was handed out: from here on the gradient may be written.
    pub fn applied(&mut self) {
        self.memory.shown(self.me).tag.store(0, Ordering::Relaxed);
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

    /// The result's place in this worker's memory.
    pub fn result(&self, tag: Tag) -> *const u8 {
        self.memory.result(self.me, tag).as_ptr()
    }
}
