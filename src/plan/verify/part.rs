//! The part of a plan that a proof looks at: some tasks of all ranks, and the waits among them.

use std::borrow::Cow;

use super::error::At;
use crate::plan::lowered::{Action, Program, Progress, Rank, places};

/// A task in a part.
pub(super) struct PartTask<'a> {
    pub at: At,
    pub action: Cow<'a, Action>,
    /// The awaited tasks by their index in the part.
    pub waits: Vec<(u32, Progress)>,
}

impl PartTask<'_> {
    pub fn is_signal(&self) -> bool {
        matches!(*self.action, Action::Signal)
    }
}

/// Some tasks of all ranks, rank by rank in the order of their programs.
pub(super) struct Part<'a> {
    pub ranks: u32,
    pub block: u32,
    pub tasks: Vec<PartTask<'a>>,
}

/// Where the tasks of a part are found: for each rank, task numbers in ascending order.
pub(super) struct Index {
    starts: Vec<u32>,
    tasks: Vec<u32>,
}

impl Index {
    pub fn new(ranks: u32) -> Self {
        Self {
            starts: Vec::with_capacity(ranks as usize + 1),
            tasks: Vec::new(),
        }
    }

    pub fn next_rank(&mut self, tasks: impl IntoIterator<Item = u32>) {
        self.starts.push(self.tasks.len() as u32);
        self.tasks.extend(tasks);
    }

    pub fn of_rank(&self, rank: Rank) -> &[u32] {
        &self.tasks[self.range(rank)]
    }

    /// The index in the part of a rank's task, if it is there.
    pub fn find(&self, rank: Rank, task: u32) -> Option<u32> {
        let position = self.of_rank(rank).binary_search(&task).ok()?;
        Some(self.starts[rank as usize] + position as u32)
    }

    fn range(&self, rank: Rank) -> std::ops::Range<usize> {
        let end = self
            .starts
            .get(rank as usize + 1)
            .map_or(self.tasks.len(), |&end| end as usize);
        self.starts[rank as usize] as usize..end
    }
}

/// All tasks, for a search for circles.
pub(super) fn all(programs: &[Program]) -> Part<'_> {
    let mut index = Index::new(programs.len() as u32);
    for program in programs {
        index.next_rank(0..program.tasks.len() as u32);
    }
    collect(programs, &index, 0)
}

/// Which tasks work on which block.
pub(super) struct Blocks {
    /// By block, by rank: stream by stream.
    streams: Vec<Vec<(Rank, u32)>>,
    /// By rank.
    signals: Vec<Vec<u32>>,
}

impl Blocks {
    pub fn of(programs: &[Program], blocks: u32) -> Self {
        let mut all = Self {
            streams: vec![Vec::new(); blocks as usize],
            signals: Vec::with_capacity(programs.len()),
        };
        for program in programs {
            let mut signals = Vec::new();
            for (task, number) in program.tasks.iter().zip(0u32..) {
                match task.action {
                    Action::Signal => signals.push(number),
                    _ => all.streams[task.block as usize].push((program.rank, number)),
                }
            }
            all.signals.push(signals);
        }
        all
    }

    /// The tasks of one block, and the signals of the ranks that have to do with it; of all ranks if nothing moves.
    pub fn part<'a>(&self, programs: &'a [Program], block: u32) -> Part<'a> {
        let streams = &self.streams[block as usize];
        let mut involved = vec![streams.is_empty(); programs.len()];
        for &(rank, number) in streams {
            involved[rank as usize] = true;
            let places = places(&programs[rank as usize].tasks[number as usize].action);
            places.for_each(|place| involved[place.rank as usize] = true);
        }
        let mut rest = &streams[..];
        let mut index = Index::new(programs.len() as u32);
        for (program, signals) in programs.iter().zip(&self.signals) {
            let count = rest.iter().take_while(|(rank, _)| *rank == program.rank).count();
            let (own, others) = rest.split_at(count);
            rest = others;
            let mut tasks: Vec<u32> = own.iter().map(|&(_, number)| number).collect();
            if involved[program.rank as usize] {
                tasks.extend(signals);
                tasks.sort_unstable();
            }
            index.next_rank(tasks);
        }
        collect(programs, &index, block)
    }
}

fn collect<'a>(programs: &'a [Program], index: &Index, block: u32) -> Part<'a> {
    let mut tasks = Vec::with_capacity(index.tasks.len());
    for program in programs {
        for &number in index.of_rank(program.rank) {
            let task = &program.tasks[number as usize];
            let waits = task
                .waits
                .iter()
                .filter_map(|wait| Some((index.find(wait.rank, wait.task)?, wait.progress)));
            tasks.push(PartTask {
                at: At::of(program, number),
                action: Cow::Borrowed(&task.action),
                waits: waits.collect(),
            });
        }
    }
    Part {
        ranks: programs.len() as u32,
        block,
        tasks,
    }
}
