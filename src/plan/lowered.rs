//! A plan as the engine runs it: one rank's tasks, each a stream over the chunks of one block or of a run of them.
//!
//! Tasks know ranks, places and what they wait for; they never know addresses, element types or providers. The
//! verifier proves this form, the engine executes it, the simulator times it.
//!
//! # Meaning
//! The vector is cut into `blocks` blocks (what they stand for: [`Cut`], where they lie:
//! [`Placement`](super::Placement)) and each block into chunks of equal size (the last may be short): chunk `k` is `k`
//! chunks' elements behind the block's first one. A task runs its action for chunk 0, 1, 2, … of its block, each as soon as
//! all its waits hold; of a run of blocks for piece 0, 1, 2, … ([`Pieces`](super::Pieces)), which are its chunks then. Tasks
//! of one rank are independent of each other except through waits. A rank's part of the operation ends when all
//! its tasks have ended: from then on its `Input` and `Result` belong to the caller again, so nobody may touch
//! them later, and nobody may touch them before the rank has begun.

use std::ops::Range;

use super::cut::Cut;
use super::dataflow::Collective;
use super::error::PlanError;
use super::run::Run;

/// A position in the communicator, from 0.
pub type Rank = u32;

/// Which memory of a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Buffer {
    /// What the rank contributes; may be the same memory as `Result` (an in-place call), never written.
    /// (In place, writing `Result` overwrites it: the verifier proves every plan for that harder case too.)
    Input,
    /// Where the rank's caller finds the outcome.
    Result,
    /// Slots of one chunk each that belong to the runtime: chunk `k` uses slot `first + k % slots`.
    Staging {
        /// The first slot of this use.
        first: u32,
        /// How many slots it cycles through, at least 1.
        slots: u32,
    },
}

/// A buffer of a rank; which chunk of it follows from the task that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Whose memory.
    pub rank: Rank,
    /// Which of its buffers.
    pub buffer: Buffer,
}

/// How far the awaited task must have come before chunk `k` of the waiting one may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Progress {
    /// Chunk `k - lag` has been done (holds at once while `k < lag`). 0 for data; the slot count for a credit. Of another run
    /// it is the chunk that has the same place in the vector, or all of the run if that has only earlier ones.
    Chunk {
        /// How many chunks behind.
        lag: u32,
    },
    /// Every chunk has been done.
    Whole,
}

/// A dependency on a task of this or another rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wait {
    /// Whose task.
    pub rank: Rank,
    /// Its index in that rank's program.
    pub task: u32,
    /// How far it must be.
    pub progress: Progress,
    /// Chunk by chunk: where in the run of the awaited task the waiting one's first block is, or, if negative, would be.
    /// 0 between tasks of the same blocks.
    pub ahead: i32,
}

impl Wait {
    /// Whether, if it counts chunks, it counts those of the same blocks from the same one on.
    pub(super) fn is_even(&self, waiting: &Task, awaited: &Task) -> bool {
        let alike = waiting.run == awaited.run || !waiting.run.is_long() && !awaited.run.is_long();
        self.ahead == 0 && alike
    }
}

/// What a task does for each chunk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Moves nothing: says that this rank has begun (no waits), or waits for those who still read from it.
    /// Runs once, not once a chunk: its waits are `Whole` (or on other single-run tasks).
    Signal,
    /// Combines the sources, in this order, and stores into every destination.
    Reduce {
        /// At least one; a source may be the same place as a destination.
        sources: Vec<Place>,
        /// At least one.
        into: Vec<Place>,
        /// The combination is complete: an average is divided here.
        complete: bool,
    },
    /// Copies the source into every destination.
    Copy {
        /// Where from.
        source: Place,
        /// At least one.
        into: Vec<Place>,
    },
}

/// One stream of work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// Which block of the vector, or the first of them.
    pub block: u32,
    /// Which blocks follow.
    pub run: Run,
    /// All must hold before a chunk runs.
    pub waits: Vec<Wait>,
    /// What is done.
    pub action: Action,
    /// Ranks other than this one that wait for this task's progress, ascending, each once. With load/store reach
    /// they poll the task's counter; otherwise each gets an immediate (with the data where the action writes to it).
    pub notify: Vec<Rank>,
}

/// One rank's part of a lowered plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// What the ranks achieve together.
    pub collective: Collective,
    /// Whose part this is.
    pub rank: Rank,
    /// How many ranks take part.
    pub ranks: u32,
    /// Into how many blocks the vector is cut.
    pub blocks: u32,
    /// Staging slots of one chunk each that this rank must own.
    pub staging_slots: u32,
    /// In the order in which the engine looks at them; those that finish chunks come before those that start new ones.
    pub tasks: Vec<Task>,
}

/// All places that an action touches.
pub(super) fn places(action: &Action) -> impl Iterator<Item = &Place> {
    let (sources, into): (&[Place], &[Place]) = match action {
        Action::Signal => (&[], &[]),
        Action::Reduce { sources, into, .. } => (sources, into),
        Action::Copy { source, into } => (std::slice::from_ref(source), into),
    };
    sources.iter().chain(into)
}

impl Program {
    /// What its blocks stand for.
    ///
    /// # Errors
    /// As [`Cut::new`]; none for the program of a plan.
    pub fn cut(&self) -> Result<Cut, PlanError> {
        Cut::new(self.collective, self.ranks, self.blocks)
    }
}

/// The elements of block `block` when `count` elements are cut into `blocks`: sizes differ by at most one.
///
/// Computed without overflow for any `count`; blocks may be empty.
pub fn block_range(count: usize, blocks: u32, block: u32) -> Range<usize> {
    let at = |b: u32| (count as u128 * u128::from(b) / u128::from(blocks)) as usize;
    at(block)..at(block + 1)
}

/// How many chunks of at most `chunk` elements a block of `elements` has. An empty block has none.
pub fn chunk_count(elements: usize, chunk: usize) -> usize {
    elements.div_ceil(chunk)
}
