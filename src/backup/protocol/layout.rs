//! Where the words lie in their home's memory.

use super::Shape;

const LINE: usize = 64;
/// Slots that share a cache line with the tickets: with few workers an arrival touches one line. The seal has another, with
/// the exclusions: those who wait for it look there, and hold up nobody who arrives.
const NEAR: u16 = 7;

/// A word at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// See [`super::Opening`].
    Opening,
    /// See [`super::Tickets`].
    Tickets(u64),
    /// See [`super::Seal`].
    Seal(u64),
    /// See [`super::Slot`].
    Slot(u64, u16),
    /// See [`super::Exclusion`].
    Exclusion(u64, u16),
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    shape: Shape,
    /// From the tickets of a step to its seal.
    seal: usize,
    entry: usize,
}

impl Layout {
    /// Of a barrier of this shape.
    pub fn new(shape: Shape) -> Self {
        let far = shape.tickets().saturating_sub(NEAR) as usize;
        let seal = LINE + (8 * far).next_multiple_of(LINE);
        Self {
            shape,
            seal,
            entry: seal + (8 + 8 * shape.exclusions() as usize).next_multiple_of(LINE),
        }
    }

    /// Bytes of a home, which starts on a cache line and is zero at first.
    pub fn bytes(&self) -> usize {
        LINE + self.shape.ring() as usize * self.entry
    }

    /// Bytes of one step's words, which begin with [`Word::Tickets`] and [`Word::Seal`].
    pub fn entry_bytes(&self) -> usize {
        self.entry
    }

    /// Where a word is; each is 8 bytes and aligned.
    ///
    /// # Panics
    /// If there is no such slot or exclusion.
    #[inline]
    pub fn offset(&self, word: Word) -> usize {
        let entry = |step: u64| LINE + (step % u64::from(self.shape.ring())) as usize * self.entry;
        match word {
            Word::Opening => 0,
            Word::Tickets(step) => entry(step),
            Word::Seal(step) => entry(step) + self.seal,
            // Beyond the near ones the next lines follow.
            Word::Slot(step, ticket) => {
                assert!(ticket < self.shape.tickets(), "there is no such slot");
                entry(step) + 8 + 8 * ticket as usize
            }
            Word::Exclusion(step, index) => {
                assert!(index < self.shape.exclusions(), "there is no such exclusion");
                entry(step) + self.seal + 8 + 8 * index as usize
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Reach, Way};
    use super::*;

    #[test]
    fn no_two_words_overlap() {
        for workers in [1, 2, 4, 64, 4096] {
            let shape = Shape::new(
                workers,
                (workers - 1) / 3,
                3,
                Reach::Messages,
                Way::Tree { children: 1 },
            )
            .unwrap();
            let layout = Layout::new(shape);
            let mut places = vec![layout.offset(Word::Opening)];
            for step in 5..8 {
                places.extend([Word::Tickets(step), Word::Seal(step)].map(|word| layout.offset(word)));
                places.extend((0..shape.tickets()).map(|k| layout.offset(Word::Slot(step, k))));
                places.extend((0..shape.exclusions()).map(|k| layout.offset(Word::Exclusion(step, k))));
            }
            places.sort_unstable();
            assert!(places.windows(2).all(|pair| pair[0] + 8 <= pair[1]));
            assert!(
                places
                    .iter()
                    .all(|place| place % 8 == 0 && place + 8 <= layout.bytes())
            );
            // The ring comes round.
            assert_eq!(layout.offset(Word::Seal(5)), layout.offset(Word::Seal(8)));
        }
    }
}
