//! Two binary trees, each for one half of the vector, laid so that no rank is an inner node of both: every rank sends
//! and receives about the whole vector once, at logarithmic depth.
//!
//! P. Sanders, J. Speck, J. L. Träff: Two-tree algorithms for full bandwidth broadcast, reduction and scan,
//! Parallel Computing 35 (2009).

use crate::plan::dataflow::Collective;
use crate::plan::forest::{self, Shape};
use crate::plan::lowered::Rank;

pub(super) const BUILDER: super::Builder = super::Builder {
    name: "double-binary-tree",
    summary: "two trees for a half each; inner in one is leaf in the other: full bandwidth at depth log2(p)",
    supports: forest::has,
    accepts: super::refuse_parameter,
    make: |name, _, collective, ranks| {
        let twin = |second: bool| -> Box<dyn Shape> {
            Box::new(Twin::new(ranks, collective.root(), second))
        };
        let trees = match collective {
            // Nothing is halved in a barrier.
            Collective::Barrier => vec![twin(false)],
            _ => vec![twin(false), twin(true)],
        };
        forest::plan(name, collective, ranks, trees)
    },
};

/// One of the two trees.
///
/// Nodes are numbered from 1 in the tree's own (in-)order, in which odd nodes are the leaves and the lowest set bit is
/// the height. The second tree is the mirror image of the first where their number is even, and the first moved on by
/// one where it is odd; either turns inner nodes into leaves.
///
/// A given root stands above the two trees, which are made of the other ranks.
#[derive(Debug)]
pub(super) struct Twin {
    ranks: u32,
    root: Option<Rank>,
    second: bool,
}

impl Twin {
    /// For at least two ranks if there is a given root.
    pub(super) fn new(ranks: u32, root: Option<Rank>, second: bool) -> Self {
        Self { ranks, root, second }
    }

    fn nodes(&self) -> u32 {
        self.ranks - u32::from(self.root.is_some())
    }

    /// The node that `rank` plays; none if it is the given root.
    fn node(&self, rank: Rank) -> Option<u32> {
        let nodes = self.nodes();
        let index = match self.root {
            Some(root) => (rank + self.ranks - root).wrapping_sub(1) % self.ranks,
            None => rank,
        };
        if index >= nodes {
            return None;
        }
        Some(match (self.second, nodes % 2) {
            (false, _) => index + 1,
            (true, 0) => nodes - index,
            (true, _) => (index + nodes - 1) % nodes + 1,
        })
    }

    fn rank(&self, node: u32) -> Rank {
        let nodes = self.nodes();
        let index = match (self.second, nodes % 2) {
            (false, _) => node - 1,
            (true, 0) => nodes - node,
            (true, _) => node % nodes,
        };
        match self.root {
            Some(root) => (index + 1 + root) % self.ranks,
            None => index,
        }
    }

    fn top(&self) -> u32 {
        1 << self.nodes().ilog2()
    }
}

impl Shape for Twin {
    fn parent(&self, rank: Rank) -> Option<Rank> {
        let node = self.node(rank)?;
        if node == self.top() {
            return self.root;
        }
        let height = node & node.wrapping_neg();
        // The parent is the node one level up on one side or the other; the right-hand one may not exist, and then
        // the way leads to the left.
        let parent = (node & !height) | height << 1;
        Some(self.rank(if parent <= self.nodes() { parent } else { node & !height }))
    }

    fn children(&self, rank: Rank) -> Vec<Rank> {
        let Some(node) = self.node(rank) else {
            return vec![self.rank(self.top())];
        };
        let height = node & node.wrapping_neg();
        let mut children = Vec::with_capacity(2);
        if height > 1 {
            children.push(self.rank(node - height / 2));
            let mut step = height / 2;
            while step > 0 && node + step > self.nodes() {
                step /= 2;
            }
            if step > 0 {
                children.push(self.rank(node + step));
            }
        }
        children
    }
}
