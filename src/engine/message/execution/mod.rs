//! One operation in progress where ranks reach each other by messages: its program's tasks, each a cursor over chunks.
//!
//! What this rank makes it pushes to those who need it, from where it lies; what it needs comes by itself. A chunk of
//! a push is done when its write has completed: only then may the memory it came from be used again.

mod blocked;
mod chunks;

use super::link::Link;
use super::note::Called;
use super::route::{Lands, Outward, Route, Source};
use super::staging::Staging;
use crate::engine::{Call, Observers};
use crate::fabric::Endpoint;
use crate::observe::{CopySite, Kind, NONE};
use crate::plan::Run;
use crate::plan::lowered::{Action, Place, Progress, chunk_count};

/// What an operation needs of its surroundings.
pub(super) struct Outside<'a> {
    pub generation: u32,
    pub endpoint: &'a mut dyn Endpoint,
    pub links: &'a mut [Option<Box<Link>>],
    pub staging: &'a Staging,
    pub observers: &'a Observers,
}

impl Outside<'_> {
    fn link(&mut self, peer: u32) -> &mut Link {
        self.links[peer as usize]
            .as_deref_mut()
            .expect("neighbours were connected when the shape was first used")
    }
}

/// The outcome of one round over the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    Done,
    Progressed,
    Blocked,
}

/// What an operation stands still for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocked {
    pub task: u16,
    pub chunk: u64,
    pub peer: u32,
    pub on: On,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    /// That the peer begins.
    Begin,
    /// That the peer's task comes further (the inlet).
    Inlet(u16),
    /// Room in the queue pair: the peer has not taken in what was sent before.
    Room,
    /// The completion of a write.
    Completion,
}

#[derive(Debug)]
struct Stream {
    /// Number of elements of the task's block; of a run of them, whose pieces are cut anew, nothing.
    len: usize,
    chunks: u64,
    /// Of a push: chunks that may be posted.
    released: u64,
    done: u64,
    /// The first of its pushes, and of its notices, in the execution's tables.
    first_push: usize,
    first_notice: usize,
    /// Where the block begins in each source and in each destination of this rank, in the execution's table.
    first_place: usize,
    /// Its waits, in the execution's table.
    first_wait: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    posted: u64,
    completed: u64,
    /// Where the block begins in the destination, in elements.
    offset: usize,
}

/// A neighbour, in this operation.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// It has been told that this rank has begun.
    told: bool,
    begun: bool,
    /// Its first staging slot for this operation.
    staging: u32,
    /// What its contribution is multiplied by, where there are factors.
    factor: f64,
}

/// The state of one call. Kept for later calls, so that in the steady state nothing is allocated.
#[derive(Debug, Default)]
pub(super) struct Execution {
    streams: Vec<Stream>,
    cursors: Vec<Cursor>,
    notices: Vec<u64>,
    places: Vec<usize>,
    /// By wait: how many chunks the awaited task has before it comes to the waiting one's first.
    ahead: Vec<i64>,
    /// By inlet: chunks that have come, and that there are.
    arrived: Vec<(u64, u64)>,
    peers: Vec<Peer>,
    sources: Vec<*const u8>,
    factors: Vec<f64>,
    /// Of the order in which tasks are looked at, the first that is not over.
    first: usize,
    /// This rank's first staging slot for the operation.
    pub staging: Option<u32>,
    /// Something has happened since the last round, or could not be posted in it.
    pub dirty: bool,
    pub blocked: Option<Blocked>,
    /// Task, chunk and peer of the wait that is recorded as open.
    waiting: Option<(u16, u32, u32)>,
}

// SAFETY: `sources` is scratch space, empty between rounds; the rest is plain data.
unsafe impl Send for Execution {}

fn route(call: &Call) -> &Route {
    let route = call.prepared.route.as_ref();
    route.expect("prepared for messages, as the engine checks when it takes the call up")
}

/// What a call is, as the other ranks' calls must be.
pub(super) fn called(call: &Call) -> Called {
    Called {
        signature: call.signature,
        details: call.details(),
    }
}

impl Execution {
    /// Takes up a new call.
    pub fn begin(&mut self, call: &Call, staging: Option<u32>, observers: &Observers) {
        let program = &call.prepared.program;
        let route = route(call);
        self.streams.clear();
        self.cursors.clear();
        self.notices.clear();
        self.places.clear();
        self.ahead.clear();
        self.arrived.clear();
        self.peers.clear();
        self.first = 0;
        self.staging = staging;
        self.dirty = true;
        self.blocked = None;
        self.waiting = None;
        let placement = call.placement();
        let pieces = call.pieces();
        let chunks_of = |block, run: Run, signal| {
            if signal {
                return 1;
            }
            match run.is_long() {
                true => pieces.count(block, run),
                false => chunk_count(placement.len(block), call.chunk) as u64,
            }
        };
        for (task, outward) in program.tasks.iter().zip(&route.tasks) {
            let long = task.run.is_long();
            self.streams.push(Stream {
                len: if long { 0 } else { placement.len(task.block) },
                chunks: chunks_of(task.block, task.run, matches!(task.action, Action::Signal)),
                released: 0,
                done: 0,
                first_push: self.cursors.len(),
                first_notice: self.notices.len(),
                first_place: self.places.len(),
                first_wait: self.ahead.len(),
            });
            self.ahead.extend(task.waits.iter().map(|wait| match wait.ahead {
                0 => 0,
                ahead => pieces.ahead(task.block, task.run.backwards, ahead),
            }));
            let offset = |place: &Place| match long {
                true => 0,
                false => call.offset(&placement, place, task.block),
            };
            match &task.action {
                Action::Signal => {}
                Action::Reduce { sources, into, .. } => {
                    self.places.extend(sources.iter().chain(into).map(offset))
                }
                Action::Copy { source, into } => self
                    .places
                    .extend(std::iter::once(source).chain(into).map(offset)),
            }
            self.cursors.extend(outward.pushes.iter().map(|push| Cursor {
                offset: offset(&push.place),
                ..Cursor::default()
            }));
            self.notices.extend(outward.notices.iter().map(|_| 0));
        }
        let inlets = route.inlets.iter();
        self.arrived
            .extend(inlets.map(|inlet| (0, chunks_of(inlet.block, inlet.run, inlet.signal))));
        self.peers
            .extend(route.neighbours.iter().map(|_| Peer::default()));
        observers.counters.operation();
        let bytes = (call.count * call.element) as u64;
        observers
            .recorder
            .mark(Kind::Begin, call.sequence as u32, 0, 0, NONE, bytes);
    }

    /// A neighbour (by index) has begun; its staging slots for the operation start at `staging`.
    pub fn begun(&mut self, neighbour: usize, staging: u32, factor: f64) {
        let peer = &mut self.peers[neighbour];
        peer.begun = true;
        peer.staging = staging;
        peer.factor = factor;
        self.dirty = true;
    }

    /// A neighbour's task has come further, by `chunks` of together `bytes` bytes.
    pub fn arrive(
        &mut self,
        call: &Call,
        peer: u32,
        task: u16,
        chunks: u64,
        bytes: u64,
        observers: &Observers,
    ) {
        let route = route(call);
        let Some(index) = route.neighbour(peer).and_then(|index| route.inlet(index, task)) else {
            return;
        };
        let inlet = &route.inlets[index];
        let chunk = self.arrived[index].0 as u32;
        self.arrived[index].0 += chunks;
        self.dirty = true;
        let kind = match inlet.lands {
            Lands::Nowhere => return,
            Lands::Staging => {
                observers.counters.copied(CopySite::StageIn, bytes);
                Kind::Copy
            }
            Lands::Result => {
                observers.counters.exchanged(bytes);
                Kind::Pull
            }
        };
        observers
            .recorder
            .mark(kind, call.sequence as u32, inlet.waiter, chunk, peer, bytes);
    }

    /// A write of a push has completed.
    pub fn completed(&mut self, call: &Call, task: u16, push: u16) {
        let index = usize::from(task);
        let pushes = route(call).tasks[index].pushes.len();
        let stream = &mut self.streams[index];
        let cursors = &mut self.cursors[stream.first_push..stream.first_push + pushes];
        cursors[usize::from(push)].completed += 1;
        stream.done = cursors
            .iter()
            .map(|cursor| cursor.completed)
            .min()
            .unwrap_or(stream.done);
        self.dirty = true;
    }

    /// Runs chunks until none is ready or `budget` of them have been run.
    pub fn round(&mut self, call: &Call, outside: &mut Outside<'_>, mut budget: u32) -> Round {
        let route = route(call);
        self.dirty = false;
        let mut progressed = self.say_begun(call, route, outside);
        'again: loop {
            while self.first < route.order.len() && self.is_over(route, usize::from(route.order[self.first]))
            {
                self.first += 1;
            }
            if self.first == route.order.len() && self.peers.iter().all(|peer| peer.told && peer.begun) {
                let recorder = &outside.observers.recorder;
                recorder.mark(Kind::End, call.sequence as u32, 0, 0, NONE, 0);
                return Round::Done;
            }
            if budget == 0 {
                self.dirty = true;
                return Round::Progressed;
            }
            for &index in &route.order[self.first..] {
                let index = usize::from(index);
                if !self.is_over(route, index) && self.step(call, route, outside, index) {
                    self.note_progress(call, outside.observers);
                    progressed = true;
                    budget -= 1;
                    continue 'again;
                }
            }
            if progressed {
                // The next round says what it stands still for, if nothing comes until then.
                self.dirty = true;
                return Round::Progressed;
            }
            self.note_blocked(call, route, outside);
            return Round::Blocked;
        }
    }

    fn is_over(&self, route: &Route, index: usize) -> bool {
        let stream = &self.streams[index];
        let outward = &route.tasks[index];
        stream.done == stream.chunks
            && outward.notices.iter().enumerate().all(|(number, notice)| {
                self.notices[stream.first_notice + number] >= notice.due(stream.done, stream.chunks)
            })
    }

    /// Does what can be done for one task: at most one chunk here, or all that is ready to be posted.
    fn step(&mut self, call: &Call, route: &Route, outside: &mut Outside<'_>, index: usize) -> bool {
        let outward = &route.tasks[index];
        let stream = &self.streams[index];
        let mut moved = false;
        if outward.pushes.is_empty() {
            // The first task of several ranks' programs is `say_begun`.
            let begin = index == 0 && !self.peers.is_empty();
            if !begin && stream.done < stream.chunks && self.unmet(outward, stream, stream.done).is_none() {
                self.run(call, outward, outside, index);
                moved = true;
            }
        } else {
            while self.streams[index].released < self.streams[index].chunks
                && self
                    .unmet(outward, &self.streams[index], self.streams[index].released)
                    .is_none()
            {
                self.streams[index].released += 1;
                moved = true;
            }
            moved |= self.post(call, route, outside, index);
        }
        self.tell(call, route, outside, index) || moved
    }

    /// The first wait of a task's chunk that does not hold.
    #[inline]
    fn unmet(&self, outward: &Outward, stream: &Stream, chunk: u64) -> Option<Source> {
        let unmet = |((source, progress), ahead): &(&(Source, Progress), &i64)| {
            let (have, all) = match *source {
                Source::Begun(neighbour) => return !self.peers[usize::from(neighbour)].begun,
                Source::Inlet(inlet) => self.arrived[usize::from(inlet)],
                Source::Own(task) => {
                    let stream = &self.streams[task as usize];
                    (stream.done, stream.chunks)
                }
            };
            have < match progress {
                Progress::Whole => all,
                Progress::Chunk { lag } => {
                    let needed = chunk as i64 + 1 + **ahead - i64::from(*lag);
                    (needed.max(0) as u64).min(all)
                }
            }
        };
        let waits = outward.waits.iter().zip(&self.ahead[stream.first_wait..]);
        waits.into_iter().find(unmet).map(|((source, _), _)| *source)
    }
}
