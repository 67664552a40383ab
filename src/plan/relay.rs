//! The rule of gathers and scatters along a tree: every part goes its own way, from its owner up to the root or from the
//! root down to its owner. Who is on the way holds it in staging and passes it on as it came.

use std::sync::Arc;

use super::dataflow::{Collective, Consumer, Layout, Own, Plan, Rule, Step, Symmetry, Target, Use, Value};
use super::error::PlanError;
use super::forest::{self, Shape};
use super::lowered::Rank;
use super::nomial::Nomial;
use super::run::Run;

/// Whether parts that are passed on can do it.
pub fn has(collective: Collective) -> bool {
    matches!(collective, Collective::Gather { .. } | Collective::Scatter { .. })
}

/// The plan for a gather or scatter.
///
/// # Errors
/// As [`Plan::new`].
pub fn plan(name: &str, collective: Collective, tree: Nomial) -> Result<Plan, PlanError> {
    let ranks = tree.ranks;
    if ranks == 1 {
        return forest::alone(name, collective);
    }
    let root = collective.root().unwrap_or(0);
    let sizes = tree.children(0).into_iter().map(|child| tree.size(child));
    let most = sizes.max().unwrap_or(1);
    let turned = Turned { tree, root, most };
    let rule: Arc<dyn Rule> = match collective {
        Collective::Gather { .. } => Arc::new(Gather(turned)),
        _ => Arc::new(Scatter(turned)),
    };
    Plan::new(name, collective, ranks, ranks, Symmetry::None, rule)
}

/// A tree whose node 0 is the root. The part of a node is its rank's.
#[derive(Clone, Copy, Debug)]
struct Turned {
    tree: Nomial,
    root: Rank,
    /// The most parts that any rank but the root has to do with.
    most: u32,
}

impl Turned {
    fn rank(self, node: u32) -> Rank {
        (node + self.root) % self.tree.ranks
    }

    fn node(self, rank: Rank) -> u32 {
        (rank + self.tree.ranks - self.root) % self.tree.ranks
    }

    /// The nodes below a node that is not the root, itself among them.
    fn below(self, node: u32) -> std::ops::Range<u32> {
        node..node + self.tree.size(node)
    }

    fn layout(self) -> Layout {
        let above = |rank| self.tree.parent(self.node(rank)).map(|parent| self.rank(parent));
        Layout::Trees(vec![(0..self.tree.ranks).map(above).collect()])
    }
}

/// The root's steps are all parts in the order of the nodes, its own first; another node's are those of the nodes below.
#[derive(Debug)]
struct Gather(Turned);

impl Gather {
    /// The step in which a node takes over the part of one below it.
    fn step(node: u32, part: u32) -> u32 {
        if node == 0 { part } else { part - node - 1 }
    }

    /// What a node has of a part, its own or one below.
    fn held(node: u32, part: u32) -> Own {
        if part == node {
            Own::Input
        } else {
            Own::Step(Self::step(node, part))
        }
    }
}

impl Rule for Gather {
    fn steps(&self, rank: Rank) -> Vec<Step> {
        let node = self.0.node(rank);
        let parts = match node {
            0 => 0..self.0.tree.ranks,
            _ => node + 1..self.0.below(node).end,
        };
        let step = |part: u32| Step::Copy {
            run: Run::ONE,
            block: self.0.rank(part),
            sources: vec![match part == node {
                true => Value::Input(rank),
                false => {
                    let child = self.0.tree.toward(node, part);
                    Self::held(child, part).of(self.0.rank(child))
                }
            }],
            into: if node == 0 {
                Target::Result
            } else {
                Target::Partial
            },
        };
        parts.map(step).collect()
    }

    fn uses(&self, rank: Rank) -> Vec<Use> {
        let node = self.0.node(rank);
        let Some(parent) = self.0.tree.parent(node) else {
            return Vec::new();
        };
        let by = |part: u32| Consumer {
            rank: self.0.rank(parent),
            step: Self::step(parent, part),
            landing: (parent != 0).then(|| Self::step(parent, part)),
        };
        let one = |part| Use {
            run: Run::ONE,
            block: self.0.rank(part),
            value: Self::held(node, part),
            by: vec![by(part)],
        };
        self.0.below(node).map(one).collect()
    }

    fn landing(&self, _: Rank, step: u32, _: Rank) -> u32 {
        step
    }

    fn sender(&self, rank: Rank, value: Own, _: u32) -> u32 {
        match value {
            Own::Step(step) => step,
            Own::Input => self.0.tree.size(self.0.node(rank)) - 1,
        }
    }

    fn held_steps(&self) -> u32 {
        self.0.most - 1
    }

    fn layout(&self) -> Layout {
        self.0.layout()
    }
}

/// The root's only step is its own part; another node's are its own part and those of the nodes below.
#[derive(Debug)]
struct Scatter(Turned);

impl Rule for Scatter {
    fn steps(&self, rank: Rank) -> Vec<Step> {
        let node = self.0.node(rank);
        let Some(parent) = self.0.tree.parent(node) else {
            return vec![Step::Copy {
                run: Run::ONE,
                block: rank,
                sources: vec![Value::Input(rank)],
                into: Target::Result,
            }];
        };
        let above = self.0.rank(parent);
        let step = |part: u32| Step::Copy {
            run: Run::ONE,
            block: self.0.rank(part),
            sources: vec![match parent {
                0 => Value::Input(above),
                _ => Value::Step {
                    rank: above,
                    step: part - parent,
                },
            }],
            into: if part == node {
                Target::Result
            } else {
                Target::Partial
            },
        };
        self.0.below(node).map(step).collect()
    }

    /// From the root those that have the farthest to go first.
    fn uses(&self, rank: Rank) -> Vec<Use> {
        let node = self.0.node(rank);
        let one = |part: u32| {
            let child = self.0.tree.toward(node, part);
            let consumer = Consumer {
                rank: self.0.rank(child),
                step: part - child,
                landing: (part != child).then(|| part - child - 1),
            };
            let value = if node == 0 {
                Own::Input
            } else {
                Own::Step(part - node)
            };
            Use {
                run: Run::ONE,
                block: self.0.rank(part),
                value,
                by: vec![consumer],
            }
        };
        (node + 1..self.0.below(node).end).rev().map(one).collect()
    }

    fn landing(&self, _: Rank, step: u32, _: Rank) -> u32 {
        step - 1
    }

    fn sender(&self, _: Rank, value: Own, block: u32) -> u32 {
        match value {
            Own::Step(step) => step,
            // Behind the root's only step, the last node first.
            Own::Input => self.0.tree.ranks - self.0.node(block),
        }
    }

    fn held_steps(&self) -> u32 {
        self.0.most
    }

    fn layout(&self) -> Layout {
        self.0.layout()
    }
}
