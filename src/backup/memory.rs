//! What a worker shows the others, and where: words that it alone writes, and its gradients, parts, results and state.
//! It hands out places and never looks at what lies there.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::protocol::{Layout, Shape, Tag, Way, Word};
use crate::engine::WindowMap;

const LINE: usize = 64;
/// Words in a cache line.
const WORDS: usize = LINE / 8;

/// Where things lie in a worker's two windows; the same on every worker.
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
    /// Words of a set of workers.
    pub set: usize,
    pub home: Layout,
}

impl Places {
    /// For vectors of `bytes` bytes and `state` bytes of training state.
    ///
    /// Where everybody adds up for itself, gradients are kept for a ring of steps; else results are, and what a gradient
    /// was is forgotten once its step has been applied.
    pub fn new(shape: &Shape, way: Way, bytes: usize, state: usize) -> Self {
        let ring = shape.ring() as usize;
        let (gradients, parts, results) = match way {
            Way::Flat => (ring, 0, 1),
            Way::Tree { .. } => (1, 1, ring),
        };
        Self {
            ring,
            bytes,
            stride: bytes.next_multiple_of(LINE),
            state,
            gradients,
            parts,
            results,
            set: (shape.workers() as usize).div_ceil(64),
            home: Layout::new(*shape),
        }
    }

    /// How many gradients and results are kept.
    pub fn kept(&self) -> (usize, usize) {
        (self.gradients, self.results)
    }

    /// From one vector to the next, in bytes.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Bytes of vectors and state.
    pub fn data_bytes(&self) -> usize {
        self.state_at() + self.state.next_multiple_of(LINE)
    }

    fn part_at(&self) -> usize {
        self.gradients * self.stride
    }

    /// Where results begin, in bytes.
    pub fn results_at(&self) -> usize {
        self.part_at() + self.parts * self.stride
    }

    /// Where state begins, in bytes.
    pub fn state_at(&self) -> usize {
        self.results_at() + self.results * self.stride
    }

    // Words of a worker: what it shows to its parent has a line, so has its state's version; then tags and members of results.
    fn tags_at(&self) -> usize {
        2 * WORDS
    }

    fn sets_at(&self) -> usize {
        self.tags_at() + self.results.next_multiple_of(WORDS)
    }

    fn home_at(&self) -> usize {
        self.sets_at() + self.results * self.set.next_multiple_of(WORDS)
    }

    /// Words of a worker, and of the home if it has that.
    pub fn words(&self) -> usize {
        self.home_at() + self.home.bytes().div_ceil(8)
    }
}

/// What a worker shows its parent: which attempt's part, how many bytes of it are there, and whether it is the gradient
/// itself. The tag is taken away before the rest changes.
pub(super) struct Shown<'a> {
    pub tag: &'a AtomicU64,
    pub bytes: &'a AtomicU64,
    pub leaf: &'a AtomicU64,
}

/// All workers' memory as one of them reaches it.
#[derive(Debug)]
pub(super) struct Memory {
    pub places: Places,
    words: Arc<WindowMap>,
    data: Arc<WindowMap>,
}

impl Memory {
    /// # Panics
    /// If the windows are smaller than `places` says, or are not mapped.
    pub fn new(places: Places, words: Arc<WindowMap>, data: Arc<WindowMap>) -> Self {
        assert!(words.len() >= 8 * places.words() && data.len() >= places.data_bytes());
        assert!(!words.bases().is_empty() && words.bases().len() == data.bases().len());
        Self { places, words, data }
    }

    #[inline]
    fn word_at(&self, worker: u16, index: usize) -> &AtomicU64 {
        debug_assert!(index < self.places.words());
        // SAFETY: within the window, whose length was checked, and mapped and writable as long as `self`; aligned, since
        // windows start on a page; accessed only atomically.
        unsafe {
            self.words.bases()[worker as usize]
                .add(8 * index)
                .cast::<AtomicU64>()
                .as_ref()
        }
    }

    /// A word at home. All lie in worker 0's window, which lives as long as anyone has it mapped.
    #[inline]
    pub fn home(&self, word: Word) -> &AtomicU64 {
        self.word_at(0, self.places.home_at() + self.places.home.offset(word) / 8)
    }

    #[inline]
    pub fn shown(&self, worker: u16) -> Shown<'_> {
        Shown {
            tag: self.word_at(worker, 0),
            bytes: self.word_at(worker, 1),
            leaf: self.word_at(worker, 2),
        }
    }

    /// Of which result a worker's training state is; see [`super::catching_up`].
    pub fn state_word(&self, worker: u16) -> &AtomicU64 {
        self.word_at(worker, WORDS)
    }

    fn kept(&self, tag: Tag) -> usize {
        (tag.step() % self.places.ring as u64) as usize % self.places.results
    }

    /// Which result a worker has where that with this tag would be.
    pub fn result_tag(&self, worker: u16, tag: Tag) -> &AtomicU64 {
        self.word_at(worker, self.places.tags_at() + self.kept(tag))
    }

    /// The `index`-th word of the set of those whose gradients are in that result.
    pub fn result_set(&self, worker: u16, tag: Tag, index: usize) -> &AtomicU64 {
        let set = self.kept(tag) * self.places.set.next_multiple_of(WORDS);
        self.word_at(worker, self.places.sets_at() + set + index)
    }

    #[inline]
    fn data_at(&self, worker: u16, at: usize) -> NonNull<u8> {
        debug_assert!(at <= self.places.data_bytes());
        // SAFETY: within the window, whose length was checked.
        unsafe { self.data.bases()[worker as usize].add(at) }
    }

    /// Which of a worker's gradients is that of a step.
    pub fn slot(&self, step: u64) -> usize {
        (step % self.places.ring as u64) as usize % self.places.gradients
    }

    #[inline]
    pub fn gradient(&self, worker: u16, step: u64) -> NonNull<u8> {
        self.data_at(worker, self.slot(step) * self.places.stride)
    }

    /// The sum of a worker's gradient and what it has taken.
    pub fn part(&self, worker: u16) -> NonNull<u8> {
        self.data_at(worker, self.places.part_at())
    }

    pub fn result(&self, worker: u16, tag: Tag) -> NonNull<u8> {
        self.data_at(
            worker,
            self.places.results_at() + self.kept(tag) * self.places.stride,
        )
    }

    pub fn state(&self, worker: u16) -> NonNull<u8> {
        self.data_at(worker, self.places.state_at())
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
            let places = Places::new(&shape, way, 100, 40);
            let (gradients, results) = places.kept();
            assert_eq!(
                (gradients, results),
                if way == Way::Flat { (3, 1) } else { (1, 3) }
            );
            assert!(places.part_at() >= gradients * 100);
            assert!(places.results_at() >= places.part_at() + 100 * usize::from(way != Way::Flat));
            assert!(places.state_at() >= places.results_at() + results * 100);
            assert!(places.data_bytes() >= places.state_at() + 40);
            assert!(places.sets_at() >= places.tags_at() + results);
            assert!(places.home_at() >= places.sets_at() + results * places.set);
            assert!(8 * places.words() >= 8 * places.home_at() + places.home.bytes());
            assert!((8 * places.home_at()).is_multiple_of(LINE));
        }
    }
}
