//! One operation in progress on a fabric with load/store reach: its program's tasks, each a cursor over chunks.
//!
//! A task reads peers' windows and stores into memory of this rank, or where the plan says so into all results. What
//! others wait for is published in counters on this rank's board.

mod blocked;

use std::sync::atomic::Ordering;

use super::board::{WHOLE, progress};
use super::{Call, EngineError, Group, reduce};
use crate::observe::{CopySite, Kind, NONE};
use crate::plan::lowered::{Action, Buffer, Place, Progress, Task, chunk_count};

#[derive(Debug)]
struct Stream {
    /// Number of elements of the task's block; of a run of them, whose pieces are cut anew, nothing.
    len: usize,
    done: u64,
    chunks: u64,
    /// Its waits, in the execution's table.
    first_wait: usize,
    /// Where the block begins in each source and in each destination, in the execution's table.
    first_place: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The counter's last value read.
    value: u64,
    agreed: bool,
    /// How many chunks the awaited task has before it comes to this one's first.
    ahead: i64,
}

/// The outcome of one round over the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    Done,
    Progressed,
    Blocked,
}

/// The state of one call. Kept for later calls, so that in the steady state nothing is allocated.
#[derive(Debug, Default)]
pub(super) struct Execution {
    streams: Vec<Stream>,
    seen: Vec<Seen>,
    places: Vec<usize>,
    sources: Vec<*const u8>,
    into: Vec<*mut u8>,
    factors: Vec<f64>,
    /// The first task that is not over.
    first: usize,
    /// The task and wait at which the last round ended.
    blocked: Option<(usize, usize)>,
    /// Task, chunk and peer of the wait that is recorded as open.
    waiting: Option<(u16, u32, u32)>,
}

// SAFETY: `sources` and `into` are scratch space, empty between rounds; the rest is plain data.
unsafe impl Send for Execution {}

impl Execution {
    /// Takes up a new call.
    pub(super) fn begin(&mut self, call: &Call, group: &Group) {
        let program = &call.prepared.program;
        self.streams.clear();
        self.seen.clear();
        self.places.clear();
        self.first = 0;
        self.blocked = None;
        self.waiting = None;
        let placement = call.placement();
        let pieces = call.pieces();
        for (index, task) in program.tasks.iter().enumerate() {
            let long = task.run.is_long();
            let len = if long { 0 } else { placement.len(task.block) };
            let chunks = match task.action {
                Action::Signal => 1,
                _ if long => pieces.count(task.block, task.run),
                _ => chunk_count(len, call.chunk) as u64,
            };
            let first_wait = self.seen.len();
            let first_place = self.places.len();
            let (sources, into) = places(&task.action);
            self.places.extend(sources.iter().chain(into).map(|place| {
                if long {
                    0
                } else {
                    call.offset(&placement, place, task.block)
                }
            }));
            self.seen.extend(task.waits.iter().map(|wait| Seen {
                ahead: match wait.ahead {
                    0 => 0,
                    ahead => pieces.ahead(task.block, task.run.backwards, ahead),
                },
                ..Seen::default()
            }));
            let stream = Stream {
                len,
                done: 0,
                chunks,
                first_wait,
                first_place,
            };
            self.streams.push(stream);
            if chunks == 0 {
                publish(group, call, index, task, WHOLE);
            }
        }
        group.engine.counters.operation();
        group.engine.recorder.mark(
            Kind::Begin,
            call.sequence as u32,
            0,
            0,
            NONE,
            (call.count * call.element) as u64,
        );
    }

    /// Runs chunks until none is ready or `budget` of them have been run.
    pub(super) fn round(
        &mut self,
        call: &Call,
        group: &Group,
        mut budget: u32,
    ) -> Result<Round, EngineError> {
        let tasks = &call.prepared.program.tasks;
        let mut progressed = false;
        'again: loop {
            self.blocked = None;
            while self.first < tasks.len() && self.streams[self.first].done == self.streams[self.first].chunks
            {
                self.first += 1;
            }
            if self.first == tasks.len() {
                group
                    .engine
                    .recorder
                    .mark(Kind::End, call.sequence as u32, 0, 0, NONE, 0);
                return Ok(Round::Done);
            }
            if budget == 0 {
                return Ok(Round::Progressed);
            }
            for (index, task) in tasks.iter().enumerate().skip(self.first) {
                let stream = &self.streams[index];
                if stream.done < stream.chunks && self.ready(call, group, index, task)? {
                    self.note_progress(call, group);
                    self.run(call, group, index, task);
                    progressed = true;
                    budget -= 1;
                    continue 'again;
                }
            }
            if progressed {
                return Ok(Round::Progressed);
            }
            self.note_blocked(call, group);
            return Ok(Round::Blocked);
        }
    }

    #[inline]
    fn ready(&mut self, call: &Call, group: &Group, index: usize, task: &Task) -> Result<bool, EngineError> {
        let Stream { done, first_wait, .. } = self.streams[index];
        for (number, wait) in task.waits.iter().enumerate() {
            let seen = &mut self.seen[first_wait + number];
            let needed = match wait.progress {
                Progress::Chunk { lag } => match done as i64 + 1 + seen.ahead - i64::from(lag) {
                    ..1 => continue,
                    // What has less than that is over by then.
                    chunks => progress(call.sequence, (chunks as u64).min(WHOLE)),
                },
                Progress::Whole => progress(call.sequence, WHOLE),
            };
            if seen.value >= needed {
                continue;
            }
            let counter = group.boards[wait.rank as usize].counter(call.sequence, wait.task as usize);
            // Acquire: what the peer stored before it published is read after this.
            seen.value = counter.load(Ordering::Acquire);
            if seen.value < needed {
                self.blocked.get_or_insert((index, number));
                return Ok(false);
            }
            if !seen.agreed {
                seen.agreed = true;
                if group.disagrees(call.sequence, call.signature, Some(call.details()), wait.rank) {
                    return Err(group.fall_out(call.sequence));
                }
            }
        }
        Ok(true)
    }

    fn run(&mut self, call: &Call, group: &Group, index: usize, task: &Task) {
        let stream = &mut self.streams[index];
        let chunk = stream.done;
        let (start, count) = match task.run.is_long() {
            true => {
                let piece = call.pieces().elements(task.block, task.run, chunk);
                (piece.start, piece.len())
            }
            false => {
                let start = chunk as usize * call.chunk;
                (start, call.chunk.min(stream.len.saturating_sub(start)))
            }
        };
        let bytes = count * call.element;
        let places = &self.places[stream.first_place..];
        let at = |index: usize| (places[index] + start) * call.element;
        let own = group.rank;
        let (kind, peer, remote) = match &task.action {
            Action::Signal => (Kind::Signal, NONE, 0),
            Action::Reduce {
                sources,
                into,
                complete,
            } => {
                self.sources.clear();
                self.sources.extend(
                    sources
                        .iter()
                        .enumerate()
                        .map(|(index, place)| pointer(call, *place, at(index), chunk).cast_const()),
                );
                self.into.clear();
                self.into.extend(
                    into.iter()
                        .zip(sources.len()..)
                        .map(|(place, index)| pointer(call, *place, at(index), chunk)),
                );
                let divisor = if *complete { call.divisor } else { 1 };
                if call.scale.is_some() {
                    self.factors.clear();
                    self.factors
                        .extend(sources.iter().map(|place| factor(call, group, *place)));
                }
                let combine = |into, sources: &[*const u8], count| match call.scale {
                    // SAFETY: the plan was proved: the waits that hold say that every source is written and that nobody
                    // accesses the destinations; pointers are within the call's extents.
                    None => unsafe { (call.kernel)(into, sources, count, divisor) },
                    // SAFETY: as above.
                    Some(scale) => unsafe { (scale.kernel)(into, sources, &self.factors, count) },
                };
                match self.into[..] {
                    [only] => combine(only, &self.sources, count),
                    // SAFETY: as above.
                    _ => unsafe {
                        let elements = (count, call.element);
                        reduce::spread(&self.into, &mut self.sources, elements, call.past_caches, combine);
                    },
                }
                self.sources.clear();
                self.into.clear();
                let remote = sources
                    .iter()
                    .chain(into)
                    .filter(|place| place.rank != own)
                    .count();
                let peer = sources
                    .iter()
                    .find(|place| place.rank != own)
                    .map_or(NONE, |place| place.rank);
                (Kind::Reduce, peer, remote * bytes)
            }
            Action::Copy { source, into } => {
                let from = pointer(call, *source, at(0), chunk);
                for (place, index) in into.iter().zip(1..) {
                    let to = pointer(call, *place, at(index), chunk);
                    if let (Some(scale), Buffer::Input) = (call.scale, source.buffer) {
                        // The whole sum is one contribution.
                        let factor = factor(call, group, *source);
                        // SAFETY: as above; the kernel may be given its own result as a source.
                        unsafe { (scale.kernel)(to, &[from.cast_const()], &[factor], count) };
                    } else if to != from {
                        // SAFETY: as above; different places of a plan do not overlap unless they are the same
                        // memory (an input that is its own result), which is left alone.
                        unsafe { reduce::copy(to, from, bytes) };
                    }
                }
                // What is passed on from slots is copied into them; only what comes to where it is needed is exchanged.
                let staged = into.iter().filter(|place| is_staging(place)).count();
                if staged != 0 {
                    group
                        .engine
                        .counters
                        .copied(CopySite::StageIn, (staged * bytes) as u64);
                }
                let kept = source.rank == own || staged == into.len();
                let peer = if source.rank == own { NONE } else { source.rank };
                (Kind::Pull, peer, if kept { 0 } else { bytes })
            }
        };
        let stream = &mut self.streams[index];
        stream.done += 1;
        let done = if stream.done == stream.chunks {
            WHOLE
        } else {
            stream.done
        };
        group.engine.counters.exchanged(remote as u64);
        group.engine.recorder.mark(
            kind,
            call.sequence as u32,
            index as u16,
            chunk as u32,
            peer,
            bytes as u64,
        );
        publish(group, call, index, task, done);
    }
}

/// Says that a task has done so many chunks, and wakes who waits for it.
#[inline]
fn publish(group: &Group, call: &Call, index: usize, task: &Task, done: u64) {
    // Release: what this rank stored, and that it has read what it read, comes before.
    group
        .board()
        .counter(call.sequence, index)
        .store(progress(call.sequence, done), Ordering::Release);
    if !task.notify.is_empty() {
        group.ring_these(task.notify.iter().copied());
    }
}

/// What a source of a pre-multiplied sum is multiplied by: contributions by their rank's factor, which it has announced
/// before it said that it had begun, and sums of them by nothing more.
fn factor(call: &Call, group: &Group, place: Place) -> f64 {
    match place.buffer {
        Buffer::Input => group.boards[place.rank as usize].factor(call.sequence),
        Buffer::Result | Buffer::Staging { .. } => 1.0,
    }
}

/// What an action reads, and where to it stores.
fn places(action: &Action) -> (&[Place], &[Place]) {
    match action {
        Action::Signal => (&[], &[]),
        Action::Reduce { sources, into, .. } => (sources, into),
        Action::Copy { source, into } => (std::slice::from_ref(source), into),
    }
}

fn is_staging(place: &Place) -> bool {
    matches!(place.buffer, Buffer::Staging { .. })
}

/// Where the chunk at byte `at` of a buffer is. Places of the plan exist: `Prepared` and `Call` were checked.
#[inline]
fn pointer(call: &Call, place: Place, at: usize, chunk: u64) -> *mut u8 {
    let (input, result) = call
        .memory
        .as_ref()
        .expect("a program that moves data comes with memory");
    match place.buffer {
        Buffer::Input => input.of(place.rank).wrapping_add(at),
        Buffer::Result => result.of(place.rank).wrapping_add(at),
        Buffer::Staging { first, slots } => {
            let (staging, slot) = call
                .staging
                .as_ref()
                .expect("a staged program comes with staging");
            let number = u64::from(first) + chunk % u64::from(slots);
            staging.of(place.rank).wrapping_add(number as usize * slot)
        }
    }
}
