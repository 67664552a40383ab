//! What the workers' memory lies in, as one of them reaches it: mapped, on one host, or behind queue pairs. The barrier is
//! the same over both.
//!
//! Nobody stores into memory that another worker owns, other than by atomic operations on the words at home: whatever is
//! read here, its owner may be changing.

use std::time::Duration;

use super::core::Core;
use super::memory::{Own, Places, Shown};
use super::protocol::{Access, Did, Tag, Words};
use crate::fabric::Patience;

/// What came of an operation on a word at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// What was there before.
    Value(u64),
    /// It was not carried out now, and the home is not known to be lost.
    Later,
    /// The home's memory is gone, for everybody.
    Lost,
}

/// See the module. A worker whose memory is gone shows nothing: `None`.
pub(super) trait Ground: Sized {
    /// What a parent can see of a part that is not complete yet.
    const STREAMS: bool;

    /// The words of a step at a home.
    type Words<'a>: Words
    where
        Self: 'a;

    /// Where things lie.
    fn places(&self) -> &Places;

    /// This worker's own words and vectors.
    fn own(&self) -> Own<'_>;

    /// An operation on a word at the home of a view.
    fn home(&mut self, view: u16, access: Access) -> Found;

    /// The step's words; the seal is read before the others.
    fn words(&mut self, view: u16, step: u64) -> Result<Self::Words<'_>, Found>;

    /// The seal alone.
    fn seal(&mut self, view: u16, step: u64) -> Result<u64, Found>;

    /// The tickets alone.
    fn tickets(&mut self, view: u16, step: u64) -> Result<u64, Found>;

    /// One of a worker's own words.
    fn load(&mut self, worker: u16, index: usize) -> Option<u64>;

    /// What a worker shows its parent, if it is of that attempt.
    fn shown(&mut self, worker: u16, tag: Tag) -> Option<Shown>;

    /// Copies `bytes` bytes from `at` in another worker's vectors to `into` in this one's. They may be torn.
    fn fetch(&mut self, worker: u16, at: usize, into: usize, bytes: usize) -> Option<()>;

    /// Bytes that are best fetched at a time.
    fn piece(&self) -> usize;

    /// The gradient is complete: goes as far as the step goes straight, looking so often (the last argument) at what is not there
    /// yet; nowhere, where there is no such way.
    fn go_straight(_: &mut Core<Self>, _: u32) {}

    /// Everybody adds up for itself.
    fn sum_up(core: &mut Core<Self>, tag: Tag) -> Did;

    /// Wakes a worker, should it sleep.
    fn wake(&self, worker: u16);

    /// Wakes all others, just after this worker has changed a word at home by a compare-and-swap.
    fn wake_others(&self);

    /// How this worker waits.
    fn patience(&self) -> Patience;

    /// Sleeps, unless `ready` says that there is no need.
    fn sleep(core: &mut Core<Self>, at_most: Duration, ready: impl FnOnce(&mut Core<Self>) -> bool);

    /// Tells of all workers that have ended, and how they went.
    fn each_ended(&self, each: &mut dyn FnMut(u32, String));

    /// Whether a worker has ended.
    fn is_gone(&self, worker: u16) -> bool;

    /// Whether a worker's memory can be reached at once: nobody has to be asked for a way first.
    fn has_way(&self, worker: u16) -> bool;

    /// Whether nothing of a worker is to be had any more: it has ended, or has left the barrier.
    fn has_left(&self, worker: u16) -> bool;

    /// Whether words at that worker's home are gone for good, as the words of a view whose home it is are.
    fn is_lost(&mut self, home: u16) -> bool;
}
