//! Binomial tree: each round doubles the ranks that are reached; the fewest rounds for one short message.

use crate::plan::forest::{self, Rooted, Shape};
use crate::plan::lowered::Rank;

pub(super) const BUILDER: super::Builder = super::Builder {
    name: "binomial-tree",
    summary: "one tree of depth log2(p); few rounds, a busy root: for short vectors",
    supports: forest::has,
    accepts: super::refuse_parameter,
    make: |name, _, collective, ranks| {
        let root = collective.root().unwrap_or(0);
        let tree: Box<dyn Shape> = Box::new(Rooted { shape: Binomial { ranks }, ranks, root });
        forest::plan(name, collective, ranks, vec![tree])
    },
};

/// The parent of a node is the node without its lowest set bit.
#[derive(Debug)]
struct Binomial {
    ranks: u32,
}

impl Shape for Binomial {
    fn parent(&self, node: Rank) -> Option<Rank> {
        (node != 0).then(|| node & (node - 1))
    }

    /// Small subtrees first: they have their sums earliest.
    fn children(&self, node: Rank) -> Vec<Rank> {
        let bits = if node == 0 { u32::BITS - 1 } else { node.trailing_zeros() };
        (0..bits).map(|bit| node | 1 << bit).take_while(|&child| child < self.ranks).collect()
    }
}
