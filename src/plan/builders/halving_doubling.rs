//! Halving and doubling: each round of the reduce-scatter halves the vector that a rank still has to do with, each round
//! of the all-gather doubles what it has. As little traffic as a ring, in `ceil(log2 p)` rounds each way.
//!
//! R. Thakur, R. Rabenseifner, W. Gropp: Optimization of Collective Communication Operations in MPICH, International
//! Journal of High Performance Computing Applications 19 (2005), has both for powers of two, where ranks whose numbers
//! differ in one bit exchange; other numbers of ranks are folded into one first, which moves the whole vector once more.
//! Here a rank passes to the one `s` ranks before it instead, and `s` is halved (rounded up) from round to round: the
//! same number of rounds for any number of ranks, and nothing to fold. That is the all-gather of J. Bruck et al.,
//! Efficient Algorithms for All-to-All Communications in Multiport Message-Passing Systems, IEEE Transactions on
//! Parallel and Distributed Systems 8 (1997), and for the reduce-scatter J. L. Träff, Optimal, Non-pipelined Reduce-scatter
//! and Allreduce Algorithms, arXiv:2410.14234 (2024).
//!
//! Seen from one part: a tree whose node `d` has for parent `d - s`, `s` the largest distance of a round that is at most
//! `d`. An all-reduce takes blocks that lie side by side together, so that a rank has few streams; what a rank does for
//! each block is the same.

use std::sync::Arc;

use crate::plan::dataflow::{Collective, Layout, Plan, Symmetry};
use crate::plan::forest;
use crate::plan::halving::Halving;
use crate::plan::turned::{self, Tree, Trees};

pub(super) const BUILDER: super::Builder = super::Builder {
    name: "halving-doubling",
    summary: "reduce-scatter by halving, all-gather by doubling: a ring's traffic in log2(p) rounds, for any number of \
              ranks",
    supports: turned::has,
    accepts: super::refuse_parameter,
    make: |name, _, collective, ranks| {
        if ranks == 1 {
            return forest::alone(name, collective);
        }
        let rounds = rounds(ranks);
        // Among fewer it is one round each way, and nothing lies side by side.
        if collective == Collective::AllReduce && ranks > 3 {
            let rule = Arc::new(Halving::new(ranks, &rounds));
            return Plan::new(name, collective, ranks, ranks, Symmetry::Rotation, rule);
        }
        let parent = |node: u32| node - rounds.iter().find(|&&distance| distance <= node).unwrap_or(&node);
        // The farthest children are there in the first round.
        let tree = Tree::new(ranks, false, parent);
        let layout = Layout::Trees(vec![tree.layout()]);
        let channels = vec![(tree.clone(), tree)];
        turned::plan(name, collective, Trees { channels, in_rank_order: false, layout })
    },
};

/// The distances of the rounds of a reduce-scatter; the last one is 1.
fn rounds(ranks: u32) -> Vec<u32> {
    let halves = |distance: &u32| (*distance > 1).then(|| distance.div_ceil(2));
    std::iter::successors(Some(ranks), halves).skip(1).collect()
}
