//! Ring: one part to a rank; reduce-scatter around the ring, all-gather around it, or one after the other. The least
//! traffic for each rank, at a depth of `p - 1` each way. Reductions to a root and broadcasts go along the ring as a
//! pipelined chain.
//!
//! With several channels each part is cut into as many blocks, and each channel has a ring of its own through all
//! ranks, as far as there are different ones: the first goes from rank to the next one, the second the other way round,
//! others in strides. So every link of a full mesh can be made use of, and both directions of a simple ring.

use crate::plan::dataflow::{Collective, Layout};
use crate::plan::error::PlanError;
use crate::plan::forest::{self, Shape};
use crate::plan::lowered::Rank;
use crate::plan::turned::{self, Tree, Trees};

/// More channels than this would be more blocks than anybody has use for.
const MOST_CHANNELS: u32 = 16;

pub(super) const BUILDER: super::Builder = super::Builder {
    name: "ring",
    summary: "reduce-scatter and all-gather around a ring, or several (ring:2); a chain for reduce and broadcast: for \
              long vectors",
    supports: |collective| {
        turned::has(collective) || matches!(collective, Collective::Reduce { .. } | Collective::Broadcast { .. })
    },
    accepts: |name, parameter| channels(name, parameter).map(drop),
    make: |name, parameter, collective, ranks| {
        let channels = channels(name, parameter)?;
        if ranks == 1 {
            return forest::alone(name, collective);
        }
        let strides = strides(ranks, channels);
        let Some(root) = collective.root() else {
            let layout = Layout::Rings(strides.clone());
            let channels = strides.iter().map(|stride| around(ranks, *stride)).collect();
            return turned::plan(name, collective, Trees { channels, in_rank_order: false, layout });
        };
        let chain = |stride| -> Box<dyn Shape> { Box::new(Chain { ranks, root, stride }) };
        forest::plan(name, collective, ranks, strides.into_iter().map(chain).collect())
    },
};

fn channels(name: &str, parameter: Option<&str>) -> Result<u32, PlanError> {
    let Some(text) = parameter else { return Ok(1) };
    text.parse().ok().filter(|count| (1..=MOST_CHANNELS).contains(count)).ok_or_else(|| {
        PlanError::BadParameter {
            name: name.to_owned(),
            reason: format!("\"{text}\" is not a number of channels from 1 to {MOST_CHANNELS}, as in ring:2"),
        }
    })
}

/// For each channel, how many ranks further the next one of its ring is. A stride that has a divisor in common with the
/// number of ranks would not come by all of them. Each stride is followed by its opposite.
fn strides(ranks: u32, channels: u32) -> Vec<u32> {
    let coprime = |stride: &u32| {
        let (mut a, mut b) = (ranks, *stride);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a == 1
    };
    let there = (1..=ranks / 2).filter(coprime);
    let mut different: Vec<u32> = there.flat_map(|stride| [stride, ranks - stride]).collect();
    // Of two ranks, one is both ways further.
    different.dedup();
    different.into_iter().cycle().take(channels as usize).collect()
}

/// A block starts behind its owner, is combined from rank to rank, complete at the owner, and copied on from there.
fn around(ranks: u32, stride: u32) -> (Tree, Tree) {
    let rise = Tree::new(ranks, true, |node| (node + stride) % ranks);
    let fall = Tree::new(ranks, true, |node| (node + ranks - stride) % ranks);
    (rise, fall)
}

/// The root, the one a stride further, and so on.
#[derive(Debug)]
struct Chain {
    ranks: u32,
    root: Rank,
    stride: u32,
}

impl Shape for Chain {
    fn parent(&self, rank: Rank) -> Option<Rank> {
        (rank != self.root).then_some((rank + self.ranks - self.stride) % self.ranks)
    }

    fn children(&self, rank: Rank) -> Vec<Rank> {
        let next = (rank + self.stride) % self.ranks;
        if next == self.root { Vec::new() } else { vec![next] }
    }
}
