//! k-nomial tree: each round multiplies the ranks that are reached by k, so there are `ceil(log_k p)` of them, and a rank
//! has up to k - 1 partners in a round. Gathers and scatters pass each part along the tree.

use crate::plan::error::PlanError;
use crate::plan::forest::{self, Rooted, Shape};
use crate::plan::nomial::Nomial;
use crate::plan::relay;

const DEFAULT: u32 = 4;

pub(super) const BUILDER: super::Builder = super::Builder {
    name: "k-nomial",
    summary: "one tree of depth log_k(p) with k - 1 partners to a round (k-nomial:3; k = 4 unless told): for short \
              vectors, and to gather and scatter few bytes",
    supports: |collective| forest::has(collective) || relay::has(collective),
    accepts: |name, parameter| arity(name, parameter).map(drop),
    make: |name, parameter, collective, ranks| {
        let tree = Nomial { ranks, arity: arity(name, parameter)? };
        if relay::has(collective) {
            return relay::plan(name, collective, tree);
        }
        let root = collective.root().unwrap_or(0);
        let tree: Box<dyn Shape> = Box::new(Rooted { shape: tree, ranks, root });
        forest::plan(name, collective, ranks, vec![tree])
    },
};

fn arity(name: &str, parameter: Option<&str>) -> Result<u32, PlanError> {
    let Some(text) = parameter else { return Ok(DEFAULT) };
    text.parse().ok().filter(|&arity| arity >= 2).ok_or_else(|| PlanError::BadParameter {
        name: name.to_owned(),
        reason: format!("\"{text}\" is not a number from 2 up, as in k-nomial:3"),
    })
}
