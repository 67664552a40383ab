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
use super::protocol::{Access, Did, Exclusion, Few, Layout, Seal, Slot, Tag, Tickets, Word, Words};
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
    pub fn entry(&self, step: u64) -> Entry<'_> {
        let first = self.places.home(Word::Tickets(step));
        Entry {
            layout: &self.places.home,
            words: &self.words_of(0)[first..first + self.places.home.entry_bytes() / 8],
        }
    }

    /// The members of an attempt that was sealed, a bit each, if its proposer has said them.
    #[inline]
    pub fn few(&self, tag: Tag) -> Option<u64> {
        Few(self.entry(tag.step()).few_word().load(Relaxed)).members(tag)
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
    layout: &'a Layout,
    words: &'a [AtomicU64],
}

impl Entry<'_> {
    #[inline]
    pub fn tickets_word(&self) -> &AtomicU64 {
        &self.words[0]
    }

    #[inline]
    pub fn slot_word(&self, ticket: u16) -> &AtomicU64 {
        &self.words[self.layout.slot(ticket) / 8]
    }

    #[inline]
    pub fn seal_word(&self) -> &AtomicU64 {
        &self.words[self.layout.seal() / 8]
    }

    #[inline]
    pub fn few_word(&self) -> &AtomicU64 {
        &self.words[self.layout.few() / 8]
    }

    /// Whoever has this ticket is about to fill its slot, and to seal the step if it is the last that is needed.
    #[inline]
    pub fn expect_to_fill(&self, ticket: u16, last: bool) {
        let slot = |ticket| self.slot_word(ticket).as_ptr().cast();
        if self.layout.is_spread() {
            for_writing(slot(ticket));
            if last {
                (0..ticket).for_each(|earlier| for_reading(slot(earlier)));
            }
        }
        if last {
            for_writing(self.seal_word().as_ptr().cast());
        }
    }

    /// This worker is about to reopen the tickets.
    #[inline]
    pub fn expect_to_reopen(&self) {
        for_writing(self.tickets_word().as_ptr().cast());
    }
}

impl Words for Entry<'_> {
    #[inline]
    fn seal(&self) -> Seal {
        Seal(self.seal_word().load(Acquire))
    }

    #[inline]
    fn tickets(&self) -> Tickets {
        Tickets(self.tickets_word().load(Acquire))
    }

    #[inline]
    fn slot(&self, ticket: u16) -> Slot {
        Slot(self.slot_word(ticket).load(Acquire))
    }

    #[inline]
    fn exclusion(&self, index: u16) -> Exclusion {
        Exclusion(self.words[self.layout.exclusion(index) / 8].load(Acquire))
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
            Access::Add(word) => self.word(word).fetch_add(1, SeqCst),
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
        Ok(self.entry(step))
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
    fn go_straight(core: &mut Core<Self>, looks: u32) {
        core.go_straight(looks);
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
