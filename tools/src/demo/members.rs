//! A set of workers: whose gradients a step's mean is of. Says nothing of how that was decided.

use sapwood::plan::lowered::Rank;
use serde::{Deserialize, Serialize};

/// The most workers that a demo has.
pub const MOST_WORKERS: usize = u64::BITS as usize;

/// A set of workers, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members(u64);

impl Members {
    /// The first so many.
    pub fn everyone(workers: u32) -> Self {
        (0..workers).collect()
    }

    /// How many.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a worker is one.
    pub fn contains(self, rank: Rank) -> bool {
        self.0 >> rank & 1 == 1
    }

    /// All, ascending.
    pub fn iter(self) -> impl Iterator<Item = Rank> {
        (0..MOST_WORKERS as Rank).filter(move |&rank| self.contains(rank))
    }
}

impl FromIterator<Rank> for Members {
    fn from_iter<I: IntoIterator<Item = Rank>>(ranks: I) -> Self {
        Self(ranks.into_iter().fold(0, |set, rank| set | 1 << rank))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_ranks() {
        let some: Members = [63, 0, 2].into_iter().collect();
        assert_eq!(some.iter().collect::<Vec<_>>(), [0, 2, 63]);
        assert!(some.len() == 3 && some.contains(63) && !some.contains(1));
        assert_eq!(Members::everyone(64).len(), 64);
        assert!(Members::everyone(0).is_empty());
    }
}
