//! Ranks that can talk: windows, collectives, handles. Decides which plan runs; never how bytes move.
//!
//! Collectives on one communicator are called in the same order by every rank; communicators are independent of
//! each other. A [`Communicator`] is used by one thread at a time ([`Send`], not [`Sync`]); an [`AbortHandle`] by
//! any.

mod boards;
mod collectives;
mod connect;
mod error;
mod lazily;
mod members;
mod pending;
mod shapes;
mod window;

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) use collectives::Starter;
pub use error::CommunicatorError;
pub use pending::Pending;
pub use window::Window;

use crate::bootstrap::{Job, Membership};
use crate::engine::{
    Core, Engine, Extent, MAXIMUM_ACTIVE, MAXIMUM_SEQUENCE, MessageCore, SLOT_BYTES, SMALL_BYTES, Signature,
    fits_small,
};
use crate::fabric::{Fabric, select};
use crate::memory::{Buffer, DataType, Element, HugePages, Region};
use crate::observe::{CounterValues, Event, Recorder};
use crate::plan::{Collective, builders};
use boards::Mapped;
use connect::Meeting;
use members::Members;
use shapes::{Known, STAGING_SLOTS, Shapes, Way};

/// Of which generation a communicator is that was not made from another.
const GENERATION: u32 = 0;

/// How a communicator is to be made.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    timeout: Option<Duration>,
    plan: Option<String>,
    fabric: Option<Arc<dyn Fabric>>,
}

impl Builder {
    /// How long an operation may take before it fails; else the job's (`SAPWOOD_TIMEOUT`, 60 s).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Uses this plan wherever it can do the collective, instead of choosing by size. The same on every rank.
    pub fn plan(mut self, name: impl Into<String>) -> Self {
        self.plan = Some(name.into());
        self
    }

    /// Uses this fabric instead of the one that [`Job::fabric`] asks for. With load/store reach ranks look into each other's memory; without it they send each other
    /// messages, over queue pairs that are made as plans first need them.
    pub fn fabric(mut self, fabric: Arc<dyn Fabric>) -> Self {
        self.fabric = Some(fabric);
        self
    }

    /// Meets the job's other ranks and connects to them. Collective.
    ///
    /// # Errors
    /// An unknown plan; a rank that does not come, named; what the fabric refuses.
    pub fn join(self, job: &Job) -> Result<Communicator, CommunicatorError> {
        if let Some(plan) = &self.plan {
            // Refused before anybody is met.
            builders::build(plan, Collective::AllReduce, job.size)?;
        }
        let timeout = self.timeout.unwrap_or(job.timeout);
        let membership = Membership::join(job, Instant::now() + timeout)?;
        let (rank, ranks) = (membership.rank(), membership.size());
        let (hosts, local_rank) = (membership.hosts(), membership.local_rank() as usize);
        let members = Members::new(membership);
        let fabric = match self.fabric {
            Some(fabric) => fabric,
            // The launcher's local rank: ranks of one machine spread over its devices, whatever hosts they pretend to be on.
            None => {
                let devices = connect::devices(job.fabric, &hosts, &members, timeout)?;
                select::open(job.fabric, &hosts, &devices, rank, local_rank)?.fabric
            }
        };
        let (load_store, queue_depth) = (
            fabric.capabilities().load_store,
            fabric.capabilities().queue_depth,
        );
        let mut meeting = Meeting::new(rank, members, fabric, timeout);
        let (engine, mapped, staging, way) = if load_store {
            let mut mapped = Mapped::connect(&meeting, ranks)?;
            let (group, layout) = mapped.group(&mut meeting, ranks)?;
            let region = Region::host(STAGING_SLOTS * SLOT_BYTES, HugePages::Never)?;
            let bytes = (0, region.len());
            let staging = mapped.share(&mut meeting, "sharing staging slots", &region, bytes, "staging")?;
            let staging = Extent::new(Arc::new(staging), 0, region.len());
            (
                Engine::Boards(Core::new(group)),
                Some(mapped),
                Some(staging),
                Way::Boards(layout),
            )
        } else {
            let endpoint = meeting.fabric.endpoint(rank, GENERATION)?;
            let liveness = Box::new(meeting.members.clone());
            let fabric = (meeting.fabric.name(), queue_depth);
            let core = MessageCore::new(ranks, GENERATION, endpoint, fabric, liveness);
            (Engine::Messages(core), None, None, Way::Messages)
        };
        // Windows are told apart by their communicator, of which a process may have many.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let communicator = Communicator {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            rank,
            ranks,
            timeout: Cell::new(timeout),
            forced: self.plan,
            engine: Arc::new(engine),
            staging,
            mapped: RefCell::new(mapped),
            meeting: RefCell::new(meeting),
            shapes: RefCell::new(Shapes::new(rank, hosts, way)),
            bounce: RefCell::new(None),
            // Boards start as zeroes: no operation may have that number.
            next: Cell::new(1),
            small_turn: Cell::new(0),
            in_step: Cell::new(false),
        };
        if !load_store {
            communicator.connect_for_barriers()?;
        }
        Ok(communicator)
    }
}

/// Ranks that can talk, as one of them sees it.
pub struct Communicator {
    id: u64,
    rank: u32,
    ranks: u32,
    timeout: Cell<Duration>,
    forced: Option<String>,
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
    /// How many small operations with a payload there were.
    small_turn: Cell<u64>,
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
    /// [`Communicator::all_reduce_slice`]).
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
            return Err(self.argument("registering a window", what));
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
                mapped.share(meeting, call, buffer.region(), range, T::TYPE.name())?
            }
        };
        Ok(Window::new(buffer, map, self.id))
    }

    /// `len` zeroed elements that all ranks can reach. Collective.
    ///
    /// # Errors
    /// As [`Communicator::register`], and memory limits.
    pub fn window<T: Element>(&self, len: usize) -> Result<Window<T>, CommunicatorError> {
        self.register(Buffer::allocate(len)?)
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

    /// The name of the plan that an operation on `bytes` runs. Small all-reduces and barriers run none: every rank
    /// reads what all show (`flat`).
    pub fn plan_name(&self, collective: Collective, bytes: usize) -> String {
        if self.small_core(collective, bytes).is_some() {
            return "flat".into();
        }
        self.plan_for(collective, bytes)
    }

    /// The name of the fabric that it runs over, for people: what it can do is not to be read from it.
    pub fn fabric_name(&self) -> &'static str {
        self.meeting.borrow().fabric.name()
    }

    fn plan_for(&self, collective: Collective, bytes: usize) -> String {
        let usable = |plan: &&String| builders::build(plan, collective, self.ranks).is_ok();
        match self.forced.as_ref().filter(usable) {
            Some(plan) => plan.clone(),
            None => self.shapes.borrow().choose(collective, bytes).into_owned(),
        }
    }

    /// The engine, if an operation goes the way of small ones, which needs boards.
    #[inline]
    fn small_core(&self, collective: Collective, bytes: usize) -> Option<&Core> {
        let Engine::Boards(core) = &*self.engine else {
            return None;
        };
        let small = self.forced.is_none()
            && matches!(collective, Collective::AllReduce | Collective::Barrier)
            && fits_small(self.ranks, bytes)
            && bytes <= SMALL_BYTES;
        small.then_some(core)
    }

    /// A shape's program. At its first use it is proved, and where ranks reach each other by messages they make the
    /// queue pairs that it needs; `signature` says for what, to find ranks that called something else.
    fn shape(
        &self,
        collective: Collective,
        plan: &str,
        signature: Signature,
    ) -> Result<Arc<Known>, CommunicatorError> {
        if let Some(known) = self.shapes.borrow().find(collective, plan) {
            return Ok(known);
        }
        if let Engine::Messages(_) = *self.engine {
            self.meet(signature)?;
            self.settle()?;
        }
        self.first_use(collective, plan)
    }

    fn first_use(&self, collective: Collective, plan: &str) -> Result<Arc<Known>, CommunicatorError> {
        let prepared = self.shapes.borrow().prepare(collective, plan);
        if let Engine::Messages(core) = &*self.engine {
            let program = prepared.as_ref().map(|known| &*known.prepared);
            let root = collective
                .root()
                .map_or(String::new(), |root| format!(" with root {root}"));
            let shape = format!("{collective}{root} by {plan}");
            lazily::connect(&self.meeting.borrow(), core, &shape, program)?;
        }
        let prepared = prepared?;
        self.shapes.borrow_mut().keep(collective, plan, prepared.clone());
        Ok(prepared)
    }

    /// Makes the queue pairs of the plan by which barriers go. Over them ranks also meet before they make others, and
    /// tell each other of trouble.
    fn connect_for_barriers(&self) -> Result<(), CommunicatorError> {
        let plan = self.plan_for(Collective::Barrier, 0);
        self.first_use(Collective::Barrier, &plan).map(drop)
    }

    /// Whether ranks look into each other's memory, so that nothing is staged; else they send each other messages.
    pub fn has_load_store(&self) -> bool {
        matches!(&*self.engine, Engine::Boards(_))
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

    /// A handle with which any thread may abort.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle {
            engine: self.engine.clone(),
        }
    }

    /// Gives up: every operation in flight and every later one fails, on every rank. Waits until no other rank can
    /// read this one's memory any more; then windows are no longer in custody.
    ///
    /// # Errors
    /// A window of another communicator, before anything is given up.
    /// A rank that has not heard of it by the deadline (stopped, or in no call of the communicator): its name. The
    /// windows stay in custody.
    pub fn abort(&self, windows: &[&dyn Custody]) -> Result<(), CommunicatorError> {
        if self.engine.is_forked() {
            self.engine.check()?;
        }
        if windows.iter().any(|window| window.owner() != self.id) {
            let what =
                "a window was registered with another communicator, whose ranks may still read it".into();
            return Err(self.argument("abort", what));
        }
        self.abort_handle().abort();
        let until = Instant::now() + self.timeout();
        if let Some(rank) = self.still_reaching(until)? {
            return Err(CommunicatorError::Argument {
                rank: self.rank,
                call: "abort",
                what: format!(
                    "rank {rank} has not acknowledged within {:?}: it may still reach this rank's windows",
                    self.timeout()
                ),
            });
        }
        let silence = silence::Silence(());
        windows.iter().for_each(|window| window.release(&silence));
        Ok(())
    }

    /// After the abort: a rank of which it cannot be said, until then, that it touches this one's memory no more.
    fn still_reaching(&self, until: Instant) -> Result<Option<u32>, CommunicatorError> {
        let core = match &*self.engine {
            Engine::Boards(core) => core,
            Engine::Messages(core) => return Ok(core.fence(until)?.first().copied()),
        };
        let group = core.group();
        for rank in (0..self.ranks).filter(|rank| *rank != self.rank) {
            while !group.is_silent(rank) {
                if Instant::now() >= until {
                    return Ok(Some(rank));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(None)
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

    /// Reserves the numbers of a step's operations, which may be started in any order. Until [`Self::end_step`]
    /// nothing else can be called: operations in between would use the lines of those that are yet to start.
    pub(crate) fn begin_step(&self, count: u64) -> Result<u64, CommunicatorError> {
        debug_assert!(count <= MAXIMUM_ACTIVE as u64);
        self.usable()?;
        self.in_step.set(true);
        Ok(self.reserve(count))
    }

    /// Whether a step was begun and not ended.
    pub(crate) fn in_step(&self) -> bool {
        self.in_step.get()
    }

    /// All of the step's operations have ended, or the communicator is given up.
    pub(crate) fn end_step(&self) {
        self.in_step.set(false);
    }

    /// Waits until nothing is in flight. The calls that go through the bootstrap drive nothing while they wait, and a
    /// rank that waits for an operation would wait in vain for one that is in such a call.
    fn settle(&self) -> Result<(), CommunicatorError> {
        self.usable()?;
        self.engine.wait_until(|| self.engine.is_idle());
        self.usable()
    }

    fn usable(&self) -> Result<(), CommunicatorError> {
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

    fn root(&self, call: &'static str, root: u32) -> Result<(), CommunicatorError> {
        if root < self.ranks {
            return Ok(());
        }
        Err(self.argument(
            call,
            format!(
                "root {root} does not exist, the ranks are 0 to {}",
                self.ranks - 1
            ),
        ))
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if self.engine.is_forked() {
            return;
        }
        // What is still in flight is given up: the others hear of it instead of waiting for a rank that left.
        if !self.engine.is_idle() {
            self.abort_handle().abort();
        }
        // A bucket may outlive its exchange: what it starts is refused.
        self.engine.leave();
    }
}

/// Windows of any type, for [`Communicator::abort`].
pub trait Custody {
    /// The window's own communicator, if it may be released when that one is silent.
    #[doc(hidden)]
    fn owner(&self) -> u64;

    /// Nobody else can read the window any more.
    #[doc(hidden)]
    fn release(&self, silence: &silence::Silence);
}

mod silence {
    /// That no other rank can read this one's memory any more; only [`super::Communicator::abort`] can say so.
    #[derive(Debug)]
    pub struct Silence(pub(super) ());
}

impl<T: Element> Custody for Window<T> {
    fn owner(&self) -> u64 {
        self.shared().owner
    }

    fn release(&self, _: &silence::Silence) {
        self.shared().set_custody(false);
    }
}

/// Aborts a communicator from any thread: its operations fail on every rank.
#[derive(Clone, Debug)]
pub struct AbortHandle {
    engine: Arc<Engine>,
}

impl AbortHandle {
    /// Fails every operation in flight and every later one. Returns at once.
    pub fn abort(&self) {
        self.engine.abort();
    }
}

/// What the ranks' calls are made of, checked once.
struct Shape<'a> {
    call: &'static str,
    collective: Collective,
    operation: crate::engine::reduce::Operation,
    data_type: DataType,
    count: usize,
    memory: Option<(Extent, Extent)>,
    shared: [Option<&'a window::Shared>; 2],
}
