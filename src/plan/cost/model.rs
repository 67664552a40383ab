//! The time of a plan among ranks on given hosts: what each task costs by the parameters, to be played through.

use super::footprint::{Memory, read, written};
use super::parameters::{Class, Link, Parameters};
use super::schedule::{self, Out, What, Work};
use crate::plan::lowered::{Action, Buffer, Program, Progress, Rank, block_range, chunk_count};
use crate::plan::run::Pieces;
use crate::plan::{Collective, Plan, PlanError, Reach};

/// A call whose time is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What ranks can do with each other's memory.
    pub reach: Reach,
    /// The host of each rank, as a number: as many as the plan has ranks.
    pub hosts: &'a [u32],
    /// Of the longest buffer of a rank.
    pub bytes: usize,
    /// Bytes of a chunk, at least 1.
    pub chunk: usize,
    /// The most bytes of a chunk of a plan that uses staging slots.
    pub slot_bytes: usize,
    /// Input and result are the same memory.
    pub in_place: bool,
}

/// Why there is no prediction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CostError {
    /// There is no such plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The parameters have nothing about such pairs of ranks.
    #[error("there are no figures for pairs of class {}; 'sapwood tune' measures them where the ranks are such", .0.name())]
    Class(Class),
    /// A case for another number of ranks.
    #[error("the plan has {ranks} ranks, but {hosts} of them are given a host")]
    Hosts {
        /// How many the plan has.
        ranks: u32,
        /// How many have a host.
        hosts: usize,
    },
    /// More than is played through in reasonable time.
    #[error("{chunks} chunks of all ranks together are more than are played through ({most})")]
    Large {
        /// How many there are.
        chunks: u64,
        /// The limit.
        most: u64,
    },
}

/// When a task ran.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TaskTime {
    /// Its first chunk began, in microseconds after the ranks have begun.
    pub start: f64,
    /// Its last chunk had ended.
    pub end: f64,
    /// How long its rank was busy with it.
    pub busy: f64,
    /// Had it been faster, the plan had been.
    pub critical: bool,
}

/// What a plan was predicted to take.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Until the slowest rank's end, in microseconds.
    pub time: f64,
    /// By rank and task, as in the lowered programs.
    pub tasks: Vec<Vec<TaskTime>>,
}

impl Prediction {
    /// Makes everything longer by a factor.
    pub(super) fn scale(&mut self, factor: f64) {
        self.time *= factor;
        for task in self.tasks.iter_mut().flatten() {
            task.start *= factor;
            task.end *= factor;
            task.busy *= factor;
        }
    }
}

/// Predicts the time of a plan.
///
/// # Errors
/// [`CostError`].
pub fn predict(plan: &Plan, case: &Case<'_>, parameters: &Parameters) -> Result<Prediction, CostError> {
    if case.hosts.len() != plan.ranks() as usize {
        let (ranks, hosts) = (plan.ranks(), case.hosts.len());
        return Err(CostError::Hosts { ranks, hosts });
    }
    let programs = (0..plan.ranks())
        .map(|rank| plan.lower(rank, case.reach))
        .collect::<Result<Vec<_>, _>>()?;
    let pricing = Pricing::new(&programs, case, parameters);
    let mut work = Vec::with_capacity(programs.len());
    for program in &programs {
        work.push(pricing.rank(plan, program)?);
    }
    let waits: Vec<Vec<_>> = programs
        .iter()
        .map(|program| program.tasks.iter().map(|task| &task.waits[..]).collect())
        .collect();
    schedule::play(&work, &waits, &cores(case.hosts, parameters.cores))
}

/// Which core each rank runs on, of all hosts' cores.
fn cores(hosts: &[u32], of_host: u32) -> Vec<usize> {
    let position = |rank: usize| hosts[..rank].iter().filter(|host| **host == hosts[rank]).count();
    let first = |rank: usize| hosts.iter().position(|host| *host == hosts[rank]).unwrap_or(rank);
    // A host's cores have the numbers of those of its ranks that come first.
    let core = |rank| first(rank) * hosts.len() + position(rank) % of_host.max(1) as usize;
    (0..hosts.len()).map(core).collect()
}

struct Pricing<'a> {
    case: &'a Case<'a>,
    parameters: &'a Parameters,
    memory: Memory,
    chunk: usize,
}

impl<'a> Pricing<'a> {
    fn new(programs: &[Program], case: &'a Case<'a>, parameters: &'a Parameters) -> Self {
        let shared = !matches!(case.reach, Reach::Message { .. });
        let staged = programs.iter().any(uses_staging);
        let chunk = match staged {
            true => case.chunk.min(case.slot_bytes),
            false => case.chunk,
        };
        Self {
            case,
            parameters,
            memory: Memory::new(programs, case.in_place, shared),
            chunk: chunk.max(1),
        }
    }

    fn link(&self, a: Rank, b: Rank) -> Result<&'a Link, CostError> {
        let hosts = self.case.hosts;
        let class = match self.case.reach {
            Reach::Load | Reach::LoadStore => Class::Memory,
            Reach::Message { .. } if hosts[a as usize] == hosts[b as usize] => Class::Host,
            Reach::Message { .. } => Class::Network,
        };
        self.parameters.link(class).ok_or(CostError::Class(class))
    }

    /// Bytes of a block.
    fn block(&self, program: &Program, block: u32) -> usize {
        // A rank's buffers hold the blocks of one sender or receiver.
        let held = match program.collective {
            Collective::AllToAll => program.blocks / program.ranks,
            _ => program.blocks,
        };
        block_range(self.case.bytes, held, block % held).len()
    }

    /// What a rank has to do.
    fn rank(&self, plan: &Plan, program: &Program) -> Result<Vec<Work<'a>>, CostError> {
        let block = |number| self.block(program, number);
        let footprint = self.memory.footprint(program, block, self.chunk);
        let pieces = Pieces::new(self.case.bytes, program.blocks, self.chunk);
        let mut all = Vec::with_capacity(program.tasks.len());
        for (index, task) in program.tasks.iter().enumerate() {
            let rank = program.rank;
            let len = block(task.block);
            let chunks = match task.action {
                Action::Signal => 1,
                _ if task.run.is_long() => pieces.count(task.block, task.run),
                _ => chunk_count(len, self.chunk) as u64,
            };
            let per_byte = self.per_byte(rank, task.block, &task.action, footprint)?;
            let (mut once, mut each) = (0.0, 0.0);
            for wait in task.waits.iter().filter(|wait| wait.rank != rank) {
                let link = self.link(rank, wait.rank)?;
                let cost = match self.shares_memory() {
                    true => link.gap(),
                    false => link.overhead(),
                };
                match wait.progress {
                    Progress::Whole => once += cost,
                    Progress::Chunk { .. } => each += cost,
                }
            }
            let mut outs = Vec::new();
            if self.shares_memory() {
                if program.ranks > 1 {
                    each += self.link(rank, (rank + 1) % program.ranks)?.overhead();
                }
                for peer in &task.notify {
                    outs.push(self.out(rank, *peer, What::Stored)?);
                }
            } else {
                for place in written(&task.action).iter().filter(|place| place.rank != rank) {
                    let gap = self.link(rank, place.rank)?.bytes.at(footprint);
                    outs.push(self.out(rank, place.rank, What::Sent(gap))?);
                }
                // Over messages a rank tells all neighbours that it has begun.
                let neighbours = if index == 0 {
                    plan.neighbours(rank)
                } else {
                    Vec::new()
                };
                for peer in task.notify.iter().chain(&neighbours) {
                    if !outs.iter().any(|out| out.to == *peer) {
                        outs.push(self.out(rank, *peer, What::Told)?);
                    }
                }
            }
            all.push(Work {
                len,
                chunk: self.chunk,
                run: (task.block, task.run, pieces),
                chunks,
                once,
                each,
                per_byte,
                outs,
            });
        }
        Ok(all)
    }

    fn out(&self, from: Rank, to: Rank, what: What) -> Result<Out<'a>, CostError> {
        let link = self.link(from, to)?;
        Ok(Out { to, link, what })
    }

    fn shares_memory(&self) -> bool {
        !matches!(self.case.reach, Reach::Message { .. })
    }

    /// Nanoseconds for a byte of a task's block that its rank is busy itself: what it sends is the link's.
    fn per_byte(&self, rank: Rank, block: u32, action: &Action, footprint: u64) -> Result<f64, CostError> {
        let own = &self.parameters.own;
        let sends = !self.shares_memory() && written(action).iter().any(|place| place.rank != rank);
        let stays = match action {
            Action::Copy { source, into } => into.iter().all(|to| self.memory.same(source, to, block)),
            Action::Signal | Action::Reduce { .. } => false,
        };
        if sends || stays {
            return Ok(0.0);
        }
        let mut gaps = 0.0;
        for place in read(action).iter().chain(written(action)) {
            gaps += match self.memory.moved(rank, place, block) {
                true => self.link(rank, place.rank)?.bytes.at(footprint),
                false => own.bytes.at(footprint),
            };
        }
        let combined = match action {
            Action::Reduce { sources, .. } => sources.len() - 1,
            Action::Signal | Action::Copy { .. } => 0,
        };
        Ok(gaps + combined as f64 * own.combine())
    }
}

fn uses_staging(program: &Program) -> bool {
    program.tasks.iter().any(|task| {
        let mut places = read(&task.action).iter().chain(written(&task.action));
        places.any(|place| matches!(place.buffer, Buffer::Staging { .. }))
    })
}
