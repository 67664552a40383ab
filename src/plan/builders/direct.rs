//! Direct: one part to a rank, which combines it straight from all inputs, in the order of the ranks; everybody takes the
//! other parts from their owners. One round each way whatever the number of ranks, and each sum in one pass.

use std::sync::Arc;

use crate::plan::dataflow::{Collective, Consumer, Layout, Own, Plan, Rule, Step, Symmetry, Use, Value};
use crate::plan::exchange;
use crate::plan::forest::{self, Rooted, Shape};
use crate::plan::lowered::Rank;
use crate::plan::nomial::Nomial;
use crate::plan::relay;
use crate::plan::run::Run;
use crate::plan::turned::{self, Tree, Trees};

pub(super) const BUILDER: super::Builder = super::Builder {
    name: "direct",
    summary: "every rank combines one block from all inputs and takes the others: for few ranks that share memory",
    supports: |_| true,
    accepts: super::refuse_parameter,
    make: |name, _, collective, ranks| {
        let symmetric = |blocks, rule| Plan::new(name, collective, ranks, blocks, Symmetry::Rotation, rule);
        match collective {
            _ if ranks == 1 => forest::alone(name, collective),
            Collective::AllReduce | Collective::ReduceScatter | Collective::AllGather => {
                // The next rank first, so that not all begin with the same one.
                let star = Tree::new(ranks, true, |_| 0);
                let channels = vec![(star.clone(), star)];
                let layout = Layout::Complete;
                turned::plan(name, collective, Trees { channels, in_rank_order: true, layout })
            }
            Collective::Barrier => symmetric(1, Arc::new(Meeting { ranks })),
            Collective::Reduce { root } | Collective::Broadcast { root } => {
                let star: Box<dyn Shape> = Box::new(Rooted { shape: Nomial::star(ranks), ranks, root });
                forest::plan(name, collective, ranks, vec![star])
            }
            Collective::Gather { .. } | Collective::Scatter { .. } => {
                relay::plan(name, collective, Nomial::star(ranks))
            }
            Collective::AllToAll => exchange::plan(name, ranks, false),
        }
    },
};

/// A barrier in one round: everybody waits until everybody has begun.
#[derive(Debug)]
struct Meeting {
    ranks: u32,
}

impl Rule for Meeting {
    fn steps(&self, rank: Rank) -> Vec<Step> {
        let others = (1..self.ranks).map(|distance| Value::Input((rank + distance) % self.ranks));
        vec![Step::Signal { after: others.collect() }]
    }

    fn uses(&self, rank: Rank) -> Vec<Use> {
        let others = (1..self.ranks).map(|distance| (rank + distance) % self.ranks);
        let by = others.map(|rank| Consumer { rank, step: 0, landing: None }).collect();
        vec![Use { run: Run::ONE, block: 0, value: Own::Input, by }]
    }

    fn layout(&self) -> Layout {
        Layout::Complete
    }
}
