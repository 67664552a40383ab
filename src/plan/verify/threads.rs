//! A quick way to see that one moment follows from another, which finds nearly all orderings of trees; never says so
//! where it is not so, and does not know of every ordering.
//!
//! Each moment has an heir, its earliest follower, and a source, its latest predecessor. Whoever is handed something by
//! its heirs has it in the forest of heirs below itself, which two numbers to a moment tell. Going back from the later
//! moment, source by source, one comes by a moment below which the earlier one is: it is handed up a tree on the one
//! way, and down on the other.

use super::graph::Moment;

pub(super) struct Threads {
    /// By moment, the latest predecessor; itself if it has none.
    source: Vec<Moment>,
    /// By moment, its place in a walk over the forest of heirs in which all that is below a moment comes right behind it.
    place: Vec<u32>,
    /// By moment, how many are below it, itself included.
    size: Vec<u32>,
    /// So many sources are asked.
    patience: u32,
}

impl Threads {
    /// `before` gives the immediate predecessors of a moment, which are all earlier.
    pub fn new<'a>(moments: u32, before: impl Fn(Moment) -> &'a [Moment]) -> Self {
        const NONE: Moment = Moment::MAX;
        let mut heir = vec![NONE; moments as usize];
        let mut source: Vec<Moment> = (0..moments).collect();
        // Ascending, so that the first follower to be seen is the earliest.
        for moment in 0..moments {
            for &earlier in before(moment) {
                let heir = &mut heir[earlier as usize];
                *heir = (*heir).min(moment);
            }
            if let Some(&latest) = before(moment).iter().max() {
                source[moment as usize] = latest;
            }
        }
        let mut size = vec![1u32; moments as usize];
        for moment in 0..moments as usize {
            if heir[moment] != NONE {
                size[heir[moment] as usize] += size[moment];
            }
        }
        // An heir comes later, so descending each finds its heir's place set.
        let mut place = vec![0u32; moments as usize];
        let mut free: Vec<u32> = vec![0; moments as usize];
        let mut roots = 0;
        for moment in (0..moments as usize).rev() {
            let next = match heir[moment] {
                NONE => &mut roots,
                heir => &mut free[heir as usize],
            };
            place[moment] = *next;
            *next += size[moment];
            free[moment] = place[moment] + 1;
        }
        Self {
            source,
            place,
            size,
            patience: 4 * (moments.max(1).ilog2() + 4),
        }
    }

    /// Whether the later moment is seen to follow from the earlier one.
    pub fn lead(&self, earlier: Moment, later: Moment) -> bool {
        let mut moment = later;
        for _ in 0..self.patience {
            if moment < earlier {
                return false;
            }
            let behind = self.place[earlier as usize].wrapping_sub(self.place[moment as usize]);
            if behind < self.size[moment as usize] {
                return true;
            }
            let source = self.source[moment as usize];
            if source == moment {
                return false;
            }
            moment = source;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Of any graph, only what follows is said to.
        #[test]
        fn what_is_said_to_follow_does(
            edges in proptest::collection::vec((0u32..40, 0u32..40), 0..120),
        ) {
            let mut before = vec![Vec::new(); 40];
            for (a, b) in edges {
                if a != b {
                    before[a.max(b) as usize].push(a.min(b));
                }
            }
            let threads = Threads::new(40, |moment| &before[moment as usize]);
            for earlier in 0..40u32 {
                let mut follows = [false; 40];
                follows[earlier as usize] = true;
                for later in earlier..40 {
                    let through = before[later as usize].iter().any(|&middle| follows[middle as usize]);
                    follows[later as usize] |= through;
                    let said = threads.lead(earlier, later);
                    prop_assert!(!said || follows[later as usize], "{} {}", earlier, later);
                    let direct = later == earlier || before[later as usize].iter().max() == Some(&earlier);
                    prop_assert!(said || !direct, "{} {}", earlier, later);
                }
            }
        }
    }
}
