//! Which plan a collective is run by: the one that was asked for, where it can do it; else the one that a tuning has
//! predicted to take the least; else the table's. Worked out once for each size class, since it is asked at every call.

use std::cell::OnceCell;
use std::sync::Arc;

use crate::engine::SMALL_BYTES;
use crate::plan::cost::{Candidate, Chosen, Setting, Tuning};
use crate::plan::dataflow::Symmetry;
use crate::plan::lowered::Program;
use crate::plan::{Collective, Plan, Reach, Table, builders};

/// See the module.
#[derive(Debug)]
pub(super) struct Plans {
    forced: Option<Forced>,
    table: Table,
    setting: Setting,
    tuned: Option<Tuned>,
}

#[derive(Debug)]
struct Forced {
    name: String,
    /// Of the built-in size of a chunk.
    chunk: f64,
    /// Which collectives it can do, by [`Collective::index`].
    usable: [bool; Collective::COUNT],
}

/// How many powers of two a size can lie between.
const CLASSES: usize = usize::BITS as usize;

#[derive(Debug)]
struct Tuned {
    tuning: Arc<Tuning>,
    /// By collective and size class: what is best for its smallest size. None where nothing can be predicted.
    chosen: Box<[OnceCell<Option<Chosen>>]>,
}

impl Plans {
    /// `forced` is a plan's name that is known, and the size of its chunks.
    pub(super) fn new(forced: Option<(String, f64)>, setting: Setting, tuning: Option<Arc<Tuning>>) -> Self {
        let ranks = setting.ranks();
        let forced = forced.map(|(name, chunk)| Forced {
            usable: Collective::every(0).map(|collective| builders::build(&name, collective, ranks).is_ok()),
            name,
            chunk,
        });
        let tuned = tuning.map(|tuning| Tuned {
            tuning,
            chosen: std::iter::repeat_with(OnceCell::new)
                .take(Collective::COUNT * CLASSES)
                .collect(),
        });
        Self {
            forced,
            table: Table::new(&setting.hosts),
            setting,
            tuned,
        }
    }

    /// Whether a plan was asked for.
    #[inline]
    pub(super) fn is_forced(&self) -> bool {
        self.forced.is_some()
    }

    /// The plan that was asked for, if it can do this.
    #[inline]
    fn forced(&self, collective: Collective) -> Option<&Forced> {
        self.forced
            .as_ref()
            .filter(|forced| forced.usable[collective.index()])
    }

    /// The plan's name, where the longest buffer of a rank has `bytes` bytes.
    #[inline]
    pub(super) fn choose(&self, collective: Collective, bytes: usize) -> &str {
        if let Some(forced) = self.forced(collective) {
            return &forced.name;
        }
        match self.tuned(collective, bytes) {
            Some(chosen) => &chosen.plan,
            None => self.table.choose(collective, bytes),
        }
    }

    /// How long chunks are, as a multiple of the built-in size.
    #[inline]
    pub(super) fn chunk_scale(&self, collective: Collective, bytes: usize) -> f64 {
        if let Some(forced) = self.forced(collective) {
            return forced.chunk;
        }
        self.tuned(collective, bytes).map_or(1.0, |chosen| chosen.chunk)
    }

    /// What the tuning says, if there is one. A barrier has no bytes, and what is so small goes without a plan where ranks
    /// look into each other's memory: for these the table does.
    #[inline]
    fn tuned(&self, collective: Collective, bytes: usize) -> Option<&Chosen> {
        let tuned = self.tuned.as_ref()?;
        let small = self.setting.reach == Reach::LoadStore && bytes <= SMALL_BYTES;
        if small || collective == Collective::Barrier {
            return None;
        }
        let class = bytes.max(1).ilog2();
        let cell = &tuned.chosen[collective.index() * CLASSES + class as usize];
        let choose = || {
            // The same shape whatever the root, so that one answer does for all.
            let collective = Collective::every(0)[collective.index()];
            tuned.tuning.choose(&self.setting, collective, 1 << class)
        };
        cell.get_or_init(choose).as_ref()
    }

    /// How long a call takes by the tuning, in microseconds, if that can be said.
    pub(super) fn predict(&self, collective: Collective, bytes: usize, in_place: bool) -> Option<f64> {
        let tuned = self.tuned.as_ref()?;
        let candidate = Candidate {
            plan: builders::build(self.choose(collective, bytes), collective, self.setting.ranks()).ok()?,
            chunk: self.chunk_scale(collective, bytes),
        };
        let prediction = tuned.tuning.predict(&self.setting, &candidate, bytes, in_place);
        prediction.ok().map(|prediction| prediction.time)
    }

    /// Where plans are to run.
    pub(super) fn setting(&self) -> &Setting {
        &self.setting
    }

    /// The most tasks that a rank has in any collective by the plan that was asked for, where ranks see each other's
    /// boards; 0 if none was.
    pub(super) fn most_tasks(&self, ranks: u32) -> usize {
        let Some(Forced { name, .. }) = &self.forced else {
            return 0;
        };
        let plans = Collective::every(0)
            .into_iter()
            .filter_map(|collective| builders::build(name, collective, ranks).ok());
        let tasks = |plan: Plan| {
            let programs = programs(&plan, Reach::LoadStore);
            programs.map(|program| program.tasks.len()).max()
        };
        plans.filter_map(tasks).max().unwrap_or(0)
    }
}

/// The programs of ranks that stand for all, but for being turned: of all ranks, or of one where they are the same for all.
pub(super) fn programs(plan: &Plan, reach: Reach) -> impl Iterator<Item = Program> {
    let different = match plan.symmetry() {
        Symmetry::None => plan.ranks(),
        Symmetry::Rotation => 1,
    };
    (0..different).filter_map(move |rank| plan.lower(rank, reach).ok())
}
