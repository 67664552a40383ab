//! k-ary tree: each inner rank has k children. A wide tree is shallow, a narrow one spares each rank's memory.

use crate::plan::error::PlanError;
use crate::plan::forest::{self, Rooted, Shape};
use crate::plan::lowered::Rank;

const DEFAULT: u32 = 4;

pub(super) const BUILDER: super::Builder = super::Builder {
    name: "k-ary-tree",
    summary: "one tree with k children to a rank (k-ary-tree:3; k = 4 unless told): for middle sizes",
    supports: forest::has,
    accepts: |name, parameter| arity(name, parameter).map(drop),
    make: |name, parameter, collective, ranks| {
        let arity = arity(name, parameter)?;
        let root = collective.root().unwrap_or(0);
        let tree: Box<dyn Shape> = Box::new(Rooted { shape: KAry { ranks, arity }, ranks, root });
        forest::plan(name, collective, ranks, vec![tree])
    },
};

fn arity(name: &str, parameter: Option<&str>) -> Result<u32, PlanError> {
    let Some(text) = parameter else { return Ok(DEFAULT) };
    text.parse().ok().filter(|&arity| arity >= 2).ok_or_else(|| PlanError::BadParameter {
        name: name.to_owned(),
        reason: format!("\"{text}\" is not a number of children from 2 up, as in k-ary-tree:3"),
    })
}

/// Nodes in the order of their level, as in a heap.
#[derive(Debug)]
struct KAry {
    ranks: u32,
    arity: u32,
}

impl Shape for KAry {
    fn parent(&self, node: Rank) -> Option<Rank> {
        (node != 0).then(|| (node - 1) / self.arity)
    }

    fn children(&self, node: Rank) -> Vec<Rank> {
        // Computed in 64 bits: any arity is allowed.
        let first = u64::from(node) * u64::from(self.arity) + 1;
        let end = (first + u64::from(self.arity)).min(u64::from(self.ranks));
        (first..end.max(first)).map(|child| child as Rank).collect()
    }
}
