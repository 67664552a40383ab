//! Ranks that can talk: windows, collectives, handles. Decides which plan runs; never how bytes move.
//!
//! Collectives on one communicator are called in the same order by every rank; communicators are independent of
//! each other. A [`Communicator`] is used by one thread at a time ([`Send`], not [`Sync`]); an [`AbortHandle`] by
//! any.

mod blocking;
mod boards;
mod building;
mod choosing;
mod connect;
mod dividing;
mod ending;
mod error;
mod failing;
mod fusing;
mod group;
mod identified;
mod lazily;
mod members;
mod one_sided;
mod pending;
mod persistent;
mod plans;
mod point_to_point;
mod recent;
mod request;
mod returned;
mod running;
mod shapes;
mod shrinking;
mod slices;
mod starter;
mod starting;
mod window;

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

pub use building::Builder;
pub use ending::{AbortHandle, Custody};
pub use error::CommunicatorError;
pub use group::Group;
pub use pending::{Pair, Pending, Started, Windows};
pub use persistent::Persistent;
pub use request::Request;
pub(crate) use returned::Keepsake;
pub(crate) use starter::Starter;
pub use window::Window;

use crate::bootstrap::Job;
use crate::engine::{Engine, Extent, FARTHEST, MAXIMUM_SEQUENCE};
use crate::fabric::Access;
use crate::memory::{Buffer, Element};
use crate::observe::{CounterValues, Event, Recorder};
use boards::Mapped;
use connect::Meeting;
use plans::Plans;
use recent::Recent;
use shapes::Shapes;

/// Ranks that can talk, as one of them sees it.
///
/// It may move to another thread, and is used by one at a time:
///
/// ```
/// # use sapwood::communicator::Communicator;
/// fn moved(communicator: Communicator) {
///     std::thread::spawn(move || communicator.barrier());
/// }
/// ```
///
/// ```compile_fail,E0277
/// # use sapwood::communicator::Communicator;
/// fn shared(communicator: &Communicator) {
///     std::thread::scope(|scope| {
///         scope.spawn(|| communicator.barrier());
///         communicator.barrier()
///     });
/// }
/// ```
///
/// Ranks may be threads of one process, each with a communicator of its own, and a process may have many
/// communicators. [`Communicator::split`] and [`Communicator::duplicate`] make independent ones, for threads that want
/// to communicate at the same time; [`Communicator::shrink`] makes one of those who survive a failure;
/// [`Communicator::finalize`] ends one in order. A communicator that is dropped leaves at once, which the others can
/// tell from a death, and gives up what is in flight.
pub struct Communicator {
    id: u64,
    rank: u32,
    ranks: u32,
    timeout: Cell<Duration>,
    plans: Plans,
    /// For those that are made from this one.
    made_with: Builder,
    /// How many failures lie between this communicator and the first of its line.
    generation: u32,
    /// How often this rank has come back after a death.
    life: u64,
    /// How many sets of backup workers were made of it.
    backup_barriers: Cell<u32>,
    engine: Arc<Engine>,
    /// Shared by all operations, where ranks see each other's memory.
    staging: Option<Extent>,
    /// How this rank reaches the others' memory, where it does.
    mapped: RefCell<Option<Mapped>>,
    meeting: RefCell<Meeting>,
    shapes: RefCell<Shapes>,
    /// A window through which memory that is not in one goes.
    bounce: RefCell<Option<Window<u8>>>,
    /// The number of the next operation.
    next: Cell<u64>,
    /// How many messages were sent to, and received from, each rank.
    letters: RefCell<Vec<[u64; 2]>>,
    /// How many small operations with a payload there were.
    small_turn: Cell<u64>,
    recent: RefCell<Recent>,
    /// Operations since the last in which all ranks waited for all: the number of the first in which they did not, and
    /// how many those were. The same on every rank.
    ahead: Cell<(u64, usize)>,
    /// Whether numbers are reserved for a step's operations that have not all ended.
    in_step: Cell<bool>,
}

impl std::fmt::Debug for Communicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Communicator")
            .field("rank", &self.rank)
            .field("size", &self.ranks)
            .finish_non_exhaustive()
    }
}

impl Communicator {
    /// Settings to make one with.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The communicator of the job in which a launcher (`sapwood run`) started this process; alone, if none did.
    ///
    /// # Errors
    /// As [`Builder::join`], and an environment that is incomplete or contradicts itself.
    pub fn from_environment() -> Result<Self, CommunicatorError> {
        let job = match Job::from_environment()? {
            Some(job) => job,
            None => Job::local(1)?.remove(0),
        };
        Self::builder().join(&job)
    }

    /// This rank, from 0.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// How many ranks there are.
    pub fn size(&self) -> u32 {
        self.ranks
    }

    /// How long an operation may take.
    pub fn timeout(&self) -> Duration {
        self.timeout.get()
    }

    /// Changes how long the operations called from now on may take, on this rank.
    pub fn set_timeout(&self, timeout: Duration) {
        self.timeout.set(timeout);
    }

    /// Makes a buffer reachable for all ranks. Collective: every rank brings one of the same length and type.
    ///
    /// # Errors
    /// Lengths or types that differ; memory that peers cannot map (give that to
    /// [`Communicator::all_reduce_slice`]); a rank whose memory cannot be registered, named on all of them. The
    /// communicator can be used on.
    pub fn register<T: Element>(&self, buffer: Buffer<T>) -> Result<Window<T>, CommunicatorError> {
        self.usable()?;
        let messages = matches!(*self.engine, Engine::Messages(_));
        let foreign = messages && self.meeting.borrow().fabric.capabilities().foreign_memory;
        if buffer.region().kind().share().is_none() && !foreign {
            let kind = buffer.region().kind().name();
            let what = format!(
                "peers cannot map {kind} memory; take Communicator::window (or Buffer::allocate), or give the \
                 memory to all_reduce_slice, which copies it and counts that"
            );
            let error = self.argument("registering a window", what);
            self.settle()?;
            return Err(self.meeting.borrow_mut().decline("registering a window", error));
        }
        self.settle()?;
        let range = (buffer.offset(), buffer.len() * size_of::<T>());
        let (call, meeting) = ("registering a window", &mut *self.meeting.borrow_mut());
        let map = match (&*self.engine, &mut *self.mapped.borrow_mut()) {
            (Engine::Messages(core), _) => {
                lazily::share(meeting, core, call, buffer.region(), range, T::TYPE.name())?
            }
            (Engine::Boards(_), mapped) => {
                let mapped = mapped.as_mut().expect("made with the boards");
                mapped.share(
                    meeting,
                    call,
                    (buffer.region(), Access::READ_WRITE),
                    range,
                    T::TYPE.name(),
                )?
            }
        };
        let window = Window::new(buffer, map, self.id);
        self.engine.remember(&window.shared().map);
        Ok(window)
    }

    /// `len` zeroed elements that all ranks can reach. Collective.
    ///
    /// # Errors
    /// As [`Communicator::register`], and memory limits: of another rank, too, which is named.
    pub fn window<T: Element>(&self, len: usize) -> Result<Window<T>, CommunicatorError> {
        self.usable()?;
        match Buffer::allocate(len) {
            Ok(buffer) => self.register(buffer),
            Err(error) => {
                self.settle()?;
                let mut meeting = self.meeting.borrow_mut();
                Err(meeting.decline("registering a window", error.into()))
            }
        }
    }

    /// Every rank's bytes, by rank. Collective, and slow: for settings and results, not for data.
    ///
    /// # Errors
    /// A rank that does not take part by the deadline, or is gone.
    pub fn all_gather_bytes(&self, what: &str, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CommunicatorError> {
        self.settle()?;
        let meeting = self.meeting.borrow();
        let given = meeting
            .members
            .all_gather(what, bytes, Vec::new(), self.timeout());
        let given = given.map_err(|error| meeting.because(what, error.into()))?;
        Ok(given.into_iter().map(|one| one.payload).collect())
    }

    /// The name of the fabric that it runs over, for people: what it can do is not to be read from it.
    pub fn fabric_name(&self) -> &'static str {
        self.meeting.borrow().fabric.name()
    }

    /// Whether ranks look into each other's memory, so that nothing is staged; else they send each other messages.
    pub fn has_load_store(&self) -> bool {
        let boards = matches!(&*self.engine, Engine::Boards(_));
        boards || (self.has_returned() && self.meeting.borrow().fabric.capabilities().load_store)
    }

    /// The ranks to which this one has queue pairs, ascending: where ranks reach each other by messages, those that
    /// the plans run so far have it exchange messages with; else all.
    pub fn connections(&self) -> Vec<u32> {
        match &*self.engine {
            Engine::Messages(core) => core.connections(),
            Engine::Boards(_) => (0..self.ranks).filter(|rank| *rank != self.rank).collect(),
        }
    }

    /// Bytes moved and copied, operations and waits, since the communicator was made.
    pub fn counters(&self) -> CounterValues {
        let engine = self.engine.observers().counters.snapshot();
        engine.plus(&self.engine.caller().counters.snapshot())
    }

    /// The last events of this rank, oldest first.
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.engine.observers().recorder.snapshot();
        events.extend(self.engine.caller().recorder.snapshot());
        events.sort_by_key(|event| event.ticks);
        events
    }

    /// Where the caller of this communicator may record events of its own (steps, computation). One thread at a time.
    pub fn recorder(&self) -> &Recorder {
        &self.engine.caller().recorder
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Sequence numbers for `count` operations.
    fn reserve(&self, count: u64) -> u64 {
        let first = self.next.get();
        self.next.set(first + count);
        first
    }

    /// Sees to it that `count` operations may follow: what ranks show that were not waited for must have been read
    /// before its place is used again.
    fn make_room(&self, count: u64) -> Result<(), CommunicatorError> {
        match self.has_room(count) {
            true => Ok(()),
            false => self.barrier(),
        }
    }

    #[inline]
    fn has_room(&self, count: u64) -> bool {
        let (first, ahead) = self.ahead.get();
        ahead == 0 || self.next.get() + count <= first + FARTHEST
    }

    /// Waits until no collective is in flight, before a call that goes through the bootstrap. Messages between two ranks
    /// may be: another rank may be waiting for one before it comes, or send one only afterwards. They are moved on while
    /// this rank waits for the others.
    fn settle(&self) -> Result<(), CommunicatorError> {
        self.usable()?;
        self.engine.wait_until(|| self.engine.has_no_calls());
        self.usable()
    }

    #[inline]
    fn usable(&self) -> Result<(), CommunicatorError> {
        let may = self.life == 0 && self.next.get() < MAXIMUM_SEQUENCE && !self.in_step.get();
        match may && self.engine.check().is_ok() {
            true => Ok(()),
            false => self.why_unusable(),
        }
    }

    #[cold]
    fn why_unusable(&self) -> Result<(), CommunicatorError> {
        self.first_life()?;
        self.engine.check()?;
        if self.next.get() >= MAXIMUM_SEQUENCE {
            let what = format!("{MAXIMUM_SEQUENCE} operations, the most of one communicator; make a new one");
            return Err(self.argument("a collective", what));
        }
        if self.in_step.get() {
            return Err(self.argument(
                "a collective",
                "a step of the exchange was begun and not finished".into(),
            ));
        }
        Ok(())
    }

    fn argument(&self, call: &'static str, what: String) -> CommunicatorError {
        CommunicatorError::Argument {
            rank: self.rank,
            call,
            what,
        }
    }
}
