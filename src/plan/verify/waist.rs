//! A quick way to see that every end follows from every beginning: one moment that follows from all beginnings and that all
//! ends follow from, as the root of a tree is for a barrier. Never says so where it is not so; a graph may also do
//! without such a moment.

use super::graph::Moment;

/// Whether there is such a moment among the latest predecessors, one after the other, of the first end. `before` gives the
/// immediate predecessors of a moment, which are all earlier.
pub(super) fn has<'a>(
    moments: u32,
    begins: &[Moment],
    ends: &[Moment],
    before: impl Fn(Moment) -> &'a [Moment],
) -> bool {
    let Some(&first) = ends.first() else { return true };
    let latest = |moment: &Moment| before(*moment).iter().copied().max();
    let line: Vec<Moment> = std::iter::successors(Some(first), latest).collect();
    let from_all = |moment: Moment| {
        let mut leads = vec![false; moments as usize];
        leads[moment as usize] = true;
        for later in (0..=moment).rev() {
            if leads[later as usize] {
                before(later)
                    .iter()
                    .for_each(|&earlier| leads[earlier as usize] = true);
            }
        }
        begins.iter().all(|&begin| leads[begin as usize])
    };
    // What follows from all beginnings leads to what does: they stand at the head of the line.
    let follow = line.partition_point(|&moment| from_all(moment));
    let Some(waist) = follow.checked_sub(1).map(|last| line[last]) else {
        return false;
    };
    let mut follows = vec![false; moments as usize];
    follows[waist as usize] = true;
    for later in waist..moments {
        follows[later as usize] |= before(later).iter().any(|&earlier| follows[earlier as usize]);
    }
    ends.iter().all(|&end| follows[end as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_waist(edges: &[(u32, u32)], begins: &[Moment], ends: &[Moment]) -> bool {
        let mut before = vec![Vec::new(); 12];
        for &(earlier, later) in edges {
            before[later as usize].push(earlier);
        }
        has(12, begins, ends, |moment| &before[moment as usize])
    }

    #[test]
    fn a_waist_is_found_and_none_is_made_up() {
        let up = [(0, 3), (1, 3), (2, 4), (3, 4)];
        let down = [(4, 5), (5, 6), (4, 7), (7, 8)];
        let whole: Vec<_> = up.iter().chain(&down).copied().collect();
        assert!(has_waist(&whole, &[0, 1, 2], &[6, 8]));
        assert!(has_waist(&whole, &[0, 1, 2], &[8]));
        for missing in 0..whole.len() {
            let mut holed = whole.clone();
            holed.remove(missing);
            assert!(!has_waist(&holed, &[0, 1, 2], &[6, 8]), "{missing}");
        }
        // Everything in order, but not through one moment: it is not said.
        let crossed = [(0, 2), (0, 3), (1, 2), (1, 3)];
        assert!(!has_waist(&crossed, &[0, 1], &[2, 3]));
    }
}
