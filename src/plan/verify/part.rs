//! The part of a plan that a proof looks at: some tasks of all ranks, and the waits among them.

use std::borrow::Cow;

use super::error::At;
use crate::plan::lowered::{Action, Program, Progress, Rank, Task, Wait, places};

/// A task in a part.
pub(super) struct PartTask<'a> {
    pub at: At,
    /// It does the same for other blocks, one after the other.
    pub long: bool,
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

/// How a task waits, for a search for circles: who waits for some place in another run is taken to wait for all of that.
pub(super) fn coarsely(wait: &Wait, waiting: &Task, awaited: &Task) -> Progress {
    match wait.progress {
        Progress::Chunk { .. } if wait.is_even(waiting, awaited) => wait.progress,
        _ => Progress::Whole,
    }
}

/// All tasks, for a search for circles.
pub(super) fn all(programs: &[Program]) -> Part<'_> {
    let mut index = Index::new(programs.len() as u32);
    for program in programs {
        index.next_rank(0..program.tasks.len() as u32);
    }
    let tasks = programs.iter().flat_map(|program| {
        let numbered = program.tasks.iter().zip(0..);
        let index = &index;
        numbered.map(move |(task, number)| PartTask {
            waits: (task.waits.iter())
                .filter_map(|wait| {
                    let target = &programs[wait.rank as usize].tasks[wait.task as usize];
                    Some((index.find(wait.rank, wait.task)?, coarsely(wait, task, target)))
                })
                .collect(),
            ..part_task(program, number, index, [].iter())
        })
    });
    Part {
        ranks: programs.len() as u32,
        block: 0,
        tasks: tasks.collect(),
    }
}

/// Which tasks work on which block.
pub(super) struct Blocks {
    /// By block, by rank: stream by stream.
    streams: Vec<Vec<(Rank, u32)>>,
    /// By rank.
    signals: Vec<Vec<Signal>>,
}

/// A signal, which may wait for tasks of all blocks.
struct Signal {
    number: u32,
    /// Waits for other signals.
    signals: Vec<Wait>,
    /// Waits for streams, by their block.
    streams: Vec<(u32, Wait)>,
}

impl Signal {
    fn of(programs: &[Program], number: u32, task: &Task) -> Self {
        let target = |wait: &Wait| &programs[wait.rank as usize].tasks[wait.task as usize];
        let is_signal = |wait: &&Wait| matches!(target(wait).action, Action::Signal);
        let streams = task.waits.iter().filter(|wait| !is_signal(wait));
        let blocks = |wait: &Wait| {
            let (task, of) = (target(wait), programs[wait.rank as usize].blocks);
            task.run.of(task.block, of)
        };
        let mut streams: Vec<(u32, Wait)> = streams
            .flat_map(|wait| blocks(wait).map(|block| (block, *wait)))
            .collect();
        streams.sort_by_key(|(block, _)| *block);
        Self {
            number,
            signals: task.waits.iter().filter(is_signal).copied().collect(),
            streams,
        }
    }

    /// What of its waits concerns one block.
    fn waits(&self, block: u32) -> impl Iterator<Item = &Wait> {
        let first = self.streams.partition_point(|(other, _)| *other < block);
        let streams = self.streams[first..]
            .iter()
            .take_while(move |(other, _)| *other == block);
        self.signals.iter().chain(streams.map(|(_, wait)| wait))
    }
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
                    Action::Signal => signals.push(Signal::of(programs, number, task)),
                    _ => (task.run.of(task.block, blocks))
                        .for_each(|block| all.streams[block as usize].push((program.rank, number))),
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
                tasks.extend(signals.iter().map(|signal| signal.number));
                tasks.sort_unstable();
            }
            index.next_rank(tasks);
        }
        let mut tasks = Vec::with_capacity(index.tasks.len());
        for (program, signals) in programs.iter().zip(&self.signals) {
            let mut signals = signals.iter();
            for &number in index.of_rank(program.rank) {
                let task = &program.tasks[number as usize];
                tasks.push(match task.action {
                    Action::Signal => {
                        let waits = signals.next().map(|signal| signal.waits(block));
                        part_task(program, number, &index, waits.into_iter().flatten())
                    }
                    _ => part_task(program, number, &index, task.waits.iter()),
                });
            }
        }
        let ranks = programs.len() as u32;
        Part { ranks, block, tasks }
    }
}

/// A task with those of its waits whose tasks are in the part.
fn part_task<'a, 'w>(
    program: &'a Program,
    number: u32,
    index: &Index,
    waits: impl Iterator<Item = &'w Wait>,
) -> PartTask<'a> {
    let found = waits.filter_map(|wait| Some((index.find(wait.rank, wait.task)?, wait.progress)));
    PartTask {
        at: At::of(program, number),
        long: program.tasks[number as usize].run.is_long(),
        action: Cow::Borrowed(&program.tasks[number as usize].action),
        waits: found.collect(),
    }
}
