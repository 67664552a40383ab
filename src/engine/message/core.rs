//! The engine of one communicator on one rank, as its callers see it: started operations go into a box beside the
//! token, and whoever waits drives.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::inner::{Inner, LEFT, Queued};
use super::link::{LINK_BYTES, Link};
use super::note::Note;
use super::token::Token;
use super::trouble::Verdict;
use crate::engine::board::DEPTH;
use crate::engine::{Call, EngineError, Liveness, MAXIMUM_ACTIVE, Observers, Ticket, Trouble};
use crate::fabric::fork::Birthplace;
use crate::fabric::{Endpoint, FabricError, Fence, Parcel, Registration, RemoteRegion};
use crate::observe::{Kind, NONE};

/// Rounds without progress before a driver goes to sleep on the endpoint (which spins for a while itself).
const SPINS: u32 = 20;
/// The shortest sleep; it grows to eight times that, so that the others are looked at now and then.
const NAP: Duration = Duration::from_millis(10);
/// The sleep of a driver that suspects a rank to be gone.
const SHORT_NAP: Duration = Duration::from_millis(1);
/// How long a rank that leaves waits until its last messages are known to have arrived.
const FAREWELL: Duration = Duration::from_millis(500);
/// The same for a rank that has given up: its peers hear of it in other ways too.
const LAST_WORDS: Duration = Duration::from_millis(150);

/// See the module.
pub struct MessageCore {
    rank: u32,
    /// Written by the communicator's caller.
    pub(in crate::engine) caller: Observers,
    /// Written by whoever holds the token.
    pub(in crate::engine) engine: Observers,
    token: Token<Inner>,
    /// Started, and not seen yet by who holds the token.
    started: Mutex<Vec<Queued>>,
    /// Operations started and not ended.
    active: AtomicUsize,
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

/// # Connecting
/// What follows is called by one thread, between operations.
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
            floor: AtomicU64::new(1),
            poison: OnceLock::new(),
            birthplace: Birthplace::here(),
            liveness,
            fabric,
            queue_depth,
        }
    }

    /// Bytes of registered memory that [`MessageCore::prepare`] needs for each peer.
    pub const NOTES: usize = LINK_BYTES;

    /// The ranks that this one has queue pairs to, ascending.
    pub fn connections(&self) -> Vec<u32> {
        self.with(|inner| inner.connected.clone())
    }

    /// Makes the local half of a queue pair, with its receives posted. `notes` is registered memory, and where in it
    /// [`MessageCore::NOTES`] bytes are free for this.
    ///
    /// # Errors
    /// What the fabric refuses.
    pub fn prepare(&self, peer: u32, notes: (Arc<dyn Registration>, usize)) -> Result<Parcel, FabricError> {
        self.with(|inner| {
            let endpoint = inner.endpoint();
            let parcel = endpoint.prepare(peer)?;
            let link = Link::new(peer, notes, self.queue_depth, endpoint).map_err(|error| {
                FabricError::Provider {
                    fabric: self.fabric,
                    source: format!("posting receives for rank {peer}: {error}").into(),
                }
            })?;
            inner.links[peer as usize] = Some(Box::new(link));
            Ok(parcel)
        })
    }

    /// Connects it to the peer's half.
    ///
    /// # Errors
    /// What the fabric refuses.
    pub fn connect(&self, peer: u32, parcel: Parcel) -> Result<(), FabricError> {
        self.with(|inner| {
            inner.endpoint().connect(peer, parcel)?;
            let at = inner.connected.binary_search(&peer).unwrap_or_else(|at| at);
            inner.connected.insert(at, peer);
            Ok(())
        })
    }

    /// Takes in memory of a peer.
    ///
    /// # Errors
    /// What the fabric refuses.
    pub fn import(&self, peer: u32, parcel: Parcel) -> Result<Arc<dyn RemoteRegion>, FabricError> {
        self.with(|inner| inner.endpoint().import(peer, parcel))
    }

    /// Staging slots of one operation that there are.
    pub fn staging_slots(&self) -> u32 {
        self.with(|inner| inner.staging.set())
    }

    /// Takes these staging slots instead of the earlier ones, in sets of `set`.
    pub fn replace_staging(&self, registration: Arc<dyn Registration>, set: u32) {
        self.with(|inner| inner.staging.replace(registration, set));
    }

    /// What a peer imports to push into them.
    ///
    /// # Errors
    /// What the fabric refuses.
    ///
    /// # Panics
    /// If there are none.
    pub fn export_staging(&self) -> Result<Parcel, FabricError> {
        self.with(|inner| inner.staging.export())
    }

    /// Takes in a connected peer's staging slots.
    ///
    /// # Errors
    /// What the fabric refuses.
    pub fn import_staging(&self, peer: u32, parcel: Parcel) -> Result<(), FabricError> {
        self.with(|inner| {
            let region = inner.endpoint().import(peer, parcel)?;
            if let Some(link) = inner.links[peer as usize].as_deref_mut() {
                link.staging = Some(region);
            }
            Ok(())
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
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

    /// Takes up a call; it runs whenever somebody drives.
    ///
    /// # Errors
    /// An earlier failure.
    ///
    /// # Safety
    /// As [`crate::engine::Core::start`]. The call was prepared for messages, its windows have keys, and its
    /// neighbours are connected and know this rank's staging slots.
    pub unsafe fn start(&self, call: Call) -> Result<Ticket, EngineError> {
        self.check()?;
        assert!(call.prepared.route.is_some(), "prepared for messages");
        self.make_room(call.sequence)?;
        let ticket = Ticket::default();
        let queued = Queued {
            call,
            ticket: ticket.clone(),
            started: Instant::now(),
        };
        {
            let mut started = self.started.lock().expect("nothing panics with it in hand");
            // Whoever fails everything sets the poison, then empties the box.
            self.check()?;
            self.active.fetch_add(1, Ordering::Relaxed);
            started.push(queued);
        }
        // Whoever has the token looks into the box before it sleeps.
        match self.token.try_take() {
            Some(mut inner) => {
                self.turn(&mut inner);
                self.release(inner);
            }
            None => self.token.alarm(),
        }
        Ok(ticket)
    }

    /// Waits until `sequence` may begin: peers tell [`DEPTH`] operations apart, the oldest in progress included.
    fn make_room(&self, sequence: u64) -> Result<(), EngineError> {
        let room = || {
            self.poison.get().is_some()
                || self.active.load(Ordering::Relaxed) < MAXIMUM_ACTIVE
                    && sequence < self.floor.load(Ordering::Acquire) + DEPTH
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
            if let Err(verdict) = inner.look(&*self.liveness, &self.engine) {
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
        let nap = if inner.suspect.is_some() { SHORT_NAP } else { nap };
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
        if !inner.order.is_empty() {
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
        inner.waiting.extend(
            self.started
                .lock()
                .expect("nothing panics with it in hand")
                .drain(..),
        );
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

    /// Ends everything in progress; later calls are refused.
    fn fail(&self, inner: &mut Inner, verdict: &Verdict) {
        let Verdict { error, note } = verdict;
        if self.poison.set(error.clone()).is_ok() {
            let culprit = error.culprit().unwrap_or(NONE);
            self.engine.recorder.mark(Kind::Error, 0, 0, 0, culprit, 0);
        }
        let queued = std::mem::take(&mut *self.started.lock().expect("nothing panics with it in hand"));
        inner.waiting.extend(queued);
        inner.end_all(error);
        if inner.endpoint.is_some() {
            let trouble = match error {
                EngineError::Aborted { .. } => Trouble::Aborted,
                _ => Trouble::Gone(error.culprit().unwrap_or(self.rank)),
            };
            let origin = self.rank;
            inner.flood(note.unwrap_or(Note::Trouble { origin, trouble }), None);
        }
        self.publish(inner);
    }

    /// Ends everything in progress with `error`; later calls are refused with it. The others are told.
    pub fn abandon(&self, error: &EngineError) {
        if self.is_forked() {
            return;
        }
        let mut inner = self.token.take();
        self.fail(&mut inner, &Verdict::own(error.clone()));
        self.release(inner);
    }

    /// After a failure: makes sure that nothing that other ranks posted can land here any more. Answers those ranks
    /// of which that cannot be said by the deadline.
    ///
    /// # Errors
    /// What the fabric refuses.
    pub fn fence(&self, deadline: Instant) -> Result<Vec<u32>, FabricError> {
        let mut inner = self.token.take();
        self.flush(&mut inner, deadline.min(Instant::now() + LAST_WORDS));
        let mut quarantined = Vec::new();
        for peer in inner.connected.clone() {
            if inner.endpoint().fence(peer, deadline)? == Fence::Quarantined {
                quarantined.push(peer);
            }
        }
        self.release(inner);
        Ok(quarantined)
    }

    /// Takes part in nothing any more: says so to the neighbours, and closes the endpoint. What was in progress must
    /// have been given up before.
    pub fn leave(&self) {
        if self.is_forked() {
            return;
        }
        let in_order = self.poison.get().is_none();
        let mut inner = self.token.take();
        if inner.endpoint.is_some() {
            let patience = if in_order { FAREWELL } else { LAST_WORDS };
            // What was posted and not yet taken goes first, so that there is room for this.
            self.flush(&mut inner, Instant::now() + patience);
            if in_order {
                for peer in inner.connected.clone() {
                    inner.last_words(peer, Note::Leave);
                }
                self.flush(&mut inner, Instant::now() + patience);
            }
        }
        let endpoint = inner.endpoint.take();
        self.release(inner);
        drop(endpoint);
    }

    /// Waits until what was posted is known to have arrived.
    fn flush(&self, inner: &mut Inner, deadline: Instant) {
        while !inner.is_quiet() && Instant::now() < deadline {
            // What comes in now changes nothing any more.
            if inner.take_in(&self.floor, &self.engine).is_err() {
                return;
            }
            if !inner.is_quiet() && inner.endpoint.as_mut().expect(LEFT).wait(deadline).is_err() {
                return;
            }
        }
    }
}
