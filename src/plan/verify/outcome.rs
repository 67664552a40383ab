//! What comes out: each contribution exactly once, complete where it must be; a barrier that holds everybody back.
//!
//! Each rank's input is a random 128-bit number and a reduction a wrapping sum: a missing, repeated or foreign
//! contribution goes unnoticed with probability 2^-128. The moments are in an order that respects all waits, and every
//! access has been shown to be ordered, so one run in that order stands for all.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::error::VerifyError;
use super::graph::{Graph, Moment};
use super::memory::ends;
use super::part::Part;
use super::{Claim, Proof};
use crate::plan::dataflow::Symmetry;
use crate::plan::lowered::{Action, Buffer, Place, Rank};

/// What a place holds.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Held {
    sum: u128,
    complete: bool,
}

struct Fingerprints {
    hashers: [RandomState; 2],
}

impl Fingerprints {
    fn new() -> Self {
        Self {
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    fn of(&self, rank: Rank) -> u128 {
        let [high, low] = &self.hashers;
        u128::from(high.hash_one(rank)) << 64 | u128::from(low.hash_one(rank))
    }
}

/// Runs the block with one chunk and looks at the results.
pub(super) fn values(claim: &Claim, part: &Part<'_>, graph: &Graph) -> Result<(), VerifyError> {
    let fingerprints = Fingerprints::new();
    // In order of time: a task runs, or what it wrote into another rank's memory arrives.
    let mut happenings: Vec<(Moment, u32, Option<Place>)> = Vec::new();
    for (index, task) in part.tasks.iter().enumerate() {
        let moment = graph.runs(index, 0);
        happenings.push((moment, index as u32, None));
        let landings = ends(&task.action)
            .1
            .iter()
            .map(|&place| (graph.lands(index, place.rank, 0), place));
        happenings.extend(landings.map(|(lands, place)| (lands, index as u32, Some(place))));
    }
    // A task computes before it writes at the same moment: nothing orders before something.
    happenings.sort_by_key(|&(moment, index, place)| (moment, index, place.is_some()));

    let mut held: HashMap<Place, Held> = HashMap::new();
    let mut computed: Vec<Option<Held>> = vec![None; part.tasks.len()];
    for (_, index, place) in happenings {
        let task = &part.tasks[index as usize];
        let block = part.block;
        let wrong = |reason: &str| VerifyError::Malformed {
            at: super::At { block, ..task.at },
            reason: reason.to_owned(),
        };
        if let Some(place) = place {
            held.extend(computed[index as usize].map(|value| (place, value)));
            continue;
        }
        let read = |place: &Place| match place.buffer {
            Buffer::Input => Ok(Held {
                sum: fingerprints.of(place.rank),
                complete: false,
            }),
            _ => held
                .get(place)
                .copied()
                .ok_or_else(|| wrong("it reads a place that holds nothing")),
        };
        computed[index as usize] = match &*task.action {
            Action::Signal => None,
            Action::Copy { source, .. } => Some(read(source)?),
            Action::Reduce {
                sources, complete, ..
            } => {
                let mut sum = 0u128;
                for source in sources {
                    let value = read(source)?;
                    if value.complete {
                        return Err(wrong("it combines something that is complete already"));
                    }
                    sum = sum.wrapping_add(value.sum);
                }
                Some(Held {
                    sum,
                    complete: *complete,
                })
            }
        };
    }

    let cut = claim.cut()?;
    let contributors = (0..claim.ranks).filter(|&rank| cut.contributes(rank, part.block));
    let wanted = contributors.fold(0u128, |sum, rank| sum.wrapping_add(fingerprints.of(rank)));
    let reduced = cut.combines() && claim.ranks > 1;
    for rank in (0..claim.ranks).filter(|&rank| cut.defines(rank, part.block)) {
        let failed = |reason: String| VerifyError::Outcome {
            rank,
            block: part.block,
            reason,
        };
        let Some(value) = held.get(&Place {
            rank,
            buffer: Buffer::Result,
        }) else {
            return Err(failed("its result is never written".to_owned()));
        };
        if value.sum != wanted {
            return Err(failed(explain(
                claim,
                &fingerprints,
                value.sum.wrapping_sub(wanted),
            )));
        }
        if value.complete != reduced {
            let said = if reduced {
                "is not marked"
            } else {
                "is marked as a"
            };
            return Err(failed(format!("its result {said} complete combination")));
        }
    }
    Ok(())
}

/// In words, if it is one contribution that is too much or too little.
fn explain(claim: &Claim, fingerprints: &Fingerprints, difference: u128) -> String {
    for rank in 0..claim.ranks {
        if difference == fingerprints.of(rank) {
            return format!("its result holds rank {rank}'s contribution once too often");
        }
        if difference == fingerprints.of(rank).wrapping_neg() {
            return format!("its result lacks rank {rank}'s contribution");
        }
    }
    "its result holds the wrong contributions".to_owned()
}

/// No rank ends before every rank has begun.
pub(super) fn barrier(claim: &Claim, part: &Part<'_>, proof: &mut Proof) -> Result<(), VerifyError> {
    // Without chunks, since signals alone must do it.
    let graph = Graph::new(part, claim.reach, 0)?;
    let ends: Vec<Rank> = match claim.symmetry {
        Symmetry::Rotation => vec![0],
        Symmetry::None => (0..claim.ranks).collect(),
    };
    proof.orderings += u64::from(claim.ranks) * ends.len() as u64;
    match graph.first_early_end(&ends) {
        Some((late, early)) => Err(VerifyError::Barrier { early, late }),
        None => Ok(()),
    }
}
