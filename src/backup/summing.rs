//! Everybody adds up for itself: the members' gradients, each read from where its backward pass wrote it, in the order of
//! ranks and in one pass.

use super::core::{AT_ONCE, Core, PIECE};
use super::ground::Ground;
use super::mapped::Mapped;
use super::memory::LINE;
use super::protocol::{Did, Seal, Tag};
use super::racing;
use crate::engine::hint::for_reading;

/// Gradients of so few bytes are worth it to be fetched ahead.
const AHEAD: usize = LINE;

impl Core<Mapped> {
    /// Who arrives will soon read the others' gradients: where they are small, they are on their way while it takes its ticket.
    /// What comes too early is fetched again.
    pub(super) fn fetch_gradients(&self) {
        let (workers, places, step) = (self.shape.workers(), self.ground.places(), self.worker.step());
        if places.bytes > AHEAD {
            return;
        }
        for worker in (0..workers).filter(|worker| *worker != self.me) {
            for_reading(self.ground.data(worker, places.gradient(step)).as_ptr());
        }
    }

    /// The mean of the gradients of an attempt's members is this worker's result.
    pub(super) fn sum(&mut self, tag: Tag) -> Did {
        match self.ground.few(tag) {
            Some(members) => self.members.set_all(members),
            None => match self.members_of(tag) {
                Some(members) => self.members = members,
                None => return Did::Gone,
            },
        }
        let (mut at, bytes) = (0, self.ground.places().bytes);
        let others = self.members.len() - u16::from(self.members.contains(self.me));
        self.count_staged(bytes * others as usize);
        while at < bytes {
            let now = PIECE.min(bytes - at);
            self.sum_piece(tag, at, now);
            at += now;
        }
        racing::after();
        // Nobody writes over a gradient of this step before the step that precedes its place's next use was decided. That
        // step's seal lies where that of the step before this one did.
        match self.ground.seal(tag.view(), tag.step() - 1) {
            Ok(seal) if Seal(seal).step() < tag.step() => Did::Done,
            _ => Did::Gone,
        }
    }

    fn sum_piece(&mut self, tag: Tag, at: usize, bytes: usize) {
        let (places, own) = (self.ground.places(), self.ground.own());
        let from = places.gradient(tag.step()) + at;
        let into = own.at(places.result(tag) + at);
        let scratch = own.at(places.scratch());
        let count = bytes / self.element;
        let mut sources: [*const u8; AT_ONCE + 1] = [std::ptr::null(); AT_ONCE + 1];
        let (mut have, mut copied) = (0, 0);
        let mut left = self.members.len();
        for member in self.members.iter() {
            let gradient = self.ground.data(member, from);
            sources[have] = if member == self.me {
                gradient.as_ptr()
            } else {
                let piece = scratch.wrapping_add(copied * PIECE);
                copied += 1;
                // SAFETY: `bytes` bytes of a gradient, and of a piece of scratch memory that nothing else in `sources` is.
                // Its owner may have begun to write it: what was read is looked after before it is used as a result.
                unsafe { racing::copy(piece, gradient.as_ptr(), bytes) };
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
}
