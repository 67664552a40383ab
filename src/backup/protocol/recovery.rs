//! When the home's memory is gone: what the next home continues from.
//!
//! Whoever has applied a result had marked it in its own memory before it looked at the words for the last time. So the
//! marks of all workers that are not dead, read after the words were lost, show every result that one of them has
//! applied or can still apply. The greatest is made their common past by one compare-and-swap at the next home, by somebody
//! who holds it; whatever was going on beyond it begins again there. A home may be lost again while this goes on.

use super::worker::Phase;
use super::{Did, Opening, Tag, Worker};

impl Worker {
    /// Whether it is to say what the next home continues from. Who has come back without state waits for that.
    pub fn recovers(&self) -> bool {
        use Phase::{Adopt, Open, Opened, Survey};
        !self.torn && matches!(self.phase, Opened | Survey | Adopt(..) | Open)
    }

    /// It waits for others to say what the next home continues from: it has no state, or they are further.
    pub fn waits_to_be_told(&self) -> bool {
        self.torn && self.phase == Phase::Opened || self.phase == Phase::Hear
    }

    /// Others are further, so that its step was decided; by what, nobody has said yet.
    pub fn hears(&self) -> bool {
        self.phase == Phase::Hear
    }

    /// After a while: those who were further may have died, and somebody else may have seen all marks.
    pub fn look_again(&mut self) {
        self.phase = match self.phase {
            Phase::Hear => Phase::Survey,
            Phase::Survey => Phase::Opened,
            phase => phase,
        };
    }

    /// Nothing at the home of this view can be read or changed any more, by anybody.
    pub(super) fn lost(&mut self) {
        self.part.leave();
        self.ticket = None;
        self.view += 1;
        if self.torn {
            // Half of a copy is nobody's past.
            self.held = self.past;
        }
        self.phase = Phase::Opened;
    }

    pub(super) fn did_recover(&mut self, did: Did) {
        match (self.phase, did) {
            (Phase::Confirm, Did::Found(found)) => match Opening(found).tag() {
                None if self.view > 0 => self.phase = Phase::Opened,
                Some(past) if self.held.step() < past.step() => self.phase = Phase::CatchUp(past.step()),
                _ => self.continue_at(self.held),
            },
            (Phase::Opened | Phase::Hear, Did::Found(found)) => match Opening(found).tag() {
                Some(past) => self.continue_from(past),
                // Who has no state of its own waits for those who have, and who is behind for those who are not.
                None if self.waits_to_be_told() => {}
                None => self.phase = Phase::Survey,
            },
            (Phase::Survey, Did::Marks(tag, from)) => {
                if tag <= self.held {
                    self.phase = Phase::Open;
                } else if tag.step() == self.applied + 1 {
                    self.phase = Phase::Adopt(tag, from);
                } else {
                    self.phase = Phase::Hear;
                }
            }
            (Phase::Adopt(tag, _), Did::Done) => {
                self.held = tag;
                self.phase = Phase::Open;
            }
            // Somebody may have said meanwhile what to continue from.
            (Phase::Adopt(..), Did::Gone) => self.phase = Phase::Opened,
            (Phase::Adopt(..), Did::Unkept) => self.phase = Phase::Hear,
            (Phase::Open, Did::Found(found)) => {
                let past = Opening(found).tag().unwrap_or(self.held);
                self.continue_from(past);
            }
            (Phase::Confirm | Phase::Opened | Phase::Hear | Phase::Open, Did::Unknown) => {}
            // Marked: whether that home is still there is looked at once more.
            (Phase::Inherit(tag), Did::Done) => {
                self.held = tag;
                self.phase = Phase::Opened;
            }
            // Those who had it are further, and the home has gone on meanwhile; or they are left with its state.
            (Phase::Inherit(past), Did::Gone | Did::Unkept) => self.phase = Phase::CatchUp(past.step()),
            (phase, did) => panic!("a worker in phase {phase:?} was answered {did:?}"),
        }
    }

    /// The home of this view continues from `past`.
    fn continue_from(&mut self, past: Tag) {
        if self.torn || past.step() > self.applied + 1 {
            self.phase = Phase::CatchUp(past.step());
        } else if past.step() <= self.applied {
            self.begin();
        } else if self.held == past {
            self.phase = Phase::Apply(past);
        } else {
            self.phase = Phase::Inherit(past);
        }
    }
}
