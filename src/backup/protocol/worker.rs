//! One worker: where it is in its step, and what it wants done next.

use super::part::{Part, Stage};
use super::{Opening, Seal, Shape, Slot, Tag, Tickets, Way, Word};

/// One atomic operation on a word at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reads it.
    Load(Word),
    /// Adds one.
    Add(Word),
    /// Compare-and-swap.
    Swap {
        /// Which.
        word: Word,
        /// What it must be.
        expected: u64,
        /// What it becomes.
        desired: u64,
    },
}

/// What a worker wants done. Unless it says otherwise it is answered [`Did::Done`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    /// Until the gradient is complete ([`Worker::arrive`]) it is to look now and then.
    Compute,
    /// On a word at the home of its view: [`Did::Found`] what was there, [`Did::Unknown`] or [`Did::Lost`].
    Word(Access),
    /// To look at the step's words again ([`Worker::look`]), when they may have changed.
    Look,
    /// Destroy the queue pair that this peer writes to: nothing that it posted may land any more.
    Fence {
        /// Who.
        peer: u16,
    },
    /// Show the children that they may write their parts of this attempt into the staging, and no other.
    Ready {
        /// Which attempt; the default: none.
        tag: Tag,
    },
    /// Add a child's part to the own gradient, once it is here; for child 0 the sum starts anew.
    Take {
        /// Of which attempt.
        tag: Tag,
        /// Whose.
        from: u16,
        /// Which of the children that is.
        child: u16,
    },
    /// Show the parent the sum of the own gradient and what was taken, once it is ready; [`Did::Gone`] if its queue pair
    /// is broken (it is to be made anew).
    Publish {
        /// Of which attempt.
        tag: Tag,
        /// To whom.
        to: u16,
        /// Which of its children this worker is.
        child: u16,
        /// Nothing was taken: it is the gradient itself.
        leaf: bool,
    },
    /// Keep the sum of the own gradient and what was taken, divided by N, as the result, and mark it.
    Hold {
        /// Which.
        tag: Tag,
        /// Nothing was taken.
        leaf: bool,
    },
    /// Copy the result from one who holds it (and holds it still after the copy), and mark it. [`Did::Gone`] if it was
    /// committed and nobody holds it any more; [`Did::Unkept`].
    Pull {
        /// Which.
        tag: Tag,
    },
    /// Copy the members' gradients (each checked after the copy), add them up in the order of ranks; that is the result.
    /// [`Did::Gone`] if one of them was overwritten.
    Sum {
        /// Which.
        tag: Tag,
    },
    /// Wait until every member has marked it.
    Gather {
        /// Which.
        tag: Tag,
    },
    /// Hand the marked result out, or the state that was copied. From here on the gradient's memory may be written.
    Apply {
        /// Which.
        tag: Tag,
    },
    /// Copy all training state from a worker that has applied this step or a later one (0: any), check that it was not
    /// changed meanwhile, and mark its step: [`Did::Caught`].
    CatchUp {
        /// At least this step.
        step: u64,
    },
    /// Read the marks of all workers that are not dead: [`Did::Marks`] with the greatest.
    Survey,
    /// As [`Want::Pull`], from one; [`Did::Gone`] if it has it no more; [`Did::Unkept`].
    Adopt {
        /// Which.
        tag: Tag,
        /// From whom.
        from: u16,
    },
    /// To look: all tickets of the step were taken. Unless the others decide it, it fails.
    Crowded,
}

/// How what was wanted went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Did {
    /// As wanted.
    Done,
    /// What was in the word before.
    Found(u64),
    /// The queue pair broke: it was done, or was not, or will be.
    Unknown,
    /// The home's memory is gone.
    Lost,
    /// Who was to be written to or read from is not there any more, or has something else by now.
    Gone,
    /// Nobody who lives has that result, and somebody has the state that it has led to, or a later one: those who had the result
    /// have died, and come back with a copy of state.
    Unkept,
    /// The greatest mark and who has it.
    Marks(Tag, u16),
    /// Of which result the copied state is.
    Caught(Tag),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Started anew: has an earlier life of this worker arrived already?
    Returning,
    Compute,
    Ticket,
    Reopen(Tickets),
    Fill(u16, Slot),
    Watch,
    /// One compare-and-swap, after which it looks again.
    Act(Access),
    Pull(Tag),
    Sum(Tag),
    Apply(Tag),
    CatchUp(u64),
    /// State was copied: is home still there?
    Confirm,
    /// What does the next home continue from?
    Opened,
    Survey,
    Adopt(Tag, u16),
    Open,
    /// Others are further than it can follow by results alone. What do they say that the next home continues from?
    Hear,
    /// As `Pull`, of what the home continues from.
    Inherit(Tag),
    Crowded,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    pub(super) shape: Shape,
    pub(super) me: u16,
    pub(super) incarnation: u16,
    pub(super) step: u64,
    pub(super) view: u16,
    pub(super) phase: Phase,
    /// Of this step, if it counts.
    pub(super) ticket: Option<u16>,
    pub(super) part: Part,
    /// The own mark.
    pub(super) held: Tag,
    pub(super) applied: u64,
    /// An earlier life of this worker may have arrived in the step.
    pub(super) fresh: bool,
    /// It has no state to go on from: a peer's was copied over its own and is not known to be decided.
    pub(super) torn: bool,
    /// The tag of what was applied last.
    pub(super) past: Tag,
}

impl Worker {
    /// A worker at the beginning of a job.
    pub fn new(shape: Shape, me: u16) -> Self {
        Self {
            shape,
            me,
            incarnation: 0,
            step: 1,
            view: 0,
            phase: Phase::Compute,
            ticket: None,
            part: Part::default(),
            held: Tag::default(),
            applied: 0,
            fresh: false,
            torn: false,
            past: Tag::default(),
        }
    }

    /// A worker that was started again after a death.
    pub fn restarted(shape: Shape, me: u16, incarnation: u16) -> Self {
        Self {
            incarnation,
            phase: Phase::CatchUp(0),
            fresh: true,
            ..Self::new(shape, me)
        }
    }

    /// The step it is in.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The last step whose result it has applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The tag of that.
    pub fn past(&self) -> Tag {
        self.past
    }

    /// The place of this result is about to be written over. What the worker had marked of another attempt of that step is no
    /// result any more, and is nobody's past: an attempt that others have followed was not committed.
    pub fn writes_over(&mut self, tag: Tag) {
        let other = self.held != tag && self.held.step() == tag.step();
        if other && self.can_lose() && self.held.step() > self.applied {
            self.held = self.past;
        }
    }

    /// Whether its training state is that of the last step it has applied, and not half a copy.
    pub fn has_state(&self) -> bool {
        !self.torn
    }

    /// Whose words it goes by.
    pub fn view(&self) -> u16 {
        self.view
    }

    /// The newest result that it has marked.
    pub fn held(&self) -> Tag {
        self.held
    }

    /// It was started again, and what an earlier life of it has left in this step is not dealt with yet: nothing may be
    /// written where that life had its gradients.
    pub fn looks_for_itself(&self) -> bool {
        self.fresh && matches!(self.phase, Phase::Returning | Phase::Act(_))
    }

    /// It was started again, and has arrived in no step since.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// In which of its lives it is.
    pub fn incarnation(&self) -> u16 {
        self.incarnation
    }

    /// Its ticket of the step, if it counts.
    pub fn ticket(&self) -> Option<u16> {
        self.ticket
    }

    /// The root of the tree of its attempt.
    pub fn is_root(&self) -> bool {
        self.part.root == self.me
    }

    /// The root's number, in that tree.
    pub fn root(&self) -> u16 {
        self.part.root
    }

    /// Who makes that result, if this worker is a member that waits for it.
    pub fn root_of(&self, tag: Tag) -> Option<u16> {
        (self.part.tag == tag && self.part.stage == Stage::Follow).then_some(self.part.root)
    }

    /// Its parent in the tree of its attempt, unless it is the root.
    pub fn parent(&self) -> u16 {
        self.part.parent
    }

    /// How many children it has there.
    pub fn children(&self) -> u16 {
        self.part.count
    }

    /// The gradient is complete, and is not written again before [`Want::Apply`].
    pub fn arrive(&mut self) {
        if self.phase == Phase::Compute {
            self.phase = Phase::Ticket;
        }
    }

    /// Whether looking may lead to something beside what it wants.
    pub fn attentive(&self) -> bool {
        matches!(
            self.phase,
            Phase::Returning
                | Phase::Compute
                | Phase::Watch
                | Phase::Pull(_)
                | Phase::Sum(_)
                | Phase::Crowded
        )
    }

    /// What is to be done next.
    #[inline(always)]
    pub fn want(&self) -> Want {
        let step = self.step;
        match self.phase {
            Phase::Returning => Want::Look,
            Phase::Compute => Want::Compute,
            Phase::Ticket => Want::Word(Access::Add(Word::Tickets(step))),
            Phase::Reopen(expected) => Want::Word(Access::Swap {
                word: Word::Tickets(step),
                expected: expected.0,
                desired: Tickets::none(step).0,
            }),
            Phase::Fill(ticket, expected) => Want::Word(Access::Swap {
                word: Word::Slot(step, ticket),
                expected: expected.0,
                desired: self.own_slot().0,
            }),
            Phase::Watch => self.of_part(),
            Phase::Act(access) => Want::Word(access),
            Phase::Pull(tag) | Phase::Inherit(tag) => Want::Pull { tag },
            Phase::Sum(tag) => Want::Sum { tag },
            Phase::Apply(tag) => Want::Apply { tag },
            Phase::CatchUp(step) => Want::CatchUp { step },
            Phase::Confirm | Phase::Opened | Phase::Hear => Want::Word(Access::Load(Word::Opening)),
            Phase::Survey => Want::Survey,
            Phase::Adopt(tag, from) => Want::Adopt { tag, from },
            Phase::Open => Want::Word(Access::Swap {
                word: Word::Opening,
                expected: 0,
                desired: Opening::after(self.held).0,
            }),
            Phase::Crowded => Want::Crowded,
        }
    }

    fn of_part(&self) -> Want {
        let part = &self.part;
        let (tag, leaf) = (part.tag, part.count == 0);
        match part.stage {
            Stage::Idle => Want::Look,
            Stage::Withdraw => Want::Ready { tag: Tag::default() },
            Stage::Fence => Want::Fence { peer: part.debtor() },
            Stage::Ready => Want::Ready { tag },
            Stage::Take(child) => Want::Take {
                tag,
                from: part.children[child as usize],
                child,
            },
            Stage::Publish => Want::Publish {
                tag,
                to: part.parent,
                child: part.number,
                leaf,
            },
            Stage::Hold => Want::Hold { tag, leaf },
            Stage::Follow => Want::Pull { tag },
            Stage::Gather => Want::Gather { tag },
            Stage::Commit => Want::Word(Access::Swap {
                word: Word::Seal(self.step),
                expected: Seal::sealed(self.step, tag.attempt()).0,
                desired: Seal::committed(self.step, tag.attempt()).0,
            }),
        }
    }

    pub(super) fn own_slot(&self) -> Slot {
        Slot::of(self.step, self.me, self.incarnation)
    }

    pub(super) fn flat(&self) -> bool {
        self.shape.way == Way::Flat
    }

    /// Begins the step after the one applied last.
    pub(super) fn begin(&mut self) {
        self.part.leave();
        self.step = self.applied + 1;
        self.ticket = None;
        self.phase = if self.fresh {
            Phase::Returning
        } else {
            Phase::Compute
        };
    }

    /// Its step is over, and so long that its result is not kept any more.
    pub(super) fn behind(&mut self) {
        self.part.leave();
        self.ticket = None;
        self.phase = Phase::CatchUp(self.step);
    }

    /// After one act the words are looked at again.
    pub(super) fn attend(&mut self) {
        self.phase = if self.fresh {
            Phase::Returning
        } else {
            Phase::Watch
        };
    }
}
