//! Blocks one after the other that one task works on, and how they are cut into the pieces of one call. So a rank's part
//! need not grow with the number of blocks. Knows numbers only; that a run's blocks lie side by side is the verifier's to
//! ask for.
//!
//! # Pieces
//! Where a block has a chunk's elements or more, a run's pieces are the chunks of its blocks; all blocks have as many as the
//! longest. Else a piece has as many blocks as go into a chunk: those with numbers from `k * n` on, `n` of them, as far
//! as the run has them. Either way two runs in the same direction have the same pieces where they have the same blocks,
//! but for the first and the last piece, of which a run may have less.

use std::ops::Range;

use super::lowered::{block_range, chunk_count};

/// See [`Run::landings`].
const MOST_LANDINGS: u32 = 8;

/// How a task's blocks follow its first one. Behind the vector's last block comes its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// How many there are, at least 1.
    pub blocks: u32,
    /// They follow in descending order.
    pub backwards: bool,
}

impl Run {
    /// One block.
    pub const ONE: Self = Self {
        blocks: 1,
        backwards: false,
    };

    /// So many blocks' slots what is sent of it gets for itself where it is to stay for a while.
    pub(super) fn landings(self) -> u32 {
        self.blocks.min(MOST_LANDINGS)
    }

    /// Whether it is more than one block.
    pub fn is_long(self) -> bool {
        self.blocks > 1
    }

    /// Its blocks in order, of a vector of `of` blocks.
    pub fn of(self, first: u32, of: u32) -> impl Iterator<Item = u32> {
        let by = move |at| if self.backwards { of - at } else { at };
        (0..self.blocks).map(move |at| (first + by(at)) % of)
    }

    /// How far behind the first block of a run another one comes in its direction; `of` less that if it comes before.
    fn distance(self, first: u32, block: u32, of: u32) -> u32 {
        match self.backwards {
            true => (first + of - block) % of,
            false => (block + of - first) % of,
        }
    }

    /// Where in this run, which begins with block `first`, another one begins, in that one's direction; negative if that
    /// begins earlier. None if they have no block in common, or this one goes in another direction.
    pub fn place_of(self, first: u32, other: Self, others_first: u32, of: u32) -> Option<i32> {
        if self.is_long() && self.backwards != other.backwards {
            return None;
        }
        let behind = other.distance(first, others_first, of);
        if behind < self.blocks {
            return Some(behind as i32);
        }
        let before = of - behind;
        (before < other.blocks).then(|| -(before as i32))
    }
}

/// How the runs of a plan are cut into pieces, for one call.
#[derive(Clone, Copy, Debug)]
pub struct Pieces {
    blocks: u32,
    elements: usize,
    chunk: usize,
    /// Blocks of a piece.
    together: u32,
    /// Pieces of a block.
    each: u32,
}

impl Pieces {
    /// Of a vector of `elements` elements in `blocks` blocks, in chunks of at most `chunk`.
    pub fn new(elements: usize, blocks: u32, chunk: usize) -> Self {
        let longest = elements.div_ceil(blocks as usize);
        let together = chunk.checked_div(longest).unwrap_or(1).clamp(1, blocks as usize);
        Self {
            blocks,
            elements,
            chunk,
            together: together as u32,
            each: chunk_count(longest, chunk) as u32,
        }
    }

    /// How many pieces of blocks there are before this one, counted on beyond the last block and back before the first.
    fn before(&self, block: i64) -> i64 {
        let (blocks, together) = (i64::from(self.blocks), i64::from(self.together));
        let around = blocks.div_euclid(together) + i64::from(blocks % together != 0);
        block.div_euclid(blocks) * around + block.rem_euclid(blocks) / together
    }

    /// How many a run has. None if nothing moves.
    pub fn count(&self, first: u32, run: Run) -> u64 {
        let (first, more) = (i64::from(first), i64::from(run.blocks - 1));
        let steps = match run.backwards {
            true => self.before(first) - self.before(first - more),
            false => self.before(first + more) - self.before(first),
        };
        (steps as u64 + 1) * u64::from(self.each)
    }

    /// Where a run that begins with block `first` is in one that has its first block, or would have it, `ahead` blocks
    /// behind its own: in pieces.
    pub fn ahead(&self, first: u32, backwards: bool, ahead: i32) -> i64 {
        let (first, ahead) = (i64::from(first), i64::from(ahead));
        let steps = match backwards {
            true => self.before(first + ahead) - self.before(first),
            false => self.before(first) - self.before(first - ahead),
        };
        steps * i64::from(self.each)
    }

    /// The blocks that a piece of a run touches, and which chunk of theirs it is.
    pub fn blocks(&self, first: u32, run: Run, piece: u64) -> (Range<u32>, usize) {
        let (step, chunk) = (piece / u64::from(self.each), piece % u64::from(self.each));
        let (first, more, step) = (i64::from(first), i64::from(run.blocks - 1), step as i64);
        let (low, high, at) = match run.backwards {
            true => (first - more, first, self.before(first) - step),
            false => (first, first + more, self.before(first) + step),
        };
        let (blocks, together) = (i64::from(self.blocks), i64::from(self.together));
        let around = blocks.div_euclid(together) + i64::from(blocks % together != 0);
        let turn = at.div_euclid(around) * blocks;
        let begin = turn + at.rem_euclid(around) * together;
        let end = (begin + together).min(turn + blocks);
        let range = begin.max(low) - turn..end.min(high + 1) - turn;
        (range.start as u32..range.end as u32, chunk as usize)
    }

    /// The elements of a piece of a run.
    pub fn elements(&self, first: u32, run: Run, piece: u64) -> Range<usize> {
        let (blocks, chunk) = self.blocks(first, run, piece);
        let begin = block_range(self.elements, self.blocks, blocks.start).start;
        let end = block_range(self.elements, self.blocks, blocks.end - 1).end;
        if self.each == 1 {
            return begin..end;
        }
        let begin = (begin + chunk * self.chunk).min(end);
        begin..end.min(begin + self.chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_run(of: u32) -> impl Strategy<Value = (u32, Run)> {
        (0..of, 1..=of, any::<bool>())
            .prop_map(|(first, blocks, backwards)| (first, Run { blocks, backwards }))
    }

    proptest! {
        /// A run's pieces are its elements, each once and in order.
        #[test]
        fn pieces_are_all_of_a_run(
            (of, (first, run)) in (1u32..40).prop_flat_map(|of| (Just(of), any_run(of))),
            elements in 0usize..400, chunk in 1usize..100,
        ) {
            let pieces = Pieces::new(elements, of, chunk);
            let mut seen = Vec::new();
            for piece in 0..pieces.count(first, run) {
                let range = pieces.elements(first, run, piece);
                prop_assert!(range.len() <= chunk);
                seen.extend(range);
            }
            let mut all: Vec<usize> = run.of(first, of).flat_map(|block| block_range(elements, of, block)).collect();
            if run.backwards {
                // Each block, and what is together in a piece, is in ascending order.
                seen.sort_unstable();
                all.sort_unstable();
            }
            prop_assert_eq!(seen, all);
        }

        /// Of two runs, the piece that is said to be the same has all elements that they have in common.
        #[test]
        fn pieces_of_two_runs_meet(
            (of, (first, run), (others_first, mut other)) in
                (1u32..40).prop_flat_map(|of| (Just(of), any_run(of), any_run(of))),
            elements in 0usize..400, chunk in 1usize..100,
        ) {
            // Runs of more than half of the blocks could meet twice.
            prop_assume!(2 * run.blocks <= of + 1 && 2 * other.blocks <= of + 1);
            other.backwards = run.backwards;
            let Some(place) = other.place_of(others_first, run, first, of) else {
                prop_assert!(run.of(first, of).all(|block| other.of(others_first, of).all(|theirs| theirs != block)));
                return Ok(());
            };
            let pieces = Pieces::new(elements, of, chunk);
            let ahead = pieces.ahead(first, run.backwards, place);
            let theirs = pieces.count(others_first, other) as i64;
            let common: Vec<usize> = other.of(others_first, of).flat_map(|b| block_range(elements, of, b)).collect();
            for piece in 0..pieces.count(first, run) {
                let at = piece as i64 + ahead;
                let same = match (0..theirs).contains(&at) {
                    true => pieces.elements(others_first, other, at as u64),
                    false => 0..0,
                };
                for element in pieces.elements(first, run, piece) {
                    prop_assert_eq!(same.contains(&element), common.contains(&element), "{}", element);
                }
            }
        }
    }
}
