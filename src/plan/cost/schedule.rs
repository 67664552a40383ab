//! Plays programs through: chunks in the order in which they can begin, one at a time on each core, messages one at a time
//! on each rank's way out and way in. Knows costs only, and no plans.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::model::{CostError, Prediction, TaskTime};
use super::parameters::Link;
use crate::plan::lowered::{Progress, Rank, Wait};
use crate::plan::run::{Pieces, Run};

/// The most chunks of all ranks together.
const MOST: u64 = 1 << 20;
/// No node.
const NONE: usize = usize::MAX;

/// One task: what each of its chunks costs.
pub(super) struct Work<'a> {
    /// Bytes of its block.
    pub len: usize,
    /// Bytes of a chunk.
    pub chunk: usize,
    /// Which blocks, and how runs of them are cut.
    pub run: (u32, Run, Pieces),
    /// How many chunks there are.
    pub chunks: u64,
    /// Microseconds, for the first chunk alone.
    pub once: f64,
    /// Microseconds, for each chunk.
    pub each: f64,
    /// Nanoseconds, for each byte.
    pub per_byte: f64,
    /// Who is sent something, or told, when a chunk is done.
    pub outs: Vec<Out<'a>>,
}

/// What goes to another rank.
pub(super) struct Out<'a> {
    pub to: Rank,
    pub link: &'a Link,
    pub what: What,
}

/// How another rank comes to know.
#[derive(Clone, Copy)]
pub(super) enum What {
    /// It sees what was stored.
    Stored,
    /// It is sent a message without bytes.
    Told,
    /// It is sent the chunk, with so many nanoseconds for each byte.
    Sent(f64),
}

impl Work<'_> {
    fn bytes(&self, chunk: u64) -> usize {
        let (first, run, pieces) = self.run;
        if run.is_long() {
            return pieces.elements(first, run, chunk).len();
        }
        let before = (chunk as usize).saturating_mul(self.chunk);
        self.chunk.min(self.len.saturating_sub(before))
    }
}

/// How many chunks an awaited task has before it comes to the first of this one.
fn ahead(work: &Work<'_>, wait: &Wait) -> i64 {
    let (first, run, pieces) = work.run;
    match wait.ahead {
        0 => 0,
        ahead => pieces.ahead(first, run.backwards, ahead),
    }
}

/// A chunk that can begin.
#[derive(Clone, Copy, PartialEq)]
struct Ready {
    at: f64,
    rank: usize,
    task: usize,
    chunk: u64,
}

impl Eq for Ready {}

impl Ord for Ready {
    /// The earliest is the greatest, as the heap wants it; among equals the order is the programs'.
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |it: &Self| (it.rank, it.task, it.chunk);
        other
            .at
            .total_cmp(&self.at)
            .then_with(|| order(other).cmp(&order(self)))
    }
}

impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A chunk, before it can begin.
#[derive(Clone, Copy)]
struct Node {
    /// What it still waits for.
    unmet: u32,
    /// When the last of what it has waited for came, and from which node.
    at: f64,
    cause: usize,
}

/// A task that waits for another: whose, which, how, and how many chunks the other has before it comes to its first.
type Follower = (usize, usize, Progress, i64);

struct Play<'a> {
    work: &'a [Vec<Work<'a>>],
    /// Of each task's first chunk.
    first: Vec<Vec<usize>>,
    nodes: Vec<Node>,
    /// By rank and task: who waits for it.
    followers: Vec<Vec<Vec<Follower>>>,
    ready: BinaryHeap<Ready>,
    way_out: Vec<f64>,
    way_in: Vec<f64>,
    times: Vec<Vec<TaskTime>>,
    /// The latest end, and whose it is.
    end: (f64, usize),
}

/// Plays through what ranks have to do; `core` says on which each runs.
pub(super) fn play(
    work: &[Vec<Work<'_>>],
    waits: &[Vec<&[Wait]>],
    core: &[usize],
) -> Result<Prediction, CostError> {
    let chunks = work.iter().flatten().map(|task| task.chunks).sum::<u64>();
    if chunks > MOST {
        return Err(CostError::Large { chunks, most: MOST });
    }
    let mut play = Play::new(work, waits);
    // By core: when it is free, and after which node.
    let mut free = vec![(0.0, NONE); core.iter().max().map_or(0, |last| last + 1)];
    while let Some(next) = play.ready.pop() {
        let node = play.first[next.rank][next.task] + next.chunk as usize;
        let (core_free, before) = free[core[next.rank]];
        let waited = core_free > next.at;
        if waited {
            play.nodes[node].cause = before;
        }
        let start = if waited { core_free } else { next.at };
        let busy_until = play.run(next, node, start);
        free[core[next.rank]] = (busy_until, node);
    }
    play.mark_critical();
    Ok(Prediction {
        time: play.end.0,
        tasks: play.times,
    })
}

impl<'a> Play<'a> {
    fn new(work: &'a [Vec<Work<'a>>], waits: &[Vec<&[Wait]>]) -> Self {
        let none = TaskTime {
            start: f64::INFINITY,
            end: 0.0,
            busy: 0.0,
            critical: false,
        };
        let mut play = Self {
            work,
            first: Vec::with_capacity(work.len()),
            nodes: Vec::new(),
            followers: work.iter().map(|tasks| vec![Vec::new(); tasks.len()]).collect(),
            ready: BinaryHeap::new(),
            way_out: vec![0.0; work.len()],
            way_in: vec![0.0; work.len()],
            times: work.iter().map(|tasks| vec![none; tasks.len()]).collect(),
            end: (0.0, NONE),
        };
        for (rank, tasks) in work.iter().enumerate() {
            play.first.push(Vec::with_capacity(tasks.len()));
            for (task, its) in tasks.iter().enumerate() {
                play.first[rank].push(play.nodes.len());
                for chunk in 0..its.chunks {
                    let holds = |wait: &&Wait| {
                        let awaited = work[wait.rank as usize][wait.task as usize].chunks;
                        match wait.progress {
                            Progress::Whole => chunk == 0 && awaited > 0,
                            Progress::Chunk { lag } => {
                                let behind = chunk as i64 + ahead(its, wait) - i64::from(lag);
                                (0..awaited as i64).contains(&behind)
                            }
                        }
                    };
                    // A task's chunks run one after the other.
                    let unmet = waits[rank][task].iter().filter(holds).count() as u32 + u32::from(chunk > 0);
                    play.nodes.push(Node {
                        unmet,
                        at: 0.0,
                        cause: NONE,
                    });
                    if unmet == 0 {
                        play.ready.push(Ready {
                            at: 0.0,
                            rank,
                            task,
                            chunk,
                        });
                    }
                }
                for wait in waits[rank][task] {
                    let followers = &mut play.followers[wait.rank as usize][wait.task as usize];
                    followers.push((rank, task, wait.progress, ahead(its, wait)));
                }
            }
        }
        play
    }

    /// Runs a chunk from `start` on; until when its rank is busy.
    fn run(
        &mut self,
        Ready {
            rank, task, chunk, ..
        }: Ready,
        node: usize,
        start: f64,
    ) -> f64 {
        let work = self.work;
        let its = &work[rank][task];
        let bytes = its.bytes(chunk);
        let once = if chunk == 0 { its.once } else { 0.0 };
        let mut busy_until = start + once + its.each + bytes as f64 * its.per_byte / 1e3;
        // What it came to: the rank itself knows when the last message has been taken in.
        let mut done = busy_until;
        let mut seen = Vec::with_capacity(its.outs.len());
        for out in &its.outs {
            let link = out.link;
            let message = match out.what {
                What::Stored => {
                    seen.push((out.to as usize, busy_until + link.latency()));
                    continue;
                }
                What::Told => 0.0,
                What::Sent(per_byte) => bytes as f64 * per_byte / 1e3,
            };
            busy_until += link.overhead();
            let on_the_way = link.gap() + message;
            let leaves = busy_until.max(self.way_out[rank]);
            self.way_out[rank] = leaves + on_the_way;
            let into = &mut self.way_in[out.to as usize];
            *into = (leaves + link.latency()).max(*into) + on_the_way;
            seen.push((out.to as usize, *into));
            // A write has completed when the other side has said so; of what is only told nobody asks.
            if let What::Sent(_) = out.what {
                done = done.max(*into + link.latency());
            }
        }
        done = done.max(busy_until);
        let time = &mut self.times[rank][task];
        time.start = time.start.min(start);
        time.end = time.end.max(done);
        time.busy += busy_until - start;
        let arrival = seen.iter().map(|(_, at)| *at).fold(done, f64::max);
        // Over messages no rank ends before it has heard from all neighbours.
        let last = if task == 0 { arrival } else { done };
        if last > self.end.0 || self.end.1 == NONE {
            self.end = (last.max(self.end.0), node);
        }
        if chunk + 1 < its.chunks {
            self.meet(rank, task, chunk + 1, busy_until, node);
        }
        let whole = chunk + 1 == its.chunks;
        for index in 0..self.followers[rank][task].len() {
            let (follower, waiting, progress, ahead) = self.followers[rank][task][index];
            let at = match seen.iter().find(|(to, _)| *to == follower) {
                Some((_, at)) if follower != rank => *at,
                _ => done,
            };
            match progress {
                Progress::Whole if whole => self.meet(follower, waiting, 0, at, node),
                Progress::Whole => {}
                Progress::Chunk { lag } => {
                    let next = chunk as i64 + i64::from(lag) - ahead;
                    if let Ok(next) = u64::try_from(next) {
                        self.meet(follower, waiting, next, at, node);
                    }
                }
            }
        }
        busy_until
    }

    /// Something that a chunk waits for, if there is such a chunk, has come.
    fn meet(&mut self, rank: usize, task: usize, chunk: u64, at: f64, cause: usize) {
        if chunk >= self.work[rank][task].chunks {
            return;
        }
        let node = &mut self.nodes[self.first[rank][task] + chunk as usize];
        if at >= node.at {
            (node.at, node.cause) = (at, cause);
        }
        node.unmet -= 1;
        if node.unmet == 0 {
            self.ready.push(Ready {
                at: node.at,
                rank,
                task,
                chunk,
            });
        }
    }

    /// Goes back from the last end through what each chunk on the way waited for last.
    fn mark_critical(&mut self) {
        let mut node = self.end.1;
        while node != NONE {
            let rank = self
                .first
                .partition_point(|firsts| firsts.first().is_some_and(|first| *first <= node))
                - 1;
            let firsts = &self.first[rank];
            let task = firsts.partition_point(|first| *first <= node) - 1;
            self.times[rank][task].critical = true;
            node = self.nodes[node].cause;
        }
        let idle = |time: &mut TaskTime| {
            if time.start.is_infinite() {
                time.start = 0.0;
            }
        };
        self.times.iter_mut().flatten().for_each(idle);
    }
}
