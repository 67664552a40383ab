//! A core for each rank, where there are enough: a scheduler that puts two ranks on one core would be measured
//! instead of the library. Open MPI's `mpirun` binds by default too.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Binds this process to the `local_rank`-th of the cores it may use; leaves it alone where the ranks outnumber the
/// cores (they must share) or somebody has bound it already.
pub fn bind(local_rank: u32, ranks: u32) {
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let cores = (0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect::<Vec<_>>();
    let (true, Some(core)) = (cores.len() >= ranks as usize, cores.get(local_rank as usize)) else {
        return;
    };
    let mut own = CpuSet::new();
    own.set(*core);
    // Refused, the ranks are where the scheduler puts them, as without this.
    let _ = sched_setaffinity(None, &own);
}
