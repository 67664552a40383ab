//! Ranks that see each other's memory: all are connected when they join, and show each other their boards.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::thread::{CpuSet, sched_getaffinity};

use super::CommunicatorError;
use super::connect::Meeting;
use crate::engine::{Board, Group, Layout, PROCESSORS, SMALL_BYTES, WindowMap};
use crate::fabric::{Access, Endpoint, FabricError, Parcel, Patience, Registration, RemoteRegion};
use crate::memory::{HugePages, Region};

/// A rank's way to the others' memory.
pub(super) struct Mapped {
    endpoint: Box<dyn Endpoint>,
}

const PAGE: usize = 4096;
const LINE: usize = 64;
/// From one rank's to the next one's; odd, so that 64 ranks have places of their own.
const LINES_APART: usize = 17;

/// A rank's board in its memory, not at the beginning: where on all boards the same things had the same place in their pages, a
/// processor would take a load from a peer's board for one of what it has just stored on its own, and wait for that.
///
/// # Safety
/// As [`Board::new`], with a page more.
unsafe fn board(base: NonNull<u8>, rank: u32, layout: Layout, memory: Arc<dyn Any + Send + Sync>) -> Board {
    let shift = rank as usize * LINES_APART * LINE % PAGE;
    // SAFETY: the caller's contract; the shift is less than a page, and of whole lines.
    unsafe { Board::new(base.add(shift), layout, memory) }
}

impl Mapped {
    /// Connects a queue pair to every rank, and to itself. Collective.
    pub(super) fn connect(meeting: &Meeting, ranks: u32, generation: u32) -> Result<Self, CommunicatorError> {
        let rank = meeting.rank;
        let mut endpoint = meeting.fabric.endpoint(rank, generation)?;
        let mine = (0..ranks)
            .map(|peer| endpoint.prepare(peer))
            .collect::<Result<Vec<_>, _>>()?;
        let mut mine = mine.into_iter().map(Some).collect::<Vec<_>>();
        // One round for each rank, in which it hands out what it has for each other: so nobody holds more than one
        // rank's descriptors at a time.
        for giver in 0..ranks {
            let (mut payload, mut descriptors, mut counts) = (Vec::new(), Vec::new(), Vec::new());
            if giver == rank {
                for parcel in mine
                    .iter_mut()
                    .map(|parcel| parcel.take().expect("each is given once"))
                {
                    counts.push(parcel.descriptors.len());
                    payload.push(parcel.bytes);
                    descriptors.extend(parcel.descriptors);
                }
            }
            let given = meeting.all_gather("connecting", &(payload, counts), descriptors)?;
            let ((payload, counts), mut descriptors): ((Vec<Vec<u8>>, Vec<usize>), _) =
                given.into_iter().nth(giver as usize).expect("one for each rank");
            let me = rank as usize;
            let before = counts.iter().take(me).sum::<usize>();
            let own = counts.get(me).copied().unwrap_or(0);
            let (Some(bytes), true) = (payload.into_iter().nth(me), before + own <= descriptors.len()) else {
                return Err(meeting.unusable(giver));
            };
            let descriptors = descriptors.drain(before..before + own).collect();
            let connected = endpoint.connect(giver, Parcel { bytes, descriptors });
            connected.map_err(|error| meeting.because("connecting", error.into()))?;
        }
        Ok(Self { endpoint })
    }

    /// Offers the bytes `offset..offset + len` of a region to all ranks and maps theirs. Collective.
    pub(super) fn share(
        &mut self,
        meeting: &mut Meeting,
        call: &'static str,
        (region, access): (&Region, Access),
        (offset, len): (usize, usize),
        kind: &str,
    ) -> Result<WindowMap, CommunicatorError> {
        let own = meeting.rank;
        let import = |peer, parcel| {
            let region = self.endpoint.import(peer, parcel)?;
            match region.mapped() {
                Some(_) => Ok(region),
                None => Err(FabricError::Parcel {
                    rank: own,
                    peer,
                    what: "memory to be mapped",
                    why: "it cannot be mapped here".into(),
                }),
            }
        };
        let shared = meeting.share(call, (region, access), (offset, len), kind, import)?;
        let mut memory: Vec<Arc<dyn Any + Send + Sync>> = vec![Arc::new(Held {
            _registration: shared.registration,
        })];
        let mut bases = Vec::with_capacity(shared.remote.len());
        for (rank, remote) in (0..).zip(shared.remote) {
            let Some((remote, offset)) = remote else {
                // SAFETY: the caller's range lies in its region.
                bases.push(unsafe { region.base().add(offset) });
                continue;
            };
            let base = remote.mapped().ok_or_else(|| meeting.unusable(rank))?;
            // SAFETY: `Meeting::share` has checked it against the length of what is mapped there.
            bases.push(unsafe { base.add(offset) });
            memory.push(Arc::new(Imported { _remote: remote }));
        }
        // SAFETY: each base is that rank's memory of `len` bytes, mapped as `access` allows; `memory` keeps all of it.
        Ok(unsafe { WindowMap::new(shared.id, meeting.rank, bases.into(), len, memory) })
    }

    /// The boards and bells of all ranks, for programs of at least `tasks` tasks. Collective.
    pub(super) fn group(
        &mut self,
        meeting: &mut Meeting,
        ranks: u32,
        tasks: usize,
    ) -> Result<(Group, Layout), CommunicatorError> {
        let layout = Layout::new(ranks, tasks, SMALL_BYTES);
        let bytes = layout.bytes() + PAGE;
        let region = Region::host(bytes, HugePages::Never)?;
        // SAFETY: a fresh region of that size, on a page, as zeroes, which this rank alone writes and the handle keeps.
        let own = unsafe { board(region.base(), meeting.rank, layout, Arc::new(region.clone())) };
        // Before the others have it.
        own.show_processors(processors());
        let map = Arc::new(self.share(
            meeting,
            "sharing boards",
            (&region, Access::READ),
            (0, bytes),
            "board",
        )?);
        let boards = (0..).zip(map.bases()).map(|(rank, base)| {
            let memory: Arc<dyn Any + Send + Sync> = map.clone();
            // SAFETY: `share` has checked that there are this many bytes; regions start on a page as zeroes; only
            // the owner writes there, and the map keeps them.
            unsafe { board(*base, rank, layout, memory) }
        });
        let boards = boards.collect::<Box<[Board]>>();
        let bells = (0..ranks)
            .map(|rank| self.endpoint.doorbell(rank))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| meeting.unusable(meeting.rank))?;
        let processors = processors_of_all(&boards);
        let patience = Patience::on_cores(ranks as usize, cores(processors));
        let liveness = Box::new(meeting.members.clone());
        let group = Group::new(meeting.rank, boards, bells.into(), patience, processors, liveness);
        Ok((group, layout))
    }
}

/// The processors that this rank may run on.
fn processors() -> [u64; PROCESSORS] {
    let mut words = [0; PROCESSORS];
    if let Ok(allowed) = sched_getaffinity(None) {
        for processor in (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)) {
            words[processor / 64 % PROCESSORS] |= 1 << (processor % 64);
        }
    }
    words
}

/// How many processors all ranks may run on between them: each may be bound to one. The same on every rank.
fn processors_of_all(boards: &[Board]) -> usize {
    let mut words = [0; PROCESSORS];
    for board in boards {
        let theirs = board.processors();
        words
            .iter_mut()
            .zip(theirs)
            .for_each(|(word, theirs)| *word |= theirs);
    }
    count(&words)
}

/// How many of them this rank may count on: a control group may give less time than there are processors.
fn cores(of_all: usize) -> usize {
    let given = std::thread::available_parallelism().map_or(1, |given| given.get());
    match given < count(&processors()) {
        true => given,
        false => of_all,
    }
}

fn count(words: &[u64]) -> usize {
    words.iter().map(|word| word.count_ones() as usize).sum()
}

// The engine keeps these alive without knowing what they are.
struct Held {
    _registration: Arc<dyn Registration>,
}
struct Imported {
    _remote: Arc<dyn RemoteRegion>,
}
