//! Direct: one block to a rank, which combines it straight from all inputs, in the order of the ranks; everybody takes
//! the other blocks from their owners. Two rounds whatever the number of ranks, and each sum in one pass.

use std::sync::Arc;

use crate::plan::dataflow::{
    Collective, Consumer, Layout, Own, Plan, Rule, Step, Symmetry, Target, Use, Value,
};
use crate::plan::forest::{self, Rooted, Shape};
use crate::plan::lowered::Rank;

pub(super) const BUILDER: super::Builder = super::Builder {
    name: "direct",
    summary: "every rank combines one block from all inputs and takes the others: for few ranks that share memory",
    supports: forest::has,
    accepts: super::refuse_parameter,
    make: |name, _, collective, ranks| {
        let symmetric = |blocks, rule| Plan::new(name, collective, ranks, blocks, Symmetry::Rotation, rule);
        match collective {
            _ if ranks == 1 => forest::alone(name, collective),
            Collective::AllReduce => symmetric(ranks, Arc::new(Direct { ranks })),
            Collective::Barrier => symmetric(1, Arc::new(Meeting { ranks })),
            Collective::Reduce { root } | Collective::Broadcast { root } => {
                let star: Box<dyn Shape> = Box::new(Rooted { shape: Star { ranks }, ranks, root });
                forest::plan(name, collective, ranks, vec![star])
            }
            _ => unreachable!("refused by `supports`"),
        }
    },
};

/// Everybody is a child of node 0.
#[derive(Debug)]
struct Star {
    ranks: u32,
}

impl Shape for Star {
    fn parent(&self, node: Rank) -> Option<Rank> {
        (node != 0).then_some(0)
    }

    fn children(&self, node: Rank) -> Vec<Rank> {
        if node == 0 { (1..self.ranks).collect() } else { Vec::new() }
    }
}

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
        vec![Use { block: 0, value: Own::Input, by }]
    }

    fn layout(&self) -> Layout {
        Layout::Complete
    }
}

/// A rank's steps are p - 1 copies (copy `i` brings the block of the rank `i + 1` further on), then its reduction.
#[derive(Debug)]
struct Direct {
    ranks: u32,
}

impl Direct {
    fn further(&self, rank: Rank, distance: u32) -> Rank {
        (rank + distance) % self.ranks
    }

    /// How far on `to` is, from 1 to p - 1.
    fn distance(&self, from: Rank, to: Rank) -> u32 {
        (to + self.ranks - from) % self.ranks
    }

    fn reduction(&self) -> u32 {
        self.ranks - 1
    }
}

impl Rule for Direct {
    fn steps(&self, rank: Rank) -> Vec<Step> {
        let copies = (1..self.ranks).map(|distance| {
            let owner = self.further(rank, distance);
            let source = Value::Step { rank: owner, step: self.reduction() };
            Step::Copy { block: owner, source, into: Target::Result }
        });
        let reduction = Step::Reduce {
            block: rank,
            sources: (0..self.ranks).map(Value::Input).collect(),
            into: Target::Result,
            complete: true,
        };
        copies.chain([reduction]).collect()
    }

    fn uses(&self, rank: Rank) -> Vec<Use> {
        let readers = (1..self.ranks).map(|distance| Consumer {
            rank: self.further(rank, distance),
            step: self.ranks - distance - 1,
            landing: None,
        });
        let outcome = Use { block: rank, value: Own::Step(self.reduction()), by: readers.collect() };
        let inputs = (1..self.ranks).map(|distance| {
            let owner = self.further(rank, distance);
            let landing = Some(self.landing(owner, self.reduction(), rank));
            let by = vec![Consumer { rank: owner, step: self.reduction(), landing }];
            Use { block: owner, value: Own::Input, by }
        });
        std::iter::once(outcome).chain(inputs).collect()
    }

    fn landing(&self, rank: Rank, _: u32, from: Rank) -> u32 {
        self.distance(rank, from) - 1
    }

    fn sender(&self, rank: Rank, value: Own, block: u32) -> u32 {
        match value {
            Own::Step(copy) if copy < self.reduction() => copy,
            Own::Step(_) => self.ranks,
            Own::Input => self.ranks + self.distance(rank, block),
        }
    }

    fn layout(&self) -> Layout {
        Layout::Complete
    }
}
