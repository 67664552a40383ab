//! The upper level of a plan: which values are combined and moved between ranks, with no word on how.
//!
//! Values are single-assignment: a rank's input, or the outcome of one step of one rank. A plan is a *rule* that
//! gives one rank's steps on demand; it must never hold the steps of all ranks. Every step stands for a stream over
//! the chunks of its block.

use std::fmt;
use std::sync::Arc;

pub use super::collective::Collective;
use super::cut::Cut;
use super::error::PlanError;
use super::lowered::Rank;
use super::run::Run;

/// A value in the dataflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// What a rank contributes.
    Input(Rank),
    /// What a step of a rank yields; for a signal step, that it has happened.
    Step {
        /// Whose step.
        rank: Rank,
        /// Its index in that rank's steps.
        step: u32,
    },
}

impl Value {
    /// Whose value it is.
    pub fn rank(self) -> Rank {
        match self {
            Self::Input(rank) | Self::Step { rank, .. } => rank,
        }
    }
}

/// Where a step leaves its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// In the rank's result.
    Result,
    /// Nowhere that the caller sees: the lowering picks the place (the result where the collective defines it, since
    /// the final value overwrites it later; staging otherwise).
    Partial,
}

/// One step of one rank, done for each chunk of its block, or of its run of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Combines the sources, in this order.
    Reduce {
        /// Which block, or the first of them.
        block: u32,
        /// Which blocks follow.
        run: Run,
        /// At least one.
        sources: Vec<Value>,
        /// Where to.
        into: Target,
        /// Nothing is missing from the combination.
        complete: bool,
    },
    /// Brings a value here: into the own result, or as a partial value that is only passed on.
    Copy {
        /// Which block, or the first of them.
        block: u32,
        /// Which blocks follow.
        run: Run,
        /// Where from: one value for each block, all of one rank and from one kind of place there.
        sources: Vec<Value>,
        /// Where to.
        into: Target,
    },
    /// Moves nothing: happens when all these have happened (an input's value has happened when its rank has begun).
    Signal {
        /// At least one.
        after: Vec<Value>,
    },
}

impl Step {
    /// The first block that it works on; a signal belongs to none and counts to block 0.
    pub fn block(&self) -> u32 {
        match self {
            Self::Reduce { block, .. } | Self::Copy { block, .. } => *block,
            Self::Signal { .. } => 0,
        }
    }

    /// Which blocks follow the first.
    pub fn run(&self) -> Run {
        match self {
            Self::Reduce { run, .. } | Self::Copy { run, .. } => *run,
            Self::Signal { .. } => Run::ONE,
        }
    }

    /// Whether what it is sent stays in staging until it has been used.
    pub fn lands(&self) -> bool {
        match self {
            Self::Reduce { .. } => true,
            Self::Copy { into, .. } => *into == Target::Partial,
            Self::Signal { .. } => false,
        }
    }

    /// The values that it needs.
    pub fn sources(&self) -> &[Value] {
        match self {
            Self::Reduce { sources, .. } => sources,
            Self::Copy { sources, .. } => sources,
            Self::Signal { after } => after,
        }
    }
}

/// A rank's own value, seen from that rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Own {
    /// Its input.
    Input,
    /// The value of its step with this index.
    Step(u32),
}

impl Own {
    /// The same value as others name it.
    pub fn of(self, rank: Rank) -> Value {
        match self {
            Self::Input => Value::Input(rank),
            Self::Step(step) => Value::Step { rank, step },
        }
    }
}

/// A step of another rank that needs a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Whose step.
    pub rank: Rank,
    /// Its index in that rank's steps.
    pub step: u32,
    /// For a reduction, and for a copy that is only passed on: which of the values that this consumer ever gets for a
    /// while, from 0 (see [`Rule::landing`]). For a copy straight into the result and for a signal: none.
    pub landing: Option<u32>,
}

/// One block, or a run of them, of a rank's value and everybody else who needs it: a multi-destination copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Which block, or the first of them.
    pub block: u32,
    /// Which blocks follow.
    pub run: Run,
    /// Which value.
    pub value: Own,
    /// Who needs it: other ranks only, at least one.
    pub by: Vec<Consumer>,
}

/// How a plan is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// For each tree each rank's parent, if it has one.
    Trees(Vec<Vec<Option<Rank>>>),
    /// Trees that lead through hosts: inside each host one leader has a parent or children elsewhere.
    Hosts {
        /// As in [`Layout::Trees`].
        trees: Vec<Vec<Option<Rank>>>,
        /// Each rank's host, numbered from 0 in the order in which they first appear.
        hosts: Vec<u32>,
    },
    /// Rings, one for each channel: every rank passes to the one that is so many further.
    Rings(Vec<u32>),
    /// Every rank reads from every rank.
    Complete,
    /// Rounds: in each every rank passes to the one that is so many further.
    Rounds(Vec<u32>),
}

/// An algorithm for one collective and a number of ranks: who does what, given rank by rank.
///
/// Where steps have runs of blocks, the plan must be the same for all ranks but for being turned
/// ([`Symmetry::Rotation`]), and cut the one vector that all ranks have.
///
/// `steps` and `uses` are two views of one graph and must agree: the verifier rejects a plan where they do not.
/// Each must cost no more than the rank's own part.
pub trait Rule: fmt::Debug + Send + Sync {
    /// What `rank` does, in the order in which an engine should look at it: what finishes chunks before what starts
    /// new ones. Steps name each other by index and need not be listed in the order of their dependencies.
    fn steps(&self, rank: Rank) -> Vec<Step>;

    /// Who else needs `rank`'s values, those that finish chunks first; one entry for each value and block.
    fn uses(&self, rank: Rank) -> Vec<Use>;

    /// Which of the values that others hand to `rank` for a while the one from `from` to its step `step` is, counted from
    /// 0 over all its reductions and all its copies that are only passed on. To be overridden where a rank has many.
    fn landing(&self, rank: Rank, step: u32, from: Rank) -> u32 {
        let mut count = 0;
        for (index, candidate) in self.steps(rank).iter().enumerate() {
            if !candidate.lands() {
                continue;
            }
            for source in candidate.sources().iter().filter(|source| source.rank() != rank) {
                if index as u32 == step && source.rank() == from {
                    return count;
                }
                count += 1;
            }
        }
        count
    }

    /// The step of `rank` that must have ended before its step `step` begins, though it needs no value of it: an
    /// algorithm in rounds. Where data is sent, it is the sender that keeps to the rounds, by its own step of that
    /// number; so the steps of a round have one number on all ranks.
    fn after(&self, _rank: Rank, _step: u32) -> Option<u32> {
        None
    }

    /// A bound for the steps of any rank that may have to hold a value in staging; they are the first ones of the rank.
    fn held_steps(&self) -> u32 {
        4
    }

    /// Whether every final value is combined from inputs alone, those of all ranks, and copied from there by every other
    /// rank: who combines it can then as well store it into all results, where ranks can write each other's memory.
    fn in_one_round(&self) -> bool {
        false
    }

    /// Where data must be sent, a rank's streams are its steps, then one for each entry of `uses` whose value is not a
    /// copy step (a copy step passes its own value on). This is the index of the stream that sends `value`.
    /// To be overridden where a rank has many steps.
    fn sender(&self, rank: Rank, value: Own, block: u32) -> u32 {
        let steps = self.steps(rank);
        let relayed = |value: Own| match value {
            Own::Step(step) => matches!(steps.get(step as usize), Some(Step::Copy { .. })),
            Own::Input => false,
        };
        if let (Own::Step(step), true) = (value, relayed(value)) {
            return step;
        }
        let before = self
            .uses(rank)
            .iter()
            .filter(|entry| !relayed(entry.value))
            .position(|entry| entry.value == value && entry.block == block);
        // A value without an entry has no stream; the number after the last makes the verifier say so.
        steps.len() as u32 + before.unwrap_or(steps.len() + self.uses(rank).len()) as u32
    }

    /// Whether reductions take their sources in the order of the ranks, whoever combines them.
    fn in_rank_order(&self) -> bool {
        false
    }

    /// How to draw it.
    fn layout(&self) -> Layout;
}

/// What changes nothing about a plan except names, so that one rank's part stands for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symmetry {
    /// Nothing is known.
    None,
    /// Adding a constant to all ranks (modulo their number), and moving the blocks along with them
    /// ([`Cut::turned`]), gives the same plan, but for the order of sources within a reduction. Rank 0's part is asked of
    /// the rule, and all others are made from it.
    Rotation,
}

/// A collective for a number of virtual ranks, as dataflow. Membership only relabels ranks, so a shape is proved once.
#[derive(Clone, Debug)]
pub struct Plan {
    name: String,
    collective: Collective,
    ranks: u32,
    cut: Cut,
    symmetry: Symmetry,
    rule: Arc<dyn Rule>,
}

impl Plan {
    /// A plan from its rule; for builders.
    ///
    /// # Errors
    /// [`PlanError::Ranks`], [`PlanError::Root`] and [`PlanError::Blocks`].
    pub fn new(
        name: impl Into<String>,
        collective: Collective,
        ranks: u32,
        blocks: u32,
        symmetry: Symmetry,
        rule: Arc<dyn Rule>,
    ) -> Result<Self, PlanError> {
        check(collective, ranks)?;
        Ok(Self {
            name: name.into(),
            collective,
            ranks,
            cut: Cut::new(collective, ranks, blocks)?,
            symmetry,
            rule,
        })
    }

    /// The name by which it was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it achieves.
    pub fn collective(&self) -> Collective {
        self.collective
    }

    /// How many ranks take part.
    pub fn ranks(&self) -> u32 {
        self.ranks
    }

    /// Into how many blocks the vector is cut.
    pub fn blocks(&self) -> u32 {
        self.cut.blocks()
    }

    /// What its blocks stand for.
    pub fn cut(&self) -> Cut {
        self.cut
    }

    /// What is known about its shape.
    pub fn symmetry(&self) -> Symmetry {
        self.symmetry
    }

    /// The ranks with which `rank` exchanges anything, data or signals, ascending: it needs a connection to these and
    /// to no others. The same for every lowering, and mutual: each of them has `rank` among its own.
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn neighbours(&self, rank: Rank) -> Vec<Rank> {
        assert!(rank < self.ranks, "rank {rank} is not one of {}", self.ranks);
        let steps = self.rule.steps(rank);
        let sources = steps.iter().flat_map(Step::sources).map(|source| source.rank());
        let uses = self.rule.uses(rank);
        let consumers = uses
            .iter()
            .flat_map(|entry| &entry.by)
            .map(|consumer| consumer.rank);
        let mut neighbours: Vec<Rank> = sources.chain(consumers).filter(|peer| *peer != rank).collect();
        neighbours.sort_unstable();
        neighbours.dedup();
        neighbours
    }

    /// Its rule.
    pub fn rule(&self) -> &dyn Rule {
        &*self.rule
    }
}

/// Refuses numbers of ranks and roots for which there is no plan.
pub(super) fn check(collective: Collective, ranks: u32) -> Result<(), PlanError> {
    if ranks == 0 || ranks > super::MAX_RANKS {
        return Err(PlanError::Ranks { ranks });
    }
    match collective.root() {
        Some(root) if root >= ranks => Err(PlanError::Root { root, ranks }),
        _ => Ok(()),
    }
}
