//! What an operation does at a time: saying that it has begun, and one chunk of a task, combined here, pushed to others,
//! told of.

use super::{Execution, Outside, Peer, called, route};
use crate::engine::message::immediate::{Immediate, MOST_CHUNKS};
use crate::engine::message::link::{Class, Tag};
use crate::engine::message::note::Note;
use crate::engine::message::route::{Origin, Outward, Route, Source};
use crate::engine::message::staging::{SLOT_BYTES, Staging};
use crate::engine::{Call, Extent, reduce};
use crate::fabric::{Operation, RemoteSlice, Slice};
use crate::observe::{CopySite, Kind, NONE};
use crate::plan::lowered::{Action, Buffer, Place};

impl Execution {
    /// Tells neighbours that this rank has begun, and with what.
    pub(super) fn say_begun(&mut self, call: &Call, route: &Route, outside: &mut Outside<'_>) -> bool {
        let mut said = false;
        if self.peers.iter().any(|peer| !peer.told) {
            let note = Note::Begin {
                sequence: call.sequence,
                called: called(call),
                staging: self.staging.unwrap_or(0),
                factor: call.scale.map_or(1.0, |scale| scale.factor),
            };
            for (peer, rank) in self.peers.iter_mut().zip(&route.neighbours) {
                if peer.told {
                    continue;
                }
                let generation = outside.generation;
                let link = outside.links[*rank as usize]
                    .as_deref_mut()
                    .expect("neighbours were connected when the shape was first used");
                if link.send(outside.endpoint, Class::Ordinary, note, generation) {
                    peer.told = true;
                    said = true;
                } else {
                    self.dirty = true;
                }
            }
            // The program's own first task is this: that all have been told.
            if self.peers.iter().all(|peer| peer.told) {
                self.streams[0].done = 1;
            }
        }
        said
    }

    /// A task's chunk: where it starts in the block, of a run in the vector, in elements, and how many it has.
    fn extent(&self, call: &Call, index: usize, chunk: u64) -> (usize, usize) {
        let task = &call.prepared.program.tasks[index];
        if task.run.is_long() {
            let piece = call.pieces().elements(task.block, task.run, chunk);
            return (piece.start, piece.len());
        }
        let start = chunk as usize * call.chunk;
        let len = self.streams[index].len;
        (start, call.chunk.min(len.saturating_sub(start)))
    }

    /// A chunk of a task that stores into memory of this rank, or moves nothing.
    pub(super) fn run(&mut self, call: &Call, outward: &Outward, outside: &mut Outside<'_>, index: usize) {
        let task = &call.prepared.program.tasks[index];
        let chunk = self.streams[index].done;
        let (start, count) = self.extent(call, index, chunk);
        let bytes = count * call.element;
        let places = &self.places[self.streams[index].first_place..];
        let at = |number: usize| (places[number] + start) * call.element;
        let staging = (outside.staging, self.staging.unwrap_or(0));
        let mut remote = 0;
        let kind = match &task.action {
            Action::Signal => Kind::Signal,
            Action::Reduce {
                sources,
                into,
                complete,
            } => {
                self.sources.clear();
                let pointers = sources
                    .iter()
                    .enumerate()
                    .map(|(number, place)| pointer(call, staging, *place, at(number), chunk));
                self.sources.extend(pointers.map(<*mut u8>::cast_const));
                let first = pointer(call, staging, into[0], at(sources.len()), chunk);
                let divisor = if *complete { call.divisor } else { 1 };
                match call.scale {
                    // SAFETY: the plan was proved: the waits that hold say that every source is written and that nobody
                    // accesses the destination, which is this rank's; pointers are within the call's extents and slots.
                    None => unsafe { (call.kernel)(first, &self.sources, count, divisor) },
                    Some(scale) => {
                        self.factors.clear();
                        self.factors
                            .extend(outward.origins.iter().map(|origin| match origin {
                                Origin::Own => scale.factor,
                                Origin::Neighbour(index) => self.peers[usize::from(*index)].factor,
                                Origin::Sum => 1.0,
                            }));
                        // SAFETY: as above.
                        unsafe { (scale.kernel)(first, &self.sources, &self.factors, count) };
                    }
                }
                self.sources.clear();
                for (place, number) in into.iter().zip(sources.len()..).skip(1) {
                    // SAFETY: as above.
                    unsafe { reduce::copy(pointer(call, staging, *place, at(number), chunk), first, bytes) };
                }
                remote = u64::from(outward.contributions) * bytes as u64;
                Kind::Reduce
            }
            Action::Copy { source, into } => {
                let from = pointer(call, staging, *source, at(0), chunk);
                for (place, number) in into.iter().zip(1..) {
                    let to = pointer(call, staging, *place, at(number), chunk);
                    if let (Some(scale), Buffer::Input) = (call.scale, source.buffer) {
                        // The whole sum is one contribution, this rank's.
                        // SAFETY: as above; the kernel may be given its own result as a source.
                        unsafe { (scale.kernel)(to, &[from.cast_const()], &[scale.factor], count) };
                    } else if to != from {
                        // SAFETY: as above; different places of a plan do not overlap unless they are the same
                        // memory (an input that is its own result), which is left alone.
                        unsafe { reduce::copy(to, from, bytes) };
                    }
                }
                if let Buffer::Staging { .. } = source.buffer {
                    outside
                        .observers
                        .counters
                        .copied(CopySite::StageOut, bytes as u64);
                }
                Kind::Pull
            }
        };
        let contributor = outward.waits.iter().find_map(|(source, _)| match source {
            Source::Inlet(inlet) if kind == Kind::Reduce => {
                Some(route(call).inlets[usize::from(*inlet)].neighbour)
            }
            _ => None,
        });
        let peer = contributor.map_or(NONE, |index| route(call).neighbours[usize::from(index)]);
        self.streams[index].done += 1;
        outside.observers.counters.exchanged(remote);
        let (sequence, bytes) = (call.sequence as u32, bytes as u64);
        outside
            .observers
            .recorder
            .mark(kind, sequence, index as u16, chunk as u32, peer, bytes);
    }

    /// Posts what is released and has room.
    pub(super) fn post(
        &mut self,
        call: &Call,
        route: &Route,
        outside: &mut Outside<'_>,
        index: usize,
    ) -> bool {
        let Action::Copy { source, .. } = &call.prepared.program.tasks[index].action else {
            unreachable!("what is pushed is copied, as the route was checked for");
        };
        let mut moved = false;
        for (number, push) in route.tasks[index].pushes.iter().enumerate() {
            let at_cursor = self.streams[index].first_push + number;
            let peer = self.peers[usize::from(push.neighbour)];
            let rank = route.neighbours[usize::from(push.neighbour)];
            if !peer.told {
                // What it has not been told of it would not know what to do with.
                self.dirty = true;
                continue;
            }
            while self.cursors[at_cursor].posted < self.streams[index].released {
                let chunk = self.cursors[at_cursor].posted;
                let (start, count) = self.extent(call, index, chunk);
                let bytes = count * call.element;
                let from = (self.places[self.streams[index].first_place] + start) * call.element;
                let at = (self.cursors[at_cursor].offset + start) * call.element;
                let link = outside.link(rank);
                let remote = match push.place.buffer {
                    Buffer::Staging { first, slots } => {
                        let slot = peer.staging + first + (chunk % u64::from(slots)) as u32;
                        let region = link.staging.clone();
                        RemoteSlice {
                            region: region.expect("slots were exchanged when the shape was first used"),
                            offset: slot as usize * SLOT_BYTES,
                        }
                    }
                    Buffer::Result => memory(call).1.remote(rank, at),
                    Buffer::Input => memory(call).0.remote(rank, at),
                };
                let immediate = Immediate::Progress {
                    sequence: call.sequence as u8,
                    task: index as u16,
                    chunks: 1,
                };
                let operation = Operation::Write {
                    local: local(
                        call,
                        (outside.staging, self.staging.unwrap_or(0)),
                        *source,
                        (from, bytes),
                        chunk,
                    ),
                    remote,
                    immediate: Some(immediate.pack(outside.generation)),
                };
                let tag = Tag::Push {
                    sequence: call.sequence as u32,
                    task: index as u16,
                    push: number as u16,
                };
                let link = outside.links[rank as usize]
                    .as_deref_mut()
                    .expect("looked up just now");
                if !link.push(outside.endpoint, tag, operation) {
                    self.dirty = true;
                    break;
                }
                self.cursors[at_cursor].posted += 1;
                moved = true;
                let recorder = &outside.observers.recorder;
                recorder.mark(
                    Kind::Signal,
                    call.sequence as u32,
                    index as u16,
                    chunk as u32,
                    rank,
                    bytes as u64,
                );
            }
            self.forgive(call, outside, (index, number), rank, peer);
        }
        moved
    }

    /// A peer that has begun the operation and left in order had all it needed of it: what is not known to have
    /// reached it has.
    fn forgive(
        &mut self,
        call: &Call,
        outside: &mut Outside<'_>,
        (index, number): (usize, usize),
        rank: u32,
        peer: Peer,
    ) {
        let link = outside.link(rank);
        let stream = &self.streams[index];
        let cursor = &mut self.cursors[stream.first_push + number];
        if link.left && link.lost.is_some() && peer.begun && cursor.completed < stream.chunks {
            cursor.posted = stream.chunks;
            cursor.completed = stream.chunks - 1;
            self.completed(call, index as u16, number as u16);
        }
    }

    /// Tells those who wait for a task's progress.
    pub(super) fn tell(
        &mut self,
        call: &Call,
        route: &Route,
        outside: &mut Outside<'_>,
        index: usize,
    ) -> bool {
        let stream = &self.streams[index];
        let mut said = false;
        for (number, notice) in route.tasks[index].notices.iter().enumerate() {
            let told = &mut self.notices[stream.first_notice + number];
            let due = notice.due(stream.done, stream.chunks);
            if *told < due && !self.peers[usize::from(notice.neighbour)].told {
                self.dirty = true;
                continue;
            }
            while *told < due {
                let chunks = (due - *told).min(MOST_CHUNKS);
                let immediate = Immediate::Progress {
                    sequence: call.sequence as u8,
                    task: index as u16,
                    chunks: chunks as u8,
                };
                let rank = route.neighbours[usize::from(notice.neighbour)];
                let link = outside.links[rank as usize]
                    .as_deref_mut()
                    .expect("neighbours are connected");
                let word = immediate.pack(outside.generation);
                let gone = link.left && link.lost.is_some();
                if !gone && !link.say(outside.endpoint, Class::Ordinary, word) {
                    self.dirty = true;
                    break;
                }
                *told += chunks;
                said = true;
            }
        }
        said
    }
}

fn memory(call: &Call) -> &(Extent, Extent) {
    let memory = call.memory.as_ref();
    memory.expect("a program that moves data comes with memory")
}

/// Where the chunk at byte `at` of a buffer is in this rank's memory.
#[inline]
fn pointer(call: &Call, (staging, base): (&Staging, u32), place: Place, at: usize, chunk: u64) -> *mut u8 {
    match place.buffer {
        Buffer::Input => memory(call).0.own().wrapping_add(at),
        Buffer::Result => memory(call).1.own().wrapping_add(at),
        Buffer::Staging { first, slots } => staging.pointer(base + first + (chunk % u64::from(slots)) as u32),
    }
}

/// The same for a request.
#[inline]
fn local(
    call: &Call,
    (staging, base): (&Staging, u32),
    place: Place,
    (at, bytes): (usize, usize),
    chunk: u64,
) -> Slice {
    match place.buffer {
        Buffer::Input => memory(call).0.local(at, bytes),
        Buffer::Result => memory(call).1.local(at, bytes),
        Buffer::Staging { first, slots } => {
            staging.slice(base + first + (chunk % u64::from(slots)) as u32, bytes)
        }
    }
}
