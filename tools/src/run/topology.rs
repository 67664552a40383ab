//! Which CPUs this process may use, and which of them make up a core and a NUMA node, as `/sys` says. What may be used
//! is the own affinity mask, which is never wider than what the control group allows.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::thread::{CpuSet, sched_getaffinity};

/// Where the kernel describes the machine.
pub(super) const SYSTEM: &str = "/sys/devices/system";

/// One core: its hardware threads that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Core {
    pub(super) node: usize,
    /// Ascending.
    pub(super) cpus: Vec<usize>,
}

/// The CPUs that this process may use, ascending.
pub(super) fn allowed() -> std::io::Result<Vec<usize>> {
    let mask = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| mask.is_set(*cpu)).collect())
}

/// The cores among these CPUs, by NUMA node and then by number. A machine that does not say has one node, and a core
/// for each CPU.
pub(super) fn cores(system: &Path, allowed: &[usize]) -> Vec<Core> {
    let nodes = nodes(system);
    let node_of = |cpu: usize| {
        let found = nodes.iter().find(|(_, cpus)| cpus.contains(&cpu));
        found.map_or(0, |(node, _)| *node)
    };
    let mut cores: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for &cpu in allowed {
        let siblings = system.join(format!("cpu/cpu{cpu}/topology/thread_siblings_list"));
        let siblings = std::fs::read_to_string(siblings)
            .ok()
            .and_then(|text| list(&text));
        let first = siblings.and_then(|cpus| cpus.first().copied()).unwrap_or(cpu);
        cores.entry((node_of(cpu), first)).or_default().push(cpu);
    }
    let of_entry = |((node, _), cpus)| Core { node, cpus };
    cores.into_iter().map(of_entry).collect()
}

fn nodes(system: &Path) -> Vec<(usize, Vec<usize>)> {
    let Ok(entries) = std::fs::read_dir(system.join("node")) else {
        return Vec::new();
    };
    let mut nodes: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            let cpus = std::fs::read_to_string(entry.path().join("cpulist")).ok()?;
            Some((number, list(&cpus)?))
        })
        .collect();
    nodes.sort();
    nodes
}

/// CPUs' time that the control group of this process gives it at once, if that is limited.
pub(super) fn quota() -> Option<f64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let folder = Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/'));
    // The folders above limit it too.
    let limits = folder
        .ancestors()
        .take_while(|folder| folder.starts_with("/sys/fs/cgroup"));
    let limits = limits.filter_map(|folder| {
        let text = std::fs::read_to_string(folder.join("cpu.max")).ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    });
    limits.min_by(f64::total_cmp)
}

/// Reads `0-3,8`; `None` for what is no such list.
pub(super) fn list(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last < first || last >= CpuSet::MAX_CPU {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Writes `0-3,8`.
pub(super) fn written(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|one, next| one + 1 == *next);
    let runs: Vec<String> = runs
        .map(|run| match run {
            [one] => one.to_string(),
            _ => format!("{}-{}", run[0], run[run.len() - 1]),
        })
        .collect();
    runs.join(",")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A machine of two nodes with two cores of two threads each: CPU n and n + 4 are one core.
    pub(in super::super) fn two_nodes() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: String, text: String| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for cpu in 0..8 {
            write(
                format!("cpu/cpu{cpu}/topology/thread_siblings_list"),
                format!("{},{}\n", cpu % 4, cpu % 4 + 4),
            );
        }
        write("node/node0/cpulist".into(), "0-1,4-5\n".into());
        write("node/node1/cpulist".into(), "2-3,6-7\n".into());
        write("node/possible".into(), "0-1\n".into());
        folder
    }

    #[test]
    fn threads_of_a_core_and_cores_of_a_node_belong_together() {
        let folder = two_nodes();
        let core = |node, cpus: &[usize]| Core {
            node,
            cpus: cpus.to_vec(),
        };
        let all: Vec<usize> = (0..8).collect();
        assert_eq!(
            cores(folder.path(), &all),
            [
                core(0, &[0, 4]),
                core(0, &[1, 5]),
                core(1, &[2, 6]),
                core(1, &[3, 7])
            ]
        );
        // Whoever may use less is told of less.
        assert_eq!(
            cores(folder.path(), &[4, 6, 7]),
            [core(0, &[4]), core(1, &[6]), core(1, &[7])]
        );
        // A machine that says nothing.
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(cores(empty.path(), &[1, 3]), [core(0, &[1]), core(0, &[3])]);
    }

    #[test]
    fn lists_are_read_and_written() {
        for (text, numbers) in [("0-3,8\n", vec![0, 1, 2, 3, 8]), ("5", vec![5]), ("\n", vec![])] {
            assert_eq!(list(text).unwrap(), numbers);
            assert_eq!(written(&numbers), text.trim());
        }
        for bad in ["3-1", "a", "0-99999999", "1--2"] {
            assert_eq!(list(bad), None, "{bad}");
        }
    }

    #[test]
    fn this_machine_has_cores() {
        let allowed = allowed().unwrap();
        let cores = cores(Path::new(SYSTEM), &allowed);
        let mut cpus: Vec<usize> = cores.iter().flat_map(|core| core.cpus.clone()).collect();
        cpus.sort();
        assert_eq!(cpus, allowed);
    }
}
