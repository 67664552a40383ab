//! Training state: what a worker that fell too far behind copies from another, while the others go on.
//!
//! A word beside the state says of which result it is; while its owner changes the state the word is 0. Who has copied it
//! looks at the word again: if it has changed, so may have the state.

use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

use super::core::{Core, Progress};
use super::ground::Ground;
use super::memory::{MARK, STATE};
use super::protocol::{Did, Tag};
use super::results::LARGEST;
use super::{BackupError, racing};

/// How long those are waited for to whom there is no way yet, by who comes back: they may be stopped.
const UNREACHED: Duration = Duration::from_secs(1);

/// The word says something.
const WHOLE: u64 = 1 << 63;

/// Of which result a state is, by the word beside it.
pub(super) fn whole(word: u64) -> Option<Tag> {
    (word & WHOLE != 0).then_some(Tag(word & !WHOLE))
}

impl<G: Ground> Core<G> {
    /// Says that the own state is that of the last result that was applied.
    pub(super) fn show_state(&self) {
        self.show_state_of(self.worker.past());
    }

    fn show_state_of(&self, tag: Tag) {
        let word = &self.ground.own().words[STATE];
        if word.load(Relaxed) != tag.0 | WHOLE {
            word.store(tag.0 | WHOLE, Release);
        }
    }

    /// Says that the own state is being changed.
    pub(super) fn hide_state(&self) {
        self.ground.own().words[STATE].store(0, Relaxed);
        racing::before_writing();
    }

    /// Copies the newest state there is, if it is of `step` or later.
    pub(super) fn catch_up(&mut self, step: u64) -> Result<Progress, BackupError> {
        let places = *self.ground.places();
        if places.state == 0 {
            return Err(BackupError::Behind {
                rank: u32::from(self.me),
                step: self.worker.step(),
                ring: self.shape.ring(),
                why: "there is no training state to catch up with: name it when the exchange is made (`state`), or keep more \
                      results (`history`)"
                    .into(),
                ranks: Vec::new(),
            });
        }
        let (mut newest, mut unread) = (None, false);
        for worker in (0..self.shape.workers()).filter(|worker| *worker != self.me) {
            match self.ground.load(worker, STATE) {
                Some(word) => newest = newest.max(whole(word).map(|tag| (tag, worker))),
                None => unread |= !self.ground.has_left(worker),
            }
        }
        // Who comes back takes the newest that there is, and has a way to nobody yet.
        let since = self.catching_since.get_or_insert_with(Instant::now);
        if step == 0 && unread && since.elapsed() < UNREACHED {
            return Ok(Progress::Waits);
        }
        let Some((tag, worker)) = newest.filter(|(tag, _)| tag.step() >= step) else {
            return Ok(Progress::Waits);
        };
        self.hide_state();
        let mut done = 0;
        while done < places.state {
            let (at, now) = (places.state_at() + done, LARGEST.min(places.state - done));
            if self.ground.fetch(worker, at, at, now).is_none() {
                return Ok(Progress::Waits);
            }
            done += now;
        }
        racing::after();
        if self.ground.load(worker, STATE) != Some(tag.0 | WHOLE) {
            return Ok(Progress::Waits);
        }
        self.catching_since = None;
        self.show_state_of(tag);
        self.ground.own().words[MARK].store(tag.0, Release);
        Ok(Progress::Did(Did::Caught(tag)))
    }
}
