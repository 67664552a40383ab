//! Who the members of an attempt are: the first N whose tickets count, in the order of tickets.
//!
//! A scan stops at the first ticket that was taken and not filled. All slots before it are final, so that everybody who
//! sees as many members sees the same ones, whenever each of the words was read.

use super::{Members, Shape, Slot, Words};

/// A ticket that somebody has taken without coming back with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Which.
    pub ticket: u16,
    /// What is in its slot: of an earlier step.
    pub found: Slot,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Scanned {
    /// The first N, or as many as came before the first hole.
    pub members: Members,
    /// Whether those are N.
    pub complete: bool,
    /// Where the scan for members ended, if it is not complete.
    pub hole: Option<Hole>,
    /// Tickets that count, also those behind a hole or beyond the N-th.
    pub arrived: u16,
}

/// How many exclusions are listed for `step`; `None` if the words are a later step's.
pub fn listed(words: &impl Words, shape: &Shape, step: u64) -> Option<u16> {
    for index in 0..shape.exclusions() {
        match words.exclusion(index).step() {
            other if other < step => return Some(index),
            other if other > step => return None,
            _ => {}
        }
    }
    Some(shape.exclusions())
}

/// Scans the tickets of `step`, of which the first `exclusions` that are listed do not count. `each` is told of every
/// one that counts, and whether it is a member's. `None` if the words are a later step's.
pub fn scan(
    words: &impl Words,
    shape: &Shape,
    step: u64,
    exclusions: u16,
    each: impl FnMut(u16, Slot, bool),
) -> Option<Scanned> {
    let mut scanned = Scanned::default();
    scan_into(words, shape, step, exclusions, &mut scanned, each).then_some(scanned)
}

/// The same where nobody has time: what is found, which is large, goes into `scanned`, where nothing has been found yet. `false`
/// for `None`.
#[inline]
pub fn scan_into(
    words: &impl Words,
    shape: &Shape,
    step: u64,
    exclusions: u16,
    scanned: &mut Scanned,
    each: impl FnMut(u16, Slot, bool),
) -> bool {
    // As good as always: not even the set of them is needed.
    if exclusions == 0 {
        return scan_but(words, shape, step, |_| false, scanned, each);
    }
    let mut excluded = [0u64; 128];
    for index in 0..exclusions {
        let ticket = words.exclusion(index).ticket();
        excluded[ticket as usize / 64] |= 1 << (ticket % 64);
    }
    let excluded = |ticket: u16| excluded[ticket as usize / 64] >> (ticket % 64) & 1 != 0;
    scan_but(words, shape, step, excluded, scanned, each)
}

fn scan_but(
    words: &impl Words,
    shape: &Shape,
    step: u64,
    excluded: impl Fn(u16) -> bool,
    scanned: &mut Scanned,
    mut each: impl FnMut(u16, Slot, bool),
) -> bool {
    let tickets = words.tickets();
    if tickets.step() > step {
        return false;
    }
    let taken = if tickets.step() == step {
        tickets.count()
    } else {
        0
    };
    for ticket in 0..taken.min(u64::from(shape.tickets())) as u16 {
        let slot = words.slot(ticket);
        if slot.step() > step {
            return false;
        }
        if slot.step() < step {
            if !scanned.complete && scanned.hole.is_none() {
                scanned.hole = Some(Hole { ticket, found: slot });
            }
            continue;
        }
        let Some(worker) = slot.worker() else { continue };
        if excluded(ticket) {
            continue;
        }
        let member = !scanned.complete && scanned.hole.is_none();
        if member {
            scanned.members.insert(worker);
        }
        scanned.arrived += 1;
        scanned.complete |= member && scanned.arrived == shape.members();
        each(ticket, slot, member);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::{Exclusion, Reach, Seal, Tickets, Way};
    use super::*;

    #[derive(Default)]
    struct Page {
        tickets: Tickets,
        slots: Vec<Slot>,
        exclusions: Vec<Exclusion>,
    }

    impl Words for Page {
        fn seal(&self) -> Seal {
            Seal::default()
        }
        fn tickets(&self) -> Tickets {
            self.tickets
        }
        fn slot(&self, ticket: u16) -> Slot {
            self.slots.get(ticket as usize).copied().unwrap_or_default()
        }
        fn exclusion(&self, index: u16) -> Exclusion {
            self.exclusions.get(index as usize).copied().unwrap_or_default()
        }
    }

    fn page(slots: &[Option<u16>]) -> Page {
        let slot = |worker: &Option<u16>| worker.map_or(Slot::void(9), |worker| Slot::of(9, worker, 0));
        Page {
            tickets: Tickets(Tickets::none(9).0 + slots.len() as u64),
            slots: slots.iter().map(slot).collect(),
            exclusions: Vec::new(),
        }
    }

    fn shape() -> Shape {
        Shape::new(5, 2, 2, Reach::LoadStore, Way::Flat).unwrap()
    }

    fn found(page: &Page, exclusions: u16) -> Scanned {
        scan(page, &shape(), 9, exclusions, |_, _, _| {}).unwrap()
    }

    #[test]
    fn the_first_that_count_are_members() {
        let mut page = page(&[Some(4), None, Some(0), Some(2), Some(1)]);
        let scanned = found(&page, 0);
        assert_eq!((scanned.complete, scanned.arrived), (true, 4));
        assert_eq!(scanned.members.iter().collect::<Vec<_>>(), [0, 2, 4]);
        page.exclusions = vec![Exclusion::of(9, 2), Exclusion::of(8, 0)];
        assert_eq!(listed(&page, &shape(), 9), Some(1));
        assert_eq!(found(&page, 1).members.iter().collect::<Vec<_>>(), [1, 2, 4]);
        page.exclusions[1] = Exclusion::of(9, 4);
        assert_eq!(listed(&page, &shape(), 9), Some(2));
        let scanned = found(&page, 2);
        assert_eq!(
            (scanned.complete, scanned.arrived, scanned.hole),
            (false, 2, None)
        );
    }

    #[test]
    fn a_hole_ends_the_members_and_not_the_count() {
        let mut page = page(&[Some(4), Some(3), Some(0), Some(2)]);
        page.slots[1] = Slot::of(7, 3, 0);
        let scanned = found(&page, 0);
        assert!(
            !scanned.complete
                && scanned.hole
                    == Some(Hole {
                        ticket: 1,
                        found: Slot::of(7, 3, 0)
                    })
        );
        assert_eq!((scanned.members.len(), scanned.arrived), (1, 3));
    }

    #[test]
    fn words_of_a_later_step_are_noticed() {
        let mut page = page(&[Some(4)]);
        assert!(scan(&page, &shape(), 8, 0, |_, _, _| {}).is_none());
        page.tickets = Tickets(Tickets::none(8).0 + 1);
        assert!(scan(&page, &shape(), 8, 0, |_, _, _| {}).is_none());
        page.exclusions = vec![Exclusion::of(9, 0)];
        assert_eq!(listed(&page, &shape(), 8), None);
    }
}
