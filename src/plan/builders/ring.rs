//! Ring: one block to a rank; reduce-scatter around the ring, then all-gather. The least traffic for each rank, at a
//! depth of 2(p - 1). Reductions to a root and broadcasts go along the ring as a pipelined chain.

use std::sync::Arc;

use crate::plan::dataflow::{
    Collective, Consumer, Layout, Own, Plan, Rule, Step, Symmetry, Target, Use, Value,
};
use crate::plan::forest::{self, Rooted, Shape};
use crate::plan::lowered::Rank;

pub(super) const BUILDER: super::Builder = super::Builder {
    name: "ring",
    summary: "reduce-scatter and all-gather around a ring; a chain for reduce and broadcast: for long vectors",
    supports: |collective| forest::has(collective) && collective != Collective::Barrier,
    accepts: super::refuse_parameter,
    make: |name, _, collective, ranks| {
        match collective.root() {
            _ if ranks == 1 => forest::alone(name, collective),
            None => {
                Plan::new(name, collective, ranks, ranks, Symmetry::Rotation, Arc::new(Ring { ranks }))
            }
            Some(root) => {
                let chain: Box<dyn Shape> = Box::new(Rooted { shape: Chain { ranks }, ranks, root });
                forest::plan(name, collective, ranks, vec![chain])
            }
        }
    },
};

/// Each node's parent is the one before it.
#[derive(Debug)]
struct Chain {
    ranks: u32,
}

impl Shape for Chain {
    fn parent(&self, node: Rank) -> Option<Rank> {
        node.checked_sub(1)
    }

    fn children(&self, node: Rank) -> Vec<Rank> {
        (node + 1..self.ranks.min(node + 2)).collect()
    }
}

/// Block `b` starts at rank `b + 1`, is summed from rank to rank, complete at rank `b`, and copied on from there.
///
/// With `n = p - 1`, a rank's steps are `n` copies (copy `i` brings the block completed `i + 1` ranks back), then `n`
/// reductions (number `s` from 1 adds the own input to what `s` ranks have summed; number `n` is complete).
#[derive(Debug)]
struct Ring {
    ranks: u32,
}

impl Ring {
    fn others(&self) -> u32 {
        self.ranks - 1
    }

    fn back(&self, rank: Rank, distance: u32) -> u32 {
        (rank + self.ranks - distance % self.ranks) % self.ranks
    }

    /// The index of reduction number `number`, from 1.
    fn reduction(&self, number: u32) -> u32 {
        self.others() + number - 1
    }
}

impl Rule for Ring {
    fn steps(&self, rank: Rank) -> Vec<Step> {
        let others = self.others();
        let before = self.back(rank, 1);
        let from = |step: u32| Value::Step { rank: before, step };
        let copies = (0..others).map(|copy| Step::Copy {
            block: self.back(rank, copy + 1),
            source: from(if copy == 0 { self.reduction(others) } else { copy - 1 }),
            into: Target::Result,
        });
        let reductions = (1..=others).map(|number| Step::Reduce {
            block: self.back(rank, number + 1),
            sources: vec![
                Value::Input(rank),
                if number == 1 { Value::Input(before) } else { from(self.reduction(number - 1)) },
            ],
            into: if number == others { Target::Result } else { Target::Partial },
            complete: number == others,
        });
        copies.chain(reductions).collect()
    }

    fn uses(&self, rank: Rank) -> Vec<Use> {
        let others = self.others();
        let next = (rank + 1) % self.ranks;
        let entry = |block, value, step, landing| Use {
            block,
            value,
            by: vec![Consumer { rank: next, step, landing }],
        };
        let complete = entry(rank, Own::Step(self.reduction(others)), 0, None);
        let copies =
            (0..others - 1).map(|copy| entry(self.back(rank, copy + 1), Own::Step(copy), copy + 1, None));
        let sums = (1..others).map(|number| {
            let value = Own::Step(self.reduction(number));
            entry(self.back(rank, number + 1), value, self.reduction(number + 1), Some(number))
        });
        let input = entry(self.back(rank, 1), Own::Input, self.reduction(1), Some(0));
        std::iter::once(complete).chain(copies).chain(sums).chain([input]).collect()
    }

    fn landing(&self, _: Rank, step: u32, _: Rank) -> u32 {
        step - self.others()
    }

    fn sender(&self, _: Rank, value: Own, _: u32) -> u32 {
        let others = self.others();
        let steps = 2 * others;
        match value {
            Own::Input => steps + others,
            Own::Step(copy) if copy < others => copy,
            Own::Step(last) if last == self.reduction(others) => steps,
            Own::Step(reduction) => steps + reduction + 1 - others,
        }
    }

    fn layout(&self) -> Layout {
        Layout::Ring
    }
}
