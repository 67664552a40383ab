//! The tree of one part, over how far ranks are from the part's owner: the same for all parts, but for being turned. Knows
//! no ranks and no blocks.

use super::lowered::Rank;

/// A tree over distances.
#[derive(Clone, Debug)]
pub struct Tree {
    /// By node; node 0 has none, and its entry means nothing.
    pub(super) parents: Vec<u32>,
    /// By node, in the order in which they are combined.
    pub(super) children: Vec<Vec<u32>>,
}

impl Tree {
    /// From the parent of every node but 0. Children are combined nearest first, or farthest first.
    pub fn new(ranks: u32, nearest_first: bool, parent: impl Fn(u32) -> u32) -> Self {
        let parents: Vec<u32> = (0..ranks)
            .map(|node| if node == 0 { 0 } else { parent(node) })
            .collect();
        let mut children = vec![Vec::new(); ranks as usize];
        for node in 1..ranks {
            children[parents[node as usize] as usize].push(node);
        }
        if !nearest_first {
            children.iter_mut().for_each(|list| list.reverse());
        }
        Self { parents, children }
    }

    /// The parent of each rank where rank 0 is the owner, for a picture.
    pub fn layout(&self) -> Vec<Option<Rank>> {
        let parent = |(node, parent): (usize, &u32)| (node != 0).then_some(*parent);
        self.parents.iter().enumerate().map(parent).collect()
    }

    pub(super) fn ranks(&self) -> u32 {
        self.parents.len() as u32
    }

    /// Nodes, parents before their children.
    fn downwards(&self) -> Vec<u32> {
        let mut order = vec![0];
        let mut next = 0;
        while next < order.len() {
            order.extend(&self.children[order[next] as usize]);
            next += 1;
        }
        order
    }

    /// By node: how many edges lead to the owner, and how many to the farthest leaf below.
    pub(super) fn levels(&self) -> (Vec<u32>, Vec<u32>) {
        let order = self.downwards();
        let (mut depth, mut height) = (vec![0; order.len()], vec![0; order.len()]);
        for &node in &order[1..] {
            depth[node as usize] = depth[self.parents[node as usize] as usize] + 1;
        }
        for &node in order[1..].iter().rev() {
            let parent = self.parents[node as usize] as usize;
            height[parent] = height[parent].max(height[node as usize] + 1);
        }
        (depth, height)
    }
}
