//! Which memory each rank goes through in a call, and which of it comes from another core's cache: memory that another
//! rank writes. Looks at programs only.

use std::collections::HashMap;

use crate::plan::lowered::{Action, Buffer, Place, Program, Rank};

/// A block of a buffer of a rank.
type Spot = (Rank, Buffer, u32);

/// Who writes what, over all programs of a plan.
pub(super) struct Memory {
    in_place: bool,
    /// Whether ranks load and store each other's memory; else each goes through its own.
    shared: bool,
    /// The only rank that writes it; none where several do.
    writers: HashMap<Spot, Option<Rank>>,
}

impl Memory {
    pub fn new(programs: &[Program], in_place: bool, shared: bool) -> Self {
        let mut memory = Self {
            in_place,
            shared,
            writers: HashMap::new(),
        };
        for program in programs {
            for task in &program.tasks {
                for place in written(&task.action) {
                    for block in task.run.of(task.block, program.blocks) {
                        let spot = memory.spot(place, block);
                        let writer = memory.writers.entry(spot).or_insert(Some(program.rank));
                        *writer = writer.filter(|rank| *rank == program.rank);
                    }
                }
            }
        }
        memory
    }

    /// In place, input and result are one; every value in staging has slots of its own.
    fn spot(&self, place: &Place, block: u32) -> Spot {
        match place.buffer {
            Buffer::Result if self.in_place => (place.rank, Buffer::Input, block),
            buffer @ Buffer::Staging { .. } => (place.rank, buffer, 0),
            buffer => (place.rank, buffer, block),
        }
    }

    /// Whether what `rank` reads or writes there comes from another core: others write it, too.
    pub fn moved(&self, rank: Rank, place: &Place, block: u32) -> bool {
        let writer = self.writers.get(&self.spot(place, block));
        self.shared && writer.is_some_and(|writer| *writer != Some(rank))
    }

    /// Whether two places are the same memory, so that nothing need be moved from one to the other.
    pub fn same(&self, a: &Place, b: &Place, block: u32) -> bool {
        self.spot(a, block) == self.spot(b, block)
    }

    /// Bytes of the memory that a rank goes through: each spot once, staging as long as it is.
    pub fn footprint(&self, program: &Program, bytes_of: impl Fn(u32) -> usize, chunk: usize) -> u64 {
        let mut seen: HashMap<Spot, u64> = HashMap::new();
        for task in &program.tasks {
            let places = read(&task.action).iter().chain(written(&task.action));
            for place in places.filter(|place| self.shared || place.rank == program.rank) {
                let mut blocks = task.run.of(task.block, program.blocks);
                if let Buffer::Staging { slots, .. } = place.buffer {
                    let sent: usize = blocks.map(&bytes_of).sum();
                    let bytes = sent.min(chunk.saturating_mul(slots as usize));
                    let spot = seen.entry(self.spot(place, task.block)).or_default();
                    *spot = (*spot).max(bytes as u64);
                    continue;
                }
                blocks.by_ref().for_each(|block| {
                    seen.insert(self.spot(place, block), bytes_of(block) as u64);
                });
            }
        }
        seen.values().sum()
    }
}

/// What an action reads.
pub(super) fn read(action: &Action) -> &[Place] {
    match action {
        Action::Signal => &[],
        Action::Reduce { sources, .. } => sources,
        Action::Copy { source, .. } => std::slice::from_ref(source),
    }
}

/// What an action writes.
pub(super) fn written(action: &Action) -> &[Place] {
    match action {
        Action::Signal => &[],
        Action::Reduce { into, .. } | Action::Copy { into, .. } => into,
    }
}
