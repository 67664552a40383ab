//! From dataflow to what an engine runs: one rank's program for one kind of reach, in time and memory of that rank's
//! own part. Decides places, waits and credits; never which ranks talk.
//!
//! Task 0 of every program (of more than one rank) says that the rank has begun; task `1 + i` is step `i`. So a rank
//! knows the numbers of its peers' tasks without computing their programs.

mod load_store;
mod message;
pub(super) mod turning;

use super::dataflow::{Collective, Consumer, Own, Plan, Step, Symmetry, Target, Value};
use super::error::PlanError;
use super::lowered::{Action, Buffer, Place, Program, Progress, Rank, Task, Wait};
use super::run::Run;

/// What ranks can do with each other's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// They read it as their own: data is pulled, and nobody but the owner writes. So no rank that was left behind can
    /// store into memory that others have gone on to use.
    Load,
    /// They read and write it as their own (one host): data is pulled, but for final values that are complete in one
    /// round, which are stored where they are needed.
    LoadStore,
    /// They write into it with a message (RDMA, sockets): data is pushed, and nobody but the owner reads.
    Message {
        /// How many chunks of a stream may be under way: staging slots for each contribution, at least 1.
        slots: u32,
    },
}

impl Reach {
    /// The word for it on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::LoadStore => "load-store",
            Self::Message { .. } => "message",
        }
    }
}

/// Slots for all values that cannot stay in a result, where peers pull them; each has at least one, and at most
/// [`MOST_PULLED_SLOTS`].
const PULLED_SLOTS: u32 = 32;
const MOST_PULLED_SLOTS: u32 = 8;

/// Slots for each such value: the same on all ranks, since they read each other's.
fn pulled_slots(plan: &Plan) -> u32 {
    (PULLED_SLOTS / plan.rule().held_steps().max(1)).clamp(1, MOST_PULLED_SLOTS)
}

/// The most staging slots for one stream.
pub const MAX_SLOTS: u32 = 256;

impl Plan {
    /// The part of `rank`.
    ///
    /// # Errors
    /// [`PlanError::NoSuchRank`], and [`PlanError::Slots`] where a stream would have none or too many.
    pub fn lower(&self, rank: Rank, reach: Reach) -> Result<Program, PlanError> {
        if rank >= self.ranks() {
            return Err(PlanError::NoSuchRank {
                rank,
                ranks: self.ranks(),
            });
        }
        if let Reach::Message { slots } = reach
            && !(1..=MAX_SLOTS).contains(&slots)
        {
            return Err(PlanError::Slots {
                slots,
                most: MAX_SLOTS,
            });
        }
        Ok(match self.symmetry() {
            Symmetry::Rotation => turning::turned(self, self.listed(0, reach), rank),
            Symmetry::None => self.listed(rank, reach),
        })
    }

    /// The part of `rank` as the rule lists it.
    fn listed(&self, rank: Rank, reach: Reach) -> Program {
        let (tasks, staging_slots) = match (self.ranks(), self.collective(), reach) {
            (1, _, _) => (alone(self, rank), 0),
            (_, Collective::Barrier, _) => (barrier(self, rank), 0),
            (_, _, Reach::Load) => load_store::tasks(self, rank, false),
            (_, _, Reach::LoadStore) => load_store::tasks(self, rank, self.rule().in_one_round()),
            (_, _, Reach::Message { slots }) => message::tasks(self, rank, slots),
        };
        Program {
            collective: self.collective(),
            rank,
            ranks: self.ranks(),
            blocks: self.blocks(),
            staging_slots,
            tasks,
        }
    }
}

/// The task in which a rank says that it has begun.
const BEGIN: u32 = 0;

fn step_task(step: u32) -> u32 {
    1 + step
}

fn whole(rank: Rank, task: u32) -> Wait {
    Wait {
        rank,
        task,
        progress: Progress::Whole,
        ahead: 0,
    }
}

fn chunk(rank: Rank, task: u32, lag: u32) -> Wait {
    Wait {
        rank,
        task,
        progress: Progress::Chunk { lag },
        ahead: 0,
    }
}

/// Some blocks: the first, and which follow.
type Blocks = (u32, Run);

/// Where these blocks of `rank` begin in those of a step of another rank, or its own. `steps` are its own: long runs are
/// in plans only that are the same for all ranks.
fn ahead(plan: &Plan, rank: Rank, steps: &[Step], (block, run): Blocks, (peer, step): (Rank, u32)) -> i32 {
    if plan.symmetry() == Symmetry::None {
        return 0;
    }
    let theirs = &steps[step as usize];
    let first = plan.cut().turned(theirs.block(), peer + plan.ranks() - rank);
    // The verifier refuses a wait for other blocks.
    first.map_or(0, |first| {
        theirs
            .run()
            .place_of(first, run, block, plan.blocks())
            .unwrap_or(0)
    })
}

fn result(rank: Rank) -> Place {
    Place {
        rank,
        buffer: Buffer::Result,
    }
}

fn input(rank: Rank) -> Place {
    Place {
        rank,
        buffer: Buffer::Input,
    }
}

fn staging(rank: Rank, number: u32, slots: u32) -> Place {
    Place {
        rank,
        buffer: Buffer::Staging {
            first: number * slots,
            slots,
        },
    }
}

/// Peers to notify: others, ascending, each once.
fn others(rank: Rank, peers: impl IntoIterator<Item = Rank>) -> Vec<Rank> {
    let mut list: Vec<Rank> = peers.into_iter().filter(|&peer| peer != rank).collect();
    list.sort_unstable();
    list.dedup();
    list
}

/// Who needs the value of each step, by step, and who the input.
struct Consumers {
    steps: Vec<Vec<Consumer>>,
    input: Vec<Consumer>,
}

impl Consumers {
    fn of(plan: &Plan, rank: Rank, steps: usize) -> Self {
        let mut consumers = Self {
            steps: vec![Vec::new(); steps],
            input: Vec::new(),
        };
        for entry in plan.rule().uses(rank) {
            let list = match entry.value {
                Own::Input => &mut consumers.input,
                Own::Step(step) => &mut consumers.steps[step as usize],
            };
            if list.is_empty() {
                *list = entry.by;
            } else {
                list.extend(entry.by);
            }
        }
        consumers
    }
}

fn ranks_of(consumers: &[Consumer]) -> impl Iterator<Item = Rank> {
    consumers.iter().map(|consumer| consumer.rank)
}

/// Whether what `rank` holds of a block for a while is in its result, where the final value comes to lie; else it needs
/// staging.
fn partial_in_result(plan: &Plan, rank: Rank, block: u32) -> bool {
    plan.cut().defines(rank, block)
}

fn alone(plan: &Plan, rank: Rank) -> Vec<Task> {
    let copy = |step: &Step| Task {
        block: step.block(),
        run: step.run(),
        waits: Vec::new(),
        action: Action::Copy {
            source: input(rank),
            into: vec![result(rank)],
        },
        notify: Vec::new(),
    };
    plan.rule().steps(rank).iter().map(copy).collect()
}

/// Signals only, the same for every reach.
fn barrier(plan: &Plan, rank: Rank) -> Vec<Task> {
    let steps = plan.rule().steps(rank);
    let consumers = Consumers::of(plan, rank, steps.len());
    let signal = |waits, notify| Task {
        block: 0,
        run: Run::ONE,
        waits,
        action: Action::Signal,
        notify,
    };
    let begin = signal(Vec::new(), others(rank, ranks_of(&consumers.input)));
    let step_signals = steps.iter().zip(&consumers.steps).map(|(step, consumers)| {
        let waits = step.sources().iter().map(|source| match *source {
            Value::Input(peer) => whole(peer, BEGIN),
            Value::Step { rank, step } => whole(rank, step_task(step)),
        });
        signal(waits.collect(), others(rank, ranks_of(consumers)))
    });
    std::iter::once(begin).chain(step_signals).collect()
}

/// Whether a step leaves its value in staging.
fn staged(plan: &Plan, rank: Rank, step: &Step) -> bool {
    match step {
        Step::Reduce { into, block, .. } | Step::Copy { into, block, .. } => {
            *into == Target::Partial && !partial_in_result(plan, rank, *block)
        }
        Step::Signal { .. } => false,
    }
}
