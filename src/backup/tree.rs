//! The sum of an attempt along the tree of its members. Parents pull: nobody stores into memory that another worker owns
//! (invariant 4). Where memory is mapped, what a child has added up so far its parent may already have, chunk by chunk, so
//! that in a chain all members work at once.

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::core::{Core, Progress};
use super::ground::Ground;
use super::memory::{SHOWN, SHOWN_BYTES, Shown};
use super::protocol::{Did, Tag};
use super::racing;

/// Bytes after which a parent is told of more.
const CHUNK: usize = 64 << 10;

/// How far the part of a child has been taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taking {
    tag: Tag,
    child: u16,
    done: usize,
}

impl<G: Ground> Core<G> {
    /// Adds a chunk of a child's part to the own one, if it is there.
    pub(super) fn take(&mut self, tag: Tag, from: u16, child: u16) -> Progress {
        if (self.taking.tag, self.taking.child) != (tag, child) {
            self.begin_part(tag, child);
        }
        let Some(shown) = self.ground.shown(from, tag) else {
            return Progress::Waits;
        };
        let last = child + 1 == self.worker.children();
        let until = shown.bytes.min(self.taking.done + CHUNK.max(self.ground.piece()));
        if self.taking.done == until {
            return Progress::Waits;
        }
        while self.taking.done < until {
            let now = self.ground.piece().min(until - self.taking.done);
            if !self.take_piece(tag, from, (child, shown.leaf, last), now) {
                return Progress::Waits;
            }
            self.taking.done += now;
        }
        if last && G::STREAMS && !self.worker.is_root() {
            self.ground.own().words[SHOWN_BYTES].store(self.taking.done as u64, Release);
            self.ground.wake(self.worker.parent());
        }
        match self.taking.done == self.ground.places().bytes {
            true => Progress::Did(Did::Done),
            false => Progress::Moved,
        }
    }

    /// Where the own part, or the root's result, is written.
    fn target(&self, tag: Tag) -> usize {
        match self.worker.is_root() {
            true => self.ground.places().result(tag),
            false => self.ground.places().part(),
        }
    }

    fn begin_part(&mut self, tag: Tag, child: u16) {
        if child == 0 {
            // What was shown there before is about to be written over.
            self.ground.own().words[SHOWN].store(0, Relaxed);
            if self.worker.is_root() {
                self.hide_result(tag);
            }
            racing::before_writing();
        }
        if child + 1 == self.worker.children() && G::STREAMS && !self.worker.is_root() {
            self.show(tag, 0, false);
        }
        self.taking = Taking { tag, child, done: 0 };
    }

    fn show(&self, tag: Tag, bytes: usize, leaf: bool) {
        let words = self.ground.own().words;
        words[SHOWN].store(0, Relaxed);
        racing::before_writing();
        words[SHOWN_BYTES].store(bytes as u64, Relaxed);
        words[SHOWN].store(Shown::word(tag, leaf), Release);
    }

    /// Whether the piece was the attempt's, and is in the own part now.
    fn take_piece(
        &mut self,
        tag: Tag,
        from: u16,
        (child, leaf, last): (u16, bool, bool),
        bytes: usize,
    ) -> bool {
        let (places, at) = (*self.ground.places(), self.taking.done);
        self.count_staged(bytes);
        let theirs = match leaf {
            true => places.gradient(tag.step()),
            false => places.part(),
        };
        let fetched = self.ground.fetch(from, theirs + at, places.scratch(), bytes);
        racing::after();
        let still = self.ground.load(from, SHOWN);
        if fetched.is_none() || still != Some(Shown::word(tag, leaf)) {
            return false;
        }
        let own = self.ground.own();
        let into = own.at(self.target(tag) + at);
        let mine = match child {
            0 => own.at(places.gradient(tag.step()) + at),
            _ => into,
        };
        let kernel = match last && self.worker.is_root() {
            true => self.mean,
            false => self.sum,
        };
        let sources = [mine.cast_const(), own.at(places.scratch()).cast_const()];
        let divisor = u32::from(self.shape.members());
        // SAFETY: all hold that many elements, aligned to a cache line. `into` is the own part or result, of which nothing
        // is shown to others yet beyond what was done, and is `mine` or apart from it; the own gradient is not written
        // before the result has been applied.
        unsafe { kernel(into, &sources, bytes / self.element, divisor) };
        true
    }

    /// Shows the parent what is complete: the gradient itself, or what was taken (which it may have seen growing).
    pub(super) fn publish(&mut self, tag: Tag, to: u16, leaf: bool) -> Did {
        if leaf || !G::STREAMS {
            self.show(tag, self.ground.places().bytes, leaf);
        }
        self.ground.wake(to);
        Did::Done
    }

    /// The root's sum is complete: it is a result, whose members are told with it. Where the words are gone, or a later
    /// step's, nobody can tell whose gradients are in it, and it is none.
    pub(super) fn hold(&mut self, tag: Tag, leaf: bool) -> Progress {
        let Some(members) = self.members_of(tag) else {
            return Progress::Waits;
        };
        self.members = members;
        if leaf {
            self.hide_result(tag);
            let (places, own) = (*self.ground.places(), self.ground.own());
            let mine = own.at(places.gradient(tag.step())).cast_const();
            let (into, count) = (own.at(places.result(tag)), places.bytes / self.element);
            // SAFETY: both hold that many elements and are apart; nobody else writes either.
            unsafe { (self.mean)(into, &[mine], count, u32::from(self.shape.members())) };
        }
        self.show_result(tag);
        Progress::Did(Did::Done)
    }
}
