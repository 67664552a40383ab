//! Memory that all ranks of a benchmark on one host see, apart from the library's: where they meet at an instant of their
//! common clock, and where each notes its moments. It goes through nothing that is measured.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags, ftruncate, memfd_create, open};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use sapwood::communicator::Communicator;
use sapwood::observe::Clock;

/// Words between words of different ranks: no two share a cache line, nor one with its neighbour that is fetched with it.
const APART: usize = 16;
/// How far ahead the last one to come sets the instant: more than it takes the others to see it.
const AHEAD: Duration = Duration::from_micros(3);
/// Looks before a waiting rank gives its core to others.
const SPINS: u32 = 20_000;
/// A wait of this length is for no rank that is only a little late: from then on the core is left to others altogether.
const LONG: Duration = Duration::from_millis(100);
const NAP: Duration = Duration::from_millis(1);
/// Round trips that are timed together, and how often: the median counts.
const EXCHANGES: u64 = 500;
const BATCHES: usize = 21;

/// See the module.
pub(super) struct Shared {
    pub(super) clock: Clock,
    base: NonNull<AtomicU64>,
    words: usize,
    rank: u32,
    ranks: u32,
    /// Words that each rank has for what it notes.
    notes: usize,
    meetings: u64,
    /// Microseconds of a tick.
    tick: f64,
    /// [`AHEAD`] in ticks.
    ahead: u64,
    timeout: Duration,
    pids: Vec<u32>,
}

impl Shared {
    /// Shares it. Collective.
    pub(super) fn new(communicator: &Communicator, notes: usize) -> io::Result<Self> {
        let (rank, ranks) = (communicator.rank(), communicator.size());
        let notes = notes.next_multiple_of(APART);
        let words = (2 + ranks as usize) * APART + ranks as usize * notes;
        let made = (rank == 0).then(|| make(8 * words)).transpose()?;
        let own = made.as_ref().map_or(0, AsRawFd::as_raw_fd);
        let own = [std::process::id(), own as u32].map(u32::to_le_bytes).concat();
        let all = communicator
            .all_gather_bytes("sharing a page to meet at", &own)
            .map_err(io::Error::other)?;
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
        let pids = all.iter().map(|one| number(&one[..4])).collect::<Vec<_>>();
        let file = match made {
            Some(file) => file,
            None => {
                let path = format!("/proc/{}/fd/{}", pids[0], number(&all[0][4..]));
                open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|error| io::Error::other(format!("{path}: {error}")))?
            }
        };
        // SAFETY: a new mapping, which takes nobody's place.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                8 * words,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                &file,
                0,
            )
        }?;
        // Rank 0's descriptor is open until all have opened it.
        communicator.barrier().map_err(io::Error::other)?;
        let clock = Clock::new();
        std::thread::sleep(Duration::from_millis(10));
        let now = clock.now();
        let conversion = clock.conversion();
        let million = conversion.nanoseconds(now) - conversion.nanoseconds(now - 1_000_000);
        let tick = million as f64 / 1e9;
        Ok(Self {
            clock,
            base: NonNull::new(base.cast()).expect("a mapping is not at 0"),
            words,
            rank,
            ranks,
            notes,
            meetings: 0,
            tick,
            ahead: (AHEAD.as_secs_f64() * 1e6 / tick) as u64,
            timeout: communicator.timeout(),
            pids,
        })
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words);
        // SAFETY: within the mapping, aligned, and accessed only atomically by all who have it.
        unsafe { self.base.add(index).as_ref() }
    }

    /// The process of a rank.
    pub(super) fn pid(&self, rank: u32) -> u32 {
        self.pids[rank as usize]
    }

    /// Waits until all ranks have come, and then for an instant that is the same for all of them.
    pub(super) fn meet(&mut self) -> io::Result<()> {
        self.meetings += 1;
        let (came, instant) = (self.word(0), self.word(APART));
        let before = instant.load(Acquire);
        let at = if came.fetch_add(1, AcqRel) + 1 == self.meetings * u64::from(self.ranks) {
            let at = self.clock.now() + self.ahead;
            instant.store(at, Release);
            at
        } else {
            self.wait("the other ranks to come to the meeting point", || {
                Some(instant.load(Acquire)).filter(|at| *at != before)
            })?
        };
        while self.clock.now() < at {
            std::hint::spin_loop();
        }
        Ok(())
    }

    fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> io::Result<T> {
        let mut since = None;
        loop {
            for _ in 0..SPINS {
                if let Some(found) = look() {
                    return Ok(found);
                }
                std::hint::spin_loop();
            }
            let waited = since.get_or_insert_with(Instant::now).elapsed();
            if waited >= self.timeout {
                return Err(io::Error::other(format!(
                    "rank {}: waited {:?} for {what}",
                    self.rank, self.timeout
                )));
            }
            match waited < LONG {
                true => std::thread::yield_now(),
                false => std::thread::sleep(NAP),
            }
        }
    }

    /// Notes something for all to read after the next meeting.
    pub(super) fn note(&self, index: usize, value: u64) {
        assert!(index < self.notes);
        self.word(self.notes_at(self.rank) + index).store(value, Relaxed);
    }

    /// What a rank has noted.
    pub(super) fn noted(&self, rank: u32, index: usize) -> u64 {
        assert!(index < self.notes);
        self.word(self.notes_at(rank) + index).load(Relaxed)
    }

    fn notes_at(&self, rank: u32) -> usize {
        (2 + self.ranks as usize) * APART + rank as usize * self.notes
    }

    /// How long a cache line takes to another rank's core and back, in microseconds: the median over rank 0 with each other
    /// one. Nothing where ranks share cores: they would take turns by the scheduler's clock.
    pub(super) fn round_trip(&mut self, cores: usize) -> io::Result<Option<f64>> {
        if self.ranks < 2 || self.ranks as usize > cores {
            return Ok(None);
        }
        let mut trips = Vec::new();
        for peer in 1..self.ranks {
            self.meet()?;
            let (lead, other) = (self.rank == 0, self.rank == peer);
            let line = |rank: u32| self.word((2 + rank as usize) * APART);
            let (mine, theirs) = (line(self.rank), line(if lead { peer } else { 0 }));
            let mut batches = Vec::new();
            let mut number = u64::from(peer) << 32;
            for _ in 0..if lead || other { BATCHES } else { 0 } {
                let begin = self.clock.now();
                for _ in 0..EXCHANGES {
                    number += 1;
                    if lead {
                        mine.store(number, Release);
                    }
                    self.wait("a cache line to come back", || {
                        (theirs.load(Acquire) >= number).then_some(())
                    })?;
                    if other {
                        mine.store(number, Release);
                    }
                }
                batches.push(self.clock.now() - begin);
            }
            if lead {
                batches.sort_unstable();
                self.note(0, batches[BATCHES / 2]);
            }
            self.meet()?;
            trips.push(self.noted(0, 0));
            self.meet()?;
        }
        trips.sort_unstable();
        let ticks = trips[trips.len() / 2];
        Ok(Some(self.microseconds(0, ticks) / EXCHANGES as f64))
    }

    /// From one moment to a later one; 0 if it is not later.
    pub(super) fn microseconds(&self, from: u64, to: u64) -> f64 {
        to.saturating_sub(from) as f64 * self.tick
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: what `new` mapped, to which no reference is left.
        unsafe {
            let _ = munmap(self.base.as_ptr().cast(), 8 * self.words);
        }
    }
}

fn make(bytes: usize) -> io::Result<OwnedFd> {
    let file = memfd_create("sapwood-bench", MemfdFlags::CLOEXEC)?;
    ftruncate(&file, bytes as u64)?;
    Ok(file)
}
