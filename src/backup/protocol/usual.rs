//! The usual course of a step, for who drives it straight down instead of asking what is wanted after every move. Each of
//! these is a transition that [`Worker::look`] and [`Worker::did`] make too, of the same phases and with the same result, or
//! makes none: then the worker is driven on as ever.

use super::worker::Phase;
use super::{Few, Seal, Slot, Tag, Tickets, Words, Worker};

impl Worker {
    /// Few workers, a home that cannot be lost, and everybody adds up for itself.
    fn goes_straight(&self) -> bool {
        self.flat() && !self.can_lose() && self.shape.workers() <= Few::WORKERS
    }

    /// Whether it is to take its ticket now, and may be driven straight on.
    #[inline]
    pub fn is_usual(&self) -> bool {
        self.phase == Phase::Ticket && self.goes_straight() && !self.fresh
    }

    /// Its ticket, if it has come, looks whether the step is over, and may be driven straight on.
    #[inline]
    pub fn waits_usually(&self) -> Option<u16> {
        let waits = self.phase == Phase::Watch && self.goes_straight();
        self.ticket.filter(|_| waits)
    }

    /// It has taken a ticket, and found so many taken before. Which one, if that is of use.
    #[inline]
    pub fn took(&mut self, found: Tickets) -> Option<u16> {
        debug_assert_eq!(self.phase, Phase::Ticket);
        self.has_ticket(found);
        match self.phase {
            Phase::Fill(ticket, _) => Some(ticket),
            _ => None,
        }
    }

    /// It has found this in the slot of its ticket. What is to be put there in its place.
    #[inline]
    pub fn fills(&mut self, ticket: u16, found: Slot) -> Option<Slot> {
        debug_assert!(matches!(self.phase, Phase::Fill(..)));
        (found.step() < self.step).then(|| {
            self.phase = Phase::Fill(ticket, found);
            self.own_slot()
        })
    }

    /// It has tried to put its name in place of what it had found in the slot, and has found this. Whether that is done.
    #[inline]
    pub fn has_filled(&mut self, ticket: u16, expected: Slot, found: Slot) -> bool {
        debug_assert_eq!(self.phase, Phase::Fill(ticket, expected));
        self.filled(ticket, expected, found);
        self.phase == Phase::Watch
    }

    /// It [waits](Worker::waits_usually): the members that it is to propose, and what is to be put in place of this seal. They are
    /// those who have the first N tickets, if all of them have filled their slots and none was left out.
    #[inline]
    pub fn proposal(&self, seal: Seal, words: &impl Words) -> Option<(Few, Seal)> {
        let (step, shape) = (self.step, &self.shape);
        debug_assert!(self.waits_usually().is_some());
        let excluded = shape.exclusions() > 0 && words.exclusion(0).step() >= step;
        if seal.step() >= step || excluded {
            return None;
        }
        let mut members = 0u64;
        for ticket in 0..shape.members() {
            let slot = words.slot(ticket);
            let worker = slot.worker().filter(|_| slot.step() == step)?;
            members |= 1 << worker;
        }
        let counts = members >> self.me & 1 != 0;
        counts.then(|| (Few::of(step, members), Seal::committed(step, 0)))
    }

    /// It has tried to seal, or has looked, and has found this seal. Whether something follows.
    #[inline]
    pub fn sees(&mut self, seal: Seal) -> bool {
        debug_assert!(self.attentive());
        self.is_over(seal)
    }

    /// What it is to add up, if the step is over.
    #[inline]
    pub fn sums(&self) -> Option<Tag> {
        match self.phase {
            Phase::Sum(tag) => Some(tag),
            _ => None,
        }
    }

    /// That was done.
    #[inline]
    pub fn has_summed(&mut self, tag: Tag) {
        debug_assert_eq!(self.phase, Phase::Sum(tag));
        self.has_result(tag);
    }

    /// The result that is to be handed out.
    #[inline]
    pub fn applies(&self) -> Option<Tag> {
        match self.phase {
            Phase::Apply(tag) => Some(tag),
            _ => None,
        }
    }

    /// It was.
    #[inline]
    pub fn has_applied(&mut self, tag: Tag) {
        debug_assert_eq!(self.phase, Phase::Apply(tag));
        self.continue_at(tag);
    }
}
