//! Among which ranks a plan is to run, and which plans there are for them: those that every rank goes through in the same
//! way are one. Compares programs; predicts nothing.

use super::residual::Shape;
use crate::plan::lowered::{Action, Buffer, Place, Program};
use crate::plan::{Collective, Plan, Reach, builders, hierarchical_name};

/// Plans that are compared; channels and arities are parts of names. One that nobody would want is not among them.
const NAMES: [&str; 10] = [
    "direct",
    "ring",
    "ring:2",
    "halving-doubling",
    "double-binary-tree",
    "k-ary-tree",
    "k-ary-tree:2",
    "binomial-tree",
    "k-nomial",
    "pairwise",
];

/// Among which ranks a plan is to run.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The host of each rank, as a number.
    pub hosts: Vec<u32>,
    /// What ranks can do with each other's memory.
    pub reach: Reach,
    /// Bytes of a staging slot.
    pub slot_bytes: usize,
    /// The most tasks of a rank.
    pub most_tasks: usize,
}

/// A plan that a collective could run, under each name that it has here.
#[derive(Clone, Debug)]
pub struct Alternative {
    /// The first of those of its names that are compared.
    pub plan: Plan,
    /// All of them: built by any of these every rank does the same.
    pub names: Vec<String>,
}

impl Alternative {
    /// Whether it is what this name builds.
    pub fn is_called(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }
}

impl Setting {
    /// How many ranks there are.
    pub fn ranks(&self) -> u32 {
        self.hosts.len() as u32
    }

    /// How many hosts there are.
    fn host_count(&self) -> u32 {
        let mut hosts = self.hosts.clone();
        hosts.sort_unstable();
        hosts.dedup();
        hosts.len() as u32
    }

    /// What is measured here with a plan, out of place.
    pub fn shape<'a>(&self, plan: &'a Plan, chunk: f64) -> Shape<'a> {
        Shape {
            collective: plan.collective(),
            ranks: self.ranks(),
            hosts: self.host_count(),
            shared: !matches!(self.reach, Reach::Message { .. }),
            plan: plan.name(),
            in_place: false,
            chunk,
        }
    }

    /// The plans that a collective could run here, each once: two ranks exchange their halves in one way only, whether
    /// that is called a ring or halving and doubling.
    pub fn alternatives(&self, collective: Collective) -> Vec<Alternative> {
        let hosts = self.host_count();
        let hierarchical = (hosts > 1 && hosts < self.ranks()).then(|| hierarchical_name(&self.hosts));
        let names = NAMES.iter().copied().chain(hierarchical.as_deref());
        let mut found: Vec<(Vec<Program>, Alternative)> = Vec::new();
        for name in names {
            let Ok(plan) = builders::build(name, collective, self.ranks()) else {
                continue;
            };
            let Some(programs) = self.programs(&plan) else {
                continue;
            };
            match found.iter_mut().find(|(known, _)| *known == programs) {
                Some((_, same)) => same.names.push(name.to_owned()),
                None => {
                    let names = vec![name.to_owned()];
                    found.push((programs, Alternative { plan, names }));
                }
            }
        }
        found.into_iter().map(|(_, alternative)| alternative).collect()
    }

    /// What each rank does, if it can be run; in which order sources and destinations are named takes no time, and is put
    /// right.
    fn programs(&self, plan: &Plan) -> Option<Vec<Program>> {
        let lower = |rank| {
            let mut program = plan.lower(rank, self.reach).ok()?;
            for task in &mut program.tasks {
                match &mut task.action {
                    Action::Signal => {}
                    Action::Reduce { sources, into, .. } => {
                        sources.sort_unstable_by_key(order);
                        into.sort_unstable_by_key(order);
                    }
                    Action::Copy { into, .. } => into.sort_unstable_by_key(order),
                }
            }
            (program.tasks.len() <= self.most_tasks).then_some(program)
        };
        (0..self.ranks()).map(lower).collect()
    }
}

fn order(place: &Place) -> (u32, u8, u32) {
    match place.buffer {
        Buffer::Input => (place.rank, 0, 0),
        Buffer::Result => (place.rank, 1, 0),
        Buffer::Staging { first, .. } => (place.rank, 2, first),
    }
}
