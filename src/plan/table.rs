//! Which plan for which size: a built-in table, for where nothing was measured ([`cost`](super::cost)).

use std::borrow::Cow;

use super::dataflow::Collective;
use super::hosts::{Hosts, hierarchical_name};

const KIB: usize = 1 << 10;

/// Up to here a vector is short: rounds count for more than traffic.
const SHORT: usize = 64 * KIB;
/// Up to here parts are collected in few rounds, beyond around a ring. MPICH changes over here, too.
const SHORT_PARTS: usize = 512 * KIB;
/// Up to so many ranks each reads from all others directly.
const FEW: u32 = 8;
/// Plans that are not the same for all ranks are proved part by part, which takes long where parts are many.
const MOST_PARTS: u32 = 512;

/// The name of the plan for `bytes` bytes among `ranks` ranks; [`super::builders::find`] knows it. The bytes are those of
/// the longer one of a rank's two buffers: where it gets or gives a part only, of all parts.
///
/// Few ranks read each other directly, in two rounds; more ranks than that
/// would crowd each input, so they go along trees, or around a ring.
pub fn default_plan(collective: Collective, ranks: u32, bytes: usize) -> &'static str {
    let few = ranks <= FEW;
    match collective {
        Collective::AllReduce | Collective::Barrier if few => "direct",
        Collective::Barrier => "dissemination",
        // A short vector has no second half worth a tree of its own.
        Collective::AllReduce if bytes <= 4 * KIB => "k-ary-tree",
        Collective::AllReduce => "double-binary-tree",
        Collective::Reduce { .. } | Collective::Broadcast { .. } if few && bytes <= SHORT => "direct",
        Collective::Reduce { .. } | Collective::Broadcast { .. } if bytes <= SHORT => "k-ary-tree",
        Collective::Reduce { .. } | Collective::Broadcast { .. } => "double-binary-tree",
        _ if few => "direct",
        Collective::ReduceScatter | Collective::AllGather if bytes <= SHORT_PARTS => "halving-doubling",
        Collective::ReduceScatter | Collective::AllGather => "ring",
        // What is long enough crosses the root's link at full speed, and would only be copied on the way.
        Collective::Gather { .. } | Collective::Scatter { .. } if bytes <= SHORT => "k-nomial",
        Collective::Gather { .. } | Collective::Scatter { .. } => "direct",
        Collective::AllToAll => "pairwise",
    }
}

/// As [`default_plan`], for ranks of which it is known on which host they are: one number per rank, equal on one host.
/// The same on every rank that has the same list.
///
/// Where hosts are several and some have several ranks, the hierarchical plan for that map, if there is one, at any size:
/// a short vector crosses between hosts in the fewest rounds with it, a long one the fewest times. On one host parts,
/// and what is broadcast, are taken from where they lie, however many ranks there are. Else the choice is
/// [`default_plan`]'s.
pub fn default_plan_on(collective: Collective, hosts: &[u32], bytes: usize) -> Cow<'static, str> {
    let table = Table::new(hosts);
    match table.hierarchical(collective) {
        Some(name) => name.to_owned().into(),
        None => table.same_for_all(collective, bytes).into(),
    }
}

/// [`default_plan_on`] for one list of hosts, to be asked many times.
#[derive(Clone, Debug)]
pub struct Table {
    ranks: u32,
    one_host: bool,
    /// The hierarchical plan, where hosts are several and some have several ranks.
    hierarchical: Option<String>,
}

impl Table {
    /// `hosts` as there.
    pub fn new(hosts: &[u32]) -> Self {
        let ranks = hosts.len() as u32;
        let count = Hosts::of(hosts.iter().copied()).count();
        Self {
            ranks,
            one_host: count == 1,
            hierarchical: (count > 1 && count < ranks).then(|| hierarchical_name(hosts)),
        }
    }

    /// The plan's name.
    pub fn choose(&self, collective: Collective, bytes: usize) -> &str {
        let hierarchical = self.hierarchical(collective);
        hierarchical.unwrap_or_else(|| self.same_for_all(collective, bytes))
    }

    fn hierarchical(&self, collective: Collective) -> Option<&str> {
        let crosses_less = match collective {
            Collective::ReduceScatter | Collective::AllGather => self.ranks <= MOST_PARTS,
            _ => !collective.has_parts(),
        };
        self.hierarchical.as_deref().filter(|_| crosses_less)
    }

    fn same_for_all(&self, collective: Collective, bytes: usize) -> &'static str {
        match collective {
            // From where it lies: any stop on the way would be a copy or a wait more.
            _ if self.one_host && collective.has_parts() => "direct",
            Collective::Broadcast { .. } if self.one_host => "direct",
            Collective::Reduce { .. } if self.one_host && self.ranks == 2 => "direct",
            _ => default_plan(collective, self.ranks, bytes),
        }
    }
}

/// The size of a chunk in bytes for a block of `block_bytes`, where nothing was measured.
///
/// From 64 KiB, below which the cost of a wait shows, to 256 KiB, beyond which a chunk leaves the cache before the next
/// rank reads it; in between, about 16 chunks to a block, so that a pipeline fills. Always a multiple of 64 bytes.
pub fn default_chunk_bytes(block_bytes: usize) -> usize {
    (block_bytes / 16).clamp(64 * KIB, 256 * KIB).next_multiple_of(64)
}

/// From how many bytes of a vector on what is stored into several results goes past the caches: a built-in figure until
/// there is a tuner. Measured with 2 MiB of second-level cache to a core: at 2 MiB either is as fast, at 8 MiB this one.
pub fn default_past_caches_bytes() -> usize {
    4 * KIB * KIB
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::builders;

    #[test]
    fn every_entry_builds() {
        for ranks in [1, 2, 8, 9, 100, 4096] {
            for bytes in [0, 8, 4096, 65536, 1 << 20, usize::MAX] {
                let root = ranks - 1;
                for collective in Collective::every(root) {
                    builders::build(default_plan(collective, ranks, bytes), collective, ranks).unwrap();
                    for hosts in [1, 2, 7, ranks] {
                        let hosts: Vec<u32> = (0..ranks).map(|rank| rank % hosts).collect();
                        let name = default_plan_on(collective, &hosts, bytes);
                        builders::build(&name, collective, ranks).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn hosts_change_the_plan_where_there_is_a_hierarchy() {
        let all = Collective::AllReduce;
        assert_eq!(
            default_plan_on(all, &[0, 0, 0, 0], 1 << 20),
            default_plan(all, 4, 1 << 20)
        );
        assert_eq!(
            default_plan_on(all, &[0, 1, 2, 3], 1 << 20),
            default_plan(all, 4, 1 << 20)
        );
        for bytes in [8, 1 << 20] {
            let gather = Collective::Gather { root: 3 };
            assert_eq!(default_plan_on(gather, &[0, 0, 1, 1], bytes), "direct");
            assert_eq!(
                default_plan_on(Collective::ReduceScatter, &[4; 40], bytes),
                "direct"
            );
            let broadcast = Collective::Broadcast { root: 2 };
            for collective in [all, Collective::Barrier, broadcast, Collective::AllGather] {
                let name = default_plan_on(collective, &[0, 0, 1, 1], bytes);
                assert_eq!(name, "hierarchical:2");
                builders::build(&name, collective, 4).unwrap();
            }
        }
        assert_eq!(default_plan_on(all, &[3, 1, 3], 8), "hierarchical:0/1/0");
    }

    #[test]
    fn chunks_stay_in_bounds() {
        for block_bytes in [0, 1, 1 << 20, (1 << 21) + 7, 1 << 30, usize::MAX] {
            let chunk = default_chunk_bytes(block_bytes);
            assert!(
                (64 * KIB..=256 * KIB).contains(&chunk) && chunk.is_multiple_of(64),
                "{block_bytes}: {chunk}"
            );
        }
    }
}
