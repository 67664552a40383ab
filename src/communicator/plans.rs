//! Which plan a collective is run by: the one that was asked for, where it can do it, else the table's. Worked out
//! once, since it is asked at every call.

use crate::plan::lowered::Program;
use crate::plan::{Collective, Plan, Reach, Table, builders};

/// See the module.
#[derive(Debug)]
pub(super) struct Plans {
    forced: Option<Forced>,
    table: Table,
}

#[derive(Debug)]
struct Forced {
    name: String,
    /// Which collectives it can do, by [`Collective::index`].
    usable: [bool; Collective::COUNT],
}

impl Plans {
    /// `hosts` has the host of each rank, as a number; `forced` is a plan's name that is known.
    pub(super) fn new(forced: Option<String>, hosts: &[u32]) -> Self {
        let ranks = hosts.len() as u32;
        let forced = forced.map(|name| Forced {
            usable: Collective::every(0).map(|collective| builders::build(&name, collective, ranks).is_ok()),
            name,
        });
        Self {
            forced,
            table: Table::new(hosts),
        }
    }

    /// Whether a plan was asked for.
    #[inline]
    pub(super) fn is_forced(&self) -> bool {
        self.forced.is_some()
    }

    /// The plan's name, where the longest buffer of a rank has `bytes` bytes.
    #[inline]
    pub(super) fn choose(&self, collective: Collective, bytes: usize) -> &str {
        match &self.forced {
            Some(forced) if forced.usable[collective.index()] => &forced.name,
            _ => self.table.choose(collective, bytes),
        }
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

/// The programs of all ranks, one after the other.
pub(super) fn programs(plan: &Plan, reach: Reach) -> impl Iterator<Item = Program> {
    (0..plan.ranks()).filter_map(move |rank| plan.lower(rank, reach).ok())
}
