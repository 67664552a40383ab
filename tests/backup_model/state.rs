//! What the model's world consists of: the words at their homes, what each worker's memory holds, and what is on its way.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use sapwood::backup::protocol::{
    Access, Doubts, Exclusion, Seal, Shape, Slot, Tag, Tickets, Want, Word, Words,
};
use sapwood::backup::protocol::{Layout, MAXIMUM_CHILDREN, Worker};

use super::shared::Shared;

/// The most workers that the model has room for.
pub const MOST: usize = 5;
/// Of steps: results and words are kept for so many.
pub const RING: usize = 2;
/// After these a worker is done.
pub const STEPS: usize = 3;

/// What a worker writes as its gradient of a step: another in each of its lives, as nothing binds those to compute the same
/// bits.
pub fn gradient(step: u64, lives: u8) -> u8 {
    step as u8 | (lives - 1) << 4
}

/// Of which step a gradient is.
pub fn step_of(gradient: u8) -> u64 {
    u64::from(gradient & 15)
}

/// A sum, by where it comes from: of each worker the gradient that is in it, 0 if none is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sum {
    pub of: [u8; MOST],
    /// Something is in it twice.
    pub twice: bool,
}

impl Hash for Sum {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let of = self.of.iter().rev().fold(0, |all, of| all << 8 | u64::from(*of));
        hasher.write_u64(of << 1 | u64::from(self.twice));
    }
}

impl Sum {
    pub fn gradient(worker: usize, gradient: u8) -> Self {
        let mut sum = Self::default();
        sum.of[worker] = gradient;
        sum
    }

    pub fn plus(mut self, other: Self) -> Self {
        for (mine, theirs) in self.of.iter_mut().zip(other.of) {
            self.twice |= *mine != 0 && theirs != 0;
            *mine = (*mine).max(theirs);
        }
        self.twice |= other.twice;
        self
    }

    pub fn contributors(&self) -> usize {
        self.of.iter().filter(|step| **step != 0).count()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    Running,
    Stopped,
    Dead,
}

/// What a worker shows to others, beside the words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Memory {
    /// The gradients in its windows.
    pub gradients: [u8; RING],
    /// Its part of an attempt, as far as it has been added up.
    pub sum: (Tag, Sum),
    /// That part is complete; with `true` it is the gradient itself.
    pub shown: (Tag, bool),
    /// The attempt for which children may write into the staging.
    pub ready: Tag,
    /// For each child: the attempt of the newest part that was announced, and whatever was written last.
    pub staging: [(Tag, Sum); MAXIMUM_CHILDREN],
    pub results: [(Tag, Sum); RING],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seat {
    pub worker: Worker,
    pub life: Life,
    /// It was stopped or dead once: others may go on without it at any time since.
    pub doubted: bool,
    /// By how many lives it has had.
    pub lives: u8,
    /// Where memory stays, the next life takes it over.
    pub memory: Memory,
    /// What it has applied.
    pub history: [Sum; STEPS],
    /// A peer's, copied and not yet its own.
    pub copied: [Sum; STEPS],
    /// Peers whose queue pair to this worker was destroyed here, and who do not know it yet.
    pub broken: u8,
    /// It has taken over a peer's state.
    pub caught_up: bool,
}

/// A part on its way into a parent's staging.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flight {
    pub from: u8,
    pub to: u8,
    pub child: u8,
    pub tag: Tag,
    pub sum: Sum,
}

/// The words at one home.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Home {
    pub lost: bool,
    /// Empty as long as all are zero.
    words: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// One that all share, or one for each worker.
    pub homes: Vec<Shared<Home>>,
    pub seats: Vec<Shared<Seat>>,
    /// In any order: each is on a queue pair of its own.
    pub flights: BTreeSet<Flight>,
    /// An operation on a word whose queue pair broke, and that may still be carried out.
    pub late: Option<(u8, Access)>,
    /// Faults that may still happen.
    pub faults: u8,
    /// Somebody has applied what is not the sum of N gradients of that step.
    pub stale: bool,
    /// Two that live have applied different results for a step.
    pub disagree: bool,
}

impl State {
    /// When nothing changes any more.
    pub fn settle(&mut self) {
        self.homes.iter_mut().for_each(Shared::settle);
        self.seats.iter_mut().for_each(Shared::settle);
    }
}

impl Home {
    pub fn get(&self, layout: &Layout, word: Word) -> u64 {
        self.words.get(layout.offset(word) / 8).copied().unwrap_or(0)
    }

    /// Carries out an operation; what was there before.
    pub fn access(&mut self, layout: &Layout, access: Access) -> u64 {
        let word = match access {
            Access::Load(word) | Access::Add(word) | Access::Swap { word, .. } => word,
        };
        let found = self.get(layout, word);
        let stored = match access {
            Access::Load(_) => found,
            Access::Add(_) => found + 1,
            Access::Swap {
                expected, desired, ..
            } if found == expected => desired,
            Access::Swap { .. } => found,
        };
        if stored != found {
            self.words.resize(layout.bytes() / 8, 0);
            self.words[layout.offset(word) / 8] = stored;
        }
        found
    }

    /// Whether there are words that belong to `step`, or to an earlier one in its place.
    pub fn has(&self, layout: &Layout, step: u64) -> bool {
        let tickets = self.get(layout, Word::Tickets(step));
        tickets != 0 && Tickets(tickets).step() <= step
    }

    /// Empties the words that belong to `step`.
    pub fn forget(&mut self, layout: &Layout, shape: &Shape, step: u64) {
        let slots = (0..shape.tickets()).map(|ticket| Word::Slot(step, ticket));
        let exclusions = (0..shape.exclusions()).map(|index| Word::Exclusion(step, index));
        for word in slots
            .chain(exclusions)
            .chain([Word::Tickets(step), Word::Seal(step)])
        {
            self.words[layout.offset(word) / 8] = 0;
        }
    }

    /// As if workers had other numbers.
    pub fn renumber(&mut self, layout: &Layout, shape: &Shape, to: impl Fn(u16) -> u16) {
        if self.words.is_empty() {
            return;
        }
        for step in 0..RING as u64 {
            for ticket in 0..shape.tickets() {
                let word = &mut self.words[layout.offset(Word::Slot(step, ticket)) / 8];
                *word = Slot(*word).renumbered(&to).0;
            }
        }
    }

    pub fn lose(&mut self) {
        self.lost = true;
        self.words.clear();
    }
}

/// The words of one step, as a worker sees them.
pub struct Page<'a> {
    pub home: &'a Home,
    pub layout: &'a Layout,
    pub step: u64,
    /// A seeded error: to who holds this result, its attempt looks committed.
    pub hasty: Option<Tag>,
}

impl Page<'_> {
    fn get(&self, word: Word) -> u64 {
        self.home.get(self.layout, word)
    }
}

impl Words for Page<'_> {
    fn seal(&self) -> Seal {
        let seal = Seal(self.get(Word::Seal(self.step)));
        match self.hasty {
            Some(held)
                if seal.step() != 0 && seal.step() == held.step() && seal.attempt() == held.attempt() =>
            {
                Seal::committed(seal.step(), seal.attempt())
            }
            _ => seal,
        }
    }

    fn tickets(&self) -> Tickets {
        Tickets(self.get(Word::Tickets(self.step)))
    }

    fn slot(&self, ticket: u16) -> Slot {
        Slot(self.get(Word::Slot(self.step, ticket)))
    }

    fn exclusion(&self, index: u16) -> Exclusion {
        Exclusion(self.get(Word::Exclusion(self.step, index)))
    }
}

/// Whoever was stopped or dead once is doubted for ever: others may find out late.
pub struct Suspicions<'a> {
    pub state: &'a State,
    pub step: u64,
}

impl Doubts for Suspicions<'_> {
    fn worker(&self, worker: u16) -> bool {
        self.state.seats[worker as usize].doubted
    }

    fn ticket(&self, ticket: u16) -> bool {
        // Whoever runs and is about to write its name into the slot is waited for.
        !self.state.seats.iter().any(|seat| {
            let about = match seat.worker.want() {
                Want::Word(Access::Swap { word, .. }) => word == Word::Slot(self.step, ticket),
                _ => false,
            };
            about && seat.life == Life::Running && seat.worker.step() == self.step
        })
    }
}

impl Memory {
    /// Whether `forget` would change anything.
    pub fn remembers(&self, floor: u64) -> bool {
        let old = |tag: Tag| tag != Tag::default() && tag.step() <= floor;
        let mut kept = self.staging.iter().chain(&self.results);
        old(self.sum.0)
            || old(self.shown.0)
            || old(self.ready)
            || kept.any(|(tag, _)| old(*tag))
            || self.gradients.iter().any(|of| *of != 0 && step_of(*of) <= floor)
    }

    pub fn forget(&mut self, floor: u64) {
        let old = |tag: Tag| tag.step() <= floor;
        if old(self.sum.0) {
            self.sum = Default::default();
        }
        if old(self.shown.0) {
            self.shown = Default::default();
        }
        if old(self.ready) {
            self.ready = Tag::default();
        }
        let kept = self.staging.iter_mut().chain(&mut self.results);
        kept.filter(|(tag, _)| old(*tag))
            .for_each(|one| *one = Default::default());
        let gradients = self.gradients.iter_mut();
        gradients
            .filter(|gradient| step_of(**gradient) <= floor)
            .for_each(|gradient| *gradient = 0);
    }
}

impl Seat {
    pub fn new(shape: Shape, worker: u16) -> Self {
        let mut seat = Self {
            worker: Worker::new(shape, worker),
            life: Life::Running,
            doubted: false,
            lives: 1,
            memory: Memory::default(),
            history: Default::default(),
            copied: Default::default(),
            broken: 0,
            caught_up: false,
        };
        seat.memory.gradients[1] = 1;
        seat
    }

    pub fn is_done(&self) -> bool {
        self.worker.applied() == STEPS as u64
    }

    /// Its result with this tag, if it holds it.
    pub fn result(&self, tag: Tag) -> Option<Sum> {
        let (theirs, sum) = self.memory.results[tag.step() as usize % RING];
        (theirs == tag).then_some(sum)
    }
}
