//! Training state: what a worker that fell too far behind copies from another, while the others go on.
//!
//! A word beside the state says of which result it is; while its owner changes the state the word is 0. Who has copied it
//! looks at the word again: if it has changed, so may have the state.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::core::{Core, Progress};
use super::protocol::{Did, Tag};
use super::{BackupError, racing};

/// The word says something.
const WHOLE: u64 = 1 << 63;

impl Core {
    /// Says that the own state is that of the last result that was applied.
    pub(super) fn show_state(&self) {
        self.show_state_of(self.worker.past());
    }

    fn show_state_of(&self, tag: Tag) {
        let word = self.memory.state_word(self.me);
        if word.load(Relaxed) != tag.0 | WHOLE {
            word.store(tag.0 | WHOLE, Release);
        }
    }

    /// Says that the own state is being changed.
    pub(super) fn hide_state(&self) {
        self.memory.state_word(self.me).store(0, Relaxed);
        racing::before_writing();
    }

    /// Copies the newest state there is, if it is of `step` or later.
    pub(super) fn catch_up(&mut self, step: u64) -> Result<Progress, BackupError> {
        if self.memory.places.state == 0 {
            return Err(BackupError::Behind {
                rank: u32::from(self.me),
                step: self.worker.step(),
                ring: self.shape.ring(),
                why: "there is no training state to catch up with: name it when the exchange is made (`state`), or keep more \
                      results (`history`)"
                    .into(),
            });
        }
        let others = (0..self.shape.workers()).filter(|worker| *worker != self.me);
        let newest = others
            .filter_map(|worker| {
                let word = self.memory.state_word(worker).load(Acquire);
                (word & WHOLE != 0).then_some((Tag(word & !WHOLE), worker))
            })
            .max();
        let Some((tag, worker)) = newest.filter(|(tag, _)| tag.step() >= step) else {
            return Ok(Progress::Waits);
        };
        self.hide_state();
        let (into, from) = (self.memory.state(self.me), self.memory.state(worker));
        // SAFETY: both are that long; nobody reads the own one, whose word is 0. What was torn is found out below.
        unsafe { racing::copy(into.as_ptr(), from.as_ptr(), self.memory.places.state) };
        racing::after();
        if self.memory.state_word(worker).load(Relaxed) != tag.0 | WHOLE {
            return Ok(Progress::Moved);
        }
        self.show_state_of(tag);
        Ok(Progress::Did(Did::Caught(tag)))
    }
}
