//! Which ranks are gone, as the hub says: kept in bytes, so that any thread looks it up without a lock.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::bootstrap::{DepartureKind, Rank};

/// As they are stored in a byte, from 1.
const KINDS: [DepartureKind; 5] = [
    DepartureKind::Died,
    DepartureKind::OutOfReach,
    DepartureKind::Panicked,
    DepartureKind::Left,
    DepartureKind::GaveUp,
];

/// What is known of one rank.
#[derive(Default)]
struct One {
    /// How it went, or that it has given up: 0, or the first that was said.
    first: AtomicU8,
    /// The same, once nothing more comes from it: one that has given up may still go on for long.
    ended: AtomicU8,
}

/// What is known of all.
pub(super) struct Gone(Box<[One]>);

fn kind(stored: &AtomicU8) -> Option<DepartureKind> {
    let stored = stored.load(Ordering::Acquire);
    KINDS.get(usize::from(stored).checked_sub(1)?).copied()
}

impl Gone {
    pub(super) fn nobody(size: u32) -> Self {
        Self((0..size).map(|_| One::default()).collect())
    }

    pub(super) fn size(&self) -> usize {
        self.0.len()
    }

    /// How a rank went, or that it has given up.
    pub(super) fn how(&self, rank: Rank) -> Option<DepartureKind> {
        kind(&self.0[rank as usize].first)
    }

    /// How a rank ended, so that nothing more comes from it.
    pub(super) fn ended(&self, rank: Rank) -> Option<DepartureKind> {
        kind(&self.0[rank as usize].ended)
    }

    /// Notes what is said of a rank, if there is such a one; what was said first stays.
    pub(super) fn note(&self, rank: Rank, how: DepartureKind, last: bool) {
        let stored = KINDS.iter().position(|kind| *kind == how).map_or(1, |at| at + 1) as u8;
        let Some(one) = self.0.get(rank as usize) else {
            return;
        };
        for place in [Some(&one.first), last.then_some(&one.ended)]
            .into_iter()
            .flatten()
        {
            let _ = place.compare_exchange(0, stored, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_given_up_ends_later() {
        let gone = Gone::nobody(3);
        gone.note(1, DepartureKind::GaveUp, false);
        assert_eq!((gone.how(1), gone.ended(1)), (Some(DepartureKind::GaveUp), None));
        gone.note(1, DepartureKind::Died, true);
        gone.note(1, DepartureKind::Left, true);
        assert_eq!(gone.how(1), Some(DepartureKind::GaveUp));
        assert_eq!(gone.ended(1), Some(DepartureKind::Died));
        gone.note(9, DepartureKind::Died, true);
        assert_eq!((gone.how(2), gone.ended(2), gone.size()), (None, None, 3));
    }
}
