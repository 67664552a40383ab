//! Everybody adds up for itself: the members' gradients, each read from where its backward pass wrote it, in the order of
//! ranks and in one pass.

use std::sync::atomic::Ordering;

use super::core::{AT_ONCE, Core, PIECE};
use super::home::Entry;
use super::protocol::{Did, Tag, Words, scan};
use super::racing;

impl Core {
    /// The mean of the gradients of an attempt's members is this worker's result.
    pub(super) fn sum_up(&mut self, tag: Tag) -> Did {
        let entry = Entry {
            memory: &self.memory,
            step: tag.step(),
        };
        let scanned = scan(&entry, &self.shape, tag.step(), tag.attempt(), |_, _, _| {});
        let Some(scanned) = scanned.filter(|scanned| scanned.complete) else {
            return Did::Gone;
        };
        self.members = scanned.members;
        let mut at = 0;
        while at < self.memory.places.bytes {
            let now = PIECE.min(self.memory.places.bytes - at);
            self.sum_piece(tag, at, now);
            at += now;
        }
        racing::after();
        // Nobody writes over a gradient of this step before the step that precedes its place's next use was decided. That
        // step's seal lies where that of the step before this one did.
        let before = Entry {
            memory: &self.memory,
            step: tag.step() - 1,
        };
        match before.seal().step() < tag.step() {
            true => Did::Done,
            false => Did::Gone,
        }
    }

    fn sum_piece(&mut self, tag: Tag, at: usize, bytes: usize) {
        let into = self.memory.result(self.me, tag).as_ptr().wrapping_add(at);
        let count = bytes / self.element;
        let mut sources: [*const u8; AT_ONCE + 1] = [std::ptr::null(); AT_ONCE + 1];
        let scratch = self.scratch();
        let (mut have, mut copied) = (0, 0);
        let mut left = u32::from(self.members.len());
        for member in self.members.iter() {
            let gradient = self.memory.gradient(member, tag.step()).as_ptr().wrapping_add(at);
            sources[have] = if member == self.me {
                gradient
            } else {
                let piece = scratch.wrapping_add(copied * PIECE);
                copied += 1;
                // SAFETY: `bytes` bytes of a gradient, and of a piece of scratch memory that nothing else in `sources` is.
                // Its owner may have begun to write it: what was read is looked after before it is used as a result.
                unsafe { racing::copy(piece, gradient, bytes) };
                piece
            };
            have += 1;
            left -= 1;
            if left > 0 && have < sources.len() && copied < AT_ONCE {
                continue;
            }
            let kernel = if left == 0 { self.mean } else { self.sum };
            // SAFETY: all hold `count` elements, aligned to a cache line; `into` is the first source or none; the own
            // gradient is written by nobody until the result has been applied.
            unsafe { kernel(into, &sources[..have], count, u32::from(self.shape.members())) };
            sources[0] = into;
            (have, copied) = (1, 0);
        }
    }

    /// Takes down who was in the result, as shown by whom it was copied from or by the words; for who copies it from here.
    pub(super) fn show_result(&self, tag: Tag) {
        for index in 0..self.memory.places.set {
            let word = self.memory.result_set(self.me, tag, index);
            word.store(self.members.word(index), Ordering::Relaxed);
        }
        self.memory
            .result_tag(self.me, tag)
            .store(tag.0, Ordering::Release);
    }
}
