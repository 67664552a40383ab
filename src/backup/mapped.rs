//! All workers' memory is mapped here: one host. What was shown outlives its owner's process; the words at home lie in
//! worker 0's window, which lives as long as anyone has it mapped, and their atomic domain is these CPUs. So a worker that
//! comes back after a death takes over the memory that it had; the others need not notice.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::time::Duration;

use super::core::{AT_ONCE, Core, PIECE};
use super::ground::{Found, Ground};
use super::memory::{Own, Places, SHOWN, SHOWN_BYTES, STATE, Shown};
use super::protocol::{Access, Did, Exclusion, Few, Layout, Members, Seal, Slot, Tag, Tickets, Word, Words};
use super::racing;
use crate::engine::hint::{for_reading, for_writing};
use crate::engine::{Liveness, WindowMap};
use crate::fabric::{Doorbell, Patience};

/// Bytes of scratch memory.
pub(super) const SCRATCH: usize = AT_ONCE * PIECE;

/// See the module.
pub(super) struct Mapped {
    places: Places,
    /// Each worker's words.
    count: usize,
    me: usize,
    /// The tickets just after this worker has taken one, until it looks.
    took: Tickets,
    /// So few workers that their members have room beside the seal.
    few: bool,
    words: Arc<WindowMap>,
    data: Arc<WindowMap>,
    bells: Vec<Doorbell>,
    patience: Patience,
    liveness: Box<dyn Liveness>,
}

impl Mapped {
    /// # Panics
    /// If the windows are smaller than `places` says, or are not mapped.
    pub fn new(
        places: Places,
        me: u32,
        (words, data): (Arc<WindowMap>, Arc<WindowMap>),
        patience: Patience,
        liveness: Box<dyn Liveness>,
    ) -> Self {
        assert!(words.len() >= 8 * places.words() && data.len() >= places.data_bytes());
        assert!(!words.bases().is_empty() && words.bases().len() == data.bases().len());
        let bell = |base: &NonNull<u8>| {
            // SAFETY: a line of each worker's words, as long as the map is there, which nothing else is put into; windows
            // start on a page, as zeroes.
            unsafe { Doorbell::within(base.add(8 * places.bell()), words.clone()) }
        };
        Self {
            count: places.words(),
            places,
            me: me as usize,
            took: Tickets::default(),
            few: words.bases().len() <= usize::from(Few::WORKERS),
            bells: words.bases().iter().map(bell).collect(),
            words,
            data,
            patience,
            liveness,
        }
    }

    /// This worker's memory is that of an earlier life of it, which has ended: nothing that it began goes on.
    pub fn take_over(&self) {
        let words = self.own().words;
        // What others are copying of its state and its part they find changed when they have.
        for word in [STATE, SHOWN] {
            words[word].store(0, SeqCst);
        }
        racing::before_writing();
        self.bells[self.me].forget_sleepers();
    }

    #[inline]
    fn words_of(&self, worker: usize) -> &[AtomicU64] {
        let base = self.words.bases()[worker].cast::<AtomicU64>();
        // SAFETY: that many words, as was checked, mapped and writable as long as `self`; aligned, since windows start on a
        // page; accessed only atomically.
        unsafe { std::slice::from_raw_parts(base.as_ptr(), self.count) }
    }

    #[inline]
    fn word(&self, word: Word) -> &AtomicU64 {
        &self.words_of(0)[self.places.home(word)]
    }

    /// The words of a step at home.
    #[inline]
    fn entry(&self, step: u64) -> &[AtomicU64] {
        let first = self.places.home(Word::Tickets(step));
        &self.words_of(0)[first..first + self.places.home.entry_bytes() / 8]
    }

    /// The members of an attempt that was sealed, a bit each, if its proposer has said them.
    #[inline]
    pub fn few(&self, tag: Tag) -> Option<u64> {
        Few(self.entry(tag.step())[self.places.home.few() / 8].load(Relaxed)).members(tag)
    }

    /// Byte `at` of a worker's vectors.
    #[inline]
    pub fn data(&self, worker: u16, at: usize) -> NonNull<u8> {
        debug_assert!(at <= self.places.data_bytes());
        // SAFETY: within the window, whose length was checked.
        unsafe { self.data.bases()[worker as usize].add(at) }
    }
}

/// The words of one step.
pub(super) struct Entry<'a> {
    step: u64,
    took: Tickets,
    few: bool,
    layout: &'a Layout,
    words: &'a [AtomicU64],
}

impl Words for Entry<'_> {
    #[inline]
    fn seal(&self) -> Seal {
        Seal(self.words[self.layout.seal() / 8].load(Acquire))
    }

    #[inline]
    fn tickets(&self) -> Tickets {
        // Others have perhaps taken the line away since. As long as nothing is sealed, what was true then is enough to propose:
        // should it have been sealed meanwhile, that fails. The tickets of an attempt in force are read after its seal.
        match self.took.step() == self.step && self.seal().step() < self.step {
            true => self.took,
            false => Tickets(self.words[0].load(Acquire)),
        }
    }

    #[inline]
    fn slot(&self, ticket: u16) -> Slot {
        Slot(self.words[self.layout.slot(ticket) / 8].load(Acquire))
    }

    #[inline]
    fn exclusion(&self, index: u16) -> Exclusion {
        Exclusion(self.words[self.layout.exclusion(index) / 8].load(Acquire))
    }

    #[inline]
    fn proposed(&self, attempt: u16, members: &Members) {
        if let Some(few) = Few::of(self.step, attempt, members).filter(|_| self.few) {
            // The seal releases it.
            self.words[self.layout.few() / 8].store(few.0, Relaxed);
        }
    }
}

impl Ground for Mapped {
    const STREAMS: bool = true;
    type Words<'a> = Entry<'a>;

    fn places(&self) -> &Places {
        &self.places
    }

    fn own(&self) -> Own<'_> {
        Own {
            words: self.words_of(self.me),
            data: self.data.bases()[self.me],
        }
    }

    #[inline]
    fn home(&mut self, _: u16, access: Access) -> Found {
        Found::Value(match access {
            Access::Load(word) => self.word(word).load(Acquire),
            Access::Add(word) => {
                let found = self.word(word).fetch_add(1, SeqCst);
                self.took = Tickets(found + 1);
                found
            }
            Access::Swap {
                word,
                expected,
                desired,
            } => {
                let word = self.word(word);
                // What would fail needs no line of its own.
                let found = word.load(Acquire);
                match found == expected {
                    true => word
                        .compare_exchange(expected, desired, SeqCst, Acquire)
                        .unwrap_or_else(|found| found),
                    false => found,
                }
            }
        })
    }

    #[inline]
    fn words(&mut self, _: u16, step: u64) -> Result<Entry<'_>, Found> {
        let took = std::mem::take(&mut self.took);
        let (few, layout, words) = (self.few, &self.places.home, self.entry(step));
        Ok(Entry {
            step,
            took,
            few,
            layout,
            words,
        })
    }

    #[inline]
    fn seal(&mut self, _: u16, step: u64) -> Result<u64, Found> {
        Ok(self.word(Word::Seal(step)).load(Acquire))
    }

    #[inline]
    fn tickets(&mut self, _: u16, step: u64) -> Result<u64, Found> {
        Ok(self.word(Word::Tickets(step)).load(Acquire))
    }

    fn load(&mut self, worker: u16, index: usize) -> Option<u64> {
        Some(self.words_of(worker.into())[index].load(Acquire))
    }

    fn shown(&mut self, worker: u16, tag: Tag) -> Option<Shown> {
        let words = self.words_of(worker.into());
        let leaf = Shown::of(words[SHOWN].load(Acquire), tag)?;
        let bytes = words[SHOWN_BYTES].load(Acquire) as usize;
        Some(Shown {
            bytes: bytes.min(self.places.bytes),
            leaf,
        })
    }

    fn fetch(&mut self, worker: u16, at: usize, into: usize, bytes: usize) -> Option<()> {
        assert!(at.max(into) + bytes <= self.places.data_bytes());
        let (from, into) = (self.data(worker, at), self.own().at(into));
        // SAFETY: both within the windows, and aligned, since vectors start on a cache line and are cut into whole pieces.
        // What may be torn is looked after by the caller.
        unsafe { racing::copy(into, from.as_ptr(), bytes) };
        Some(())
    }

    fn piece(&self) -> usize {
        PIECE
    }

    #[inline]
    fn expect_to_fill(&self, step: u64, ticket: u64, seal: bool) {
        let layout = &self.places.home;
        let entry = self.entry(step);
        if layout.is_spread() && ticket < u64::from(layout.tickets()) {
            let slot = |ticket: u16| entry[layout.slot(ticket) / 8].as_ptr().cast();
            for_writing(slot(ticket as u16));
            if seal {
                (0..ticket as u16).for_each(|earlier| for_reading(slot(earlier)));
            }
        }
        if seal {
            for_writing(entry[layout.seal() / 8].as_ptr().cast());
        }
    }

    #[inline]
    fn expect_to_reopen(&self, step: u64) {
        for_writing(self.entry(step)[0].as_ptr().cast());
    }

    #[inline]
    fn expect_gradients(core: &Core<Self>) {
        core.fetch_gradients();
    }

    fn sum_up(core: &mut Core<Self>, tag: Tag) -> Did {
        core.sum(tag)
    }

    fn wake(&self, worker: u16) {
        self.bells[usize::from(worker)].ring();
    }

    fn wake_others(&self) {
        let bells = self.bells.iter().enumerate();
        Doorbell::ring_all_swapped(
            bells
                .filter(|(worker, _)| *worker != self.me)
                .map(|(_, bell)| bell),
        );
    }

    fn patience(&self) -> Patience {
        self.patience
    }

    fn sleep(core: &mut Core<Self>, at_most: Duration, ready: impl FnOnce(&mut Core<Self>) -> bool) {
        let bell = core.ground.bells[core.ground.me].clone();
        bell.sleep(at_most, || ready(core));
    }

    fn each_ended(&self, each: &mut dyn FnMut(u32, String)) {
        self.liveness.each_ended(each);
    }

    fn is_gone(&self, worker: u16) -> bool {
        self.liveness.ended(worker.into())
    }

    fn has_way(&self, _: u16) -> bool {
        true
    }

    fn has_left(&self, worker: u16) -> bool {
        self.is_gone(worker)
    }

    fn is_lost(&mut self, _: u16) -> bool {
        false
    }
}
