//! What Open MPI's `mpirun` sets (ORTE's in 4, PRRTE's in 5). Its key-value store is PMIx, whose protocol is not spoken
//! here: ranks on several hosts are told by the user where to meet.

use super::super::BootstrapError;
use super::placement::{Launcher, Meeting, Names, Placement, socket_name};
use super::variables::Variables;

const NAMES: Names = Names {
    rank: "OMPI_COMM_WORLD_RANK",
    size: "OMPI_COMM_WORLD_SIZE",
    local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
    local_size: "OMPI_COMM_WORLD_LOCAL_SIZE",
};
/// The job's name, the same for all its ranks.
const JOB: [&str; 2] = ["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"];
/// Where the launcher itself listens, the same for all ranks of a host: no other job's launcher has that port.
const LAUNCHER: [&str; 5] = [
    "OMPI_MCA_orte_hnp_uri",
    "PMIX_SERVER_URI41",
    "PMIX_SERVER_URI4",
    "PMIX_SERVER_URI3",
    "PMIX_SERVER_URI2",
];

pub(super) fn read(variables: &Variables<'_>) -> Result<Option<Placement>, BootstrapError> {
    let Some(mut placement) = Placement::read(Launcher::OpenMpi, NAMES, variables)? else {
        return Ok(None);
    };
    let job = variables.first(&JOB)?;
    placement.meeting = match (job, placement.is_on_one_host()) {
        (Some((_, job)), true) => {
            let launcher = variables.first(&LAUNCHER)?.map_or(String::new(), |(_, uri)| uri);
            Meeting::OneHost(socket_name("mpirun", &[&job, &launcher])?)
        }
        (None, true) => Meeting::Unknown {
            missing: JOB[0],
            hint: "the job's name, which mpirun sets",
        },
        (_, false) => Meeting::Unknown {
            missing: super::variable::RENDEZVOUS,
            hint: "HOST:PORT of rank 0: ranks on several hosts cannot find each other through mpirun; hand it on with \
                   mpirun -x SAPWOOD_RENDEZVOUS -x SAPWOOD_SECRET_FILE",
        },
    };
    Ok(Some(placement))
}
