//! Every access to every place of one block is in order, whatever the timing.
//!
//! # Why one chunk, and one more chunk than slots, suffice
//! An ordering is a path of waits. Waits with a lag are the same for every chunk, so a path that leads from chunk
//! `k + d` of one task back to chunk `k` of another exists for all `k` or for none, in any number of chunks that holds
//! both; `d` bounds the lags along it. A path through `Whole` starts anew at the last chunk, so it is hardest to find
//! for accesses at the last chunk.
//!
//! - Chunk `k` of an input or result is touched for chunk `k` only: `d` = 0. So are the accesses of one use of a staging
//!   slot. One chunk, which is first and last, is the hardest case: no lag and no head start helps there. The same holds
//!   for "after the owner has begun" and "before it has ended".
//! - A staging slot is used again `slots` chunks later: `d` = `slots`. Of `slots + 1` chunks the last one meets the first
//!   in their slot, and it is the last. Chunks further apart follow through those between them.
//! - Slots whose writer itself waits for each reader chunk by chunk need no such look.
//!
//! # In place
//! Where input and result are one memory, every read of the input must come before the result is first written. This
//! is asked of all plans; with it each value read is the same either way. A copy of a rank's input into its own result
//! moves nothing then. Where a rank gives or gets its own part only, that part lies in place inside of the longer buffer
//! ([`Placement`](crate::plan::Placement)): a block shares memory with itself alone, and only where the rank both gives
//! and gets it. (An all-to-all is never in place: there it would share memory with another block.)

use std::collections::{BTreeMap, BTreeSet};

use super::error::{At, VerifyError};
use super::graph::{Graph, Moment, at};
use super::part::Part;
use super::{Claim, Proof, outcome};
use crate::plan::lowered::{Action, Buffer, Place, Progress, Rank};

struct Access {
    task: u32,
    moment: Moment,
}

/// All accesses to one buffer of one rank in the block.
#[derive(Default)]
struct Accesses {
    reads: Vec<Access>,
    /// By moment.
    writes: Vec<Access>,
}

impl Accesses {
    fn of(
        part: &Part<'_>,
        graph: &Graph,
        chunk: u32,
        wanted: impl Fn(Buffer) -> bool,
    ) -> BTreeMap<(Rank, Order), Self> {
        let mut map: BTreeMap<(Rank, Order), Self> = BTreeMap::new();
        for (index, task) in part.tasks.iter().enumerate() {
            let (sources, into) = ends(&task.action);
            for place in sources.iter().filter(|place| wanted(place.buffer)) {
                let access = Access {
                    task: index as u32,
                    moment: graph.runs(index, chunk),
                };
                map.entry((place.rank, Order::of(place.buffer)))
                    .or_default()
                    .reads
                    .push(access);
            }
            for place in into.iter().filter(|place| wanted(place.buffer)) {
                let access = Access {
                    task: index as u32,
                    moment: graph.lands(index, place.rank, chunk),
                };
                map.entry((place.rank, Order::of(place.buffer)))
                    .or_default()
                    .writes
                    .push(access);
            }
        }
        for accesses in map.values_mut() {
            accesses.writes.sort_by_key(|access| access.moment);
        }
        map
    }
}

/// A buffer as a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Input,
    Result,
    Staging { first: u32, slots: u32 },
}

impl Order {
    fn of(buffer: Buffer) -> Self {
        match buffer {
            Buffer::Input => Self::Input,
            Buffer::Result => Self::Result,
            Buffer::Staging { first, slots } => Self::Staging { first, slots },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Result => "result",
            Self::Staging { .. } => "staging slot",
        }
    }
}

/// Orderings to ask for, and what to say if one is missing.
struct Demands<'a> {
    part: &'a Part<'a>,
    pairs: Vec<(Moment, Moment)>,
    meanings: Vec<Meaning>,
}

#[derive(Clone, Copy)]
enum Meaning {
    Accesses {
        owner: Rank,
        buffer: Order,
        first: u32,
        second: u32,
        reason: &'static str,
    },
    Lifetime {
        owner: Rank,
        buffer: Order,
        task: u32,
        begun: bool,
    },
}

impl Demands<'_> {
    fn order(
        &mut self,
        (owner, buffer): (Rank, Order),
        first: &Access,
        second: &Access,
        reason: &'static str,
    ) {
        self.pairs.push((first.moment, second.moment));
        let (first, second) = (first.task, second.task);
        self.meanings.push(Meaning::Accesses {
            owner,
            buffer,
            first,
            second,
            reason,
        });
    }

    fn lifetime(&mut self, graph: &Graph, (owner, buffer): (Rank, Order), access: &Access) {
        let task = access.task;
        if at(self.part, task).rank != owner {
            self.pairs.push((graph.begin(owner), access.moment));
            self.meanings.push(Meaning::Lifetime {
                owner,
                buffer,
                task,
                begun: false,
            });
            self.pairs.push((access.moment, graph.end(owner)));
            self.meanings.push(Meaning::Lifetime {
                owner,
                buffer,
                task,
                begun: true,
            });
        }
    }

    fn check(self, graph: &Graph, proof: &mut Proof) -> Result<(), VerifyError> {
        proof.orderings += self.pairs.len() as u64;
        let Some(failed) = graph.first_unordered(&self.pairs) else {
            return Ok(());
        };
        let named = |task: u32| At {
            block: self.part.block,
            ..at(self.part, task)
        };
        Err(match self.meanings[failed] {
            Meaning::Accesses {
                owner,
                buffer,
                first,
                second,
                reason,
            } => VerifyError::Race {
                owner,
                place: buffer.name(),
                first: named(first),
                second: named(second),
                reason,
            },
            Meaning::Lifetime {
                owner,
                buffer,
                task,
                begun,
            } => VerifyError::Lifetime {
                at: named(task),
                owner,
                place: buffer.name(),
                begun,
            },
        })
    }
}

const WRITES: &str = "write it in no fixed order";
const OVERWRITTEN: &str = "may meet: the second overwrites what the first reads";
const TOO_EARLY: &str = "may meet: the second reads what the first writes";
const IN_PLACE: &str = "may meet in place: the second overwrites the input that the first reads";
const REUSED: &str = "may meet in one slot: the second reuses it before the first is done";

/// All but the reuse of slots; then the values.
pub(super) fn one_chunk(claim: &Claim, part: &Part<'_>, proof: &mut Proof) -> Result<(), VerifyError> {
    let graph = Graph::new(part, claim.reach, 1)?;
    let map = Accesses::of(part, &graph, 0, |_| true);
    let mut demands = Demands {
        part,
        pairs: Vec::new(),
        meanings: Vec::new(),
    };
    for (&key, accesses) in &map {
        for access in accesses.reads.iter().chain(&accesses.writes) {
            demands.lifetime(&graph, key, access);
        }
        let (owner, buffer) = key;
        if buffer == Order::Input {
            let result = map.get(&(owner, Order::Result));
            let moves = |access: &&Access| !copies_own_input(&part.tasks[access.task as usize].action, owner);
            let first_write = result.and_then(|result| result.writes.iter().find(moves));
            for read in &accesses.reads {
                if let Some(write) = first_write.filter(|write| write.moment != read.moment) {
                    demands.order(key, read, write, IN_PLACE);
                }
            }
            continue;
        }
        for pair in accesses.writes.windows(2) {
            demands.order(key, &pair[0], &pair[1], WRITES);
        }
        for read in &accesses.reads {
            let before = accesses
                .writes
                .partition_point(|write| write.moment < read.moment);
            let Some(last) = before.checked_sub(1) else {
                let at = at(part, read.task);
                return Err(VerifyError::Unwritten {
                    at,
                    owner,
                    place: buffer.name(),
                });
            };
            demands.order(key, &accesses.writes[last], read, TOO_EARLY);
            // A task reads before it writes.
            if let Some(next) = accesses
                .writes
                .get(before)
                .filter(|write| write.moment != read.moment)
            {
                demands.order(key, read, next, OVERWRITTEN);
            }
        }
    }
    proof.places += map.len() as u64;
    demands.check(&graph, proof)?;
    outcome::values(claim, part, &graph)
}

/// Staging slots are reused only when their last use is over.
pub(super) fn reused_slots(claim: &Claim, part: &Part<'_>, proof: &mut Proof) -> Result<(), VerifyError> {
    let open = not_given_back(part)?;
    let most = open.iter().filter_map(|&(_, buffer)| slots_of(buffer)).max();
    let Some(most) = most else {
        return Ok(());
    };
    let graph = Graph::new(part, claim.reach, most + 1)?;
    let mut demands = Demands {
        part,
        pairs: Vec::new(),
        meanings: Vec::new(),
    };
    let last = graph.chunks - 1;
    let staging = |buffer: Buffer| matches!(buffer, Buffer::Staging { .. });
    let at_last = Accesses::of(part, &graph, last, staging);
    let mut sizes: Vec<u32> = open.iter().filter_map(|&(_, buffer)| slots_of(buffer)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for size in sizes {
        let earlier = Accesses::of(part, &graph, last - size, staging);
        let of_size = |key: &(Rank, Order)| slots_of(key.1) == Some(size) && open.contains(key);
        for (&key, later) in at_last.iter().filter(|(key, _)| of_size(key)) {
            let Some(earlier) = earlier.get(&key) else {
                continue;
            };
            for write in &later.writes {
                for access in earlier.reads.iter().chain(&earlier.writes) {
                    demands.order(key, access, write, REUSED);
                }
            }
        }
    }
    demands.check(&graph, proof)
}

/// Staging whose only writer does not wait by itself, chunk by chunk, until all readers have done with a slot. Where it
/// does, nothing is left to prove: it writes its chunks one after the other, and a chunk has been written when it is read.
/// So it is with a run of blocks, whose chunks go through the slots one after the other as if it were one block; there
/// nothing else will do, since what is looked at here is one of its blocks alone.
fn not_given_back(part: &Part<'_>) -> Result<BTreeSet<(Rank, Order)>, VerifyError> {
    let mut uses: BTreeMap<(Rank, Order), (Vec<u32>, Vec<u32>)> = BTreeMap::new();
    for (task, index) in part.tasks.iter().zip(0..) {
        let (sources, into) = ends(&task.action);
        for (places, writes) in [(sources, false), (into, true)] {
            let staging = places
                .iter()
                .filter(|place| slots_of(Order::of(place.buffer)).is_some());
            for place in staging {
                let (writers, readers) = uses.entry((place.rank, Order::of(place.buffer))).or_default();
                if writes { writers } else { readers }.push(index);
            }
        }
    }
    let mut open = BTreeSet::new();
    for (&(owner, buffer), (writers, readers)) in &uses {
        let slots = slots_of(buffer).unwrap_or(0);
        let waits_for = |writer: u32, reader: u32| {
            let mut waits = part.tasks[writer as usize].waits.iter();
            waits.any(|&(task, progress)| {
                task == reader && matches!(progress, Progress::Chunk { lag } if lag <= slots)
            })
        };
        let missing = match writers[..] {
            [writer] => readers.iter().copied().find(|reader| !waits_for(writer, *reader)),
            _ => writers.first().copied(),
        };
        let Some(missing) = missing else { continue };
        let long = writers
            .iter()
            .chain(readers)
            .find(|task| part.tasks[**task as usize].long);
        if let Some(&long) = long {
            return Err(VerifyError::Race {
                owner,
                place: buffer.name(),
                first: at(part, missing),
                second: at(part, writers.first().copied().unwrap_or(long)),
                reason: REUSED,
            });
        }
        open.insert((owner, buffer));
    }
    Ok(open)
}

fn slots_of(buffer: Order) -> Option<u32> {
    match buffer {
        Order::Staging { slots, .. } => Some(slots),
        Order::Input | Order::Result => None,
    }
}

/// Whether an action copies `rank`'s input into its own result, which in place is no write.
fn copies_own_input(action: &Action, rank: Rank) -> bool {
    matches!(action, Action::Copy { source, .. } if *source == Place { rank, buffer: Buffer::Input })
}

/// Where an action reads and where it writes.
pub(super) fn ends(action: &Action) -> (&[Place], &[Place]) {
    match action {
        Action::Signal => (&[], &[]),
        Action::Reduce { sources, into, .. } => (sources, into),
        Action::Copy { source, into } => (std::slice::from_ref(source), into),
    }
}
