//! Settings of an exchange, and what is asked before it is made.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::backups::Backups;
use super::collective::Collective;
use super::exchange::{Exchange, Way};
use super::state::Names;
use super::{ExchangeError, Participation};
use crate::communicator::{Communicator, CommunicatorError};
use crate::engine::MAXIMUM_ACTIVE;
use crate::memory::MemoryError;

/// How backup workers are to be had.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spares {
    pub backups: u32,
    pub history: Option<u16>,
    pub suspicion: Option<Duration>,
}

/// Settings of an exchange. The same on every rank.
#[derive(Debug)]
#[must_use]
pub struct Builder {
    communicator: Communicator,
    buckets: Vec<(String, usize)>,
    state: Vec<(String, usize)>,
    progress: bool,
    spares: Option<u32>,
    history: Option<u16>,
    suspicion: Option<Duration>,
}

impl Builder {
    pub(super) fn new(communicator: Communicator) -> Self {
        Self {
            communicator,
            buckets: Vec::new(),
            state: Vec::new(),
            progress: true,
            spares: None,
            history: None,
            suspicion: None,
        }
    }

    /// Adds a bucket of `count` elements. Steps may make buckets ready in any order.
    pub fn bucket(mut self, name: impl Into<String>, count: usize) -> Self {
        self.buckets.push((name.into(), count));
        self
    }

    /// Adds a part of `count` elements to the training state (weights, what the optimizer keeps), zero at first: what a rank
    /// that fell far behind copies from another.
    pub fn state(mut self, name: impl Into<String>, count: usize) -> Self {
        self.state.push((name.into(), count));
        self
    }

    /// Steps do not wait for the `backups` slowest ranks: the mean is that of the others' gradients, for all. Whose that
    /// is, is decided when so many are ready with all their buckets. With 0 all are waited for, in the same way.
    pub fn backups(mut self, backups: u32) -> Self {
        self.spares = Some(backups);
        self
    }

    /// With backup workers: of how many steps a late rank can still have the mean; one that is later copies state.
    pub fn history(mut self, steps: u16) -> Self {
        self.history = Some(steps);
        self
    }

    /// With backup workers: how long a rank may hold up a step that is decided before the others do it without that
    /// rank. See [`crate::backup::Builder::suspicion`].
    pub fn suspicion(mut self, after: Duration) -> Self {
        self.suspicion = Some(after);
        self
    }

    /// Whether a thread of its own moves exchanges on while the loop computes (it does unless told otherwise).
    /// Without it they move only inside `finish`; with backup workers they always do.
    pub fn progress_thread(mut self, wanted: bool) -> Self {
        self.progress = wanted;
        self
    }

    /// Allocates and registers the buckets, all in one region. Collective; but where this rank
    /// [has come back](Communicator::has_returned) to backup workers: then it takes over what it had, and another's state.
    ///
    /// # Errors
    /// No bucket, more than 48, an empty one, a name used twice, memory limits, ranks whose buckets or state differ; backup
    /// workers where ranks reach each other by messages only.
    pub fn build(self) -> Result<Exchange, ExchangeError> {
        let Self {
            communicator,
            buckets,
            state,
            progress,
            spares,
            history,
            suspicion,
        } = self;
        check(&buckets, &state)?;
        let shape = (spares, buckets, state);
        let returned = communicator.has_returned();
        // Who has come back compares with what the others have kept of theirs.
        if !(returned && spares.is_some()) {
            agree(&communicator, &shape)?;
        }
        let (_, buckets, state) = shape;
        let label = format!(", buckets {buckets:?}, state {state:?}");
        let (names, state) = (names(buckets)?, self::names(state)?);
        let way = match spares {
            Some(backups) => {
                let spares = Spares {
                    backups,
                    history,
                    suspicion,
                };
                Way::Backups(Backups::new(&communicator, &names, &state, spares, label)?)
            }
            None => Way::Collective(Collective::new(&communicator, &names, &state, progress)?),
        };
        Ok(Exchange {
            way,
            returned: Arc::new(Mutex::new(Vec::with_capacity(names.len()))),
            names,
            state,
            participation: Participation::new(communicator.size()),
            communicator,
        })
    }
}

fn names(parts: Vec<(String, usize)>) -> Result<Names, CommunicatorError> {
    let too_much = MemoryError::Overflow {
        count: usize::MAX,
        size: size_of::<f32>(),
    };
    Names::new(parts).ok_or(too_much.into())
}

fn check(buckets: &[(String, usize)], state: &[(String, usize)]) -> Result<(), ExchangeError> {
    if buckets.is_empty() {
        return Err(ExchangeError::Empty);
    }
    if buckets.len() > MAXIMUM_ACTIVE {
        return Err(ExchangeError::TooMany {
            count: buckets.len(),
            most: MAXIMUM_ACTIVE,
        });
    }
    if let Some((name, what)) = wrong(buckets) {
        return Err(ExchangeError::Bucket { name, what });
    }
    match wrong(state) {
        Some((name, what)) => Err(ExchangeError::State { name, what }),
        None => Ok(()),
    }
}

fn wrong(parts: &[(String, usize)]) -> Option<(String, &'static str)> {
    parts.iter().enumerate().find_map(|(index, (name, count))| {
        let twice = parts[..index].iter().any(|(earlier, _)| earlier == name);
        let what = match (*count, twice) {
            (0, _) => "it has no elements",
            (_, true) => "the name is used twice",
            _ => return None,
        };
        Some((name.clone(), what))
    })
}

/// What all ranks must have alike: backups, buckets, state.
type Shape = (Option<u32>, Vec<(String, usize)>, Vec<(String, usize)>);

/// Finds ranks whose exchanges differ: by number they would average each other's buckets.
fn agree(communicator: &Communicator, shape: &Shape) -> Result<(), CommunicatorError> {
    let own = serde_json::to_vec(shape).expect("plain data");
    let all = communicator.all_gather_bytes("comparing the buckets of an exchange", &own)?;
    let Some(odd) = all.iter().position(|theirs| *theirs != own) else {
        return Ok(());
    };
    let theirs = serde_json::from_slice::<Shape>(&all[odd]).unwrap_or_default();
    let rank = communicator.rank();
    let parts = difference("bucket", &shape.1, &theirs.1, (rank, odd));
    let what = parts.or_else(|| difference("state part", &shape.2, &theirs.2, (rank, odd)));
    let spares = |backups: Option<u32>| backups.map_or("no".to_owned(), |backups| backups.to_string());
    let what = what.unwrap_or_else(|| {
        let (theirs, mine) = (spares(theirs.0), spares(shape.0));
        format!("rank {odd} has {theirs} backups, rank {rank} has {mine}")
    });
    Err(CommunicatorError::Disagreement {
        rank,
        call: "building an exchange",
        what,
    })
}

/// Which part differs, and how.
fn difference(
    kind: &str,
    mine: &[(String, usize)],
    theirs: &[(String, usize)],
    (rank, odd): (u32, usize),
) -> Option<String> {
    let mut pairs = mine.iter().zip(theirs).enumerate();
    match pairs.find(|(_, (mine, theirs))| mine != theirs) {
        Some((index, (mine, theirs))) => Some(format!(
            "{kind} {index} is {:?} of {} elements on rank {odd}, {:?} of {} on rank {rank}",
            theirs.0, theirs.1, mine.0, mine.1
        )),
        None if mine.len() == theirs.len() => None,
        None => Some(format!(
            "rank {odd} has {} {kind}s, rank {rank} has {}",
            theirs.len(),
            mine.len()
        )),
    }
}
