//! The rule of an all-reduce by halving and doubling, with as many streams as the square of the number of rounds at most:
//! what a rank does for blocks that lie side by side, with the same partners, is one step for the whole run of them. Never
//! lists all ranks or blocks.
//!
//! It is the same plan as that of turned trees, block by block: a rank is, for the part that is `d` ranks before it, node
//! `d` of a tree, whose parent is `d - s`, `s` the largest distance of a round that is at most `d`. Nodes are taken
//! together as long as they have children by the same rounds, and each child's value is one of the steps' of its rank.
//!
//! Sums go from the farthest node to the nearest, so that each needs only what was combined before; finished parts go from
//! the nearest to the farthest.

use std::collections::BTreeSet;
use std::ops::Range;

use super::dataflow::{Consumer, Layout, Own, Rule, Step, Target, Use, Value};
use super::lowered::Rank;
use super::run::Run;

/// Nodes that are taken together.
type Nodes = Range<u32>;

/// See the module.
#[derive(Debug)]
pub struct Halving {
    ranks: u32,
    /// How far each round reaches, before them the number of ranks; the last one is 1.
    reach: Vec<u32>,
    /// By step, nearest first; node 0 has none.
    copies: Vec<Nodes>,
    /// By step behind the copies, farthest first; leaves have none.
    reductions: Vec<Nodes>,
    /// By reduction: the number of its first contribution.
    landings: Vec<u32>,
    /// What goes up: the reduction there, and the round by which it does. Sums come before inputs.
    contributions: Vec<(usize, usize)>,
}

impl Halving {
    /// For the distances of the rounds of a reduce-scatter among so many ranks, at least two.
    pub fn new(ranks: u32, rounds: &[u32]) -> Self {
        let reach: Vec<u32> = std::iter::once(ranks).chain(rounds.iter().copied()).collect();
        let ends: Vec<u32> = reach.windows(2).map(|pair| pair[0] - pair[1]).collect();
        let bounds = reach.iter().copied().chain(ends.iter().copied());
        let copied: BTreeSet<u32> = bounds.clone().chain([1]).filter(|bound| *bound > 0).collect();
        // A child's nodes end where its parent's do.
        let mut combined: BTreeSet<u32> = bounds.chain([0]).filter(|bound| *bound <= ends[0]).collect();
        let mut open: Vec<u32> = combined.iter().copied().collect();
        while let Some(bound) = open.pop() {
            let below = reach.iter().find(|distance| **distance <= bound);
            open.extend(
                below
                    .map(|distance| bound - distance)
                    .filter(|below| combined.insert(*below)),
            );
        }
        let mut rule = Self {
            ranks,
            reach,
            copies: between(&copied),
            reductions: between(&combined),
            landings: Vec::new(),
            contributions: Vec::new(),
        };
        rule.reductions.reverse();
        let mut landings = 0;
        let mut contributions = Vec::new();
        for (at, nodes) in rule.reductions.iter().enumerate() {
            rule.landings.push(landings);
            let rounds = rule.rounds(nodes);
            landings += rounds.len() as u32 * up(nodes).landings();
            contributions.extend(rounds.map(|round| (at, round)));
        }
        // Who starts something new comes last.
        contributions
            .sort_by_key(|&(at, round)| rule.contribution(&rule.reductions[at], round) == Own::Input);
        rule.contributions = contributions;
        rule
    }

    /// The rounds by which these nodes have children, farthest first.
    fn rounds(&self, nodes: &Nodes) -> Range<usize> {
        let has = |round: &usize| nodes.end <= self.reach[round - 1] - self.reach[*round];
        1..1 + (1..self.reach.len()).take_while(has).count()
    }

    /// The round by which these nodes, which are not the first one, get what is finished.
    fn round(&self, nodes: &Nodes) -> usize {
        self.reach.partition_point(|distance| *distance > nodes.start)
    }

    fn block(&self, rank: Rank, node: u32) -> u32 {
        (rank + self.ranks - node) % self.ranks
    }

    fn farther(&self, rank: Rank, round: usize) -> Rank {
        (rank + self.reach[round]) % self.ranks
    }

    fn nearer(&self, rank: Rank, round: usize) -> Rank {
        (rank + self.ranks - self.reach[round]) % self.ranks
    }

    /// The value that children of these nodes by a round hand to them.
    fn contribution(&self, nodes: &Nodes, round: usize) -> Own {
        let child = nodes.start + self.reach[round];
        let step = self.reductions.iter().position(|nodes| nodes.contains(&child));
        step.map_or(Own::Input, |at| Own::Step(self.reduction(at)))
    }

    fn reduction(&self, at: usize) -> u32 {
        (self.copies.len() + at) as u32
    }

    /// The finished values of these nodes, by step.
    fn finished(&self, nodes: Nodes) -> impl Iterator<Item = u32> {
        let owned = (nodes.start == 0).then(|| self.reduction(self.reductions.len() - 1));
        owned.into_iter().chain(self.copying(nodes))
    }

    /// The copies that have some of these nodes.
    fn copying(&self, nodes: Nodes) -> impl Iterator<Item = u32> {
        let first = self.copies.partition_point(|copied| copied.end <= nodes.start);
        let end = self.copies.partition_point(|copied| copied.start < nodes.end);
        first as u32..end as u32
    }

    fn down_to(&self, rank: Rank, value: u32, nodes: Nodes) -> Option<Use> {
        let mut by = Vec::new();
        for round in self.rounds(&nodes) {
            let distance = self.reach[round];
            let rank = self.farther(rank, round);
            let steps = self.copying(nodes.start + distance..nodes.end + distance);
            by.extend(steps.map(|step| Consumer {
                rank,
                step,
                landing: None,
            }));
        }
        (!by.is_empty()).then(|| Use {
            block: self.block(rank, nodes.start),
            run: down(&nodes),
            value: Own::Step(value),
            by,
        })
    }
}

/// The nodes from one bound to the next.
fn between(bounds: &BTreeSet<u32>) -> Vec<Nodes> {
    let bounds: Vec<u32> = bounds.iter().copied().collect();
    bounds.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

/// What is combined: from the farthest node, whose block is the first, to the nearest.
fn up(nodes: &Nodes) -> Run {
    Run {
        blocks: nodes.end - nodes.start,
        backwards: false,
    }
}

/// What is finished: from the nearest node, whose block is the last, to the farthest.
fn down(nodes: &Nodes) -> Run {
    Run {
        blocks: nodes.end - nodes.start,
        backwards: true,
    }
}

impl Rule for Halving {
    fn steps(&self, rank: Rank) -> Vec<Step> {
        let copies = self.copies.iter().map(|nodes| {
            let round = self.round(nodes);
            let (distance, rank_above) = (self.reach[round], self.nearer(rank, round));
            let above = self.finished(nodes.start - distance..nodes.end - distance);
            Step::Copy {
                block: self.block(rank, nodes.start),
                run: down(nodes),
                sources: above.map(|step| Own::Step(step).of(rank_above)).collect(),
                into: Target::Result,
            }
        });
        let reductions = self.reductions.iter().map(|nodes| {
            let values = self
                .rounds(nodes)
                .map(|round| self.contribution(nodes, round).of(self.farther(rank, round)));
            let complete = nodes.start == 0;
            Step::Reduce {
                block: self.block(rank, nodes.end - 1),
                run: up(nodes),
                sources: std::iter::once(Value::Input(rank)).chain(values).collect(),
                into: if complete { Target::Result } else { Target::Partial },
                complete,
            }
        });
        copies.chain(reductions).collect()
    }

    fn uses(&self, rank: Rank) -> Vec<Use> {
        let owned = self.down_to(rank, self.reduction(self.reductions.len() - 1), 0..1);
        let copies = self.copies.iter().zip(0..);
        let copies = copies.filter_map(|(nodes, step)| self.down_to(rank, step, nodes.clone()));
        let contributions = self.contributions.iter().map(|&(at, round)| {
            let nodes = &self.reductions[at];
            let (to, step) = (self.nearer(rank, round), self.reduction(at));
            Use {
                block: self.block(rank, nodes.end - 1 + self.reach[round]),
                run: up(nodes),
                value: self.contribution(nodes, round),
                by: vec![Consumer {
                    rank: to,
                    step,
                    landing: Some(self.landing(to, step, rank)),
                }],
            }
        });
        owned.into_iter().chain(copies).chain(contributions).collect()
    }

    fn landing(&self, rank: Rank, step: u32, from: Rank) -> u32 {
        let at = step as usize - self.copies.len();
        let nodes = &self.reductions[at];
        let distance = (from + self.ranks - rank) % self.ranks;
        let before = self
            .rounds(nodes)
            .take_while(|round| self.reach[*round] != distance);
        self.landings[at] + before.count() as u32 * up(nodes).landings()
    }

    fn sender(&self, rank: Rank, value: Own, block: u32) -> u32 {
        let steps = (self.copies.len() + self.reductions.len()) as u32;
        match value {
            Own::Step(copy) if (copy as usize) < self.copies.len() => copy,
            _ if block == rank => steps,
            _ => {
                let node = self.block(rank, block);
                let from = |&(at, round): &(usize, usize)| {
                    let (nodes, distance) = (&self.reductions[at], self.reach[round]);
                    (nodes.start + distance..nodes.end + distance).contains(&node)
                };
                // A value that goes nowhere has no stream; the number after the last makes the verifier say so.
                let before = self
                    .contributions
                    .iter()
                    .take_while(|contribution| !from(contribution));
                steps + 1 + before.count() as u32
            }
        }
    }

    fn layout(&self) -> Layout {
        let parent = |node: u32| {
            let distance = self.reach.iter().find(|distance| **distance <= node)?;
            (node != 0).then(|| node - distance)
        };
        Layout::Trees(vec![(0..self.ranks).map(parent).collect()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::turned::{self, Tree, Trees};
    use crate::plan::{Collective, Plan, builders};

    /// The block, whether it is combined, and from what.
    type Did = (u32, bool, Vec<(Rank, bool)>);

    /// For each block that a rank combines or copies: whose values, and whether these are inputs, in order. Of a copy it is
    /// the one rank that has it.
    fn block_by_block(plan: &Plan, rank: Rank) -> Vec<Did> {
        let mut all = Vec::new();
        for step in plan.rule().steps(rank) {
            for block in step.run().of(step.block(), plan.blocks()) {
                let is_input = |value: &Value| matches!(value, Value::Input(_));
                let sources = step.sources().iter().map(|value| (value.rank(), is_input(value)));
                let mut sources: Vec<(Rank, bool)> = sources.collect();
                let combines = matches!(step, Step::Reduce { .. });
                if !combines {
                    sources.dedup();
                }
                all.push((block, combines, sources));
            }
        }
        all.sort();
        all
    }

    /// Sums have the terms that they have where each block is a stream of its own, in the same order: so the same bits.
    #[test]
    fn every_block_is_combined_as_by_turned_trees() {
        for ranks in (4..=70).chain([97, 127, 128, 129, 255, 256, 257]) {
            let plan = builders::build("halving-doubling", Collective::AllReduce, ranks).unwrap();
            let layout = plan.rule().layout();
            let Layout::Trees(trees) = &layout else {
                panic!("it is drawn as trees")
            };
            let tree = Tree::new(ranks, false, |node| trees[0][node as usize].unwrap());
            let trees = Trees {
                channels: vec![(tree.clone(), tree)],
                in_rank_order: false,
                layout: layout.clone(),
            };
            let turned = turned::plan("turned", Collective::AllReduce, trees).unwrap();
            for rank in [0, 1, ranks / 2, ranks - 1] {
                assert_eq!(
                    block_by_block(&plan, rank),
                    block_by_block(&turned, rank),
                    "{ranks} ranks"
                );
            }
        }
    }

    #[test]
    fn a_rank_has_few_steps() {
        for ranks in [4, 64, 1_000, 4_096, 49_151, 65_535, 65_536] {
            let plan = builders::build("halving-doubling", Collective::AllReduce, ranks).unwrap();
            let rounds = ranks.next_power_of_two().ilog2() as usize;
            let (steps, uses) = (plan.rule().steps(1).len(), plan.rule().uses(1).len());
            assert!(
                steps <= 3 * rounds && uses <= 2 * rounds * rounds,
                "{ranks}: {steps} steps, {uses} uses"
            );
        }
    }
}
