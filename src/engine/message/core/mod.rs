//! The engine of one communicator on one rank, as its callers see it: started operations go into a box beside the
//! token, and whoever waits drives.

mod connecting;
mod ending;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::inner::{Boxed, Inner, Queued};
use super::token::Token;
use crate::engine::{Call, EngineError, Liveness, MAXIMUM_ACTIVE, Observers, Ticket};
use crate::fabric::Endpoint;
use crate::fabric::fork::Birthplace;
use crate::observe::{Kind, NONE};

/// Rounds without progress before a driver goes to sleep on the endpoint (which spins for a while itself).
const SPINS: u32 = 20;
/// The shortest sleep; it grows to eight times that, so that the others are looked at now and then.
const NAP: Duration = Duration::from_millis(10);
/// The sleep of a driver that suspects a rank to be gone.
const SHORT_NAP: Duration = Duration::from_millis(1);

/// See the module.
pub struct MessageCore {
    rank: u32,
    /// Written by the communicator's caller.
    pub(in crate::engine) caller: Observers,
    /// Written by whoever holds the token.
    pub(in crate::engine) engine: Observers,
    token: Token<Inner>,
    /// Started, and not seen yet by who holds the token.
    started: Mutex<Vec<Boxed>>,
    /// Operations started and not ended.
    active: AtomicUsize,
    /// Those of them that are messages between two ranks: raised after `active`, lowered before it.
    letters: AtomicUsize,
    /// All operations below this number have ended.
    floor: AtomicU64,
    poison: OnceLock<EngineError>,
    birthplace: Birthplace,
    liveness: Box<dyn Liveness>,
    fabric: &'static str,
    queue_depth: usize,
}

impl std::fmt::Debug for MessageCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageCore")
            .field("rank", &self.rank)
            .finish_non_exhaustive()
    }
}

impl MessageCore {
    /// An engine with nothing to do and nobody to talk to, over a fabric of that name with that many places in each
    /// queue. Operations are numbered from 1.
    pub fn new(
        ranks: u32,
        generation: u32,
        endpoint: Box<dyn Endpoint>,
        (fabric, queue_depth): (&'static str, usize),
        liveness: Box<dyn Liveness>,
    ) -> Self {
        let (rank, alarm) = (endpoint.rank(), endpoint.alarm());
        Self {
            rank,
            caller: Observers::default(),
            engine: Observers::default(),
            token: Token::new(Inner::new(rank, ranks, generation, endpoint), alarm),
            started: Mutex::default(),
            active: AtomicUsize::new(0),
            letters: AtomicUsize::new(0),
            floor: AtomicU64::new(1),
            poison: OnceLock::new(),
            birthplace: Birthplace::here(),
            liveness,
            fabric,
            queue_depth,
        }
    }

    pub(in crate::engine::message) fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.token.take();
        let outcome = act(&mut inner);
        self.token.give_back(inner);
        outcome
    }
}

impl MessageCore {
    /// This rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Whether this is a forked child, whose parent alone may use the endpoint.
    #[inline]
    pub fn is_forked(&self) -> bool {
        !self.birthplace.is_here()
    }

    /// Refuses work after a failure.
    ///
    /// # Errors
    /// [`EngineError::Poisoned`] with the first failure; [`EngineError::Forked`].
    pub fn check(&self) -> Result<(), EngineError> {
        let rank = self.rank;
        if self.is_forked() {
            return Err(EngineError::Forked { rank });
        }
        match self.poison.get() {
            None => Ok(()),
            Some(first) => Err(EngineError::Poisoned {
                rank,
                reason: first.to_string(),
            }),
        }
    }

    /// Takes up a call, whose end the ticket is to tell; it runs whenever somebody drives.
    ///
    /// # Errors
    /// An earlier failure.
    ///
    /// # Safety
    /// As [`crate::engine::Core::start`]. The call was prepared for messages, its windows have keys, and its
    /// neighbours are connected and know this rank's staging slots.
    pub unsafe fn start(&self, call: Call, ticket: Ticket) -> Result<(), EngineError> {
        self.check()?;
        assert!(call.prepared.route.is_some(), "prepared for messages");
        self.make_room(call.sequence)?;
        let started = Instant::now();
        self.put_into_box(Boxed::Call(Queued {
            call,
            ticket,
            started,
        }))
    }

    /// For whoever has the token.
    pub(in crate::engine::message) fn put_into_box(&self, boxed: Boxed) -> Result<(), EngineError> {
        {
            let mut started = self.started.lock().expect("nothing panics with it in hand");
            // Whoever fails everything sets the poison, then empties the box.
            self.check()?;
            self.active.fetch_add(1, Ordering::Relaxed);
            if let Boxed::Letter(..) = &boxed {
                self.letters.fetch_add(1, Ordering::Relaxed);
            }
            started.push(boxed);
        }
        // Whoever has the token looks into the box before it sleeps.
        match self.token.try_take() {
            Some(mut inner) => {
                self.turn(&mut inner);
                self.release(inner);
            }
            None => self.token.alarm(),
        }
        Ok(())
    }

    /// Waits until `sequence` may begin: peers tell `DEPTH` operations apart, more than may be in progress, the oldest
    /// included. Messages between two ranks do not count.
    fn make_room(&self, sequence: u64) -> Result<(), EngineError> {
        let room = || {
            self.poison.get().is_some()
                || sequence < self.floor.load(Ordering::Acquire) + MAXIMUM_ACTIVE as u64
        };
        if !room() {
            // Ends: what is in progress either ends or fails at its deadline, and then there is room.
            self.wait_until(room);
        }
        self.check()
    }

    /// Runs what is ready, if nobody else is just doing so.
    pub fn poll(&self) {
        if self.active.load(Ordering::Relaxed) == 0 || self.is_forked() {
            return;
        }
        if let Some(mut inner) = self.token.try_take() {
            self.turn(&mut inner);
            self.release(inner);
        }
    }

    /// Whether nothing is in progress.
    pub fn is_idle(&self) -> bool {
        self.active.load(Ordering::Acquire) == 0
    }

    /// Whether no collective is in progress. For the caller's thread, which is the only one that starts anything.
    pub fn has_no_calls(&self) -> bool {
        self.active.load(Ordering::Acquire) == self.letters.load(Ordering::Acquire)
    }

    /// Drives until the operation has ended.
    ///
    /// # Errors
    /// How it failed.
    pub fn wait(&self, ticket: &Ticket) -> Result<(), EngineError> {
        self.wait_until(|| ticket.is_done() || self.is_forked());
        let forked = EngineError::Forked { rank: self.rank };
        ticket.outcome().unwrap_or(Err(forked))
    }

    /// Drives whatever is in progress until `until` says so. Keeps every operation's deadline, but has none of its
    /// own: `until` must become true when operations end, well or not, or be somebody's wish to stop, followed by
    /// [`MessageCore::nudge`]. It is called with the token in hand.
    pub fn wait_until(&self, until: impl Fn() -> bool) {
        while !until() {
            match self.token.try_take() {
                Some(inner) => self.drive(inner, &until),
                None => self.token.stand_by(&until),
            }
            self.token.let_in();
        }
    }

    /// Drives until `until` says so, or others want the token or must be woken without it.
    fn drive(&self, mut inner: MutexGuard<'_, Inner>, until: &impl Fn() -> bool) {
        let (mut idle, mut nap) = (0, NAP);
        loop {
            if inner.endpoint.is_none() {
                // This rank has left; `until` is somebody's wish to stop, or holds.
                self.release(inner);
                std::thread::sleep(SHORT_NAP);
                return;
            }
            if self.turn(&mut inner) {
                (idle, nap) = (0, NAP);
            } else {
                idle += 1;
            }
            if !inner.woken.is_empty() || self.token.is_wanted() || until() {
                return self.release(inner);
            }
            if idle <= SPINS {
                std::hint::spin_loop();
                continue;
            }
            let looked = inner.look(&*self.liveness, &self.engine);
            if let Err(verdict) = looked.and_then(|()| inner.look_after_letters(&*self.liveness)) {
                self.fail(&mut inner, &verdict);
                continue;
            }
            if self.sleep(&mut inner, nap) {
                nap = (nap * 2).min(NAP * 8);
            }
        }
    }

    /// Sleeps on the endpoint, unless there is something in the box; says whether it slept its time out.
    fn sleep(&self, inner: &mut Inner, nap: Duration) -> bool {
        let nap = match inner.suspects_any(Instant::now()) {
            true => SHORT_NAP,
            false => nap,
        };
        let mut deadline = Instant::now() + nap;
        if let Some(first) = inner.deadline() {
            deadline = deadline.min(first.max(Instant::now() + SHORT_NAP));
        }
        // After the last poll, as the module of the token says; it took the alarm back.
        let boxed = !self
            .started
            .lock()
            .expect("nothing panics with it in hand")
            .is_empty();
        if boxed || self.token.is_wanted() {
            return false;
        }
        if !inner.order.is_empty() || !inner.letters.is_empty() {
            self.engine.counters.sleep();
            self.engine.recorder.mark(Kind::Sleep, 0, 0, 0, NONE, 0);
        }
        match inner.endpoint().wait(deadline) {
            Ok(woken) => !woken,
            Err(error) => {
                let verdict = inner.broken(&error);
                self.fail(inner, &verdict);
                false
            }
        }
    }

    /// One round. Says whether anything moved.
    fn turn(&self, inner: &mut Inner) -> bool {
        if inner.endpoint.is_none() || self.poison.get().is_some() {
            return false;
        }
        self.started
            .lock()
            .expect("nothing panics with it in hand")
            .drain(..)
            .for_each(|boxed| inner.take_up(boxed));
        let outcome = inner.round(&self.floor, &self.engine);
        match outcome {
            Ok(progressed) => {
                self.publish(inner);
                progressed
            }
            Err(verdict) => {
                self.fail(inner, &verdict);
                true
            }
        }
    }

    /// Says how many operations are in progress, and wakes who stands by for one that has ended.
    fn publish(&self, inner: &mut Inner) {
        let finished = std::mem::take(&mut inner.finished);
        if finished != 0 {
            let letters = std::mem::take(&mut inner.finished_letters);
            self.letters.fetch_sub(letters, Ordering::Release);
            self.active.fetch_sub(finished, Ordering::Release);
            self.token.ring();
        }
    }

    /// Gives the token back, then wakes who is to be woken.
    fn release(&self, mut inner: MutexGuard<'_, Inner>) {
        let woken = std::mem::take(&mut inner.woken);
        self.token.give_back(inner);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Ends the sleep of whoever drives or stands by: what it waits for may have come true.
    pub fn nudge(&self) {
        self.token.alarm();
        self.token.ring();
    }
}
