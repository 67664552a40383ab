//! Which CPUs each rank may use: a core, a NUMA node, or what the launcher itself may.

use std::path::Path;

use rustix::thread::CpuSet;

use super::RunError;
use super::topology::{self, Core, SYSTEM};

/// What each rank is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Bind {
    /// One core each, spread over the NUMA nodes in order of ranks
    Core,
    /// The cores of one NUMA node each, in order of ranks
    Numa,
    /// Nothing: the kernel moves them as it likes
    #[default]
    None,
}

/// One rank's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) node: usize,
    pub(super) cpus: Vec<usize>,
}

impl Place {
    pub(super) fn mask(&self) -> CpuSet {
        let mut mask = CpuSet::new();
        self.cpus.iter().for_each(|cpu| mask.set(*cpu));
        mask
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = if self.cpus.len() == 1 { "CPU" } else { "CPUs" };
        let cpus = topology::written(&self.cpus);
        write!(formatter, "{word} {cpus} of NUMA node {}", self.node)
    }
}

/// The places of all ranks, by rank, and what is odd about them; none where nobody is bound.
pub(super) fn places(bind: Bind, ranks: u32) -> Result<(Vec<Place>, Option<String>), RunError> {
    if bind == Bind::None {
        return Ok((Vec::new(), None));
    }
    let allowed = topology::allowed().map_err(|problem| RunError::System {
        doing: "asking which CPUs may be used",
        problem,
    })?;
    let cores = topology::cores(Path::new(SYSTEM), &allowed);
    let mut odd = (bind == Bind::Core && ranks as usize > cores.len())
        .then(|| format!("{ranks} ranks share {} cores", cores.len()));
    if let Some(quota) = topology::quota().filter(|quota| *quota < f64::from(ranks)) {
        odd.get_or_insert_with(|| {
            format!("the control group gives {quota:.1} CPUs' time to all {ranks} ranks together (cpu.max)")
        });
    }
    Ok((spread(bind, ranks as usize, &cores), odd))
}

/// Neighbours among the ranks are neighbours on the machine, and all parts of it get as many.
fn spread(bind: Bind, ranks: usize, cores: &[Core]) -> Vec<Place> {
    let units: Vec<Place> = match bind {
        Bind::None => Vec::new(),
        Bind::Core => cores
            .iter()
            .map(|core| Place {
                node: core.node,
                cpus: core.cpus.clone(),
            })
            .collect(),
        Bind::Numa => {
            let nodes = cores.chunk_by(|one, next| one.node == next.node);
            nodes
                .map(|cores| {
                    let mut cpus: Vec<usize> = cores.iter().flat_map(|core| core.cpus.clone()).collect();
                    cpus.sort_unstable();
                    Place {
                        node: cores[0].node,
                        cpus,
                    }
                })
                .collect()
        }
    };
    if units.is_empty() {
        return Vec::new();
    }
    (0..ranks)
        .map(|rank| units[rank * units.len() / ranks].clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::topology::tests::two_nodes;
    use super::*;

    fn said(bind: Bind, ranks: usize, allowed: &[usize]) -> Vec<String> {
        let folder = two_nodes();
        let cores = topology::cores(folder.path(), allowed);
        spread(bind, ranks, &cores).iter().map(Place::to_string).collect()
    }

    #[test]
    fn ranks_are_spread_over_the_machine_in_their_order() {
        let all: Vec<usize> = (0..8).collect();
        assert_eq!(
            said(Bind::Core, 2, &all),
            ["CPUs 0,4 of NUMA node 0", "CPUs 2,6 of NUMA node 1"]
        );
        assert_eq!(said(Bind::Core, 4, &all)[3], "CPUs 3,7 of NUMA node 1");
        assert_eq!(
            said(Bind::Numa, 3, &all),
            [
                "CPUs 0-1,4-5 of NUMA node 0",
                "CPUs 0-1,4-5 of NUMA node 0",
                "CPUs 2-3,6-7 of NUMA node 1"
            ]
        );
        assert!(said(Bind::None, 3, &all).is_empty());
    }

    #[test]
    fn more_ranks_than_cores_share_them_evenly() {
        let shared = said(Bind::Core, 6, &[1, 2, 3]);
        let mut each = shared.chunks(2);
        assert!(each.all(|pair| pair[0] == pair[1]), "{shared:?}");
        assert_eq!(shared[0], "CPU 1 of NUMA node 0");
    }
}
