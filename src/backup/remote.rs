//! Every worker's memory is behind a queue pair, its own words at home too: whoever has them, all change them by the
//! fabric's atomic operations, so that they have one atomic domain. Memory goes with its owner.
//!
//! Each operation is waited for before the next is posted: what follows from a word must not have been read before it.
//! Nobody is needed at the other side. There are no bells: who waits looks again after a while.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use super::core::Core;
use super::ground::{Found, Ground};
use super::memory::{Own, Places, SHOWN, Shown};
use super::protocol::{Access, Did, Exclusion, Layout, Members, Seal, Slot, Tag, Tickets, Word, Words};
use crate::communicator::Offered;
use crate::engine::Liveness;
use crate::fabric::{
    AtomicDomain, Completion, Endpoint, Operation, Patience, RemoteSlice, Request, Slice, Status,
};

/// Bytes that are fetched at a time to be added up.
pub(super) const PIECE: usize = 256 << 10;

/// How long a sleep may be: nobody wakes who waits for words in another's memory.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// How long what is flushed may take to say so.
const FLUSH: Duration = Duration::from_secs(5);

/// How often it is asked whether the owner of the memory that is operated on is dead.
const LIVENESS: Duration = Duration::from_millis(5);

/// See the module.
pub(super) struct Remote {
    pub places: Places,
    pub me: u16,
    pub workers: u16,
    pub words: Offered,
    pub data: Offered,
    pub endpoint: Box<dyn Endpoint>,
    pub liveness: Box<dyn Liveness>,
    pub domain: AtomicDomain,
    pub patience: Patience,
    /// Until when an operation must have ended.
    pub timeout: Duration,
    pub work: Work,
}

/// What is in flight: one operation at most.
#[derive(Default)]
pub(super) struct Work {
    next: u64,
    completions: Vec<Completion>,
    /// Whose queue pair has failed. It is not made anew.
    broken: Members,
    /// The endpoint itself has failed.
    failed: bool,
}

impl Remote {
    /// Carries an operation out. `false` if that cannot be said, or never will be.
    fn run(&mut self, peer: u16, operation: Operation) -> bool {
        if self.work.failed || self.work.broken.contains(peer) {
            return false;
        }
        self.work.next += 1;
        let id = self.work.next;
        let request = Request {
            id,
            operation,
            signaled: true,
        };
        let posted = self.endpoint.post(peer.into(), std::slice::from_ref(&request));
        let done = posted.is_ok() && self.await_completion(peer, id);
        if !done {
            self.work.broken.insert(peer);
        }
        done
    }

    fn await_completion(&mut self, peer: u16, id: u64) -> bool {
        let mut until = Instant::now() + self.timeout;
        let mut flushing = false;
        loop {
            self.work.completions.clear();
            self.work.completions.reserve(8);
            if self.endpoint.poll(&mut self.work.completions).is_err() {
                self.work.failed = true;
                return false;
            }
            if let Some(completion) = self.work.completions.iter().find(|one| one.id == id) {
                return completion.status == Status::Success;
            }
            let now = Instant::now();
            if flushing && now >= until {
                // It could still land where another's answer is to land.
                self.work.failed = true;
                return false;
            }
            if !flushing && (now >= until || self.is_gone(peer)) {
                self.endpoint.disconnect(peer.into());
                (flushing, until) = (true, now + FLUSH);
            }
            if self.endpoint.wait(now + LIVENESS).is_err() {
                self.work.failed = true;
                return false;
            }
        }
    }

    /// Whether what a worker's memory has answered may have been answered after its death: where CPUs carry operations
    /// out, they may find the memory of a process for a while after that.
    fn is_late(&self, worker: u16) -> bool {
        self.domain == AtomicDomain::Cpu && self.is_gone(worker)
    }

    fn failed(&self, home: u16) -> Found {
        match self.is_gone(home) {
            true => Found::Lost,
            false => Found::Later,
        }
    }

    fn landing(&self, at: usize, words: usize) -> Slice {
        Slice {
            registration: self.words.own.clone(),
            offset: 8 * (self.places.landing() + at),
            len: 8 * words,
        }
    }

    fn landed(&self, at: usize) -> u64 {
        self.own().words[self.places.landing() + at].load(Acquire)
    }

    fn remote_word(&self, worker: u16, index: usize) -> RemoteSlice {
        RemoteSlice {
            region: self.words.all[worker as usize].clone(),
            offset: 8 * index,
        }
    }

    /// Reads words of a worker to where they land.
    fn read_words(&mut self, worker: u16, index: usize, (at, count): (usize, usize)) -> bool {
        let operation = Operation::Read {
            local: self.landing(at, count),
            remote: self.remote_word(worker, index),
        };
        self.run(worker, operation) && !self.is_late(worker)
    }

    fn word(&mut self, view: u16, word: Word) -> Result<u64, Found> {
        let home = self.home_of(view);
        match self.read_words(home, self.places.home(word), (0, 1)) {
            true => Ok(self.landed(0)),
            false => Err(self.failed(home)),
        }
    }

    fn home_of(&self, view: u16) -> u16 {
        view % self.workers
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
        let words = self.words.own.region().base().cast::<AtomicU64>();
        Own {
            // SAFETY: that many words, aligned and mapped as long as the registration; accessed only atomically, by this
            // process, and by a device as one that is atomic for aligned words.
            words: unsafe { std::slice::from_raw_parts(words.as_ptr(), self.places.words()) },
            data: self.data.own.region().base(),
        }
    }

    fn home(&mut self, view: u16, access: Access) -> Found {
        let home = self.home_of(view);
        let local = self.landing(0, 1);
        let remote = |word| self.remote_word(home, self.places.home(word));
        let operation = match access {
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
        };
        match self.run(home, operation) && !self.is_late(home) {
            true => Found::Value(self.landed(0)),
            false => self.failed(home),
        }
    }

    fn words(&mut self, view: u16, step: u64) -> Result<Landed<'_>, Found> {
        let seal = self.word(view, Word::Seal(step))?;
        let (home, index) = (self.home_of(view), self.places.home(Word::Tickets(step)));
        let count = self.places.home.entry_bytes() / 8;
        if !self.read_words(home, index, (0, count)) {
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
        self.read_words(worker, index, (0, 1)).then(|| self.landed(0))
    }

    fn shown(&mut self, worker: u16, tag: Tag) -> Option<Shown> {
        // A part is shown once it is complete.
        let leaf = Shown::of(self.load(worker, SHOWN)?, tag)?;
        let bytes = self.places.bytes;
        Some(Shown { bytes, leaf })
    }

    fn fetch(&mut self, worker: u16, at: usize, into: usize, bytes: usize) -> Option<()> {
        let operation = Operation::Read {
            local: Slice {
                registration: self.data.own.clone(),
                offset: into,
                len: bytes,
            },
            remote: RemoteSlice {
                region: self.data.all[worker as usize].clone(),
                offset: at,
            },
        };
        self.run(worker, operation).then_some(())
    }

    fn piece(&self) -> usize {
        PIECE
    }

    fn expect_gradients(_: &Core<Self>) {}

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
}
