//! Hierarchical: inside each host to a leader, across hosts between leaders, and back. What crosses between hosts does
//! not grow with the ranks on them: a host sends and receives about the vector once up and once down.
//!
//! Two trees, each for one half of the vector, as in the double binary tree, whose nodes are hosts here. In each tree
//! another rank of a host leads it (where it has two), so that two ranks share the work and the host's connections.
//! Reduce-scatter and all-gather have a tree for each part instead. Gather, scatter and all-to-all are not here: each part
//! has one sender and one receiver, so it crosses once in any plan, and a stop on the way would only be another copy.

use std::sync::Arc;

use super::double_binary_tree::Twin;
use crate::plan::dataflow::Collective;
use crate::plan::error::PlanError;
use crate::plan::forest::{self, Shape};
use crate::plan::hosts::{Hosts, Topology};
use crate::plan::local_first;
use crate::plan::lowered::Rank;

/// Ranks of a host unless the name says otherwise.
const RANKS_PER_HOST: u32 = 8;

/// Up to so many ranks of a host all hand their contribution to the leader, which combines them in one pass; of more,
/// the leader's memory would be the bottleneck, and they form a tree of [`FAN_IN`] children to a rank.
const STAR: usize = 8;
const FAN_IN: u32 = 4;

pub(super) const BUILDER: super::Builder = super::Builder {
    name: "hierarchical",
    summary: "inside each host, then across hosts (hierarchical:4 for hosts of 4 ranks, hierarchical:0,0,1,0,1 or \
              hierarchical:0*8/1*8 for each rank's host; 8 to a host unless told): for ranks on several hosts",
    supports: |collective| forest::has(collective) || local_first::has(collective),
    accepts: |name, parameter| topology(name, parameter).map(drop),
    make: |name, parameter, collective, ranks| {
        let hosts = topology(name, parameter)?.hosts(ranks).map_err(|reason| bad(name, reason))?;
        let hosts = Arc::new(hosts);
        if local_first::has(collective) {
            return local_first::plan(name, collective, hosts);
        }
        let tree = |number| -> Box<dyn Shape> {
            Box::new(HostTree::new(hosts.clone(), collective.root(), number))
        };
        let trees = match collective {
            // Nothing is halved in a barrier.
            Collective::Barrier => vec![tree(0)],
            _ => vec![tree(0), tree(1)],
        };
        forest::plan_on_hosts(name, collective, ranks, trees, hosts.by_rank().to_vec())
    },
};

fn topology(name: &str, parameter: Option<&str>) -> Result<Topology, PlanError> {
    match parameter {
        None => Ok(Topology::Size(RANKS_PER_HOST)),
        Some(text) => Topology::parse(text).map_err(|reason| bad(name, reason)),
    }
}

fn bad(name: &str, reason: String) -> PlanError {
    PlanError::BadParameter { name: name.to_owned(), reason }
}

/// One of the two trees.
#[derive(Debug)]
struct HostTree {
    hosts: Arc<Hosts>,
    root: Option<Rank>,
    /// Which of a host's ranks leads it, the given root's host apart: that one the root leads.
    number: usize,
    /// The tree of hosts; none if there is one host only.
    across: Option<Twin>,
}

impl HostTree {
    fn new(hosts: Arc<Hosts>, root: Option<Rank>, number: usize) -> Self {
        let root_host = root.map(|root| hosts.of_rank(root));
        let across = (hosts.count() > 1).then(|| Twin::new(hosts.count(), root_host, number == 1));
        Self { hosts, root, number, across }
    }

    fn leader(&self, host: u32) -> Rank {
        let members = self.hosts.members(host);
        match self.root {
            Some(root) if self.hosts.of_rank(root) == host => root,
            _ => members[self.number % members.len()],
        }
    }

    /// Where a rank stands within its host, the leader at 0.
    fn place(&self, rank: Rank) -> u32 {
        let host = self.hosts.of_rank(rank);
        let size = self.hosts.members(host).len() as u32;
        let first = self.hosts.position(self.leader(host));
        (self.hosts.position(rank) + size - first) % size
    }

    fn at(&self, host: u32, place: u32) -> Rank {
        let members = self.hosts.members(host);
        let first = self.hosts.position(self.leader(host));
        members[(first + place) as usize % members.len()]
    }
}

fn fan_in(members: usize) -> u32 {
    if members <= STAR { STAR as u32 } else { FAN_IN }
}

impl Shape for HostTree {
    fn parent(&self, rank: Rank) -> Option<Rank> {
        let host = self.hosts.of_rank(rank);
        match self.place(rank) {
            0 => self.across.as_ref()?.parent(host).map(|host| self.leader(host)),
            place => Some(self.at(host, (place - 1) / fan_in(self.hosts.members(host).len()))),
        }
    }

    /// Those of the own host first: their sums are there first.
    fn children(&self, rank: Rank) -> Vec<Rank> {
        let host = self.hosts.of_rank(rank);
        let members = self.hosts.members(host);
        let place = self.place(rank);
        let first = place * fan_in(members.len()) + 1;
        let end = (first + fan_in(members.len())).min(members.len() as u32);
        let mut children: Vec<Rank> = (first..end.max(first)).map(|place| self.at(host, place)).collect();
        if let (0, Some(across)) = (place, &self.across) {
            children.extend(across.children(host).into_iter().map(|host| self.leader(host)));
        }
        children
    }
}
