//! What strangers can cause as often as they like must not fill a log: the first few of a kind are said one by one, the
//! rest as a number.

use std::collections::HashMap;
use std::hash::Hash;

/// How many of a kind are said.
const SAID: u64 = 3;
/// Kinds that are told apart; what is beyond is one kind together, so that memory is bounded too.
const KINDS: usize = 64;

/// Counts by kind.
#[derive(Debug)]
pub(crate) struct Repeats<Kind> {
    counts: HashMap<Kind, u64>,
    others: u64,
}

impl<Kind> Default for Repeats<Kind> {
    fn default() -> Self {
        Self {
            counts: HashMap::new(),
            others: 0,
        }
    }
}

impl<Kind: Hash + Eq> Repeats<Kind> {
    /// Counts one, and tells whether it is to be said.
    pub(crate) fn count(&mut self, kind: Kind) -> bool {
        let count = if self.counts.len() < KINDS || self.counts.contains_key(&kind) {
            self.counts.entry(kind).or_default()
        } else {
            &mut self.others
        };
        *count += 1;
        *count <= SAID
    }

    /// How many of each kind have not been said, and begins anew; none is everything that was too various.
    pub(crate) fn unsaid(&mut self) -> impl Iterator<Item = (Option<Kind>, u64)> {
        let others = (None, std::mem::take(&mut self.others));
        let counts = std::mem::take(&mut self.counts).into_iter();
        let all = counts.map(|(kind, count)| (Some(kind), count)).chain([others]);
        all.filter_map(|(kind, count)| Some((kind, count.checked_sub(SAID).filter(|more| *more > 0)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_are_said_and_the_rest_is_counted() {
        let mut repeats = Repeats::default();
        assert_eq!((0..1000).filter(|_| repeats.count("a")).count(), 3);
        assert!(repeats.count("b"));
        assert_eq!(repeats.unsaid().collect::<Vec<_>>(), [(Some("a"), 997)]);
        assert_eq!(repeats.unsaid().count(), 0);
    }

    #[test]
    fn who_says_something_else_each_time_is_one_kind() {
        let mut repeats = Repeats::default();
        let said = (0..10_000).filter(|number| repeats.count(*number)).count();
        assert_eq!(said, 64 + 3);
        assert_eq!(repeats.unsaid().collect::<Vec<_>>(), [(None, 10_000 - 64 - 3)]);
    }
}
