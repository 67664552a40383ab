//! The rule of reduce-scatters and all-gathers on several hosts: each part has a tree in which every other host has one
//! relay, which combines what its host contributes before it crosses, or hands on to its host what has crossed. So a part
//! crosses from or to each host once, whatever the ranks on it.
//!
//! A part's relay is the rank that has the owner's place on its own host (modulo the ranks there), so that all ranks of
//! a host share the work and its connections. Between the owner and the relays nothing lies: what a host sends and gets
//! in all is the least there is, as with a ring of hosts, but in one round.

use std::sync::Arc;

use super::dataflow::{Collective, Consumer, Layout, Own, Plan, Rule, Step, Symmetry, Target, Use, Value};
use super::error::PlanError;
use super::forest;
use super::hosts::Hosts;
use super::lowered::Rank;
use super::run::Run;

/// Whether it can be done so.
pub fn has(collective: Collective) -> bool {
    matches!(collective, Collective::ReduceScatter | Collective::AllGather)
}

/// The plan for a reduce-scatter or an all-gather.
///
/// # Errors
/// As [`Plan::new`].
pub fn plan(name: &str, collective: Collective, hosts: Arc<Hosts>) -> Result<Plan, PlanError> {
    let ranks = hosts.ranks();
    if ranks == 1 {
        return forest::alone(name, collective);
    }
    let relays = Relays { ranks, hosts };
    let rule: Arc<dyn Rule> = match collective {
        Collective::AllGather => Arc::new(Spread(relays)),
        _ => Arc::new(Combine::new(relays)),
    };
    Plan::new(name, collective, ranks, ranks, Symmetry::None, rule)
}

#[derive(Debug)]
struct Relays {
    ranks: u32,
    hosts: Arc<Hosts>,
}

impl Relays {
    fn size(&self, host: u32) -> u32 {
        self.hosts.members(host).len() as u32
    }

    /// Who stands for a host in a part's tree; on the owner's host the owner.
    fn relay(&self, host: u32, owner: Rank) -> Rank {
        self.hosts.members(host)[(self.hosts.position(owner) % self.size(host)) as usize]
    }

    /// The others on a rank's host, from the next one on.
    fn mates(&self, rank: Rank) -> impl Iterator<Item = Rank> {
        let members = self.hosts.members(self.hosts.of_rank(rank));
        let place = self.hosts.position(rank) as usize;
        (1..members.len()).map(move |further| members[(place + further) % members.len()])
    }

    /// The relays of the other hosts, from the next host on.
    fn relays(&self, owner: Rank) -> impl Iterator<Item = Rank> {
        let (host, count) = (self.hosts.of_rank(owner), self.hosts.count());
        (1..count).map(move |further| self.relay((host + further) % count, owner))
    }

    /// Where `rank` gets a part from on the way down, and hands it to on the way up.
    fn above(&self, rank: Rank, owner: Rank) -> Rank {
        let host = self.hosts.of_rank(rank);
        let relay = self.relay(host, owner);
        if relay == rank { owner } else { relay }
    }

    /// Whether others on `rank`'s host have a part from or through it.
    fn is_inner(&self, rank: Rank, owner: Rank) -> bool {
        let host = self.hosts.of_rank(rank);
        host != self.hosts.of_rank(owner) && self.size(host) > 1 && self.relay(host, owner) == rank
    }

    /// The other parts, the next rank's first.
    fn others(&self, rank: Rank) -> impl Iterator<Item = Rank> {
        (1..self.ranks).map(move |further| (rank + further) % self.ranks)
    }

    /// Where a part is among [`Relays::others`], the own one being the last.
    fn place(&self, rank: Rank, owner: Rank) -> u32 {
        (owner + self.ranks - rank - 1) % self.ranks
    }

    fn layout(&self) -> Layout {
        let above = |rank| (rank != 0).then(|| self.above(rank, 0));
        Layout::Hosts {
            trees: vec![(0..self.ranks).map(above).collect()],
            hosts: self.hosts.by_rank().to_vec(),
        }
    }
}

/// An all-gather. A rank's steps are all parts, the next rank's first, its own last.
#[derive(Debug)]
struct Spread(Relays);

impl Spread {
    /// What a rank hands on of a part.
    fn held(&self, rank: Rank, owner: Rank) -> Own {
        if rank == owner {
            Own::Input
        } else {
            Own::Step(self.0.place(rank, owner))
        }
    }

    fn handed_on(&self, rank: Rank, owner: Rank) -> Use {
        let consumer = |to: Rank| Consumer {
            rank: to,
            step: self.0.place(to, owner),
            landing: None,
        };
        let mut by = Vec::new();
        if rank == owner {
            // What has the farthest to go first.
            by.extend(self.0.relays(owner).map(consumer));
        }
        by.extend(self.0.mates(rank).map(consumer));
        Use {
            run: Run::ONE,
            block: owner,
            value: self.held(rank, owner),
            by,
        }
    }
}

impl Rule for Spread {
    fn steps(&self, rank: Rank) -> Vec<Step> {
        let copy = |owner: Rank| {
            let source = match owner == rank {
                true => Value::Input(rank),
                false => {
                    let above = self.0.above(rank, owner);
                    self.held(above, owner).of(above)
                }
            };
            Step::Copy {
                run: Run::ONE,
                block: owner,
                sources: vec![source],
                into: Target::Result,
            }
        };
        self.0.others(rank).chain([rank]).map(copy).collect()
    }

    fn uses(&self, rank: Rank) -> Vec<Use> {
        let passed = self.0.others(rank).filter(|owner| self.0.is_inner(rank, *owner));
        std::iter::once(rank)
            .chain(passed)
            .map(|owner| self.handed_on(rank, owner))
            .collect()
    }

    fn sender(&self, _: Rank, value: Own, _: u32) -> u32 {
        match value {
            Own::Step(step) => step,
            Own::Input => self.0.ranks,
        }
    }

    fn layout(&self) -> Layout {
        self.0.layout()
    }
}

/// A reduce-scatter. A rank's steps are its own part, then those for which it is the relay of a host of several.
#[derive(Debug)]
struct Combine {
    relays: Relays,
    /// By host, by part: how many parts of other hosts before it have the same relay there.
    before: Vec<Vec<u32>>,
    /// By rank: for how many parts of other hosts it is the relay.
    counts: Vec<u32>,
    /// The most steps that any rank has.
    most: u32,
}

impl Combine {
    const OWN: u32 = 0;

    fn new(relays: Relays) -> Self {
        let mut counts = vec![0; relays.ranks as usize];
        let before = (0..relays.hosts.count()).map(|host| {
            let parts = (0..relays.ranks).map(|owner| {
                let count = &mut counts[relays.relay(host, owner) as usize];
                let before = *count;
                *count += u32::from(relays.hosts.of_rank(owner) != host);
                before
            });
            parts.collect()
        });
        let before = before.collect();
        let mut rule = Self {
            relays,
            before,
            counts,
            most: 0,
        };
        rule.most = (0..rule.relays.ranks)
            .map(|rank| rule.length(rank))
            .max()
            .unwrap_or(1);
        rule
    }

    /// How many steps a rank has.
    fn length(&self, rank: Rank) -> u32 {
        match self.relays.size(self.relays.hosts.of_rank(rank)) {
            1 => 1,
            _ => 1 + self.counts[rank as usize],
        }
    }

    /// The step of a relay for a part.
    fn step(&self, relay: Rank, owner: Rank) -> u32 {
        1 + self.before[self.relays.hosts.of_rank(relay) as usize][owner as usize]
    }

    /// What a rank contributes to a part that is not its own.
    fn held(&self, rank: Rank, owner: Rank) -> Own {
        match self.relays.is_inner(rank, owner) {
            true => Own::Step(self.step(rank, owner)),
            false => Own::Input,
        }
    }

    fn reduce(&self, rank: Rank, owner: Rank) -> Step {
        let below = |from: Rank| self.held(from, owner).of(from);
        let mut sources = vec![Value::Input(rank)];
        sources.extend(self.relays.mates(rank).map(below));
        if rank == owner {
            sources.extend(self.relays.relays(owner).map(below));
        }
        let complete = rank == owner;
        let into = if complete { Target::Result } else { Target::Partial };
        Step::Reduce {
            run: Run::ONE,
            block: owner,
            sources,
            into,
            complete,
        }
    }
}

impl Rule for Combine {
    fn steps(&self, rank: Rank) -> Vec<Step> {
        let inner = (0..self.relays.ranks).filter(|owner| self.relays.is_inner(rank, *owner));
        std::iter::once(rank)
            .chain(inner)
            .map(|owner| self.reduce(rank, owner))
            .collect()
    }

    fn uses(&self, rank: Rank) -> Vec<Use> {
        let one = |owner: Rank| {
            let to = self.relays.above(rank, owner);
            let step = if to == owner {
                Self::OWN
            } else {
                self.step(to, owner)
            };
            let by = vec![Consumer {
                rank: to,
                step,
                landing: Some(self.landing(to, step, rank)),
            }];
            Use {
                run: Run::ONE,
                block: owner,
                value: self.held(rank, owner),
                by,
            }
        };
        self.relays.others(rank).map(one).collect()
    }

    /// The own part's first: from the own host, then from the others.
    fn landing(&self, rank: Rank, step: u32, from: Rank) -> u32 {
        let hosts = &self.relays.hosts;
        let (host, theirs) = (hosts.of_rank(rank), hosts.of_rank(from));
        let (size, count) = (self.relays.size(host), hosts.count());
        if theirs != host {
            return size - 1 + (theirs + count - host) % count - 1;
        }
        let mate = (hosts.position(from) + size - hosts.position(rank)) % size - 1;
        match step {
            Self::OWN => mate,
            _ => size - 1 + count - 1 + (step - 1) * (size - 1) + mate,
        }
    }

    fn sender(&self, rank: Rank, _: Own, block: u32) -> u32 {
        self.length(rank) + self.relays.place(rank, block)
    }

    fn held_steps(&self) -> u32 {
        self.most
    }

    fn layout(&self) -> Layout {
        self.relays.layout()
    }
}
