//! A core for each rank, where there are enough: a scheduler that puts two ranks on one core would be measured
//! instead of the library. Open MPI's `mpirun` binds by default too.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Binds this process to the `local_rank`-th of the cores it may use, and says so; leaves it alone where the ranks
/// outnumber the cores (they must share) or somebody has bound it already.
pub(super) fn bind(local_rank: u32, ranks: u32) -> bool {
    let Ok(allowed) = sched_getaffinity(None) else {
        return false;
    };
    let cores = (0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect::<Vec<_>>();
    let (true, Some(core)) = (cores.len() >= ranks as usize, cores.get(local_rank as usize)) else {
        return false;
    };
    let mut own = CpuSet::new();
    own.set(*core);
    sched_setaffinity(None, &own).is_ok()
}
