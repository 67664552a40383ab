//! The sum of an attempt along the tree of its members. Parents pull: nobody stores into memory that another worker owns
//! (invariant 4). What a child has added up so far its parent may already have, chunk by chunk, so that in a chain all
//! members work at once.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::core::{Core, PIECE, Progress};
use super::home::Entry;
use super::protocol::{Did, Tag, scan};
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

impl Core {
    /// Adds a chunk of a child's part to the own one, if it is there.
    pub(super) fn take(&mut self, tag: Tag, from: u16, child: u16) -> Progress {
        if (self.taking.tag, self.taking.child) != (tag, child) {
            self.begin_part(tag, child);
        }
        let shown = self.memory.shown(from);
        if shown.tag.load(Acquire) != tag.0 {
            return Progress::Waits;
        }
        let whole = self.memory.places.bytes;
        let there = (shown.bytes.load(Acquire) as usize).min(whole);
        let leaf = shown.leaf.load(Relaxed) != 0;
        let last = child + 1 == self.worker.children();
        let until = there.min(self.taking.done + CHUNK);
        if self.taking.done == until {
            return Progress::Waits;
        }
        while self.taking.done < until {
            let now = PIECE.min(until - self.taking.done);
            if !self.take_piece(tag, from, (child, leaf, last), now) {
                return Progress::Waits;
            }
            self.taking.done += now;
        }
        if last && !self.worker.is_root() {
            let own = self.memory.shown(self.me);
            own.bytes.store(self.taking.done as u64, Release);
            self.group().wake(u32::from(self.worker.parent()));
        }
        match self.taking.done == whole {
            true => Progress::Did(Did::Done),
            false => Progress::Moved,
        }
    }

    /// Where the own part, or the root's result, is written.
    fn target(&self, tag: Tag) -> *mut u8 {
        match self.worker.is_root() {
            true => self.memory.result(self.me, tag),
            false => self.memory.part(self.me),
        }
        .as_ptr()
    }

    fn begin_part(&mut self, tag: Tag, child: u16) {
        if child == 0 {
            // What was shown there before is about to be written over.
            self.memory.shown(self.me).tag.store(0, Relaxed);
            if self.worker.is_root() {
                self.memory.result_tag(self.me, tag).store(0, Relaxed);
            }
            racing::before_writing();
        }
        if child + 1 == self.worker.children() && !self.worker.is_root() {
            self.show(tag, 0, false);
        }
        self.taking = Taking { tag, child, done: 0 };
    }

    fn show(&self, tag: Tag, bytes: usize, leaf: bool) {
        let own = self.memory.shown(self.me);
        own.tag.store(0, Relaxed);
        racing::before_writing();
        own.bytes.store(bytes as u64, Relaxed);
        own.leaf.store(u64::from(leaf), Relaxed);
        own.tag.store(tag.0, Release);
    }

    /// Whether the piece was the attempt's, and is in the own part now.
    fn take_piece(
        &mut self,
        tag: Tag,
        from: u16,
        (child, leaf, last): (u16, bool, bool),
        bytes: usize,
    ) -> bool {
        let at = self.taking.done;
        let theirs = match leaf {
            true => self.memory.gradient(from, tag.step()),
            false => self.memory.part(from),
        };
        let piece = self.scratch();
        // SAFETY: `bytes` bytes of the child's vector and of scratch memory. What was torn is found out below.
        unsafe { racing::copy(piece, theirs.as_ptr().wrapping_add(at), bytes) };
        racing::after();
        if self.memory.shown(from).tag.load(Relaxed) != tag.0 {
            return false;
        }
        let into = self.target(tag).wrapping_add(at);
        let mine = match child {
            0 => self
                .memory
                .gradient(self.me, tag.step())
                .as_ptr()
                .wrapping_add(at),
            _ => into,
        };
        let kernel = if last && self.worker.is_root() {
            self.mean
        } else {
            self.sum
        };
        let divisor = u32::from(self.shape.members());
        // SAFETY: all hold that many elements, aligned to a cache line. `into` is the own part or result, of which nothing
        // is shown to others yet beyond what was done, and is `mine` or apart from it; the own gradient is not written
        // before the result has been applied.
        unsafe { kernel(into, &[mine, piece], bytes / self.element, divisor) };
        true
    }

    /// Shows the parent what is complete: the gradient itself, or what was taken (which it may have seen growing).
    pub(super) fn publish(&mut self, tag: Tag, to: u16, leaf: bool) -> Did {
        if leaf {
            self.show(tag, self.memory.places.bytes, true);
        }
        self.group().wake(u32::from(to));
        Did::Done
    }

    /// The root's sum is complete: it is a result, whose members are told with it.
    pub(super) fn hold(&mut self, tag: Tag, leaf: bool) -> Did {
        if leaf {
            self.memory.result_tag(self.me, tag).store(0, Relaxed);
            racing::before_writing();
            let (into, mine) = (
                self.target(tag),
                self.memory.gradient(self.me, tag.step()).as_ptr(),
            );
            let count = self.memory.places.bytes / self.element;
            // SAFETY: both hold that many elements and are apart; nobody else writes either.
            unsafe { (self.mean)(into, &[mine.cast_const()], count, u32::from(self.shape.members())) };
        }
        let entry = Entry {
            memory: &self.memory,
            step: tag.step(),
        };
        // If the words are a later step's, this attempt cannot be committed any more.
        let scanned = scan(&entry, &self.shape, tag.step(), tag.attempt(), |_, _, _| {});
        self.members = scanned.unwrap_or_default().members;
        self.show_result(tag);
        Did::Done
    }

    /// Copies a committed result from one who holds it, and holds it still after the copy.
    pub(super) fn pull(&mut self, tag: Tag) -> Progress {
        self.memory.result_tag(self.me, tag).store(0, Relaxed);
        racing::before_writing();
        let mut over = false;
        for worker in (0..self.shape.workers()).filter(|worker| *worker != self.me) {
            let theirs = self.memory.result_tag(worker, tag);
            let found = Tag(theirs.load(Acquire));
            over |= found.step() > tag.step();
            if found != tag {
                continue;
            }
            let (into, from) = (self.memory.result(self.me, tag), self.memory.result(worker, tag));
            // SAFETY: both are that long; nobody reads the own one, whose tag was taken away. What was torn is found out
            // below.
            unsafe { racing::copy(into.as_ptr(), from.as_ptr(), self.memory.places.bytes) };
            for index in 0..self.memory.places.set {
                let word = self.memory.result_set(worker, tag, index).load(Relaxed);
                self.members.set_word(index, word);
            }
            racing::after();
            if theirs.load(Relaxed) == tag.0 {
                self.show_result(tag);
                return Progress::Did(Did::Done);
            }
            over = true;
        }
        // The root had it when it was committed.
        match over {
            true => Progress::Did(Did::Gone),
            false => Progress::Waits,
        }
    }
}
