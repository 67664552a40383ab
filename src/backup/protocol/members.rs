//! A set of workers in a fixed place: who is in it, and where each stands in the order of ranks.

/// See the module.
#[derive(Clone)]
pub struct Members {
    words: [u64; 64],
    /// Words beyond these are zero: with few workers there is nothing to be looked at there.
    used: usize,
}

impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl Eq for Members {}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Default for Members {
    fn default() -> Self {
        Self {
            words: [0; 64],
            used: 0,
        }
    }
}

impl Members {
    fn used(&self) -> &[u64] {
        &self.words[..self.used]
    }

    /// Adds a worker.
    pub fn insert(&mut self, worker: u16) {
        let word = worker as usize / 64;
        self.words[word] |= 1 << (worker % 64);
        self.used = self.used.max(word + 1);
    }

    /// Whether a worker is in it.
    pub fn contains(&self, worker: u16) -> bool {
        self.words[worker as usize / 64] >> (worker % 64) & 1 != 0
    }

    /// How many.
    pub fn len(&self) -> u16 {
        self.used().iter().map(|word| word.count_ones() as u16).sum()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.used().iter().all(|word| *word == 0)
    }

    /// How many have a lower rank: the worker's virtual rank, if it is in it.
    pub fn position(&self, worker: u16) -> Option<u16> {
        let (word, bit) = (worker as usize / 64, worker % 64);
        let before = self.words[..word]
            .iter()
            .map(|word| word.count_ones() as u16)
            .sum::<u16>();
        let here = (self.words[word] & ((1 << bit) - 1)).count_ones() as u16;
        self.contains(worker).then_some(before + here)
    }

    /// Who has that virtual rank.
    pub fn at(&self, position: u16) -> Option<u16> {
        let mut left = u32::from(position);
        for (index, word) in self.used().iter().enumerate() {
            let here = word.count_ones();
            if left < here {
                let rest = (0..left).fold(*word, |rest, _| rest & (rest - 1));
                return Some(index as u16 * 64 + rest.trailing_zeros() as u16);
            }
            left -= here;
        }
        None
    }

    /// In the order of ranks.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..).zip(self.used()).flat_map(|(index, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as u16;
                left &= left.wrapping_sub(1);
                (bit < 64).then_some(index * 64 + bit)
            })
        })
    }

    /// Workers `64 * index` to `64 * index + 63`, a bit each.
    pub fn word(&self, index: usize) -> u64 {
        self.words[index]
    }

    /// Workers 0 to 63, a bit each, and nobody else.
    #[inline]
    pub fn set_all(&mut self, workers: u64) {
        let used = self.used;
        self.words[..used].fill(0);
        self.words[0] = workers;
        self.used = 1;
    }

    /// As [`Members::word`], all of them anew.
    pub fn set_word(&mut self, index: usize, workers: u64) {
        self.words[index] = workers;
        self.used = self.used.max(index + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_follow_the_ranks() {
        let mut members = Members::default();
        let ranks = [0, 5, 63, 64, 65, 127, 1000, 4095];
        ranks.iter().rev().for_each(|rank| members.insert(*rank));
        assert_eq!((members.len(), members.is_empty()), (8, false));
        for (position, rank) in (0..).zip(ranks) {
            assert_eq!(
                (members.position(rank), members.at(position)),
                (Some(position), Some(rank))
            );
        }
        assert_eq!((members.position(6), members.at(8)), (None, None));
        assert_eq!(members.iter().collect::<Vec<_>>(), ranks);
    }
}
