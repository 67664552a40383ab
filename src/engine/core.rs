//! The operations in progress on one communicator whose ranks see each other's boards, and who drives them: any
//! caller that holds the token. Nobody sleeps with the token in hand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Waker;
use std::time::Instant;

use super::board::DEPTH;
use super::execution::{Execution, Round};
use super::letters::Letters;
use super::ticket::Ticket;
use super::wait::{Turn, wait};
use super::{Call, EngineError, Group, Letter, WindowMap};
use crate::fabric::fork::Birthplace;
use crate::observe::Kind;

/// Chunks that one operation runs before the next one gets its turn.
const BUDGET: u32 = 16;

/// Operations in progress at once; more would outrun what boards can tell apart.
pub const MAXIMUM_ACTIVE: usize = 192;

/// The engine of one communicator on one rank.
#[derive(Debug)]
pub struct Core {
    group: Group,
    /// The token. Held for a round at a time; never while sleeping.
    engine: Mutex<Engine>,
    /// How many operations are in progress: written by the token's holder, looked at before asking for the token.
    active: AtomicUsize,
    poison: OnceLock<EngineError>,
    birthplace: Birthplace,
}

#[derive(Debug, Default)]
struct Engine {
    active: Vec<Active>,
    idle: Vec<Execution>,
    staged: bool,
    letters: Letters,
    /// To be woken when the token is given back: what wakers do is not known here.
    woken: Vec<Waker>,
}

#[derive(Debug)]
struct Active {
    call: Call,
    execution: Execution,
    ticket: Ticket,
    began: Instant,
    /// A staged operation waits for the one before it: there is one set of staging slots.
    started: bool,
}

impl Core {
    /// An engine with nothing to do.
    pub fn new(group: Group) -> Self {
        Self {
            group,
            engine: Mutex::default(),
            active: AtomicUsize::new(0),
            poison: OnceLock::new(),
            birthplace: Birthplace::here(),
        }
    }

    /// The communicator as this rank sees it.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Whether this is a forked child, which shares boards and bells with its parent and must not touch them, nor wait
    /// for a lock that a thread of its parent may have held.
    #[inline]
    pub fn is_forked(&self) -> bool {
        !self.birthplace.is_here()
    }

    /// Refuses work after a failure.
    ///
    /// # Errors
    /// [`EngineError::Poisoned`] with the first failure; [`EngineError::Forked`].
    #[inline]
    pub fn check(&self) -> Result<(), EngineError> {
        if self.is_forked() {
            return Err(EngineError::Forked {
                rank: self.group.rank,
            });
        }
        match self.poison.get() {
            None => Ok(()),
            Some(first) => Err(EngineError::Poisoned {
                rank: self.group.rank,
                reason: first.to_string(),
            }),
        }
    }

    /// See [`super::Engine::failure`].
    pub(super) fn failure(&self) -> Option<EngineError> {
        self.poison.get().cloned().or_else(|| self.group.heard())
    }

    /// Takes up a call, whose end the ticket is to tell; it runs whenever somebody drives.
    ///
    /// # Errors
    /// An earlier failure.
    ///
    /// # Safety
    /// Until the ticket says that the operation has ended, nobody may write the call's memory on this rank, nor
    /// read its result; all ranks must run programs of the same, proved plan under the same sequence number.
    /// Numbers may be started out of order only among [`MAXIMUM_ACTIVE`] consecutive ones, all of which end before
    /// any later one is started: boards tell 64 operations apart.
    pub unsafe fn start(&self, call: Call, ticket: Ticket) -> Result<(), EngineError> {
        self.check()?;
        self.make_room(call.sequence)?;
        // Its counters would go backwards, and peers' later ones satisfy its waits at once.
        debug_assert!(self.group.board().announced(call.sequence) < call.sequence);
        let mut engine = self.engine.lock().expect("nothing panics with the token in hand");
        self.check()?;
        self.group.board().announce_details(
            call.sequence,
            call.signature,
            call.details(),
            call.scale.map(|scale| scale.factor),
        );
        let execution = engine.idle.pop().unwrap_or_default();
        let began = Instant::now();
        engine.active.push(Active {
            call,
            execution,
            ticket,
            began,
            started: false,
        });
        self.active.store(engine.len(), Ordering::Relaxed);
        drop(engine);
        // The progress thread, if there is one, may be asleep.
        self.group.bell().ring();
        Ok(())
    }

    /// Takes up one end of a message, whose end the ticket is to tell.
    ///
    /// # Errors
    /// An earlier failure.
    ///
    /// # Safety
    /// Until the ticket says that it has ended, nobody may write the memory on this rank, nor read it at the receiver.
    /// Numbers of one way between two ranks are consecutive.
    pub unsafe fn post(&self, letter: Letter, ticket: Ticket) -> Result<(), EngineError> {
        self.check()?;
        let mut engine = self.engine.lock().expect("nothing panics with the token in hand");
        self.check()?;
        engine.letters.take_up(letter, ticket);
        self.active.store(engine.len(), Ordering::Relaxed);
        drop(engine);
        self.group.bell().ring();
        Ok(())
    }

    /// The token: nobody falls silent while it is in hand. For a caller that touches peers' memory itself.
    ///
    /// # Errors
    /// An earlier failure.
    pub(super) fn token(&self) -> Result<impl Sized + '_, EngineError> {
        let engine = self.engine.lock().expect("nothing panics with the token in hand");
        self.check()?;
        Ok(engine)
    }

    /// Lets messages lie in a window.
    pub fn remember(&self, window: &Arc<WindowMap>) {
        let mut engine = self.engine.lock().expect("nothing panics with the token in hand");
        engine.letters.windows.remember(window);
    }

    /// Waits until `sequence` may begin: a board tells 256 operations apart, the oldest in progress included.
    ///
    /// # Errors
    /// An earlier failure.
    #[inline]
    pub fn make_room(&self, sequence: u64) -> Result<(), EngineError> {
        match self.active.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => self.await_room(sequence),
        }
    }

    fn await_room(&self, sequence: u64) -> Result<(), EngineError> {
        let room = || {
            let engine = self.engine.lock().expect("nothing panics with the token in hand");
            let oldest = engine.active.iter().map(|active| active.call.sequence).min();
            engine.active.len() < MAXIMUM_ACTIVE && oldest.is_none_or(|oldest| sequence < oldest + DEPTH)
        };
        if room() {
            return self.check();
        }
        // Ends: what is in progress either ends or fails at its deadline, and then there is room.
        self.wait_until(room);
        self.check()
    }

    /// Runs what is ready, if nobody else is just doing so. Says whether anything moved.
    pub fn drive(&self) -> bool {
        // Whoever started an operation rings the bell afterwards.
        if self.active.load(Ordering::Relaxed) == 0 || self.is_forked() {
            return false;
        }
        let Ok(mut engine) = self.engine.try_lock() else {
            return false;
        };
        match engine.round(&self.group) {
            Ok(progressed) => {
                self.active.store(engine.len(), Ordering::Relaxed);
                give_back(engine);
                progressed
            }
            Err(error) => {
                self.fail(&mut engine, &error);
                give_back(engine);
                true
            }
        }
    }

    /// As [`Core::drive`], for who does not go on driving.
    pub fn poll(&self) {
        self.drive();
        self.hand_on();
    }

    /// Wakes the other drivers of this rank: one may have gone to sleep because this one had the token, and what came
    /// after this one's last look would wait for the end of that one's nap.
    pub(super) fn hand_on(&self) {
        if self.active.load(Ordering::Relaxed) != 0 {
            self.group.bell().ring();
        }
    }

    /// Whether nothing is in progress.
    pub fn is_idle(&self) -> bool {
        self.engine
            .lock()
            .expect("nothing panics with the token in hand")
            .len()
            == 0
    }

    /// Whether no collective is in progress.
    pub fn has_no_calls(&self) -> bool {
        let engine = self.engine.lock().expect("nothing panics with the token in hand");
        engine.active.is_empty()
    }

    /// Drives until the operation has ended.
    ///
    /// # Errors
    /// How it failed.
    pub fn wait(&self, ticket: &Ticket) -> Result<(), EngineError> {
        self.wait_until(|| ticket.is_done() || self.is_forked());
        if !ticket.is_done() {
            return Err(EngineError::Forked {
                rank: self.group.rank,
            });
        }
        ticket.outcome().expect("it is done")
    }

    /// Drives whatever is in progress until `until` says so. Keeps every operation's deadline, but has none of its
    /// own: `until` must become true when operations end, well or not, or be somebody's wish to stop.
    pub fn wait_until(&self, until: impl Fn() -> bool) {
        let turn = || {
            if until() {
                return Turn::Done;
            }
            let progressed = self.drive();
            if until() {
                Turn::Done
            } else if progressed {
                Turn::Progressed
            } else {
                Turn::Idle
            }
        };
        let look = || {
            self.look();
            Ok(())
        };
        wait(&self.group, turn, look).expect("looking fails operations, never the wait");
        self.hand_on();
    }

    /// Looks after deadlines and dead ranks; fails everything in progress if something is found.
    pub(super) fn look(&self) {
        if self.active.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Ok(mut engine) = self.engine.try_lock() else {
            return;
        };
        let mut found = None;
        for active in engine.active.iter_mut().filter(|active| active.started) {
            if let Err(error) = active.execution.look(&active.call, &self.group, active.began) {
                found = Some(error);
                break;
            }
        }
        let found = found.or_else(|| engine.letters.look(&self.group).err());
        match found {
            Some(error) => {
                self.fail(&mut engine, &error);
                give_back(engine);
            }
            None if engine.len() != 0 => {
                self.group.engine.counters.sleep();
                self.group
                    .engine
                    .recorder
                    .mark(Kind::Sleep, 0, 0, 0, crate::observe::NONE, 0);
            }
            None => {}
        }
    }

    /// Ends everything in progress with `error`; later calls are refused with it, and no peer's memory is touched
    /// any more.
    pub fn abandon(&self, error: &EngineError) {
        if self.is_forked() {
            return;
        }
        let mut engine = self.engine.lock().expect("nothing panics with the token in hand");
        self.fail(&mut engine, error);
        give_back(engine);
    }

    fn fail(&self, engine: &mut Engine, error: &EngineError) {
        if self.poison.set(error.clone()).is_ok() {
            let culprit = error.culprit().unwrap_or(crate::observe::NONE);
            self.group.engine.recorder.mark(Kind::Error, 0, 0, 0, culprit, 0);
        }
        while let Some(active) = engine.active.pop() {
            let waker = active.ticket.end(Some(error.clone()));
            engine.woken.extend(waker);
        }
        let Engine { letters, woken, .. } = engine;
        letters.end_all(error, woken);
        self.active.store(0, Ordering::Relaxed);
        self.group.board().fall_silent();
        self.group.ring_others();
        self.group.bell().ring();
    }
}

/// Gives the token back, then wakes who is to be woken.
fn give_back(mut engine: MutexGuard<'_, Engine>) {
    let woken = std::mem::take(&mut engine.woken);
    drop(engine);
    woken.into_iter().for_each(Waker::wake);
}

impl Engine {
    /// How much is in progress.
    fn len(&self) -> usize {
        self.active.len() + self.letters.len()
    }

    /// One round over all operations, oldest first.
    fn round(&mut self, group: &Group) -> Result<bool, EngineError> {
        let mut progressed = !self.letters.is_empty() && self.letters.round(group, &mut self.woken);
        let mut index = 0;
        while index < self.active.len() {
            let active = &mut self.active[index];
            if !active.started {
                if active.call.staging.is_some() && self.staged {
                    index += 1;
                    continue;
                }
                self.staged |= active.call.staging.is_some();
                active.started = true;
                active.execution.begin(&active.call, group);
            }
            match active.execution.round(&active.call, group, BUDGET)? {
                Round::Blocked => index += 1,
                Round::Progressed => {
                    progressed = true;
                    index += 1;
                }
                Round::Done => {
                    progressed = true;
                    let Active {
                        call,
                        execution,
                        ticket,
                        ..
                    } = self.active.remove(index);
                    self.staged &= call.staging.is_none();
                    // The call's memory is let go of before anybody hears of the end.
                    drop(call);
                    self.idle.push(execution);
                    self.woken.extend(ticket.end(None));
                    // Another thread of this rank may sleep until just this.
                    group.bell().ring();
                }
            }
        }
        Ok(progressed)
    }
}
