//! What comes in: completions, and what peers say. Progress of operations that have not begun here is remembered.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Early, Inner, LEFT};
use crate::engine::board::DEPTH;
use crate::engine::message::execution::called;
use crate::engine::message::immediate::Immediate;
use crate::engine::message::link::{Announced, Tag};
use crate::engine::message::note::Note;
use crate::engine::message::trouble::{Failure, Told, Verdict};
use crate::engine::{EngineError, Observers};
use crate::fabric::{Completion, FabricError, Opcode, Status};

/// Progress of operations not begun here that is remembered; more than ranks that keep to the plans ever say.
const MOST_EARLY: usize = 1 << 16;

impl Inner {
    /// Takes in what peers have said of an operation before it began here.
    pub(super) fn absorb(&mut self, sequence: u64, observers: &Observers) -> Result<(), Failure> {
        for index in 0..self.connected.len() {
            let peer = self.connected[index];
            let link = self.links[peer as usize].as_deref().expect("it is connected");
            if let Some(announced) = link.announced(sequence).copied() {
                self.heard(peer, &announced);
            }
        }
        self.compare()?;
        let Some(active) = self.running[(sequence % DEPTH) as usize].as_mut() else {
            return Ok(());
        };
        self.early.retain(|early| {
            let here = early.sequence == sequence;
            if here {
                let chunks = u64::from(early.chunks);
                active
                    .execution
                    .arrive(&active.queued.call, early.peer, early.task, chunks, 0, observers);
            }
            !here
        });
        Ok(())
    }

    /// A peer has begun an operation that is in progress here.
    fn heard(&mut self, peer: u32, announced: &Announced) {
        let sequence = announced.sequence;
        let Some(active) = self.running_mut(sequence) else {
            return;
        };
        let call = &active.queued.call;
        let neighbours = call.prepared.neighbours();
        match neighbours.binary_search(&peer) {
            Ok(index) if called(call) == announced.called => {
                active.execution.begun(index, announced.staging, announced.factor);
            }
            _ => self.odd = self.odd.or(Some((sequence, peer, announced.called))),
        }
    }

    /// Fails if a peer was found to have called something else. Not at once where it was found: the calls of others
    /// may be among what was polled and not yet looked at.
    fn compare(&mut self) -> Result<(), Failure> {
        match self.odd.take() {
            None => Ok(()),
            Some((sequence, peer, called)) => Err(self.mismatch(sequence, &[(peer, called)], None)),
        }
    }

    /// Polls the endpoint and deals with what has completed.
    pub fn take_in(&mut self, floor: &AtomicU64, observers: &Observers) -> Result<bool, Failure> {
        let mut completions = std::mem::take(&mut self.completions);
        completions.clear();
        let outcome = self
            .endpoint()
            .poll(&mut completions)
            .map_err(|error| self.broken(&error));
        let mut verdict = Ok(!completions.is_empty());
        for completion in &completions {
            if completion.status == Status::Success {
                self.trust(completion.peer);
            }
            // All are taken, so that the links' accounts stay right.
            if let Err(error) = self.take(completion, floor, observers) {
                verdict = verdict.and(Err(error));
            }
        }
        self.completions = completions;
        outcome?;
        self.compare()?;
        verdict
    }

    pub fn broken(&self, error: &FabricError) -> Failure {
        Verdict::own(EngineError::Fabric {
            rank: self.rank,
            why: error.to_string(),
        })
    }

    fn take(
        &mut self,
        completion: &Completion,
        floor: &AtomicU64,
        observers: &Observers,
    ) -> Result<(), Failure> {
        let (peer, generation) = (completion.peer, self.generation);
        let tag = Tag::unpack(completion.id);
        let endpoint = &mut **self.endpoint.as_mut().expect(LEFT);
        let link = self.links.get_mut(peer as usize).and_then(Option::as_deref_mut);
        let (Some(link), Some(tag)) = (link, tag) else {
            return Ok(());
        };
        if !matches!(tag, Tag::Receive(_)) {
            link.in_flight -= 1;
        }
        if completion.status != Status::Success {
            link.lose(completion, endpoint);
            self.stir();
            return Ok(());
        }
        match tag {
            Tag::Bare => Ok(()),
            Tag::Letter(number) => {
                self.letters.completed(peer, number);
                Ok(())
            }
            Tag::Note(place) => {
                link.free_note(place);
                Ok(())
            }
            Tag::Push { sequence, task, push } => {
                let active = self.running[(u64::from(sequence) % DEPTH) as usize].as_mut();
                if let Some(active) = active
                    && active.queued.call.sequence & 0x0fff_ffff == u64::from(sequence)
                {
                    active.execution.completed(&active.queued.call, task, push);
                }
                Ok(())
            }
            Tag::Receive(place) => {
                let said = completion.opcode == Opcode::Receive && completion.immediate.is_none();
                let note = link.take_receive(place, said.then_some(completion.bytes), generation, endpoint);
                if let Some(word) = completion.immediate {
                    return self.immediate(completion, word, floor, observers);
                }
                match note {
                    Some(note) => {
                        self.note(peer, note);
                        Ok(())
                    }
                    None => {
                        let why =
                            format!("rank {peer} sent something that is no message of this communicator");
                        Err(Verdict::own(EngineError::Fabric { rank: self.rank, why }))
                    }
                }
            }
        }
    }

    fn immediate(
        &mut self,
        completion: &Completion,
        word: u32,
        floor: &AtomicU64,
        observers: &Observers,
    ) -> Result<(), Failure> {
        let peer = completion.peer;
        let link = self.links[peer as usize]
            .as_deref_mut()
            .expect("it has just been looked up");
        match Immediate::unpack(word, self.generation) {
            None => tracing::warn!(peer, word, "an immediate of another generation was dropped"),
            Some(Immediate::Receives(count)) => {
                link.acknowledge(u64::from(count));
                // What had no room may have some now.
            }
            Some(Immediate::Progress {
                sequence,
                task,
                chunks,
            }) => {
                let sequence = link.full_sequence(sequence);
                if let Some(active) = self.running_mut(sequence) {
                    let (chunks, bytes) = (u64::from(chunks), completion.bytes as u64);
                    active
                        .execution
                        .arrive(&active.queued.call, peer, task, chunks, bytes, observers);
                } else if sequence >= floor.load(Ordering::Relaxed) && self.own_call(sequence).is_none() {
                    if self.early.len() == MOST_EARLY {
                        let why = format!(
                            "rank {peer} is too far ahead: {MOST_EARLY} messages wait for calls here"
                        );
                        return Err(Verdict::own(EngineError::Fabric { rank: self.rank, why }));
                    }
                    self.early.push(Early {
                        sequence,
                        peer,
                        task,
                        chunks,
                    });
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, peer: u32, note: Note) {
        let link = self.links[peer as usize]
            .as_deref_mut()
            .expect("it has just been looked up");
        match note {
            Note::Begin {
                sequence,
                called,
                staging,
                factor,
            } => {
                let announced = Announced {
                    sequence,
                    called,
                    staging,
                    factor,
                };
                link.announce(announced);
                if self.running(sequence).is_some() {
                    self.heard(peer, &announced);
                } else if self.own_call(sequence).is_some_and(|own| own != called) {
                    // This operation has ended here without that rank: it cannot be the same.
                    self.odd = self.odd.or(Some((sequence, peer, called)));
                }
            }
            Note::Waits { sequence, culprit } => {
                link.waits = Some((sequence, culprit));
            }
            Note::Trouble { origin, trouble } => {
                self.hear_trouble(peer, Told::Trouble { origin, trouble });
            }
            Note::Mismatch {
                origin,
                sequence,
                ranks,
            } => {
                let told = Told::Mismatch {
                    origin,
                    sequence,
                    ranks,
                };
                self.hear_trouble(peer, told);
            }
            Note::Leave => {
                link.left = true;
                self.stir();
            }
            Note::Offer { number, header } => self.letters.offered(peer, number, header),
            Note::Answer {
                number,
                place,
                header,
            } => self.letters.answered(peer, number, place, header),
            Note::Written { number, well } => self.letters.written(peer, number, well),
        }
    }

    /// Something has changed that no operation is told of by itself.
    fn stir(&mut self) {
        self.running
            .iter_mut()
            .flatten()
            .for_each(|active| active.execution.dirty = true);
    }
}
