//! k-nomial trees: numbers written with `k` digits, the parent of a number being itself without its last digit that is
//! not 0. Each round multiplies the nodes that are reached by `k`; two of them make the binomial tree, as many as there are
//! nodes a star. The nodes below a node are the numbers that follow it.

use super::forest::Shape;
use super::lowered::Rank;

/// The k-nomial tree of `ranks` nodes; `arity` (`k`) is at least 2.
#[derive(Clone, Copy, Debug)]
pub struct Nomial {
    pub ranks: u32,
    pub arity: u32,
}

impl Nomial {
    /// Everybody is a child of node 0.
    pub fn star(ranks: u32) -> Self {
        Self {
            ranks,
            arity: ranks.max(2),
        }
    }

    /// The value of the last digit's place that is not 0; of node 0, beyond all places.
    fn place(&self, node: Rank) -> u64 {
        let (node, ranks, arity) = (u64::from(node), u64::from(self.ranks), u64::from(self.arity));
        let mut place = 1;
        while place < ranks && node % (place * arity) == 0 {
            place *= arity;
        }
        place
    }

    /// The nodes from `node` on that are below it, itself among them.
    pub fn size(&self, node: Rank) -> u32 {
        self.place(node).min(u64::from(self.ranks - node)) as u32
    }

    /// The child of `node` that leads to `below`, which is a node below it.
    pub fn toward(&self, node: Rank, below: Rank) -> Rank {
        let (further, arity) = (u64::from(below - node), u64::from(self.arity));
        let mut place = 1;
        while place * arity <= further {
            place *= arity;
        }
        node + (further - further % place) as Rank
    }
}

impl Shape for Nomial {
    fn parent(&self, node: Rank) -> Option<Rank> {
        let above = self.place(node) * u64::from(self.arity);
        (node != 0).then(|| node - (u64::from(node) % above) as Rank)
    }

    /// Small subtrees first: they have their sums earliest.
    fn children(&self, node: Rank) -> Vec<Rank> {
        let (end, ranks) = (self.place(node), u64::from(self.ranks));
        let mut children = Vec::new();
        let mut place = 1;
        while place < end {
            let digits = (1..u64::from(self.arity)).map(|digit| u64::from(node) + digit * place);
            children.extend(
                digits
                    .take_while(|child| *child < ranks)
                    .map(|child| child as Rank),
            );
            place *= u64::from(self.arity);
        }
        children
    }
}
