//! Where the words lie in their home's memory.

use super::{Reach, Shape};

const LINE: usize = 64;
/// Slots that share a cache line with the tickets. The seal has another, with the exclusions: those who wait for it look
/// there, and hold up nobody who arrives.
const NEAR: u16 = 7;
/// Among so many workers that see each other's memory each slot has a line of its own, so that who takes a ticket does not take
/// the line away from who fills a slot. Two have nobody to take it from; more than these would have too many lines to look at.
const SPREAD: std::ops::RangeInclusive<u16> = 3..=8;

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

/// The remainder, in less time where it is by a power of two, as it mostly is.
#[inline]
pub fn modulo(number: u64, by: u64) -> u64 {
    match by.is_power_of_two() {
        true => number & (by - 1),
        false => number % by,
    }
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    shape: Shape,
    /// From a slot to the next.
    stride: usize,
    /// From the tickets of a step to its seal.
    seal: usize,
    entry: usize,
}

impl Layout {
    /// Of a barrier of this shape.
    pub fn new(shape: Shape) -> Self {
        let spread = shape.reach() == Reach::LoadStore && SPREAD.contains(&shape.workers());
        let (stride, far) = match spread {
            true => (LINE, shape.tickets()),
            false => (8, shape.tickets().saturating_sub(NEAR)),
        };
        let seal = LINE + (stride * usize::from(far)).next_multiple_of(LINE);
        Self {
            shape,
            stride,
            seal,
            entry: seal + (16 + 8 * shape.exclusions() as usize).next_multiple_of(LINE),
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
        match word {
            Word::Opening => 0,
            Word::Tickets(step) => self.entry(step),
            Word::Seal(step) => self.entry(step) + self.seal,
            Word::Slot(step, ticket) => self.entry(step) + self.slot(ticket),
            Word::Exclusion(step, index) => self.entry(step) + self.exclusion(index),
        }
    }

    /// Where the words of a step are; the first are its tickets.
    #[inline]
    pub fn entry(&self, step: u64) -> usize {
        LINE + modulo(step, u64::from(self.shape.ring())) as usize * self.entry
    }

    /// Where the seal is among them.
    #[inline]
    pub fn seal(&self) -> usize {
        self.seal
    }

    /// Where a slot is among them.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub fn slot(&self, ticket: u16) -> usize {
        assert!(ticket < self.shape.tickets(), "there is no such slot");
        // Of the near ones the first follows the tickets; beyond them come the next lines.
        self.stride + self.stride * ticket as usize
    }

    /// How many slots a step has.
    #[inline]
    pub fn tickets(&self) -> u16 {
        self.shape.tickets()
    }

    /// Whether each slot has a cache line of its own.
    #[inline]
    pub fn is_spread(&self) -> bool {
        self.stride == LINE
    }

    /// Where an exclusion is among them.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub fn exclusion(&self, index: u16) -> usize {
        assert!(index < self.shape.exclusions(), "there is no such exclusion");
        self.seal + 16 + 8 * index as usize
    }

    /// Where [`super::Few`] is among them: behind the seal, in its line.
    #[inline]
    pub fn few(&self) -> usize {
        self.seal + 8
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Reach, Way};
    use super::*;

    #[test]
    fn no_two_words_overlap() {
        for (workers, reach) in [1, 2, 4, 8, 9, 64, 4096]
            .into_iter()
            .flat_map(|workers| [(workers, Reach::LoadStore), (workers, Reach::Messages)])
        {
            let shape = Shape::new(workers, (workers - 1) / 3, 3, reach, Way::Tree { children: 1 }).unwrap();
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
