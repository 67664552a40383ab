//! Every worker's memory is behind a queue pair, its own words at home too: whoever has them, all change them by the
//! fabric's atomic operations, so that they have one atomic domain. Memory goes with its owner.
//!
//! Each operation is waited for before the next is posted: what follows from a word must not have been read before it.
//! Nobody is needed at the other side. There are no bells: who waits looks again after a while.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use super::core::Core;
use super::ground::{Found, Ground};
use super::lines::{Lines, Way};
use super::memory::{Own, Places, SHOWN, Shown};
use super::protocol::{Access, Did, Exclusion, Layout, Members, Seal, Slot, Tag, Tickets, Word, Words};
use crate::bootstrap::Switchboard;
use crate::communicator::CommunicatorError;
use crate::engine::Liveness;
use crate::fabric::{AtomicDomain, FabricError, Operation, Patience, Registration, RemoteSlice, Slice};

/// Bytes that are fetched at a time to be added up.
pub(super) const PIECE: usize = 256 << 10;

/// How long a sleep may be: nobody wakes who waits for words in another's memory.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// See the module.
pub(super) struct Remote {
    pub places: Places,
    pub me: u16,
    pub workers: u16,
    /// Who asks this worker for queue pairs is answered there. Ends before what it hands out.
    pub _switchboard: Switchboard,
    pub lines: Lines,
    pub words: Arc<dyn Registration>,
    pub data: Arc<dyn Registration>,
    pub liveness: Box<dyn Liveness>,
    pub domain: AtomicDomain,
    pub patience: Patience,
    /// Whose words are gone: a worker is a home in its first life only.
    pub lost: Members,
}

impl Remote {
    /// Makes the pairs that a step needs whoever its members are: to the homes that there will be if any of so many
    /// workers die. For the others there is time when they are needed.
    pub fn connect_to_homes(&mut self, backups: u16, until: Instant) -> Result<(), CommunicatorError> {
        let homes = (0..self.workers).take(usize::from(backups) + 1);
        for home in homes.filter(|home| *home != self.me) {
            while self.lines.to(home, 0).is_none() {
                let gone = self.liveness.gone(home.into());
                if gone.is_some() || Instant::now() >= until {
                    return Err(self.unanswered(home, gone));
                }
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        Ok(())
    }

    fn unanswered(&self, peer: u16, gone: Option<String>) -> CommunicatorError {
        FabricError::Parcel {
            rank: self.me.into(),
            peer: peer.into(),
            what: "the other half of a queue pair",
            why: gone.unwrap_or_else(|| "it did not come in time; is that rank stopped?".into()),
        }
        .into()
    }

    /// Carries an operation on the memory of a worker, in the life that it is in, out. `false` if that cannot be said, or
    /// never will be, or if there is no way to it yet.
    fn run(&mut self, peer: u16, operation: impl FnOnce(Reached<'_>) -> Operation) -> bool {
        let life = self.liveness.life(peer.into());
        self.run_in(peer, life, operation)
    }

    /// The same on words at home, which are there in the first life of whose they are.
    fn run_at_home(&mut self, home: u16, operation: impl FnOnce(Reached<'_>) -> Operation) -> bool {
        let there = !self.lost.contains(home) && self.liveness.life(home.into()) == 0;
        there && self.run_in(home, 0, operation)
    }

    fn run_in(&mut self, peer: u16, life: u64, operation: impl FnOnce(Reached<'_>) -> Operation) -> bool {
        let Some(way) = self.lines.to(peer, life) else {
            return false;
        };
        let operation = operation(Reached {
            words: &self.words,
            data: &self.data,
            way: &way,
        });
        let (liveness, rank) = (&self.liveness, peer.into());
        let is_gone = || peer != self.me && liveness.ended(rank);
        // What it answers after its death is no answer, nor what an earlier life does.
        self.lines.run(peer, operation, is_gone) && !self.is_late(peer) && self.liveness.life(rank) == life
    }

    /// Whether what a worker's memory has answered may have been answered after its death: where CPUs carry operations
    /// out, they may find the memory of a process for a while after that.
    fn is_late(&self, worker: u16) -> bool {
        self.domain == AtomicDomain::Cpu && self.is_gone(worker)
    }

    /// An operation on words at home was not carried out. With no home left there is nothing to go on to.
    fn failed(&mut self, home: u16) -> Found {
        match self.is_lost(home) && self.lost.len() < self.workers {
            true => Found::Lost,
            false => Found::Later,
        }
    }

    fn landed(&self, at: usize) -> u64 {
        self.own().words[self.places.landing() + at].load(Acquire)
    }

    /// Reads words at home to where they land.
    fn read_home(&mut self, home: u16, index: usize, count: usize) -> bool {
        let landing = self.places.landing();
        self.run_at_home(home, |reached| reached.read_words(index, (landing, count)))
    }

    fn word(&mut self, view: u16, word: Word) -> Result<u64, Found> {
        let home = self.home_of(view);
        match self.read_home(home, self.places.home(word), 1) {
            true => Ok(self.landed(0)),
            false => Err(self.failed(home)),
        }
    }

    fn home_of(&self, view: u16) -> u16 {
        view % self.workers
    }
}

/// This worker's memory, and another's.
struct Reached<'a> {
    words: &'a Arc<dyn Registration>,
    data: &'a Arc<dyn Registration>,
    way: &'a Way,
}

impl Reached<'_> {
    fn read_words(&self, index: usize, (landing, count): (usize, usize)) -> Operation {
        Operation::Read {
            local: slice(self.words, 8 * landing, 8 * count),
            remote: self.word(index),
        }
    }

    fn word(&self, index: usize) -> RemoteSlice {
        RemoteSlice {
            region: self.way.words.clone(),
            offset: 8 * index,
        }
    }
}

fn slice(registration: &Arc<dyn Registration>, offset: usize, len: usize) -> Slice {
    Slice {
        registration: registration.clone(),
        offset,
        len,
    }
}

/// The words of one step, as they have landed; the seal was read first.
pub(super) struct Landed<'a> {
    seal: Seal,
    step: u64,
    layout: &'a Layout,
    words: &'a [AtomicU64],
}

impl Landed<'_> {
    fn get(&self, word: Word) -> u64 {
        let at = self.layout.offset(word) - self.layout.offset(Word::Tickets(self.step));
        self.words[at / 8].load(Relaxed)
    }
}

impl Words for Landed<'_> {
    fn seal(&self) -> Seal {
        self.seal
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

impl Ground for Remote {
    const STREAMS: bool = false;
    type Words<'a> = Landed<'a>;

    fn places(&self) -> &Places {
        &self.places
    }

    fn own(&self) -> Own<'_> {
        let words = self.words.region().base().cast::<AtomicU64>();
        Own {
            // SAFETY: that many words, aligned and mapped as long as the registration; accessed only atomically, by this
            // process, and by a device as one that is atomic for aligned words.
            words: unsafe { std::slice::from_raw_parts(words.as_ptr(), self.places.words()) },
            data: self.data.region().base(),
        }
    }

    fn home(&mut self, view: u16, access: Access) -> Found {
        let home = self.home_of(view);
        let (places, landing) = (self.places, self.places.landing());
        let operation = |reached: Reached<'_>| {
            let local = slice(reached.words, 8 * landing, 8);
            let remote = |word| reached.word(places.home(word));
            match access {
                Access::Load(word) => Operation::Read {
                    local,
                    remote: remote(word),
                },
                Access::Add(word) => Operation::FetchAdd {
                    local,
                    remote: remote(word),
                    add: 1,
                },
                Access::Swap {
                    word,
                    expected,
                    desired,
                } => Operation::CompareSwap {
                    local,
                    remote: remote(word),
                    expected,
                    desired,
                },
            }
        };
        match self.run_at_home(home, operation) {
            true => Found::Value(self.landed(0)),
            false => self.failed(home),
        }
    }

    fn words(&mut self, view: u16, step: u64) -> Result<Landed<'_>, Found> {
        let seal = self.word(view, Word::Seal(step))?;
        let (home, index) = (self.home_of(view), self.places.home(Word::Tickets(step)));
        let count = self.places.home.entry_bytes() / 8;
        if !self.read_home(home, index, count) {
            return Err(self.failed(home));
        }
        let landing = self.places.landing();
        Ok(Landed {
            seal: Seal(seal),
            step,
            layout: &self.places.home,
            words: &self.own().words[landing..landing + count],
        })
    }

    fn seal(&mut self, view: u16, step: u64) -> Result<u64, Found> {
        self.word(view, Word::Seal(step))
    }

    fn tickets(&mut self, view: u16, step: u64) -> Result<u64, Found> {
        self.word(view, Word::Tickets(step))
    }

    fn load(&mut self, worker: u16, index: usize) -> Option<u64> {
        if worker == self.me {
            return Some(self.own().words[index].load(Acquire));
        }
        let landing = self.places.landing();
        self.run(worker, |reached| reached.read_words(index, (landing, 1)))
            .then(|| self.landed(0))
    }

    fn shown(&mut self, worker: u16, tag: Tag) -> Option<Shown> {
        // A part is shown once it is complete.
        let leaf = Shown::of(self.load(worker, SHOWN)?, tag)?;
        let bytes = self.places.bytes;
        Some(Shown { bytes, leaf })
    }

    fn fetch(&mut self, worker: u16, at: usize, into: usize, bytes: usize) -> Option<()> {
        let read = self.run(worker, |reached| Operation::Read {
            local: slice(reached.data, into, bytes),
            remote: RemoteSlice {
                region: reached.way.data.clone(),
                offset: at,
            },
        });
        read.then_some(())
    }

    fn piece(&self) -> usize {
        PIECE
    }

    fn sum_up(_: &mut Core<Self>, _: Tag) -> Did {
        unreachable!("there is no such shape where memory is not mapped")
    }

    fn wake(&self, _: u16) {}

    fn wake_others(&self) {}

    fn patience(&self) -> Patience {
        self.patience
    }

    fn sleep(_: &mut Core<Self>, at_most: Duration, _: impl FnOnce(&mut Core<Self>) -> bool) {
        std::thread::sleep(at_most.min(LOOK_AGAIN));
    }

    fn each_ended(&self, each: &mut dyn FnMut(u32, String)) {
        self.liveness.each_ended(each);
    }

    fn is_gone(&self, worker: u16) -> bool {
        worker != self.me && self.liveness.ended(worker.into())
    }

    fn has_way(&self, worker: u16) -> bool {
        self.lines.has(worker)
    }

    fn has_left(&self, worker: u16) -> bool {
        self.is_gone(worker) || self.lines.is_deserted(worker, self.liveness.life(worker.into()))
    }

    fn is_lost(&mut self, home: u16) -> bool {
        if !self.lost.contains(home) && (self.liveness.life(home.into()) > 0 || self.is_gone(home)) {
            self.lost.insert(home);
        }
        self.lost.contains(home)
    }
}
