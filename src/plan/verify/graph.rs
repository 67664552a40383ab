//! What happens before what: the events of a part, for a number of chunks, in an order that respects all waits.

use super::error::{At, VerifyError};
use super::part::Part;
use super::threads::Threads;
use super::waist;
use crate::plan::lowered::{Action, Place, Progress, Rank};
use crate::plan::lowering::Reach;

/// A point in time, by its position in a topological order.
pub(super) type Moment = u32;

/// The events of a part with `chunks` chunks to a block, and their immediate predecessors.
///
/// Where data is sent, a write into another rank's memory has two moments: the task's own, and the arrival. Only the
/// receiver learns of an arrival, by waiting for the task; the sender and third parties learn no more than that the
/// data has been sent.
pub(super) struct Graph {
    pub chunks: u32,
    begin: Vec<Moment>,
    end: Vec<Moment>,
    /// The moment of the first chunk of each task in the part's numbering, before sorting.
    events: Vec<u32>,
    arrivals: Vec<Vec<(Rank, u32)>>,
    position: Vec<Moment>,
    starts: Vec<u32>,
    before: Vec<Moment>,
}

impl Graph {
    /// # Errors
    /// A circle, which a search among tasks has excluded: a deadlock.
    pub fn new(part: &Part<'_>, reach: Reach, chunks: u32) -> Result<Self, VerifyError> {
        let ranks = part.ranks;
        let runs = |signal: bool| if signal { 1 } else { chunks };
        let mut nodes = 2 * ranks;
        let mut events = Vec::with_capacity(part.tasks.len());
        let mut arrivals = Vec::with_capacity(part.tasks.len());
        for task in &part.tasks {
            events.push(nodes);
            nodes += runs(task.is_signal());
            let mut at_peers: Vec<(Rank, u32)> = Vec::new();
            if matches!(reach, Reach::Message { .. }) {
                for place in into(&task.action)
                    .iter()
                    .filter(|place| place.rank != task.at.rank)
                {
                    if at_peers.iter().all(|&(peer, _)| peer != place.rank) {
                        at_peers.push((place.rank, nodes));
                        nodes += chunks;
                    }
                }
            }
            arrivals.push(at_peers);
        }

        // (before, after)
        let mut edges: Vec<(u32, u32)> = Vec::new();
        for (index, task) in part.tasks.iter().enumerate() {
            let rank = task.at.rank;
            let count = runs(task.is_signal());
            for chunk in 0..count {
                let event = events[index] + chunk;
                edges.push((if chunk == 0 { rank } else { event - 1 }, event));
                for &(target, progress) in &task.waits {
                    let target = target as usize;
                    let last = runs(part.tasks[target].is_signal()).checked_sub(1);
                    let awaited = match progress {
                        Progress::Whole => last,
                        Progress::Chunk { lag } => chunk.checked_sub(lag),
                    };
                    let Some(awaited) = awaited else { continue };
                    let arrival = arrivals[target].iter().find(|&&(peer, _)| peer == rank);
                    edges.push((
                        arrival.map_or(events[target], |&(_, first)| first) + awaited,
                        event,
                    ));
                }
                for &(_, first) in &arrivals[index] {
                    edges.push((event, first + chunk));
                    if chunk > 0 {
                        // Progress is a count: who hears of a chunk has those before it.
                        edges.push((first + chunk - 1, first + chunk));
                    }
                }
            }
            if count > 0 {
                edges.push((events[index] + count - 1, ranks + rank));
            }
        }
        for rank in 0..ranks {
            edges.push((rank, ranks + rank));
        }

        let position = sort(nodes, &edges).map_err(|node| {
            let task = events.partition_point(|&first| first <= node).saturating_sub(1);
            let at = part.tasks[task].at;
            VerifyError::Deadlock {
                at,
                with: at,
                whole: false,
            }
        })?;
        for (before, after) in &mut edges {
            (*before, *after) = (position[*before as usize], position[*after as usize]);
        }
        let (starts, before) = group(nodes, edges.iter().map(|&(before, after)| (after, before)));
        let begin = position[..ranks as usize].to_vec();
        let end = position[ranks as usize..2 * ranks as usize].to_vec();
        Ok(Self {
            chunks,
            begin,
            end,
            events,
            arrivals,
            position,
            starts,
            before,
        })
    }

    pub fn begin(&self, rank: Rank) -> Moment {
        self.begin[rank as usize]
    }

    pub fn end(&self, rank: Rank) -> Moment {
        self.end[rank as usize]
    }

    /// When a task of the part runs for a chunk.
    pub fn runs(&self, task: usize, chunk: u32) -> Moment {
        self.position[(self.events[task] + chunk) as usize]
    }

    /// When what a task writes at `rank` is there.
    pub fn lands(&self, task: usize, rank: Rank, chunk: u32) -> Moment {
        match self.arrivals[task].iter().find(|&&(peer, _)| peer == rank) {
            Some(&(_, first)) => self.position[(first + chunk) as usize],
            None => self.runs(task, chunk),
        }
    }

    pub fn before(&self, moment: Moment) -> &[Moment] {
        let range = self.starts[moment as usize] as usize..self.starts[moment as usize + 1] as usize;
        &self.before[range]
    }

    /// The first of the pairs `(earlier, later)` that is not ordered in this way, by its index.
    ///
    /// Exact: what is not seen at once ([`Threads`]) is looked for in full. For up to 512 earlier moments at a time, who
    /// follows from them is handed on along the topological order.
    pub fn first_unordered(&self, pairs: &[(Moment, Moment)]) -> Option<usize> {
        let mut failed: Option<usize> = None;
        let threads = Threads::new(self.position.len() as Moment, |moment| self.before(moment));
        let mut open: Vec<usize> = Vec::new();
        for (index, &(earlier, later)) in pairs.iter().enumerate() {
            if earlier >= later {
                failed = Some(failed.map_or(index, |other| other.min(index)));
            } else if !self.nearly(&threads, earlier, later, 2) {
                open.push(index);
            }
        }
        open.sort_unstable_by_key(|&index| pairs[index]);
        let mut rows: Vec<Row> = Vec::new();
        let mut rest = &open[..];
        while let Some(&first) = rest.first() {
            let low = pairs[first].0;
            let mut sources: Vec<Moment> = Vec::with_capacity(BATCH);
            let mut taken = 0;
            for &index in rest {
                let earlier = pairs[index].0;
                if sources.last() != Some(&earlier) {
                    if sources.len() == BATCH {
                        break;
                    }
                    sources.push(earlier);
                }
                taken += 1;
            }
            let (batch, after) = rest.split_at(taken);
            rest = after;
            let high = batch.iter().map(|&index| pairs[index].1).max().unwrap_or(low);
            self.follow(&sources, high, &mut rows);
            let mut source = 0;
            for &index in batch {
                let (earlier, later) = pairs[index];
                while sources[source] != earlier {
                    source += 1;
                }
                if rows[(later - low) as usize][source / 64] >> (source % 64) & 1 == 0 {
                    failed = Some(failed.map_or(index, |other| other.min(index)));
                }
            }
        }
        failed
    }
}

impl Graph {
    /// Whether the threads lead to the later moment, or to something that is a few steps before it.
    fn nearly(&self, threads: &Threads, earlier: Moment, later: Moment, steps: u32) -> bool {
        threads.lead(earlier, later)
            || steps > 0
                && (self.before(later).iter().rev().take(8))
                    .any(|&before| before >= earlier && self.nearly(threads, earlier, before, steps - 1))
    }
}

/// For each of up to [`BATCH`] moments, one bit: whether something follows from it.
type Row = [u64; BATCH / 64];

/// How many moments are followed at a time.
const BATCH: usize = 512;

impl Graph {
    /// Who follows from whom: one row for each moment from the first source to `high`. Sources ascend.
    fn follow(&self, sources: &[Moment], high: Moment, rows: &mut Vec<Row>) {
        let Some(&low) = sources.first() else { return };
        rows.clear();
        rows.reserve((high - low + 1) as usize);
        let mut sources = sources.iter().enumerate().peekable();
        for moment in low..=high {
            let mut row = [0; BATCH / 64];
            for &before in self.before(moment).iter().filter(|&&before| before >= low) {
                for (word, &bits) in row.iter_mut().zip(&rows[(before - low) as usize]) {
                    *word |= bits;
                }
            }
            if let Some((bit, _)) = sources.next_if(|&(_, &source)| source == moment) {
                row[bit / 64] |= 1 << (bit % 64);
            }
            rows.push(row);
        }
    }

    /// A pair of ranks of which the second may end before the first has begun, among those that are asked for.
    pub fn first_early_end(&self, ends: &[Rank]) -> Option<(Rank, Rank)> {
        let moments = self.position.len() as Moment;
        let all_ends: Vec<Moment> = ends.iter().map(|&rank| self.end(rank)).collect();
        if waist::has(moments, &self.begin, &all_ends, |moment| self.before(moment)) {
            return None;
        }
        let mut begins: Vec<Rank> = (0..self.begin.len() as Rank).collect();
        begins.sort_unstable_by_key(|&rank| self.begin(rank));
        let mut rows = Vec::new();
        for batch in begins.chunks(BATCH) {
            let sources: Vec<Moment> = batch.iter().map(|&rank| self.begin(rank)).collect();
            self.follow(&sources, self.starts.len() as Moment - 2, &mut rows);
            for &early in ends {
                let row = self
                    .end(early)
                    .checked_sub(sources[0])
                    .map(|index| rows[index as usize]);
                let row = row.unwrap_or_default();
                let misses = |&bit: &usize| row[bit / 64] >> (bit % 64) & 1 == 0;
                if let Some(bit) = (0..batch.len()).find(misses) {
                    return Some((batch[bit], early));
                }
            }
        }
        None
    }
}

fn into(action: &Action) -> &[Place] {
    match action {
        Action::Signal => &[],
        Action::Reduce { into, .. } | Action::Copy { into, .. } => into,
    }
}

/// Values by key, as the start of each key's values in one list.
fn group(keys: u32, pairs: impl Iterator<Item = (u32, u32)> + Clone) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; keys as usize + 1];
    for (key, _) in pairs.clone() {
        starts[key as usize + 1] += 1;
    }
    for key in 0..keys as usize {
        starts[key + 1] += starts[key];
    }
    let mut values = vec![0; starts[keys as usize] as usize];
    let mut next = starts.clone();
    for (key, value) in pairs {
        values[next[key as usize] as usize] = value;
        next[key as usize] += 1;
    }
    (starts, values)
}

/// The position of each node in a topological order; or a node on a circle or behind one.
fn sort(nodes: u32, edges: &[(u32, u32)]) -> Result<Vec<Moment>, u32> {
    let (starts, after) = group(nodes, edges.iter().copied());
    let mut missing = vec![0u32; nodes as usize];
    for &(_, after) in edges {
        missing[after as usize] += 1;
    }
    let mut order: Vec<u32> = (0..nodes).filter(|&node| missing[node as usize] == 0).collect();
    let mut done = 0;
    while done < order.len() {
        let node = order[done] as usize;
        done += 1;
        for &follower in &after[starts[node] as usize..starts[node + 1] as usize] {
            missing[follower as usize] -= 1;
            if missing[follower as usize] == 0 {
                order.push(follower);
            }
        }
    }
    if let Some(stuck) = missing.iter().position(|&count| count > 0) {
        return Err(stuck as u32);
    }
    let mut position = vec![0; nodes as usize];
    for (moment, node) in (0..).zip(order) {
        position[node as usize] = moment;
    }
    Ok(position)
}

/// The task at which a moment happens, for messages.
pub(super) fn at(part: &Part<'_>, task: u32) -> At {
    part.tasks[task as usize].at
}
