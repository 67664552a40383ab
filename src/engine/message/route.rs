//! What of a program is about other ranks, found once for each shape: whom this rank has to do with, what comes from
//! whom, what is pushed to whom, and which notices of progress somebody waits for.

use super::immediate::{MOST_CHUNKS, TASKS};
use crate::plan::lowered::{Action, Buffer, Place, Program, Progress, Task};
use crate::plan::{PlanError, Run};

/// See the module.
#[derive(Debug)]
pub struct Route {
    /// The ranks with which this one exchanges messages, ascending.
    pub neighbours: Vec<u32>,
    /// Progress of neighbours' tasks that this rank waits for, or gets data from.
    pub(super) inlets: Vec<Inlet>,
    /// By neighbour, then by its task: the inlet, or [`NO_INLET`].
    inlet_of: Vec<Vec<u16>>,
    /// By task.
    pub(super) tasks: Vec<Outward>,
    /// In which order tasks are looked at: what others wait for first.
    pub(super) order: Vec<u16>,
}

const NO_INLET: u16 = u16::MAX;

/// What a neighbour's task brings.
#[derive(Debug)]
pub(super) struct Inlet {
    /// Index of the neighbour.
    pub neighbour: u16,
    /// Its task.
    pub task: u32,
    /// The block it works on, to know how many chunks that has.
    pub block: u32,
    pub run: Run,
    /// It has a single chunk, whatever the block.
    pub signal: bool,
    pub lands: Lands,
    /// The first task here that waits for it.
    pub waiter: u16,
}

/// Where what a neighbour's task writes comes to lie here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lands {
    Nowhere,
    Staging,
    Result,
}

/// What a wait of the program is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// A task of this rank.
    Own(u32),
    /// That a neighbour (by index) has begun.
    Begun(u16),
    /// An inlet.
    Inlet(u16),
}

/// One task's doings with others.
#[derive(Debug, Default)]
pub(super) struct Outward {
    /// For each wait of the task.
    pub waits: Vec<(Source, Progress)>,
    pub pushes: Vec<Push>,
    pub notices: Vec<Notice>,
    /// Of a reduction's sources, those that other ranks contribute.
    pub contributions: u32,
    /// Of each source of a reduction.
    pub origins: Vec<Origin>,
    /// Data is stored into memory of this rank.
    pub local: bool,
}

/// What a source of a reduction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This rank's contribution.
    Own,
    /// That of a neighbour (by index), as it is.
    Neighbour(u16),
    /// A sum of contributions.
    Sum,
}

/// One destination of a task whose data goes to another rank.
#[derive(Debug)]
pub(super) struct Push {
    /// Index of the neighbour.
    pub neighbour: u16,
    pub place: Place,
}

/// A neighbour that waits for a task's progress and gets no data from it.
#[derive(Debug)]
pub(super) struct Notice {
    /// Index of the neighbour.
    pub neighbour: u16,
    /// By how many chunks it lags; `None`: it waits for the end.
    pub lag: Option<u32>,
}

impl Notice {
    /// How many of `done` chunks of `chunks` the neighbour is to be told of now. The last ones that it could wait for
    /// are told at once; others in batches of half the lag. (A batch of `b` is as if there were `b - 1` slots fewer,
    /// for which the plan is as free of circles: its proof does not depend on their number.)
    pub fn due(&self, done: u64, chunks: u64) -> u64 {
        match self.lag {
            None if done == chunks => chunks,
            None => 0,
            Some(lag) => {
                let lag = u64::from(lag);
                let most = chunks.saturating_sub(lag);
                if done >= most {
                    return most;
                }
                let batch = (lag / 2).clamp(1, MOST_CHUNKS);
                done - done % batch
            }
        }
    }
}

impl Route {
    /// Of `program`; `of` gives other ranks' programs.
    pub(in crate::engine) fn new(
        program: &Program,
        mut of: impl FnMut(u32) -> Result<Program, PlanError>,
    ) -> Result<Self, String> {
        let rank = program.rank;
        if program.tasks.len() > TASKS {
            let tasks = program.tasks.len();
            return Err(format!(
                "rank {rank} has {tasks} tasks, an immediate tells {TASKS} apart"
            ));
        }
        let mut neighbours = program.tasks.iter().flat_map(|task| {
            let pushed = destinations(task).map(|place| place.rank);
            let awaited = task.waits.iter().map(|wait| wait.rank);
            task.notify.iter().copied().chain(pushed).chain(awaited)
        });
        let mut neighbours = neighbours
            .by_ref()
            .filter(|other| *other != rank)
            .collect::<Vec<_>>();
        neighbours.sort_unstable();
        neighbours.dedup();
        let mut route = Self {
            neighbours,
            inlets: Vec::new(),
            inlet_of: Vec::new(),
            tasks: program.tasks.iter().map(|_| Outward::default()).collect(),
            order: Vec::new(),
        };
        // Where in this rank's slots neighbours' contributions come to lie, as they are.
        let mut landed: Vec<(Buffer, u16)> = Vec::new();
        for index in 0..route.neighbours.len() {
            let theirs = of(route.neighbours[index]).map_err(|error| error.to_string())?;
            if theirs.tasks.len() > TASKS {
                return Err(format!("rank {} has too many tasks", theirs.rank));
            }
            route.meet(program, index as u16, &theirs)?;
            for task in &theirs.tasks {
                if let Action::Copy { source, into } = &task.action
                    && source.buffer == Buffer::Input
                {
                    let here = into.iter().filter(|place| place.rank == rank);
                    landed.extend(here.map(|place| (place.buffer, index as u16)));
                }
            }
        }
        for (task, outward) in program.tasks.iter().zip(&mut route.tasks) {
            let sources = task
                .waits
                .iter()
                .map(|wait| match route.neighbours.binary_search(&wait.rank) {
                    Err(_) => Source::Own(wait.task),
                    // The task in which a rank says that it has begun has a message of its own.
                    Ok(index) if wait.task == 0 => Source::Begun(index as u16),
                    Ok(index) => Source::Inlet(route.inlet_of[index][wait.task as usize]),
                });
            outward.waits = sources.zip(task.waits.iter().map(|wait| wait.progress)).collect();
            let contributed = |(source, progress): &&(Source, Progress)| {
                matches!(source, Source::Inlet(_)) && matches!(progress, Progress::Chunk { lag: 0 })
            };
            outward.contributions = outward.waits.iter().filter(contributed).count() as u32;
            if let Action::Reduce { sources, .. } = &task.action {
                let origin = |place: &Place| {
                    let neighbour = landed.iter().find(|(buffer, _)| *buffer == place.buffer);
                    match (place.buffer, neighbour) {
                        (Buffer::Input, _) => Origin::Own,
                        (Buffer::Staging { .. }, Some((_, neighbour))) => Origin::Neighbour(*neighbour),
                        _ => Origin::Sum,
                    }
                };
                outward.origins = sources.iter().map(origin).collect();
            }
            outward.local = matches!(task.action, Action::Reduce { .. })
                || destinations(task).any(|place| place.rank == rank);
            if outward.local && !outward.pushes.is_empty() {
                return Err("a task writes into its own rank's memory and into another's".into());
            }
        }
        let pushes = |task: &u16| !route.tasks[usize::from(*task)].pushes.is_empty();
        let all = 0..program.tasks.len() as u16;
        route.order = all
            .clone()
            .filter(pushes)
            .chain(all.filter(|task| !pushes(task)))
            .collect();
        Ok(route)
    }

    /// What passes between this rank and the neighbour with this index.
    fn meet(&mut self, program: &Program, neighbour: u16, theirs: &Program) -> Result<(), String> {
        let rank = program.rank;
        let mut table = vec![NO_INLET; theirs.tasks.len()];
        for (waiter, task) in program.tasks.iter().enumerate() {
            for wait in task
                .waits
                .iter()
                .filter(|wait| wait.rank == theirs.rank && wait.task != 0)
            {
                let Some(entry) = table.get_mut(wait.task as usize) else {
                    return Err(format!("it waits for task {} of rank {}", wait.task, wait.rank));
                };
                if *entry != NO_INLET {
                    continue;
                }
                let their_task = &theirs.tasks[wait.task as usize];
                let mut landing = destinations(their_task).filter(|place| place.rank == rank);
                let lands = match landing.next().map(|place| place.buffer) {
                    None => Lands::Nowhere,
                    Some(Buffer::Staging { .. }) => Lands::Staging,
                    Some(Buffer::Result | Buffer::Input) => Lands::Result,
                };
                *entry = u16::try_from(self.inlets.len())
                    .ok()
                    .filter(|index| *index != NO_INLET)
                    .ok_or("too much comes in to tell apart")?;
                self.inlets.push(Inlet {
                    neighbour,
                    task: wait.task,
                    block: their_task.block,
                    run: their_task.run,
                    signal: matches!(their_task.action, Action::Signal),
                    lands,
                    waiter: waiter as u16,
                });
            }
        }
        self.inlet_of.push(table);
        for (index, task) in program.tasks.iter().enumerate().skip(1) {
            let outward = &mut self.tasks[index];
            let mut pushed = false;
            for place in destinations(task).filter(|place| place.rank == theirs.rank) {
                pushed = true;
                outward.pushes.push(Push {
                    neighbour,
                    place: *place,
                });
            }
            if pushed || !task.notify.contains(&theirs.rank) {
                continue;
            }
            let waits = theirs.tasks.iter().flat_map(|task| &task.waits);
            let about = waits.filter(|wait| (wait.rank, wait.task as usize) == (rank, index));
            // Of several waits, the most demanding; of two kinds, every chunk up to the last.
            let lag = about
                .map(|wait| wait.progress)
                .reduce(|one, other| match (one, other) {
                    (Progress::Chunk { lag: one }, Progress::Chunk { lag: other }) => {
                        Progress::Chunk { lag: one.min(other) }
                    }
                    (Progress::Whole, Progress::Whole) => Progress::Whole,
                    _ => Progress::Chunk { lag: 0 },
                });
            if let Some(progress) = lag {
                let lag = match progress {
                    Progress::Chunk { lag } => Some(lag),
                    Progress::Whole => None,
                };
                outward.notices.push(Notice { neighbour, lag });
            }
        }
        Ok(())
    }

    /// The index of a neighbour.
    #[inline]
    pub(super) fn neighbour(&self, rank: u32) -> Option<usize> {
        self.neighbours.binary_search(&rank).ok()
    }

    /// The inlet for a task of a neighbour (by index), if this rank has one.
    #[inline]
    pub(super) fn inlet(&self, neighbour: usize, task: u16) -> Option<usize> {
        let inlet = *self.inlet_of[neighbour].get(usize::from(task))?;
        (inlet != NO_INLET).then_some(usize::from(inlet))
    }
}

fn destinations(task: &Task) -> impl Iterator<Item = &Place> {
    match &task.action {
        Action::Signal => [].iter(),
        Action::Reduce { into, .. } | Action::Copy { into, .. } => into.iter(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_is_told_in_time_and_of_nothing_more() {
        for lag in 0..9u32 {
            for chunks in 0..40u64 {
                let notice = Notice {
                    neighbour: 0,
                    lag: Some(lag),
                };
                let mut told = 0;
                for done in 0..=chunks {
                    let due = notice.due(done, chunks);
                    assert!(due >= told && due <= done);
                    told = due;
                    // Who has pushed `done` chunks and all but `lag` of which are known to be taken goes on.
                    if done < chunks {
                        let enough = if lag == 0 {
                            told == done
                        } else {
                            told + u64::from(lag) > done
                        };
                        assert!(enough, "lag {lag}, {done} of {chunks} chunks: told {told}");
                    }
                }
                assert_eq!(told, chunks.saturating_sub(u64::from(lag)));
            }
        }
        let end = Notice {
            neighbour: 0,
            lag: None,
        };
        assert_eq!((end.due(3, 4), end.due(4, 4)), (0, 4));
    }
}
