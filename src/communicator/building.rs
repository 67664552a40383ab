//! Making a communicator: meeting the other ranks, connecting to them, sharing what the engine needs.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::boards::Mapped;
use super::connect::{self, Meeting};
use super::members::Members;
use super::plans::Plans;
use super::shapes::{Shapes, Way, reach, staging_slots};
use super::{Communicator, CommunicatorError};
use crate::bootstrap::{DEFAULT_TIMEOUT, Job, Membership};
use crate::engine::{Core, Engine, Extent, Layout, MessageCore, SLOT_BYTES};
use crate::fabric::delayed::Delayed;
use crate::fabric::{Access, Fabric, select};
use crate::memory::Region;
use crate::plan::cost::{Setting, Tuning};
use crate::plan::{Collective, builders};

/// Of which generation a communicator is that was not made from another.
const FIRST: u32 = 0;

/// How a communicator is to be made.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    timeout: Option<Duration>,
    plan: Option<String>,
    pub(super) fabric: Option<Arc<dyn Fabric>>,
    tuning: Option<Arc<Tuning>>,
    /// The tuning is what all ranks have agreed on.
    agreed: bool,
    chunk: Option<f64>,
    pub(super) delay: Option<Duration>,
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

    /// Chooses plans and chunks by what was measured, instead of a built-in table; else by the file that the job names
    /// (`SAPWOOD_TUNING`), if it names one. Rank 0's counts for all ranks.
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.tuning = Some(Arc::new(tuning));
        self
    }

    /// With a plan that was asked for, chunks are so many times as long as by the built-in table. For measuring; the same
    /// on every rank.
    pub fn chunk(mut self, scale: f64) -> Self {
        self.chunk = Some(scale);
        self
    }

    /// Meets the job's other ranks and connects to them. Collective; but where this rank was started anew after a death
    /// and the others let it back in ([`Communicator::has_returned`]), which they do without taking part.
    ///
    /// # Errors
    /// A tuning file that cannot be used; an unknown plan; a rank that does not come, named; what the fabric refuses.
    pub fn join(mut self, job: &Job) -> Result<Communicator, CommunicatorError> {
        if let Some(plan) = &self.plan {
            // Refused before anybody is met, if it can do nothing at all.
            let found = builders::find(plan)?;
            let mut others = Collective::every(0).into_iter();
            if let Err(error) = found.build(Collective::AllReduce, job.size)
                && !others.any(|collective| found.build(collective, job.size).is_ok())
            {
                return Err(error.into());
            }
        }
        if let (None, Some(path), 0) = (&self.tuning, &job.tuning, job.rank) {
            self.tuning = Some(Arc::new(Tuning::read(path)?));
        }
        self.delay = job.delay;
        let timeout = self.timeout.unwrap_or(job.timeout);
        let membership = Membership::join(job, Instant::now() + timeout)?;
        match membership.life() {
            0 => self.timeout(timeout).build(membership, FIRST),
            _ => self.timeout(timeout).come_back(membership),
        }
    }

    pub(super) fn timeout_or(&self, otherwise: Duration) -> Duration {
        self.timeout.unwrap_or(otherwise)
    }

    /// These settings, with the fabric of those.
    pub(super) fn like(mut self, others: &Self) -> Self {
        self.fabric.clone_from(&others.fabric);
        self.delay = others.delay;
        self
    }

    /// Connects to the ranks that have met. Collective.
    pub(super) fn build(
        mut self,
        membership: Membership,
        generation: u32,
    ) -> Result<Communicator, CommunicatorError> {
        let timeout = self.timeout.unwrap_or(DEFAULT_TIMEOUT);
        let (rank, ranks) = (membership.rank(), membership.size());
        let (hosts, local_rank) = (membership.hosts(), membership.local_rank() as usize);
        let (choice, members) = (membership.fabric(), Members::new(membership));
        let fabric = match &self.fabric {
            Some(fabric) => fabric.clone(),
            // The launcher's local rank: ranks of one machine spread over its devices, whatever hosts they pretend to be on.
            None => {
                let devices = connect::devices(choice, &hosts, &members, timeout)?;
                let opened = select::open(choice, &hosts, &devices, rank, local_rank);
                // Where one has no device, the others need not wait to hear of it.
                opened
                    .inspect_err(|error| members.give_up("opening the fabric", &error.to_string()))?
                    .fabric
            }
        };
        let fabric = match self.delay {
            Some(delay) => Arc::new(Delayed::new(fabric, delay)),
            None => fabric,
        };
        let (load_store, queue_depth) = (
            fabric.capabilities().load_store,
            fabric.capabilities().queue_depth,
        );
        let mut meeting = Meeting::new(rank, members, fabric, timeout);
        if !self.agreed {
            self.tuning = agree(&meeting, self.tuning.take())?;
            self.agreed = true;
        }
        let setting = Setting {
            reach: reach(load_store, ranks),
            slot_bytes: SLOT_BYTES,
            most_tasks: match load_store {
                true => Layout::new(ranks, 0, 0).tasks(),
                false => usize::from(u16::MAX),
            },
            hosts,
        };
        let forced = self.plan.clone().map(|plan| (plan, self.chunk.unwrap_or(1.0)));
        let plans = Plans::new(forced, setting, self.tuning.clone());
        let (engine, mapped, staging, way) = if load_store {
            let mut mapped = Mapped::connect(&meeting, ranks, generation)?;
            let (group, layout) = mapped.group(&mut meeting, ranks, plans.most_tasks(ranks))?;
            let region = Region::untouched(staging_slots(&layout) * SLOT_BYTES)?;
            let bytes = (0, region.len());
            let staging = mapped.share(
                &mut meeting,
                "sharing staging slots",
                (&region, Access::READ),
                bytes,
                "staging",
            )?;
            let staging = Extent::new(Arc::new(staging), 0, region.len());
            (
                Engine::Boards(Core::new(group)),
                Some(mapped),
                Some(staging),
                Way::Boards(layout),
            )
        } else {
            let endpoint = meeting.fabric.endpoint(rank, generation)?;
            let liveness = Box::new(meeting.members.clone());
            let fabric = (meeting.fabric.name(), queue_depth);
            let core = MessageCore::new(ranks, generation, endpoint, fabric, liveness);
            (Engine::Messages(core), None, None, Way::Messages)
        };
        let communicator = Communicator {
            id: Communicator::new_id(),
            rank,
            ranks,
            timeout: Cell::new(timeout),
            plans,
            made_with: self,
            generation,
            life: 0,
            backup_barriers: Cell::new(0),
            engine: Arc::new(engine),
            staging,
            mapped: RefCell::new(mapped),
            meeting: RefCell::new(meeting),
            shapes: RefCell::new(Shapes::new(rank, ranks, way)),
            bounce: RefCell::new(None),
            // Boards start as zeroes: no operation may have that number.
            next: Cell::new(1),
            letters: RefCell::new(vec![[0; 2]; ranks as usize]),
            small_turn: Cell::new(0),
            recent: RefCell::default(),
            ahead: Cell::new((0, 0)),
            in_step: Cell::new(false),
        };
        // Weakly: the engine keeps the members.
        let engine = Arc::downgrade(&communicator.engine);
        let members = communicator.meeting.borrow().members.clone();
        members.while_waiting(move || {
            if let Some(engine) = engine.upgrade() {
                engine.poll();
            }
        });
        if !load_store {
            communicator.connect_for_barriers()?;
        }
        Ok(communicator)
    }
}

impl Communicator {
    /// Windows are told apart by their communicator, of which a process may have many.
    pub(super) fn new_id() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }
}

/// Rank 0's tuning, on every rank. Collective.
fn agree(meeting: &Meeting, own: Option<Arc<Tuning>>) -> Result<Option<Arc<Tuning>>, CommunicatorError> {
    let text = own.filter(|_| meeting.rank == 0).map(|tuning| tuning.to_text());
    let given = meeting.all_gather("agreeing on a tuning", &text, Vec::new())?;
    let Some((Some(text), _)) = given.into_iter().next() else {
        return Ok(None);
    };
    Ok(Some(Arc::new(Tuning::parse(&text, "the tuning of rank 0")?)))
}
