//! Binomial tree: each round doubles the ranks that are reached; the fewest rounds for one short message.

use crate::plan::forest::{self, Rooted, Shape};
use crate::plan::nomial::Nomial;
use crate::plan::relay;

pub(super) const BUILDER: super::Builder = super::Builder {
    name: "binomial-tree",
    summary: "one tree of depth log2(p); few rounds, a busy root: for short vectors",
    supports: |collective| forest::has(collective) || relay::has(collective),
    accepts: super::refuse_parameter,
    make: |name, _, collective, ranks| {
        let tree = Nomial { ranks, arity: 2 };
        if relay::has(collective) {
            return relay::plan(name, collective, tree);
        }
        let root = collective.root().unwrap_or(0);
        let tree: Box<dyn Shape> = Box::new(Rooted { shape: tree, ranks, root });
        forest::plan(name, collective, ranks, vec![tree])
    },
};
