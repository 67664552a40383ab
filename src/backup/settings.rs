//! Settings of a barrier, the same on every rank, and how its memory is shared.

use std::time::Duration;

use super::barrier::{Barrier, Driver, Held};
use super::core::{Core, Parts};
use super::mapped::{self, Mapped};
use super::memory::Places;
use super::protocol::{Reach, Shape, Way};
use super::remote;
use super::returning;
use super::{BackupError, connecting};
use crate::communicator::{Communicator, Window};
use crate::engine::reduce::{Operation, kernel};
use crate::memory::Element;
use crate::observe::Clock;

/// Gradients so small in all are added up by everybody for himself: then nobody who has arrived can hold up the others.
const FLAT: usize = 1 << 20;
/// The same among so few workers, where a tree was hardly ever faster up to there (measured with 2 and 4, on busy cores): all work
/// at once, where along a tree those above wait for those below, and a result is copied when it is whole.
const FLAT_AMONG_FEW: (usize, u32) = (16 << 20, 4);
/// Steps of which gradients are kept where everybody adds up for himself, and results where not.
const HISTORY: (u16, u16) = (4, 2);
/// Children of a node where a part is seen only once it is complete.
const FAN: u16 = 4;
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
    clock: Option<Clock>,
    label: String,
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
            clock: None,
            label: String::new(),
        }
    }

    /// What the elements are, for who cuts them up: compared with that of other ranks where this one comes back.
    pub(crate) fn label(mut self, label: String) -> Self {
        self.label = label;
        self
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

    /// Takes down when this worker has sealed a step ([`Barrier::sealed_at`]), for who measures.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Shares the memory for it. Collective; but where this rank [has come back](Communicator::has_returned), it takes the
    /// memory over that it had, copies another's state and goes on from there, without any other's doing.
    ///
    /// # Errors
    /// Settings that cannot be, or that differ between ranks; a fabric whose words do not serve all ranks, whatever their owner
    /// does; memory limits. Where this rank has come back: nobody who lets it in; no state to catch up with.
    pub fn build<T: Element>(mut self) -> Result<Barrier<T>, BackupError> {
        let communicator = self.communicator;
        let (rank, workers) = (communicator.rank(), communicator.size());
        let reach = match communicator.has_load_store() {
            true => Reach::LoadStore,
            false if communicator.has_one_sided_words() => Reach::Reads,
            false => {
                return Err(BackupError::Messages {
                    rank,
                    fabric: communicator.one_sided().name(),
                });
            }
        };
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
        let flat = match workers <= FLAT_AMONG_FEW.1 {
            true => FLAT_AMONG_FEW.0,
            false => FLAT,
        };
        let way = self.way.unwrap_or(match gradient.saturating_mul(needed) <= flat {
            _ if reach == Reach::Reads => Way::Tree { children: FAN },
            true => Way::Flat,
            false => Way::Tree { children: 1 },
        });
        let history = self.history.unwrap_or(match way {
            Way::Flat => HISTORY.0,
            Way::Tree { .. } => HISTORY.1,
        });
        let shape = Shape::new(workers, self.backups, history, reach, way)?;
        let returns = communicator.allows_returns();
        let settings = self.text::<T>(&shape, returns);
        if !communicator.has_returned() {
            self.agree(&settings)?;
        }
        let kept = (communicator.number_backup_barrier(), settings);
        let scratch = match reach {
            Reach::LoadStore => mapped::SCRATCH,
            Reach::Reads | Reach::Messages => remote::PIECE,
        };
        let places = Places::new(&shape, way, (gradient, state, scratch));
        let large = Duration::from_secs_f64((gradient * workers as usize) as f64 / SLOWEST);
        let operation = |operation| kernel(T::TYPE, operation);
        let parts = Parts {
            engine: communicator.engine().clone(),
            shape,
            way,
            element: size,
            kernels: (operation(Operation::Sum), operation(Operation::Average)),
            timeout: communicator.timeout(),
            suspicion: self.suspicion.max(large),
            returns,
            clock: self.clock.take(),
        };
        if communicator.has_returned() {
            return returning::take_over(communicator, kept, (parts, places, self.count));
        }
        let (driver, data, keepsake) = if reach == Reach::LoadStore {
            let words = communicator.window::<u64>(places.words())?;
            let data = communicator.window::<T>(places.data_bytes() / size)?;
            let maps = (words.map().clone(), data.map().clone());
            let (patience, liveness) = (communicator.patience(), communicator.liveness());
            let core = Core::new(parts, Mapped::new(places, rank, maps, patience, liveness));
            let keepsake = returns.then(|| returning::keep(communicator, kept, &words, &data));
            (Driver::Mapped(core), data, keepsake)
        } else {
            let (ground, data) = connecting::remote::<T>(communicator, kept.0, places, &shape)?;
            let keepsake = returns.then(|| communicator.keep(kept.0, Ok((kept.1, Vec::new()))));
            (Driver::Remote(Core::new(parts, ground)), data, keepsake)
        };
        let mut barrier = Barrier::new(driver, cut(data, &places, self.count), self.count);
        barrier.kept = keepsake.transpose()?;
        Ok(barrier)
    }

    /// What must be the same on all ranks.
    fn text<T: Element>(&self, shape: &Shape, returns: bool) -> String {
        let (element, label) = (T::TYPE.name(), &self.label);
        let back = if returns { ", who died may come back" } else { "" };
        let (count, state) = (self.count, self.state);
        format!("{shape:?}, {count} elements ({element}), {state} of state{back}{label}")
    }

    /// Finds ranks whose settings differ. Collective.
    fn agree(&self, own: &str) -> Result<(), BackupError> {
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
pub(super) fn cut<T: Element>(data: Window<T>, places: &Places, count: usize) -> Held<T> {
    let elements = |bytes: usize| bytes / size_of::<T>();
    let (mut rest, results) = data.split_at(elements(places.results()));
    let (_, state) = results.split_at(elements(places.state_at() - places.results()));
    let mut gradients = Vec::with_capacity(places.kept());
    for _ in 0..places.kept() {
        let (one, others) = rest.split_at(elements(places.stride()));
        gradients.push(Some(one.split_at(count).0));
        rest = others;
    }
    let state = state.split_at(elements(places.state)).0;
    Held { gradients, state }
}
