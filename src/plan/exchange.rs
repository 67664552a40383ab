//! The rule of all-to-all exchanges: every rank takes from every rank what is meant for it, all at once or in rounds.

use std::sync::Arc;

use super::dataflow::{Collective, Consumer, Layout, Own, Plan, Rule, Step, Symmetry, Target, Use, Value};
use super::error::PlanError;
use super::forest;
use super::lowered::Rank;
use super::run::Run;

/// The plan for an all-to-all; in rounds, a rank begins one when it has what the last one brings.
///
/// # Errors
/// As [`Plan::new`].
pub fn plan(name: &str, ranks: u32, rounds: bool) -> Result<Plan, PlanError> {
    if ranks == 1 {
        return forest::alone(name, Collective::AllToAll);
    }
    let rule = Arc::new(Exchange { ranks, rounds });
    // One block for each pair: of the most ranks there are, one pair more than can be numbered.
    let blocks = ranks.checked_mul(ranks).ok_or(PlanError::Pairs { ranks })?;
    Plan::new(
        name,
        Collective::AllToAll,
        ranks,
        blocks,
        Symmetry::Rotation,
        rule,
    )
}

/// Step `d` of a rank, from 0 to `p - 1`, takes from the rank `d` before it; its own part is step 0.
#[derive(Debug)]
struct Exchange {
    ranks: u32,
    rounds: bool,
}

impl Exchange {
    fn block(&self, sender: Rank, receiver: Rank) -> u32 {
        sender * self.ranks + receiver
    }
}

impl Rule for Exchange {
    fn steps(&self, rank: Rank) -> Vec<Step> {
        let step = |distance| {
            let sender = (rank + self.ranks - distance) % self.ranks;
            let (block, source) = (self.block(sender, rank), Value::Input(sender));
            Step::Copy {
                run: Run::ONE,
                block,
                sources: vec![source],
                into: Target::Result,
            }
        };
        (0..self.ranks).map(step).collect()
    }

    fn uses(&self, rank: Rank) -> Vec<Use> {
        let one = |distance| {
            let receiver = (rank + distance) % self.ranks;
            let by = vec![Consumer {
                rank: receiver,
                step: distance,
                landing: None,
            }];
            Use {
                run: Run::ONE,
                block: self.block(rank, receiver),
                value: Own::Input,
                by,
            }
        };
        (1..self.ranks).map(one).collect()
    }

    fn sender(&self, rank: Rank, value: Own, block: u32) -> u32 {
        match value {
            Own::Step(step) => step,
            Own::Input => {
                let receiver = block % self.ranks;
                self.ranks + (receiver + self.ranks - rank) % self.ranks - 1
            }
        }
    }

    fn after(&self, _: Rank, step: u32) -> Option<u32> {
        (self.rounds && step > 1).then(|| step - 1)
    }

    fn layout(&self) -> Layout {
        match self.rounds {
            true => Layout::Rounds((1..self.ranks).collect()),
            false => Layout::Complete,
        }
    }
}
