//! One worker's barrier, whatever its elements are and whatever they lie in: does what the protocol wants done.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::doubting::{Trust, Watched};
use super::ground::{Found, Ground};
use super::memory::SHOWN;
use super::protocol::{Access, Did, Doubts, Members, Seal, Shape, Tag, Tickets, Want, Way, Word, Worker};
use super::tree::Taking;
use super::{BackupError, racing};
use crate::communicator::CommunicatorError;
use crate::engine::Engine;
use crate::engine::reduce::Kernel;
use crate::observe::{Clock, CopySite};

/// Bytes that are copied out of another worker's mapped memory before they are added up: so few that all of a pass stay in
/// the first-level cache.
pub(super) const PIECE: usize = 4 << 10;

/// Sources beside the first that are added up in one pass.
pub(super) const AT_ONCE: usize = 7;

/// Looks at the seal alone between two at the tickets. Whoever arrives last seals; should it be stopped before it does, the
/// others find out by the tickets.
const SEAL_LOOKS: u32 = 64;

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
    /// The step of which the caller was told that it is decided: its gradient need not be complete any more.
    said: u64,
    /// In which of the places for gradients that gradient goes.
    pub place: usize,
    /// A place that nobody else looks at, for the gradient of a step in which one of an earlier life of this worker stands.
    pub spare: Option<usize>,
    /// Another's state was copied in this step, and the caller is yet to be told.
    pub caught: bool,
    /// Which result it is copying, or waits for.
    pub pulling: Watched<Tag>,
    /// Since when it looks for a state to copy.
    pub catching_since: Option<Instant>,
    /// Who has died may come back.
    pub returns: bool,
    /// The seal when it was last looked at, and the tickets when they were the reason for it.
    looked: (u64, u64),
    /// How often only the seal was looked at since.
    idle: u32,
    /// How often this worker is yet to look whatever the words are.
    pub eager: u32,
    pub timeout: Duration,
    pub suspicion: Duration,
    pub attempt: Watched<Seal>,
    pub hole: Watched<(u64, Option<u16>)>,
    pub failure: Option<BackupError>,
    /// Set where somebody measures.
    pub clock: Option<Clock>,
    /// The newest step that this worker itself has sealed, and when, if there is a clock.
    pub sealed: (u64, u64),
    /// The next step's tickets are to be reopened.
    reopens: bool,
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
    pub returns: bool,
    pub clock: Option<Clock>,
}

impl<G: Ground> Core<G> {
    pub fn new(parts: Parts, ground: G) -> Self {
        let me = parts.engine.rank() as u16;
        let (sum, mean) = parts.kernels;
        Self {
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
            said: 0,
            place: ground.places().slot(1),
            spare: None,
            caught: false,
            pulling: Watched::new(),
            catching_since: None,
            returns: parts.returns,
            ground,
            looked: (0, 0),
            idle: 0,
            eager: 0,
            timeout: parts.timeout,
            suspicion: parts.suspicion,
            attempt: Watched::new(),
            hole: Watched::new(),
            failure: None,
            clock: parts.clock,
            sealed: (0, 0),
            reopens: false,
        }
    }

    /// Does what is wanted next, or a part of it. Waits for nobody else's doing.
    pub fn turn(&mut self) -> Result<Turn, BackupError> {
        match self.worker.want() {
            Want::Compute | Want::Apply { .. } => Ok(Turn::Over),
            Want::Look | Want::Crowded => Ok(self.look_if_changed()),
            want => match self.carry_out(want)? {
                Progress::Did(did) => {
                    let before = self.worker.ticket();
                    self.caught |= matches!(did, Did::Caught(_));
                    self.worker.did(did);
                    self.eager = match (before, self.worker.ticket()) {
                        (None, Some(ticket)) => self.arrived(ticket),
                        _ => 1,
                    };
                    // What went wrong may do so because the attempt is no more.
                    Ok(match self.worker.want() == want && did != Did::Lost {
                        true => self.look_if_changed(),
                        false => Turn::Moved,
                    })
                }
                Progress::Moved => Ok(Turn::Moved),
                Progress::Waits => Ok(self.look_if_changed()),
            },
        }
    }

    /// Takes turns as long as something moves, and does not only go round in a circle until others do something.
    pub fn poll(&mut self) -> Result<(), BackupError> {
        let mut left = self.rounds();
        while left > 0 && self.turn()? == Turn::Moved {
            left -= u16::from(self.worker.recovers());
            if self.ready && self.worker.want() == Want::Compute {
                self.arrive();
            }
        }
        Ok(())
    }

    /// Turns of which some are enough to find out what the next home continues from, should nothing more happen meanwhile.
    fn rounds(&self) -> u16 {
        4 + self.shape.workers()
    }

    /// Says that the gradient is complete, unless the caller was told that nobody wants it, or the step is over. Again where the
    /// step has begun again meanwhile.
    pub fn arrive(&mut self) {
        if self.caught || self.said == self.begun || self.worker.step() != self.begun {
            return;
        }
        let computes = self.worker.want() == Want::Compute;
        // Where the words are lost the step may begin again, if the gradient lies where others look for it.
        self.ready |= computes || self.is_in_place();
        if computes {
            self.worker.arrive();
        }
    }

    /// The caller's gradient is complete, and so is its state.
    pub fn come(&mut self) -> Result<(), BackupError> {
        self.check()?;
        self.reopen();
        // A peer's may be being copied over it.
        let copies = self.caught || matches!(self.worker.want(), Want::CatchUp { .. });
        if !self.ready && !copies {
            self.show_state();
        }
        self.arrive();
        Ok(())
    }

    fn is_in_place(&self) -> bool {
        self.place == self.ground.places().slot(self.begun)
    }

    /// Whether the step has a result in which the gradient is not that is being computed. Once it has said so it says so until
    /// the step ends.
    pub fn is_decided(&mut self) -> bool {
        if self.check().is_ok() {
            self.attend_to_others();
        }
        let decided = match self.worker.want() {
            Want::Pull { .. } | Want::Sum { .. } | Want::Apply { .. } | Want::CatchUp { .. } => true,
            _ => self.worker.hears(),
        };
        if decided && !self.ready {
            self.said = self.begun;
        }
        self.said == self.begun
    }

    /// Between layers: looks whether the step is decided, and does what others wait for. What goes wrong is found again by
    /// who waits for the step's end, and a peer's state is copied there.
    fn attend_to_others(&mut self) {
        // Somebody else may have been faster, or those who were further may have died.
        self.worker.look_again();
        let mut left = self.rounds();
        while self.ready && left > 0 && !self.caught {
            match self.worker.want() {
                Want::CatchUp { .. } => return,
                Want::Compute => self.arrive(),
                _ => {}
            }
            if !matches!(self.turn(), Ok(Turn::Moved)) {
                return;
            }
            left -= u16::from(self.worker.recovers());
        }
        if self.ready {
            return;
        }
        if self.worker.looks_for_itself() && self.is_in_place() {
            self.look_for_itself();
        }
        if self.worker.want() == Want::Compute {
            self.look_if_changed();
        }
        let _ = (0..left).find(|_| !self.worker.recovers() || !matches!(self.turn(), Ok(Turn::Moved)));
    }

    fn look_for_itself(&mut self) {
        while self.worker.looks_for_itself() {
            self.insist();
            if !matches!(self.turn(), Ok(Turn::Moved)) {
                break;
            }
        }
    }

    /// How often a worker with this ticket looks in any case. Who has the last that is needed seals, as soon as those before it
    /// have filled their slots; if all looked, they would keep the words from each other.
    pub fn arrived(&self, ticket: u16) -> u32 {
        match self.is_last(ticket) {
            true => SEAL_LOOKS,
            false => 0,
        }
    }

    /// Whether it is the last ticket that is needed.
    #[inline]
    pub fn is_last(&self, ticket: u16) -> bool {
        ticket + 1 == self.shape.members()
    }

    /// The caller's step is the worker's from here on, and its gradient goes where it is in nobody's way.
    pub fn begin(&mut self) {
        self.look_for_itself();
        (self.begun, self.said) = (self.worker.step(), 0);
        let place = self.ground.places().slot(self.begun);
        self.place = match self.worker.want() {
            Want::Compute => place,
            // A gradient that the earlier life has shown may be needed by those who are still adding up.
            _ => self.spare.unwrap_or(place),
        };
    }

    /// From now on it looks again, whatever the words are.
    pub fn insist(&mut self) {
        self.eager = self.eager.max(1);
    }

    /// Looks, if there may be something to be seen that was not seen before. (A slot that is filled late is no reason:
    /// who needs it looks again, who filled it does before long, and whoever is about to sleep.)
    pub fn look_if_changed(&mut self) -> Turn {
        match self.has_changed() {
            Ok(true) => self.look(&Trust),
            Ok(false) => Turn::Idle,
            Err(found) => self.blind(found),
        }
    }

    fn has_changed(&mut self) -> Result<bool, Found> {
        let (view, step) = (self.worker.view(), self.worker.step());
        let seal = self.ground.seal(view, step)?;
        // An earlier step's says nothing.
        let sealed = seal != self.looked.0 && Seal(seal).step() >= step;
        if self.eager == 0 && !sealed {
            self.idle += 1;
            if !self.idle.is_multiple_of(SEAL_LOOKS) {
                return Ok(false);
            }
            let tickets = self.ground.tickets(view, step)?;
            if tickets == self.looked.1 {
                return Ok(false);
            }
            self.looked.1 = tickets;
        }
        self.looked.0 = seal;
        self.eager = self.eager.saturating_sub(1);
        Ok(true)
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
                self.eager = 1;
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
        self.eager = 1;
        Turn::Moved
    }

    #[inline(always)]
    fn carry_out(&mut self, want: Want) -> Result<Progress, BackupError> {
        Ok(match want {
            Want::Word(access) => self.access(access),
            Want::Sum { tag } => Progress::Did(G::sum_up(self, tag)),
            Want::Take { tag, from, child } => self.take(tag, from, child),
            Want::Publish { tag, to, leaf, .. } => Progress::Did(self.publish(tag, to, leaf)),
            Want::Hold { tag, leaf } => self.hold(tag, leaf),
            Want::Pull { tag } => self.pull(tag),
            Want::Gather { tag } => self.gather(tag),
            Want::Adopt { tag, from } => self.adopt(tag, from),
            Want::Survey => self.survey(),
            Want::CatchUp { step } => self.catch_up(step)?,
            Want::Compute | Want::Apply { .. } | Want::Look | Want::Crowded => {
                unreachable!("nothing to be carried out")
            }
            Want::Fence { .. } | Want::Ready { .. } => {
                unreachable!("only where parts are written into a parent's memory")
            }
        })
    }

    #[inline]
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
            self.has_sealed(step);
        }
        Progress::Did(Did::Found(found))
    }

    /// It has just changed the seal.
    #[inline]
    pub fn has_sealed(&mut self, step: u64) {
        if self.sealed.0 != step {
            self.sealed = (step, self.clock.as_ref().map_or(0, Clock::now));
        }
        self.ground.wake_others();
    }

    /// The step's result was handed out: from here on the gradient may be written.
    pub fn applied(&mut self, tag: Tag) {
        self.ground.own().words[SHOWN].store(0, Ordering::Relaxed);
        racing::before_writing();
        self.worker.has_applied(tag);
        (self.looked, self.eager) = ((0, 0), 1);
        self.reopens = self.sealed.0 == self.worker.applied();
    }

    /// Reopens the tickets of the next step before anybody comes, if that is for this worker to do. Who has sealed the last one
    /// has its result first, and so the time for it: when its caller has the result, too.
    pub fn reopen(&mut self) {
        if !std::mem::take(&mut self.reopens) {
            return;
        }
        let (view, step) = (self.worker.view(), self.worker.step());
        if let Ok(found) = self.ground.tickets(view, step)
            && let Some(access) = self.worker.reopen(Tickets(found))
        {
            self.ground.home(view, access);
        }
    }

    /// So many bytes of others go through scratch memory: they may be written over while they are read.
    pub fn count_staged(&self, bytes: usize) {
        let counters = &self.engine.caller().counters;
        counters.exchanged(bytes as u64);
        counters.copied(CopySite::StageIn, bytes as u64);
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
