//! Ranks that called different things: who called what.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::inner::Inner;
use super::link::{Announced, Tag};
use super::note::{Called, Note};
use super::trouble::{Failure, Verdict};
use crate::engine::Trouble;
use crate::engine::mismatch::disagreement;
use crate::fabric::{Completion, Opcode, Status};

/// How long a rank that has found a mismatch waits for the others' calls, to say who called what.
const TO_COMPARE: Duration = Duration::from_secs(1);

impl Inner {
    /// Who called what as operation `sequence`: waits a while for neighbours that have not called it yet.
    #[cold]
    pub fn mismatch(&mut self, sequence: u64, known: &[(u32, Called)], origin: Option<u32>) -> Failure {
        let until = Instant::now() + TO_COMPARE;
        let neighbours = match self.running(sequence) {
            Some(active) => active.queued.call.prepared.neighbours().to_vec(),
            None => Vec::new(),
        };
        let missing = |inner: &Self| {
            neighbours.iter().any(|peer| {
                let link = inner.links[*peer as usize].as_deref();
                link.is_some_and(|link| link.announced(sequence).is_none() && link.lost.is_none())
            })
        };
        let mut completions = Vec::with_capacity(64);
        while missing(self) && Instant::now() < until {
            completions.clear();
            let slice = Instant::now() + Duration::from_millis(2);
            if self.endpoint().poll(&mut completions).is_err() || self.endpoint().wait(slice).is_err() {
                break;
            }
            for completion in &completions {
                self.only_announcements(completion);
            }
        }
        let mut calls = BTreeMap::new();
        calls.extend(known.iter().copied());
        for link in self.links.iter().flatten() {
            calls.extend(
                link.announced(sequence)
                    .map(|announced| (link.peer, announced.called)),
            );
        }
        calls.extend(self.own_call(sequence).map(|own| (self.rank, own)));
        // Two that differ; this rank's own, where it is one of them.
        let first = *calls.get(&self.rank).unwrap_or(&known[0].1);
        let odd = calls.iter().find(|(_, called)| **called != first);
        let one = calls
            .iter()
            .find(|(rank, called)| **called == first && **rank == self.rank);
        let one = one.or_else(|| calls.iter().find(|(_, called)| **called == first));
        let note = match (one, odd) {
            (Some((one, called)), Some((odd, other))) => Note::Mismatch {
                origin: origin.unwrap_or(self.rank),
                sequence,
                ranks: [(*one, *called), (*odd, *other)],
            },
            _ => Note::Trouble {
                origin: origin.unwrap_or(self.rank),
                trouble: Trouble::Mismatch(sequence as u32),
            },
        };
        let found = calls
            .into_iter()
            .map(|(rank, called)| (rank, Some((called.signature, called.details))));
        Box::new(Verdict {
            error: disagreement(self.rank, sequence, found),
            note: Some(note),
        })
    }

    /// Of what has completed, takes in only who called what: everything else is over.
    fn only_announcements(&mut self, completion: &Completion) {
        let generation = self.generation;
        let (Some((link, endpoint)), Some(tag)) = (self.link(completion.peer), Tag::unpack(completion.id))
        else {
            return;
        };
        if !matches!(tag, Tag::Receive(_)) {
            link.in_flight -= 1;
        }
        if completion.status != Status::Success {
            link.lose(completion, endpoint);
            return;
        }
        if let Tag::Note(place) = tag {
            link.free_note(place);
        }
        let Tag::Receive(place) = tag else { return };
        let said = completion.opcode == Opcode::Receive && completion.immediate.is_none();
        let note = link.take_receive(place, said.then_some(completion.bytes), generation, endpoint);
        if let Some(Note::Begin {
            sequence,
            called,
            staging,
            factor,
        }) = note
        {
            link.announce(Announced {
                sequence,
                called,
                staging,
                factor,
            });
        }
    }
}
