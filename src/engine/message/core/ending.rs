//! The end: a failure, an abort, leaving in order.

use std::time::{Duration, Instant};

use super::MessageCore;
use crate::engine::message::inner::{Inner, LEFT};
use crate::engine::message::note::Note;
use crate::engine::message::trouble::Verdict;
use crate::engine::{EngineError, Trouble};
use crate::fabric::{FabricError, Fence};
use crate::observe::{Kind, NONE};

/// How long a rank that leaves waits until its last messages are known to have arrived.
const FAREWELL: Duration = Duration::from_millis(500);
/// The same for a rank that has given up: its peers hear of it in other ways too.
const LAST_WORDS: Duration = Duration::from_millis(150);

impl MessageCore {
    /// See [`crate::engine::Engine::failure`].
    pub(in crate::engine) fn failure(&self) -> Option<EngineError> {
        if self.poison.get().is_none()
            && let Some(mut inner) = self.token.try_take()
        {
            // What others have said is heard by who drives, and nobody does just now.
            self.turn(&mut inner);
            let verdict = inner.told.map(|told| inner.judge(0, told));
            // What is in progress may still end well; nothing that comes later can.
            if let (Some(verdict), true) = (&verdict, inner.order.is_empty() && inner.letters.is_empty()) {
                self.fail(&mut inner, verdict);
            }
            self.release(inner);
            if let Some(verdict) = verdict {
                return Some(verdict.error);
            }
        }
        self.poison.get().cloned()
    }

    /// Ends everything in progress; later calls are refused.
    pub(super) fn fail(&self, inner: &mut Inner, verdict: &Verdict) {
        let Verdict { error, note } = verdict;
        if self.poison.set(error.clone()).is_ok() {
            let culprit = error.culprit().unwrap_or(NONE);
            self.engine.recorder.mark(Kind::Error, 0, 0, 0, culprit, 0);
        }
        let queued = std::mem::take(&mut *self.started.lock().expect("nothing panics with it in hand"));
        queued.into_iter().for_each(|boxed| inner.take_up(boxed));
        inner.end_all(error);
        if inner.endpoint.is_some() {
            let trouble = match error {
                EngineError::Aborted { .. } => Trouble::Aborted,
                _ => Trouble::Gone(error.culprit().unwrap_or(self.rank)),
            };
            let origin = self.rank;
            inner.flood(note.unwrap_or(Note::Trouble { origin, trouble }), None);
        }
        self.publish(inner);
    }

    /// Ends everything in progress with `error`; later calls are refused with it. The others are told.
    pub fn abandon(&self, error: &EngineError) {
        if self.is_forked() {
            return;
        }
        let mut inner = self.token.take();
        self.fail(&mut inner, &Verdict::own(error.clone()));
        self.release(inner);
    }

    /// After a failure: makes sure that nothing that other ranks posted can land here any more. Answers those ranks
    /// of which that cannot be said by the deadline.
    ///
    /// # Errors
    /// What the fabric refuses.
    pub fn fence(&self, deadline: Instant) -> Result<Vec<u32>, FabricError> {
        let mut inner = self.token.take();
        self.flush(&mut inner, deadline.min(Instant::now() + LAST_WORDS));
        let mut quarantined = Vec::new();
        for peer in inner.connected.clone() {
            if inner.endpoint().fence(peer, deadline)? == Fence::Quarantined {
                quarantined.push(peer);
            }
        }
        self.release(inner);
        Ok(quarantined)
    }

    /// Takes part in nothing any more: says so to the neighbours, and closes the endpoint. What was in progress must
    /// have been given up before.
    pub fn leave(&self) {
        if self.is_forked() {
            return;
        }
        let in_order = self.poison.get().is_none();
        let mut inner = self.token.take();
        if inner.endpoint.is_some() {
            let patience = if in_order { FAREWELL } else { LAST_WORDS };
            // What was posted and not yet taken goes first, so that there is room for this.
            self.flush(&mut inner, Instant::now() + patience);
            if in_order {
                for peer in inner.connected.clone() {
                    inner.last_words(peer, Note::Leave);
                }
                self.flush(&mut inner, Instant::now() + patience);
            }
        }
        let endpoint = inner.endpoint.take();
        self.release(inner);
        drop(endpoint);
    }

    /// Waits until what was posted is known to have arrived.
    fn flush(&self, inner: &mut Inner, deadline: Instant) {
        while !inner.is_quiet() && Instant::now() < deadline {
            // What comes in now changes nothing any more.
            if inner.take_in(&self.floor, &self.engine).is_err() {
                return;
            }
            if !inner.is_quiet() && inner.endpoint.as_mut().expect(LEFT).wait(deadline).is_err() {
                return;
            }
        }
    }
}
