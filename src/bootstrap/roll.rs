//! The roll: one shared page on which every rank writes, for all others to read without asking anybody, whether it
//! has joined, how it left, and which collective step it has come to.
//!
//! It is what tells a clean leave from a death, and what lets every rank name the missing ones at a deadline even
//! where rank 0 is the one that is stuck. Each entry is written by its own rank only, except for the first
//! mark, which rank 0 makes before it hands the roll to that rank.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::ballot::Ballot;
use super::{BootstrapError, Rank};

/// What a rank says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Presence {
    Absent = 0,
    Joined = 1,
    Left = 2,
    Panicked = 3,
    GaveUp = 4,
}

/// What a rank may say of why it has given up: its length, and that many bytes, in words.
const WORDS: usize = 64;
const LONGEST: usize = (WORDS - 1) * size_of::<u64>();

/// Beside the presence: the rank has left, however it did.
const AWAY: u64 = 0x80;

/// In the word of a rank's lives: it could not come back.
const FOR_GOOD: u64 = 1 << 63;

/// Entries of the shared page: presence in the low byte, the number of the latest collective step above it. Behind them
/// is what the [`Ballot`] needs, then how often each rank has come back, and from the next page on each rank has a place for words, of which the kernel provides
/// those that are written.
pub(super) struct Roll {
    entries: NonNull<AtomicU64>,
    size: u32,
    descriptor: OwnedFd,
}

// SAFETY: the entries are atomics in a mapping that is owned by the value and unmapped only when it is dropped.
unsafe impl Send for Roll {}
// SAFETY: as above; a shared reference gives access to the atomics alone.
unsafe impl Sync for Roll {}

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

impl Roll {
    /// A new roll on which nobody has joined.
    pub(super) fn create(size: u32) -> Result<Self, BootstrapError> {
        let failed = || BootstrapError::system("memory file for the roll of ranks");
        let descriptor =
            rustix::fs::memfd_create("sapwood-roll", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
                .map_err(failed())?;
        rustix::fs::ftruncate(&descriptor, Self::bytes(size) as u64).map_err(failed())?;
        rustix::fs::fcntl_add_seals(&descriptor, SEALS | SealFlags::SEAL).map_err(failed())?;
        Self::map(descriptor, size)
    }

    /// The roll that rank 0 made. Refuses one that could shrink under the mapping or is not of the right size.
    pub(super) fn attach(descriptor: OwnedFd, size: u32) -> Result<Self, BootstrapError> {
        let odd = |problem: &str| BootstrapError::Protocol {
            rank: 0,
            problem: format!("the roll it sent {problem}"),
        };
        let seals = rustix::fs::fcntl_get_seals(&descriptor).map_err(|_| odd("is not a memory file"))?;
        if !seals.contains(SEALS) {
            return Err(odd("is not sealed against resizing"));
        }
        let length = rustix::fs::fstat(&descriptor)
            .map_err(BootstrapError::system("examining the roll"))?
            .st_size;
        if length != Self::bytes(size) as i64 {
            return Err(odd(&format!(
                "has {length} bytes instead of {}",
                Self::bytes(size)
            )));
        }
        Self::map(descriptor, size)
    }

    fn map(descriptor: OwnedFd, size: u32) -> Result<Self, BootstrapError> {
        // SAFETY: a fresh mapping at an address that the kernel chooses touches nothing that exists; the file is
        // sealed against shrinking, so that no access to it can fault.
        let address = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                Self::bytes(size),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &descriptor,
                0,
            )
        }
        .map_err(BootstrapError::system("mapping the roll of ranks"))?;
        let entries = NonNull::new(address.cast()).ok_or(BootstrapError::System {
            doing: "mapping the roll of ranks".into(),
            source: Errno::FAULT,
        })?;
        Ok(Self {
            entries,
            size,
            descriptor,
        })
    }

    fn bytes(size: u32) -> usize {
        let words = (size as usize * WORDS * size_of::<AtomicU64>()).next_multiple_of(4096);
        Self::bytes_before_words(size) + words
    }

    /// Three for each rank, and one for all.
    fn bytes_before_words(size: u32) -> usize {
        ((3 * size as usize + 1) * size_of::<AtomicU64>()).next_multiple_of(4096)
    }

    fn entries(&self) -> &[AtomicU64] {
        &self.entries_and_ballot()[..self.size as usize]
    }

    fn entries_and_ballot(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, at least that many words long, lives as long as `self`, and is only
        // ever accessed as atomics, by this process and by the other ranks.
        unsafe { std::slice::from_raw_parts(self.entries.as_ptr(), 3 * self.size as usize + 1) }
    }

    fn lives(&self) -> &[AtomicU64] {
        &self.entries_and_ballot()[2 * self.size as usize + 1..]
    }

    /// How often a rank has come back after a death.
    pub(super) fn life(&self, rank: Rank) -> u64 {
        self.lives()[rank as usize].load(Ordering::Acquire) & !FOR_GOOD
    }

    /// Says that a rank, which must be the caller, would be missed for good.
    pub(super) fn will_not_return(&self, rank: Rank) {
        self.lives()[rank as usize].fetch_or(FOR_GOOD, Ordering::AcqRel);
    }

    /// Whether a rank may come back if it dies.
    pub(super) fn may_return(&self, rank: Rank) -> bool {
        self.lives()[rank as usize].load(Ordering::Acquire) & FOR_GOOD == 0
    }

    /// A rank, which must be the caller and the only one to be it, has come back; says in which of its lives it is.
    pub(super) fn live_again(&self, rank: Rank) -> u64 {
        let life = self.lives()[rank as usize].fetch_add(1, Ordering::AcqRel) + 1;
        self.mark(rank, Presence::Joined);
        life
    }

    /// Where the survivors agree on who they are, seen from one of them.
    pub(super) fn ballot(&self, own: Rank) -> Ballot<'_> {
        let behind = &self.entries_and_ballot()[self.size as usize..];
        let (members, outcome) = behind.split_at(self.size as usize);
        Ballot {
            own,
            members,
            outcome: &outcome[0],
        }
    }

    fn words(&self, rank: Rank) -> &[AtomicU64] {
        let behind = Self::bytes_before_words(self.size) / size_of::<AtomicU64>();
        assert!(rank < self.size, "rank {rank} is not one of {}", self.size);
        // SAFETY: as above; the places of all ranks lie in the mapping, behind the entries, as `bytes` says.
        unsafe {
            std::slice::from_raw_parts(self.entries.as_ptr().add(behind + rank as usize * WORDS), WORDS)
        }
    }

    /// Says why a rank, which must be the caller, gives up, and marks it so. What is too long is not said; what was said
    /// first stays.
    pub(super) fn give_up(&self, rank: Rank, why: &[u8]) {
        if self.presence(rank) == Presence::GaveUp {
            return;
        }
        if let ([length, words @ ..], true) = (self.words(rank), why.len() <= LONGEST) {
            for (word, bytes) in words.iter().zip(why.chunks(size_of::<u64>())) {
                let mut whole = [0; size_of::<u64>()];
                whole[..bytes.len()].copy_from_slice(bytes);
                word.store(u64::from_le_bytes(whole), Ordering::Relaxed);
            }
            length.store(why.len() as u64, Ordering::Relaxed);
        }
        // Whoever sees the mark sees the words.
        self.mark(rank, Presence::GaveUp);
    }

    /// What a rank that has given up has said of why, if anything.
    pub(super) fn why(&self, rank: Rank) -> Option<Vec<u8>> {
        if self.presence(rank) != Presence::GaveUp {
            return None;
        }
        let (length, words) = self.words(rank).split_first()?;
        let length = length.load(Ordering::Relaxed);
        let length = usize::try_from(length)
            .ok()
            .filter(|length| (1..=LONGEST).contains(length))?;
        let bytes = words
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
        Some(bytes.take(length).collect())
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Sets a rank's presence and keeps its step.
    pub(super) fn mark(&self, rank: Rank, presence: Presence) {
        self.change(rank, |entry| entry & !0xff | presence as u64);
    }

    /// Says that a rank, which must be the caller, has come to a collective step.
    pub(super) fn come_to(&self, rank: Rank, step: u64) {
        // That it has given up, which another of its threads may just have said, stays.
        self.change(rank, |entry| match entry & 0xff == Presence::GaveUp as u64 {
            true => (step << 8) | Presence::GaveUp as u64,
            false => (step << 8) | Presence::Joined as u64,
        });
    }

    /// Threads of one rank may write at the same time.
    fn change(&self, rank: Rank, to: impl Fn(u64) -> u64) {
        let entry = &self.entries()[rank as usize];
        let _ = entry.fetch_update(Ordering::Release, Ordering::Relaxed, |entry| Some(to(entry)));
    }

    pub(super) fn presence(&self, rank: Rank) -> Presence {
        match self.entries()[rank as usize].load(Ordering::Acquire) & 0xff & !AWAY {
            0 => Presence::Absent,
            1 => Presence::Joined,
            2 => Presence::Left,
            3 => Presence::Panicked,
            _ => Presence::GaveUp,
        }
    }

    /// Says that a rank, which must be the caller, has left: nothing comes from it any more.
    pub(super) fn leave(&self, rank: Rank) {
        self.entries()[rank as usize].fetch_or(AWAY, Ordering::Release);
    }

    /// Whether a rank has left, however it did.
    pub(super) fn has_left(&self, rank: Rank) -> bool {
        self.entries()[rank as usize].load(Ordering::Acquire) & AWAY != 0
    }

    /// The ranks that have not joined.
    pub(super) fn absent(&self) -> Vec<Rank> {
        (0..self.size)
            .filter(|&rank| self.presence(rank) == Presence::Absent)
            .collect()
    }

    /// The ranks that have not come to a step.
    pub(super) fn behind(&self, step: u64) -> Vec<Rank> {
        let arrived = |rank: &Rank| self.entries()[*rank as usize].load(Ordering::Acquire) >> 8 >= step;
        (0..self.size).filter(|rank| !arrived(rank)).collect()
    }
}

impl Drop for Roll {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and no reference to it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.entries.as_ptr().cast(), Self::bytes(self.size)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_see_the_same_roll() {
        let first = Roll::create(5).unwrap();
        let second = Roll::attach(first.descriptor().try_clone_to_owned().unwrap(), 5).unwrap();
        first.mark(3, Presence::Joined);
        assert_eq!(second.absent(), [0, 1, 2, 4]);
        second.come_to(3, 7);
        assert_eq!(first.behind(7), [0, 1, 2, 4]);
        assert_eq!(first.behind(8), [0, 1, 2, 3, 4]);
        second.mark(3, Presence::Left);
        assert_eq!(first.presence(3), Presence::Left);
        assert_eq!(first.behind(7), [0, 1, 2, 4]);
    }

    #[test]
    fn who_comes_back_lives_again() {
        let first = Roll::create(5).unwrap();
        let second = Roll::attach(first.descriptor().try_clone_to_owned().unwrap(), 5).unwrap();
        first.mark(4, Presence::Panicked);
        first.leave(4);
        assert!(second.has_left(4) && second.may_return(4) && second.life(4) == 0);
        assert_eq!(first.live_again(4), 1);
        assert!(!second.has_left(4));
        assert_eq!((second.presence(4), second.life(4)), (Presence::Joined, 1));
        second.will_not_return(3);
        assert!(!first.may_return(3) && first.may_return(4));
        assert_eq!((first.life(3), second.live_again(4)), (0, 2));
    }

    #[test]
    fn who_gives_up_says_why() {
        let first = Roll::create(5).unwrap();
        let second = Roll::attach(first.descriptor().try_clone_to_owned().unwrap(), 5).unwrap();
        first.mark(4, Presence::Joined);
        assert_eq!(second.why(4), None);
        first.give_up(1, &[]);
        first.come_to(1, 7);
        assert_eq!(
            (second.presence(1), second.behind(7).contains(&1)),
            (Presence::GaveUp, false)
        );
        first.give_up(4, b"there is no memory left");
        first.give_up(4, b"and then some");
        assert_eq!(second.why(4).unwrap(), b"there is no memory left");
        // The places of others are their own, the longest text fits, and a longer one is left out.
        first.give_up(3, &[7; LONGEST]);
        first.give_up(2, &[8; LONGEST + 1]);
        assert_eq!(second.why(3).unwrap(), [7; LONGEST]);
        assert_eq!((second.presence(2), second.why(2)), (Presence::GaveUp, None));
        assert_eq!(second.why(4).unwrap(), b"there is no memory left");
    }

    #[test]
    fn a_roll_of_the_wrong_size_or_without_seals_is_refused() {
        let roll = Roll::create(5).unwrap();
        assert!(Roll::attach(roll.descriptor().try_clone_to_owned().unwrap(), 4096).is_err());
        let others = Roll::attach(roll.descriptor().try_clone_to_owned().unwrap(), 5).unwrap();
        assert_eq!(roll.ballot(3).come(), Ok(0));
        assert_eq!(others.ballot(0).survivors(0), Some(Err(vec![0, 1, 2, 4])));
        assert_eq!(roll.absent(), [0, 1, 2, 3, 4]);
        let unsealed =
            rustix::fs::memfd_create("unsealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&unsealed, 4096).unwrap();
        assert!(Roll::attach(unsealed, 5).is_err());
        let file = OwnedFd::from(tempfile::tempfile().unwrap());
        assert!(Roll::attach(file, 5).is_err());
    }
}
