//! The rule of algorithms in which every rank owns a part, and the trees of all parts are the same but for being turned:
//! rings, everybody with everybody, halving and doubling. Up a tree a part's blocks are combined (reduce-scatter), down
//! a tree they are handed out (all-gather); an all-reduce does both.
//!
//! A tree is given over distances: the rank `d` further than the owner is node `d` of it, the owner node 0. A part may
//! have several blocks, each with a tree of its own (a channel).

use std::sync::Arc;

use super::dataflow::{Collective, Consumer, Layout, Own, Plan, Rule, Step, Symmetry, Target, Use, Value};
use super::error::PlanError;
use super::lowered::Rank;
use super::run::Run;
pub use super::tree::Tree;

/// What the trees of an algorithm are.
#[derive(Clone, Debug)]
pub struct Trees {
    /// One for each channel: the way to the owner, and the way from it.
    pub channels: Vec<(Tree, Tree)>,
    /// Contributions are combined in the order of the ranks; else a rank's own one comes first.
    pub in_rank_order: bool,
    /// How it is drawn.
    pub layout: Layout,
}

/// Whether turned trees can do it.
pub fn has(collective: Collective) -> bool {
    matches!(
        collective,
        Collective::AllReduce | Collective::ReduceScatter | Collective::AllGather
    )
}

/// The plan for an all-reduce, reduce-scatter or all-gather among at least two ranks.
///
/// # Errors
/// As [`Plan::new`].
pub fn plan(name: &str, collective: Collective, trees: Trees) -> Result<Plan, PlanError> {
    let ranks = trees.channels[0].0.ranks();
    let blocks = ranks * trees.channels.len() as u32;
    let rule = Turned::new(collective, trees);
    Plan::new(
        name,
        collective,
        ranks,
        blocks,
        Symmetry::Rotation,
        Arc::new(rule),
    )
}

/// A node of the tree of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    channel: u32,
    distance: u32,
}

/// Nodes in some order, and where each is in it.
#[derive(Debug)]
struct Order {
    nodes: Vec<Node>,
    /// By channel, by distance.
    positions: Vec<u32>,
    ranks: u32,
}

impl Order {
    const NOWHERE: u32 = u32::MAX;

    fn new(ranks: u32, channels: u32, nodes: Vec<Node>) -> Self {
        let mut positions = vec![Self::NOWHERE; (ranks * channels) as usize];
        for (node, position) in nodes.iter().zip(0..) {
            positions[(node.channel * ranks + node.distance) as usize] = position;
        }
        Self {
            nodes,
            positions,
            ranks,
        }
    }

    fn position(&self, node: Node) -> Option<u32> {
        let position = self.positions[(node.channel * self.ranks + node.distance) as usize];
        (position != Self::NOWHERE).then_some(position)
    }

    fn len(&self) -> u32 {
        self.nodes.len() as u32
    }
}

/// A rank's steps are its copies (one for each node but the owner's, which only an all-gather has), then its reductions
/// (one for each node with children). Who waits longest comes last.
#[derive(Debug)]
struct Turned {
    ranks: u32,
    trees: Trees,
    copies: Order,
    reductions: Order,
    /// What goes up: those that were combined, then inputs.
    contributions: Order,
    /// By position among the reductions: the number of the first contribution to it.
    landings: Vec<u32>,
    /// By channel, by distance: which of its parent's children a node is, on the way up.
    places: Vec<u32>,
}

impl Turned {
    fn new(collective: Collective, trees: Trees) -> Self {
        let (ranks, channels) = (trees.channels[0].0.ranks(), trees.channels.len() as u32);
        let up = collective != Collective::AllGather;
        let down = collective != Collective::ReduceScatter;
        let (mut copies, mut reductions, mut contributions) = (Vec::new(), Vec::new(), Vec::new());
        for ((rise, fall), channel) in trees.channels.iter().zip(0..) {
            let depth = fall.levels().0;
            let height = rise.levels().1;
            for distance in (0..ranks).rev() {
                let node = Node { channel, distance };
                let index = distance as usize;
                if down && (distance != 0 || !up) {
                    // The own input can be copied at any time.
                    let when = if distance == 0 { u32::MAX } else { depth[index] };
                    copies.push((when, node));
                }
                if up && height[index] > 0 {
                    reductions.push((height[index], node));
                }
                if up && distance != 0 {
                    let when = if height[index] > 0 {
                        height[index]
                    } else {
                        u32::MAX
                    };
                    contributions.push((when, node));
                }
            }
        }
        let order = |mut list: Vec<(u32, Node)>| {
            list.sort_by_key(|&(when, _)| when);
            Order::new(ranks, channels, list.into_iter().map(|(_, node)| node).collect())
        };
        let (copies, reductions, contributions) = (order(copies), order(reductions), order(contributions));
        let mut next = 0;
        let mut landings = Vec::with_capacity(reductions.nodes.len());
        let mut places = vec![0; (ranks * channels) as usize];
        for &Node { channel, distance } in &reductions.nodes {
            landings.push(next);
            let children = &trees.channels[channel as usize].0.children[distance as usize];
            for (child, place) in children.iter().zip(0..) {
                places[(channel * ranks + child) as usize] = place;
            }
            next += children.len() as u32;
        }
        Self {
            ranks,
            trees,
            copies,
            reductions,
            contributions,
            landings,
            places,
        }
    }

    fn channels(&self) -> u32 {
        self.trees.channels.len() as u32
    }

    /// The block in whose tree `rank` is this node.
    fn block(&self, rank: Rank, node: Node) -> u32 {
        (rank + self.ranks - node.distance) % self.ranks * self.channels() + node.channel
    }

    fn node(&self, rank: Rank, block: u32) -> Node {
        let (part, channel) = (block / self.channels(), block % self.channels());
        Node {
            channel,
            distance: (rank + self.ranks - part) % self.ranks,
        }
    }

    /// The rank that is at `distance` in a tree in which `rank` is `node`.
    fn at(&self, rank: Rank, node: Node, distance: u32) -> Rank {
        (rank + self.ranks - node.distance + distance) % self.ranks
    }

    fn copy(&self, node: Node) -> Option<u32> {
        self.copies.position(node)
    }

    fn reduction(&self, node: Node) -> Option<u32> {
        Some(self.copies.len() + self.reductions.position(node)?)
    }

    /// What a node hands to its parent.
    fn contribution(&self, node: Node) -> Own {
        self.reduction(node).map_or(Own::Input, Own::Step)
    }

    /// What a node hands to its children. The children of an owner need not wait for its own copy.
    fn outcome(&self, node: Node) -> Own {
        let step = match node.distance {
            0 => self.reduction(node),
            _ => self.copy(node),
        };
        step.map_or(Own::Input, Own::Step)
    }

    fn rise(&self, node: Node) -> &Tree {
        &self.trees.channels[node.channel as usize].0
    }

    fn fall(&self, node: Node) -> &Tree {
        &self.trees.channels[node.channel as usize].1
    }

    fn handed_down(&self, rank: Rank, node: Node) -> Option<Use> {
        let children = &self.fall(node).children[node.distance as usize];
        let by = children.iter().filter_map(|&distance| {
            let step = self.copy(Node { distance, ..node })?;
            Some(Consumer {
                rank: self.at(rank, node, distance),
                step,
                landing: None,
            })
        });
        let by: Vec<Consumer> = by.collect();
        (!by.is_empty()).then(|| Use {
            run: Run::ONE,
            block: self.block(rank, node),
            value: self.outcome(node),
            by,
        })
    }

    fn owned(&self) -> impl Iterator<Item = Node> {
        (0..self.channels()).map(|channel| Node { channel, distance: 0 })
    }
}

impl Rule for Turned {
    fn steps(&self, rank: Rank) -> Vec<Step> {
        let copies = self.copies.nodes.iter().map(|&node| {
            let source = match node.distance {
                0 => Value::Input(rank),
                distance => {
                    let distance = self.fall(node).parents[distance as usize];
                    self.outcome(Node { distance, ..node })
                        .of(self.at(rank, node, distance))
                }
            };
            Step::Copy {
                run: Run::ONE,
                block: self.block(rank, node),
                sources: vec![source],
                into: Target::Result,
            }
        });
        let reductions = self.reductions.nodes.iter().map(|&node| {
            let children = self.rise(node).children[node.distance as usize].iter();
            let values = children.map(|&distance| {
                self.contribution(Node { distance, ..node })
                    .of(self.at(rank, node, distance))
            });
            let mut sources: Vec<Value> = std::iter::once(Value::Input(rank)).chain(values).collect();
            if self.trees.in_rank_order {
                sources.sort_by_key(|source| source.rank());
            }
            let complete = node.distance == 0;
            let into = if complete { Target::Result } else { Target::Partial };
            Step::Reduce {
                run: Run::ONE,
                block: self.block(rank, node),
                sources,
                into,
                complete,
            }
        });
        copies.chain(reductions).collect()
    }

    /// First what is handed down and is no copy, then copies, then what goes up.
    fn uses(&self, rank: Rank) -> Vec<Use> {
        let copies = self
            .copies
            .nodes
            .iter()
            .copied()
            .filter(|node| node.distance != 0);
        let down = self
            .owned()
            .chain(copies)
            .filter_map(|node| self.handed_down(rank, node));
        let up = self.contributions.nodes.iter().filter_map(|&node| {
            let distance = self.rise(node).parents[node.distance as usize];
            let parent = Node { distance, ..node };
            let (to, step) = (self.at(rank, node, distance), self.reduction(parent)?);
            let landing = Some(self.landing(to, step, rank));
            let by = vec![Consumer {
                rank: to,
                step,
                landing,
            }];
            Some(Use {
                run: Run::ONE,
                block: self.block(rank, node),
                value: self.contribution(node),
                by,
            })
        });
        down.chain(up).collect()
    }

    fn landing(&self, rank: Rank, step: u32, from: Rank) -> u32 {
        let position = (step - self.copies.len()) as usize;
        let node = self.reductions.nodes[position];
        let child = (from + self.ranks - rank + node.distance) % self.ranks;
        self.landings[position] + self.places[(node.channel * self.ranks + child) as usize]
    }

    fn sender(&self, rank: Rank, value: Own, block: u32) -> u32 {
        let steps = self.copies.len() + self.reductions.len();
        match value {
            Own::Step(copy) if copy < self.copies.len() => copy,
            _ => {
                let node = self.node(rank, block);
                let handed_down = if self.copies.len() == 0 {
                    0
                } else {
                    self.channels()
                };
                match self.contributions.position(node) {
                    Some(position) => steps + handed_down + position,
                    None => steps + node.channel,
                }
            }
        }
    }

    fn held_steps(&self) -> u32 {
        self.reductions.len()
    }

    fn in_one_round(&self) -> bool {
        let star = |tree: &Tree| tree.parents.iter().all(|parent| *parent == 0);
        let stars = self
            .trees
            .channels
            .iter()
            .all(|(rise, fall)| star(rise) && star(fall));
        stars && self.copies.len() > 0 && self.reductions.len() > 0
    }

    fn in_rank_order(&self) -> bool {
        self.trees.in_rank_order
    }

    fn layout(&self) -> Layout {
        self.trees.layout.clone()
    }
}
