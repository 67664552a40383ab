//! Settings of a barrier, the same on every rank, and how its memory is shared.

use std::time::Duration;

use super::BackupError;
use super::barrier::{Barrier, Held};
use super::core::{Core, Parts};
use super::memory::{Memory, Places};
use super::protocol::{Reach, Shape, Way};
use crate::communicator::{Communicator, Window};
use crate::engine::reduce::{Operation, kernel};
use crate::memory::{Buffer, Element};

/// Gradients so small in all are added up by everybody for himself: then nobody who has arrived can hold up the others.
const FLAT: usize = 1 << 20;
/// Steps of which gradients are kept where everybody adds up for himself, and results where not.
const HISTORY: (u16, u16) = (4, 2);
/// How long a member may do nothing in a reduction, where nothing else is said.
const SUSPICION: Duration = Duration::from_millis(100);
/// Bytes a second that a reduction manages at least, so that large ones are not taken for stuck ones.
const SLOWEST: f64 = 256e6;

/// Settings of a [`Barrier`]: the same on every rank.
#[must_use]
#[derive(Debug)]
pub struct Builder<'a> {
    communicator: &'a Communicator,
    count: usize,
    state: usize,
    backups: u32,
    way: Option<Way>,
    history: Option<u16>,
    suspicion: Duration,
}

impl<'a> Builder<'a> {
    pub(super) fn new(communicator: &'a Communicator, count: usize) -> Self {
        Self {
            communicator,
            count,
            state: 0,
            backups: 0,
            way: None,
            history: None,
            suspicion: SUSPICION,
        }
    }

    /// b: how many workers a step need not wait for. 0 unless set.
    pub fn backups(mut self, backups: u32) -> Self {
        self.backups = backups;
        self
    }

    /// How many elements of training state (weights, what the optimizer keeps) a worker that fell far behind is to copy from
    /// another. 0 unless set: then such a worker fails.
    pub fn state(mut self, count: usize) -> Self {
        self.state = count;
        self
    }

    /// How the sum is made; by its size unless set.
    pub fn way(mut self, way: Way) -> Self {
        self.way = Some(way);
        self
    }

    /// Of how many steps results can still be had by a worker that is late; one that is later needs state to catch up.
    pub fn history(mut self, steps: u16) -> Self {
        self.history = Some(steps);
        self
    }

    /// How long a worker may hold up a reduction, or be between its ticket and its name, before the others do without it.
    /// A suspicion that is wrong costs time, and nothing else. 100 ms unless set.
    pub fn suspicion(mut self, after: Duration) -> Self {
        self.suspicion = after;
        self
    }

    /// Shares the memory for it. Collective.
    ///
    /// # Errors
    /// Settings that cannot be, or that differ between ranks; ranks that do not see each other's memory; memory limits.
    pub fn build<T: Element>(self) -> Result<Barrier<T>, BackupError> {
        let communicator = self.communicator;
        let (rank, workers) = (communicator.rank(), communicator.size());
        if !communicator.has_load_store() {
            return Err(BackupError::Messages {
                rank,
                fabric: communicator.fabric_name(),
            });
        }
        let too_much = || BackupError::Argument {
            rank,
            what: format!(
                "{} elements and {} of state are more than memory",
                self.count, self.state
            ),
        };
        if self.count == 0 {
            return Err(BackupError::Argument {
                rank,
                what: "a gradient needs at least one element".into(),
            });
        }
        let size = size_of::<T>();
        let bytes = |count: usize| {
            count
                .checked_mul(size)
                .filter(|bytes| *bytes < isize::MAX as usize / 4096)
        };
        let (gradient, state) = (
            bytes(self.count).ok_or_else(too_much)?,
            bytes(self.state).ok_or_else(too_much)?,
        );
        let needed = workers.saturating_sub(self.backups) as usize;
        let way = self.way.unwrap_or(match gradient.saturating_mul(needed) <= FLAT {
            true => Way::Flat,
            false => Way::Tree { children: 1 },
        });
        let history = self.history.unwrap_or(match way {
            Way::Flat => HISTORY.0,
            Way::Tree { .. } => HISTORY.1,
        });
        let shape = Shape::new(workers, self.backups, history, Reach::LoadStore, way)?;
        self.agree(&shape)?;
        let places = Places::new(&shape, way, gradient, state);
        let words = communicator.window::<u64>(places.words())?;
        let data = communicator.window::<T>(places.data_bytes() / size)?;
        let memory = Memory::new(places, words.map().clone(), data.map().clone());
        let large = Duration::from_secs_f64((gradient * workers as usize) as f64 / SLOWEST);
        let operation = |operation| kernel(T::TYPE, operation);
        let core = Core::new(Parts {
            engine: communicator.engine().clone(),
            shape,
            way,
            memory,
            element: size,
            kernels: (operation(Operation::Sum), operation(Operation::Average)),
            scratch: Buffer::allocate(Core::SCRATCH / 8)
                .map_err(|error| BackupError::from(crate::communicator::CommunicatorError::from(error)))?,
            timeout: communicator.timeout(),
            suspicion: self.suspicion.max(large),
        });
        Ok(Barrier::new(
            core,
            cut(data, &places, self.count),
            self.count,
            words,
        ))
    }

    /// Finds ranks whose settings differ. Collective.
    fn agree(&self, shape: &Shape) -> Result<(), BackupError> {
        let own = format!("{shape:?}, {} elements, {} of state", self.count, self.state);
        let what = "comparing the settings of backup workers";
        let all = self.communicator.all_gather_bytes(what, own.as_bytes())?;
        let Some(odd) = all.iter().position(|theirs| theirs != own.as_bytes()) else {
            return Ok(());
        };
        Err(BackupError::Argument {
            rank: self.communicator.rank(),
            what: format!(
                "settings differ: {} on rank {odd}, {own} here",
                String::from_utf8_lossy(&all[odd])
            ),
        })
    }
}

/// Cuts the window into what the caller may touch: gradients, and state. The rest is the barrier's.
fn cut<T: Element>(data: Window<T>, places: &Places, count: usize) -> Held<T> {
    let elements = |bytes: usize| bytes / size_of::<T>();
    let (mut rest, results) = data.split_at(elements(places.results_at()));
    let (_, state) = results.split_at(elements(places.state_at() - places.results_at()));
    let mut gradients = Vec::with_capacity(places.kept().0);
    for _ in 0..places.kept().0 {
        let (one, others) = rest.split_at(elements(places.stride()));
        gradients.push(Some(one.split_at(count).0));
        rest = others;
    }
    let state = state.split_at(elements(places.state)).0;
    Held { gradients, state }
}
