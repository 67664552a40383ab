//! What follows from how it went.

use super::part::Stage;
use super::worker::Phase;
use super::{Access, Did, Slot, Tag, Tickets, Word, Worker};

impl Worker {
    /// What was [wanted](Worker::want) went so.
    ///
    /// # Panics
    /// If that is no answer to what was wanted: the driver is wrong.
    pub fn did(&mut self, did: Did) {
        if did == Did::Lost {
            return self.lost();
        }
        match (self.phase, did) {
            (Phase::Ticket, Did::Found(found)) => self.has_ticket(Tickets(found)),
            // At worst a ticket is left that nobody fills.
            (Phase::Ticket, Did::Unknown) => {}
            (Phase::Reopen(expected), Did::Found(found)) => {
                // Others may have added one since: no more is added to it before it is this step's.
                self.phase = match Tickets(found) {
                    found if found != expected && found.step() < self.step => Phase::Reopen(found),
                    _ => Phase::Ticket,
                };
            }
            (Phase::Reopen(_), Did::Unknown) => {}
            (Phase::Fill(ticket, expected), Did::Found(found)) => {
                self.filled(ticket, expected, Slot(found));
            }
            // The same again: if the first landed, it is found. Never another ticket.
            (Phase::Fill(..), Did::Unknown) => {}
            (Phase::Act(_), Did::Found(_) | Did::Unknown) => self.attend(),
            (Phase::Watch, did) => self.did_part(did),
            (Phase::Pull(tag), Did::Done) | (Phase::Sum(tag), Did::Done) => self.has_result(tag),
            (Phase::Pull(_) | Phase::Sum(_), Did::Gone | Did::Unkept) => self.behind(),
            (Phase::Apply(tag), Did::Done) => self.continue_at(tag),
            (Phase::CatchUp(_), Did::Caught(tag)) => self.caught(tag),
            _ => self.did_recover(did),
        }
    }

    #[inline]
    pub(super) fn has_ticket(&mut self, found: Tickets) {
        if found.step() > self.step {
            // That step is left with a ticket that nobody fills.
            return self.behind();
        }
        self.phase = if found.step() < self.step {
            Phase::Reopen(Tickets(found.0 + 1))
        } else if found.count() >= u64::from(self.shape.tickets()) {
            Phase::Crowded
        } else {
            Phase::Fill(found.count() as u16, Slot::default())
        };
    }

    /// What a worker that computes may do for those who will arrive, itself among them, with the tickets of its step as it
    /// found them: the same as one that came first and then was stopped. Where everybody adds up for itself, the step that
    /// they were of is out of reach by then: its gradients may be written over since the step before this one was decided.
    pub fn reopen(&self, found: Tickets) -> Option<Access> {
        let free = self.phase == Phase::Compute && self.flat() && found.step() < self.step;
        free.then(|| Access::Swap {
            word: Word::Tickets(self.step),
            expected: found.0,
            desired: Tickets::none(self.step).0,
        })
    }

    #[inline]
    pub(super) fn filled(&mut self, ticket: u16, expected: Slot, found: Slot) {
        if found == expected || found == self.own_slot() {
            self.ticket = Some(ticket);
            self.fresh = false;
            self.phase = Phase::Watch;
        } else if found.step() < self.step {
            self.phase = Phase::Fill(ticket, found);
        } else if found.step() > self.step {
            self.behind();
        } else {
            // It came too late for this one.
            self.phase = Phase::Ticket;
        }
    }

    #[inline]
    pub(super) fn has_result(&mut self, tag: Tag) {
        self.held = tag;
        self.phase = match self.can_lose() {
            true => Phase::Watch,
            false => Phase::Apply(tag),
        };
    }

    fn did_part(&mut self, did: Did) {
        let (follows, me) = (self.can_lose(), self.me);
        let part = &mut self.part;
        match (part.stage, did) {
            (Stage::Withdraw, Did::Done) => part.withdrawn(),
            (Stage::Fence, Did::Done) => part.fenced(),
            (Stage::Ready, Did::Done) => part.told(),
            (Stage::Take(child), Did::Done) => part.taken(me, child),
            (Stage::Publish, Did::Done) => {
                part.stage = if follows { Stage::Follow } else { Stage::Idle };
            }
            // It looks whether the attempt is still in force, and tries again if so.
            (Stage::Publish | Stage::Follow, Did::Gone | Did::Unkept) => {}
            (Stage::Hold, Did::Done) => {
                self.held = part.tag;
                self.part.stage = if self.can_lose() {
                    Stage::Gather
                } else {
                    Stage::Commit
                };
            }
            (Stage::Follow, Did::Done) => {
                self.held = part.tag;
                part.stage = Stage::Idle;
            }
            (Stage::Gather, Did::Done) => part.stage = Stage::Commit,
            (Stage::Commit, Did::Found(_)) => part.stage = Stage::Idle,
            // The same again: it can succeed only once.
            (Stage::Commit, Did::Unknown) => {}
            (stage, did) => panic!("a worker at {stage:?} of its part was answered {did:?}"),
        }
    }

    fn caught(&mut self, tag: Tag) {
        self.held = tag;
        if self.can_lose() {
            self.torn = true;
            self.phase = Phase::Confirm;
        } else {
            self.continue_at(tag);
        }
    }

    /// The state of that result is this worker's.
    #[inline]
    pub(super) fn continue_at(&mut self, tag: Tag) {
        self.applied = tag.step();
        self.past = tag;
        self.torn = false;
        self.begin();
    }
}
