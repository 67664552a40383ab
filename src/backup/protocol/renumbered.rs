//! A worker under another number, for who explores the barrier's states: where everybody adds up for itself, workers differ
//! by nothing but their numbers.

use super::worker::Phase;
use super::{Access, Slot, Word, Worker};

impl Slot {
    /// The same, of a job whose worker `n` is number `to(n)`.
    pub fn renumbered(self, to: impl Fn(u16) -> u16) -> Self {
        match self.worker() {
            Some(worker) => Self::of(self.step(), to(worker), self.incarnation()),
            None => self,
        }
    }
}

impl Access {
    /// As [`Slot::renumbered`].
    pub fn renumbered(self, to: impl Fn(u16) -> u16) -> Self {
        match self {
            Self::Swap {
                word: word @ Word::Slot(..),
                expected,
                desired,
            } => Self::Swap {
                word,
                expected: Slot(expected).renumbered(&to).0,
                desired: Slot(desired).renumbered(&to).0,
            },
            other => other,
        }
    }
}

impl Worker {
    /// As [`Slot::renumbered`].
    ///
    /// # Panics
    /// If the workers make their sum along a tree: there it follows from the numbers who adds whose part to its own.
    pub fn renumbered(&self, to: impl Fn(u16) -> u16) -> Self {
        assert!(self.flat(), "in a tree each number has its place");
        let phase = match self.phase {
            Phase::Fill(ticket, expected) => Phase::Fill(ticket, expected.renumbered(&to)),
            Phase::Act(access) => Phase::Act(access.renumbered(&to)),
            other => other,
        };
        Self {
            me: to(self.me),
            phase,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Did, Reach, Shape, Tickets, Want, Way};
    use super::*;

    #[test]
    fn a_number_is_changed_wherever_it_stands() {
        let shape = Shape::new(3, 1, 2, Reach::LoadStore, Way::Flat).unwrap();
        // It has taken a ticket, in whose slot another stood in an earlier step.
        let worker = |me, other| {
            let mut worker = Worker::new(shape, me);
            worker.arrive();
            worker.did(Did::Found(Tickets::none(1).0));
            worker.did(Did::Found(Slot::of(0, other, 1).0));
            worker
        };
        let turned = worker(0, 2).renumbered(|worker| (worker + 1) % 3);
        assert_eq!(turned, worker(1, 0));
        assert_ne!(turned, worker(1, 2));
        let Want::Word(access) = worker(0, 2).want() else {
            panic!("it fills its slot");
        };
        assert_eq!(
            Want::Word(access.renumbered(|worker| (worker + 1) % 3)),
            turned.want()
        );
        assert_eq!(Slot::void(3).renumbered(|_| 0), Slot::void(3));
    }
}
