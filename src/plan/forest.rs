//! The rule that all tree plans share: each tree carries one block up to its root, down from it, or both.
//!
//! A tree algorithm is only a [`Shape`]: who is whose parent. Sums have a fixed order: the own input, then the
//! children as the shape lists them.

use std::fmt;
use std::sync::Arc;

use super::dataflow::{Collective, Consumer, Layout, Own, Plan, Rule, Step, Symmetry, Target, Use, Value};
use super::error::PlanError;
use super::lowered::Rank;
use super::run::Run;

/// Whether trees that carry a block each can do it.
pub fn has(collective: Collective) -> bool {
    !collective.has_parts()
}

/// A rooted tree over all ranks.
pub trait Shape: fmt::Debug + Send + Sync {
    /// The parent of `rank`; none for the root.
    fn parent(&self, rank: Rank) -> Option<Rank>;

    /// The children of `rank`, in the order in which they are summed.
    fn children(&self, rank: Rank) -> Vec<Rank>;
}

/// A shape whose node 0 is the root, turned so that another rank is.
#[derive(Debug)]
pub struct Rooted<S> {
    /// The shape with root 0.
    pub shape: S,
    /// How many ranks.
    pub ranks: u32,
    /// Which rank plays node 0.
    pub root: Rank,
}

impl<S: Shape> Shape for Rooted<S> {
    fn parent(&self, rank: Rank) -> Option<Rank> {
        let node = (rank + self.ranks - self.root) % self.ranks;
        self.shape
            .parent(node)
            .map(|parent| (parent + self.root) % self.ranks)
    }

    fn children(&self, rank: Rank) -> Vec<Rank> {
        let node = (rank + self.ranks - self.root) % self.ranks;
        let turned = |child: Rank| (child + self.root) % self.ranks;
        self.shape.children(node).into_iter().map(turned).collect()
    }
}

/// A plan over one tree for each block. A lone rank needs no tree: its plan copies its input.
///
/// # Errors
/// As [`Plan::new`].
pub fn plan(
    name: impl Into<String>,
    collective: Collective,
    ranks: u32,
    trees: Vec<Box<dyn Shape>>,
) -> Result<Plan, PlanError> {
    forest(name, collective, ranks, trees, None)
}

/// As [`plan`], for trees that know on which host each rank is; `hosts` is drawn.
///
/// # Errors
/// As [`Plan::new`].
pub fn plan_on_hosts(
    name: impl Into<String>,
    collective: Collective,
    ranks: u32,
    trees: Vec<Box<dyn Shape>>,
    hosts: Vec<u32>,
) -> Result<Plan, PlanError> {
    forest(name, collective, ranks, trees, Some(hosts))
}

fn forest(
    name: impl Into<String>,
    collective: Collective,
    ranks: u32,
    trees: Vec<Box<dyn Shape>>,
    hosts: Option<Vec<u32>>,
) -> Result<Plan, PlanError> {
    if ranks == 1 {
        return alone(name, collective);
    }
    let blocks = trees.len() as u32;
    Plan::new(
        name,
        collective,
        ranks,
        blocks,
        Symmetry::None,
        Arc::new(Forest {
            collective,
            ranks,
            trees,
            hosts,
        }),
    )
}

/// The plan of a lone rank, the same for all algorithms.
///
/// # Errors
/// As [`Plan::new`].
pub fn alone(name: impl Into<String>, collective: Collective) -> Result<Plan, PlanError> {
    Plan::new(
        name,
        collective,
        1,
        1,
        Symmetry::None,
        Arc::new(Alone { collective }),
    )
}

#[derive(Debug)]
struct Alone {
    collective: Collective,
}

impl Rule for Alone {
    fn steps(&self, rank: Rank) -> Vec<Step> {
        match self.collective {
            Collective::Barrier => Vec::new(),
            _ => vec![Step::Copy {
                run: Run::ONE,
                block: 0,
                sources: vec![Value::Input(rank)],
                into: Target::Result,
            }],
        }
    }

    fn uses(&self, _: Rank) -> Vec<Use> {
        Vec::new()
    }

    fn layout(&self) -> Layout {
        Layout::Trees(vec![vec![None]])
    }
}

#[derive(Debug)]
struct Forest {
    collective: Collective,
    ranks: u32,
    trees: Vec<Box<dyn Shape>>,
    /// Each rank's host, where the trees know it.
    hosts: Option<Vec<u32>>,
}

impl Forest {
    fn goes_up(&self) -> bool {
        !matches!(self.collective, Collective::Broadcast { .. })
    }

    fn goes_down(&self) -> bool {
        !matches!(self.collective, Collective::Reduce { .. })
    }

    /// Whether `rank` has a step that takes the final value of a tree's block.
    /// The root of a broadcast has: it copies its own input.
    fn has_down(&self, tree: usize, rank: Rank) -> bool {
        let keeps_own = matches!(self.collective, Collective::Broadcast { .. });
        self.goes_down() && (keeps_own || self.trees[tree].parent(rank).is_some())
    }

    fn has_up(&self, tree: usize, rank: Rank) -> bool {
        self.goes_up() && !self.trees[tree].children(rank).is_empty()
    }

    /// Steps are listed as all ways down, then all ways up.
    fn down_step(&self, tree: usize, rank: Rank) -> u32 {
        (0..tree).filter(|&other| self.has_down(other, rank)).count() as u32
    }

    fn up_step(&self, tree: usize, rank: Rank) -> u32 {
        let downs = self.down_step(self.trees.len(), rank);
        downs + (0..tree).filter(|&other| self.has_up(other, rank)).count() as u32
    }

    /// What `rank` hands to its parent.
    fn contribution(&self, tree: usize, rank: Rank) -> Own {
        if self.has_up(tree, rank) {
            Own::Step(self.up_step(tree, rank))
        } else {
            Own::Input
        }
    }

    /// What `rank` hands to its children.
    fn outcome(&self, tree: usize, rank: Rank) -> Own {
        match (self.trees[tree].parent(rank), self.collective) {
            // The children of a broadcast's root read its input: they need not wait for its own copy.
            (None, Collective::Broadcast { .. }) => Own::Input,
            (None, _) => Own::Step(self.up_step(tree, rank)),
            (Some(_), _) => Own::Step(self.down_step(tree, rank)),
        }
    }

    fn landing_of_child(&self, tree: usize, parent: Rank, child: Rank) -> u32 {
        let before: usize = (0..tree)
            .map(|other| self.trees[other].children(parent).len())
            .sum();
        let position = self.trees[tree]
            .children(parent)
            .iter()
            .position(|&other| other == child);
        (before + position.unwrap_or(usize::MAX >> 33)) as u32
    }
}

impl Rule for Forest {
    fn steps(&self, rank: Rank) -> Vec<Step> {
        let mut steps = Vec::new();
        for (tree, shape) in self.trees.iter().enumerate() {
            if self.has_down(tree, rank) {
                let source = match shape.parent(rank) {
                    Some(parent) => self.outcome(tree, parent).of(parent),
                    None => Value::Input(rank),
                };
                steps.push(match self.collective {
                    Collective::Barrier => Step::Signal { after: vec![source] },
                    _ => Step::Copy {
                        run: Run::ONE,
                        block: tree as u32,
                        sources: vec![source],
                        into: Target::Result,
                    },
                });
            }
        }
        for (tree, shape) in self.trees.iter().enumerate() {
            if self.has_up(tree, rank) {
                let children = shape.children(rank);
                let values = children
                    .into_iter()
                    .map(|child| self.contribution(tree, child).of(child));
                let at_root = shape.parent(rank).is_none();
                steps.push(match self.collective {
                    Collective::Barrier => Step::Signal {
                        after: values.collect(),
                    },
                    _ => Step::Reduce {
                        run: Run::ONE,
                        block: tree as u32,
                        sources: std::iter::once(Value::Input(rank)).chain(values).collect(),
                        into: if at_root { Target::Result } else { Target::Partial },
                        complete: at_root,
                    },
                });
            }
        }
        steps
    }

    fn uses(&self, rank: Rank) -> Vec<Use> {
        let mut uses = Vec::new();
        let landing = |number: u32| (self.collective != Collective::Barrier).then_some(number);
        if self.goes_down() {
            for (tree, shape) in self.trees.iter().enumerate() {
                let children = shape.children(rank);
                if !children.is_empty() {
                    let by = children.into_iter().map(|child| Consumer {
                        rank: child,
                        step: self.down_step(tree, child),
                        landing: None,
                    });
                    uses.push(Use {
                        run: Run::ONE,
                        block: tree as u32,
                        value: self.outcome(tree, rank),
                        by: by.collect(),
                    });
                }
            }
        }
        if self.goes_up() {
            for (tree, shape) in self.trees.iter().enumerate() {
                if let Some(parent) = shape.parent(rank) {
                    let consumer = Consumer {
                        rank: parent,
                        step: self.up_step(tree, parent),
                        landing: landing(self.landing_of_child(tree, parent, rank)),
                    };
                    let value = self.contribution(tree, rank);
                    uses.push(Use {
                        run: Run::ONE,
                        block: tree as u32,
                        value,
                        by: vec![consumer],
                    });
                }
            }
        }
        uses
    }

    /// Only a reduction to a root leaves sums in staging, one for each tree.
    fn held_steps(&self) -> u32 {
        self.trees.len() as u32
    }

    fn layout(&self) -> Layout {
        let parents = |shape: &dyn Shape| (0..self.ranks).map(|rank| shape.parent(rank)).collect();
        let trees = self.trees.iter().map(|shape| parents(&**shape)).collect();
        match &self.hosts {
            None => Layout::Trees(trees),
            Some(hosts) => Layout::Hosts {
                trees,
                hosts: hosts.clone(),
            },
        }
    }
}
