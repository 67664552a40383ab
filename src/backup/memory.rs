//! What a worker shows the others, and where: words that it alone writes, and its gradients, parts, results and state.
//! Places and numbers only; how others reach them is [`super::ground`]'s.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use super::protocol::{Layout, Shape, Tag, Way, Word, modulo};

pub(super) const LINE: usize = 64;
/// Words in a cache line.
const WORDS: usize = LINE / 8;

/// Which part a worker shows its parent: see [`Shown`].
pub(super) const SHOWN: usize = 0;
/// How many bytes of it there are.
pub(super) const SHOWN_BYTES: usize = 1;
/// Of which result the training state is; see [`super::catching_up`].
pub(super) const STATE: usize = WORDS;
/// The tag of the newest result that the worker holds.
pub(super) const MARK: usize = WORDS + 1;
/// How far the worker has come with leaving.
pub(super) const LEAVING: usize = WORDS + 2;

/// In the word that shows a part: it is the gradient itself.
const LEAF: u64 = 1 << 63;

/// What a worker shows its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// How many bytes of it are there.
    pub bytes: usize,
    /// It is the gradient itself.
    pub leaf: bool,
}

impl Shown {
    /// The word that says so, of an attempt's part. It is taken away before the part is written over.
    pub const fn word(tag: Tag, leaf: bool) -> u64 {
        tag.0 | if leaf { LEAF } else { 0 }
    }

    /// Whether it is the gradient itself, if the word is of that attempt.
    pub fn of(word: u64, tag: Tag) -> Option<bool> {
        (word & !LEAF == tag.0).then_some(word & LEAF != 0)
    }
}

/// Where things lie in a worker's words and vectors; the same on every worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    ring: usize,
    /// Of one vector, in bytes, and what it takes.
    pub bytes: usize,
    stride: usize,
    pub state: usize,
    gradients: usize,
    parts: usize,
    results: usize,
    scratch: usize,
    /// Words of a set of workers.
    pub set: usize,
    homes: usize,
    pub home: Layout,
}

impl Places {
    /// For vectors of `bytes` bytes, `state` bytes of training state and `scratch` of scratch memory.
    ///
    /// Where everybody adds up for itself, gradients are kept for a ring of steps; else results are, and what a gradient
    /// was is forgotten once its step has been applied.
    pub fn new(shape: &Shape, way: Way, (bytes, state, scratch): (usize, usize, usize)) -> Self {
        let ring = shape.ring() as usize;
        let (gradients, parts, results) = match way {
            Way::Flat => (ring, 0, 1),
            Way::Tree { .. } => (1, 1, ring),
        };
        let set = (shape.workers() as usize).div_ceil(64);
        Self {
            ring,
            bytes,
            stride: bytes.next_multiple_of(LINE),
            state,
            gradients,
            parts,
            results,
            scratch,
            set,
            homes: Self::sets(results) + results * set.next_multiple_of(WORDS),
            home: Layout::new(*shape),
        }
    }

    /// How many gradients are kept.
    pub fn kept(&self) -> usize {
        self.gradients
    }

    /// From one vector to the next, in bytes.
    pub fn stride(&self) -> usize {
        self.stride
    }

    // Vectors: gradients, the part, results, state, scratch memory; all in bytes.

    /// Which of the gradients is that of a step.
    #[inline]
    pub fn slot(&self, step: u64) -> usize {
        modulo(modulo(step, self.ring as u64), self.gradients as u64) as usize
    }

    #[inline]
    pub fn gradient(&self, step: u64) -> usize {
        self.slot(step) * self.stride
    }

    #[inline]
    pub fn part(&self) -> usize {
        self.gradients * self.stride
    }

    #[inline]
    pub fn results(&self) -> usize {
        self.part() + self.parts * self.stride
    }

    #[inline]
    fn result_slot(&self, tag: Tag) -> usize {
        modulo(modulo(tag.step(), self.ring as u64), self.results as u64) as usize
    }

    #[inline]
    pub fn result(&self, tag: Tag) -> usize {
        self.results() + self.result_slot(tag) * self.stride
    }

    #[inline]
    pub fn state_at(&self) -> usize {
        self.results() + self.results * self.stride
    }

    #[inline]
    pub fn scratch(&self) -> usize {
        self.state_at() + self.state.next_multiple_of(LINE)
    }

    pub fn data_bytes(&self) -> usize {
        self.scratch() + self.scratch
    }

    // Words: what is shown to the parent and what is read now and then have a line each; then tags and members of
    // results; then the home, if this worker has it; then where words of others land; then the bell.

    /// Which result is kept where that with this tag would be.
    pub fn result_tag(&self, tag: Tag) -> usize {
        2 * WORDS + self.result_slot(tag)
    }

    fn sets(results: usize) -> usize {
        2 * WORDS + results.next_multiple_of(WORDS)
    }

    /// The `index`-th word of the set of those whose gradients are in that result.
    pub fn result_set(&self, tag: Tag, index: usize) -> usize {
        Self::sets(self.results) + self.result_slot(tag) * self.set.next_multiple_of(WORDS) + index
    }

    #[inline]
    pub fn home(&self, word: Word) -> usize {
        self.homes + self.home.offset(word) / 8
    }

    /// Room for one step's words.
    pub fn landing(&self) -> usize {
        (self.homes + self.home.bytes() / 8).next_multiple_of(WORDS)
    }

    /// Where memory is mapped, the bell that the worker sleeps on: a line of its own.
    pub fn bell(&self) -> usize {
        (self.landing() + self.home.entry_bytes() / 8 + WORDS).next_multiple_of(WORDS)
    }

    pub fn words(&self) -> usize {
        self.bell() + WORDS
    }
}

/// A worker's own memory: words for all to read, and vectors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own<'a> {
    pub words: &'a [AtomicU64],
    /// The first of [`Places::data_bytes`] bytes.
    pub data: NonNull<u8>,
}

impl Own<'_> {
    /// The byte `at`, counted from the first.
    pub fn at(&self, at: usize) -> *mut u8 {
        self.data.as_ptr().wrapping_add(at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::Reach;
    use super::*;

    #[test]
    fn nothing_overlaps() {
        for (way, workers) in [(Way::Flat, 4), (Way::Tree { children: 2 }, 4), (Way::Flat, 4096)] {
            let shape = Shape::new(workers, 1, 3, Reach::LoadStore, way).unwrap();
            let places = Places::new(&shape, way, (100, 40, 64));
            let results = if way == Way::Flat { 1 } else { 3 };
            assert_eq!(places.kept(), if way == Way::Flat { 3 } else { 1 });
            assert!(places.part() >= places.kept() * 100);
            assert!(places.results() >= places.part() + 100 * usize::from(way != Way::Flat));
            assert!(places.state_at() >= places.results() + results * 100);
            assert!(places.scratch() >= places.state_at() + 40);
            assert!(places.data_bytes() >= places.scratch() + 64);
            assert!(LEAVING < 2 * WORDS && Places::sets(results) >= 2 * WORDS + results);
            assert!(places.homes >= Places::sets(results) + results * places.set);
            assert!(8 * places.landing() >= 8 * places.homes + places.home.bytes());
            assert!(8 * places.bell() >= 8 * places.landing() + places.home.entry_bytes() + 8);
            assert!(places.words() == places.bell() + WORDS && (8 * places.bell()).is_multiple_of(LINE));
            assert!((8 * places.homes).is_multiple_of(LINE));
        }
    }

    #[test]
    fn a_part_says_of_which_attempt_it_is() {
        let tag = Tag::of(7, 2, 1);
        assert_eq!(Shown::of(Shown::word(tag, true), tag), Some(true));
        assert_eq!(Shown::of(Shown::word(tag, false), tag), Some(false));
        assert_eq!(Shown::of(Shown::word(tag, true), Tag::of(7, 2, 2)), None);
        assert_eq!(Shown::of(0, tag), None);
    }
}
