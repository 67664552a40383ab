//! Reads a job's description from the environment that its launcher set. The only place that does.
//!
//! Sapwood's own variables win. Where they do not say which rank of how many this is, what other launchers set is
//! understood: one file each. Who is said to be on one host meets at an abstract Unix socket that is named by the user
//! and the launcher's job, where the kernel proves to each side which user the other is; across hosts the ranks meet at
//! a port and must know a secret, from a file or through the launcher's key-value store.

mod find;
mod hostlist;
mod meet;
mod open_mpi;
mod own;
mod placement;
mod pmi;
mod slurm;
mod table;
mod torchrun;
mod unknown;
mod variables;

use std::ffi::OsString;

use super::{BootstrapError, Job};
use own::Own;
pub use table::{ENVIRONMENT, EnvironmentVariable, environment_table};
pub use unknown::{UnknownVariable, unknown_variables};
use variables::Variables;

/// The names of the environment variables, for launchers.
pub mod variable {
    /// This rank, from 0.
    pub const RANK: &str = "SAPWOOD_RANK";
    /// Ranks in the job.
    pub const SIZE: &str = "SAPWOOD_SIZE";
    /// This rank's number among those on its host; the rank itself where absent.
    pub const LOCAL_RANK: &str = "SAPWOOD_LOCAL_RANK";
    /// Where the ranks meet: `@name`, `/path` or, on several hosts, `host:port` of rank 0.
    pub const RENDEZVOUS: &str = "SAPWOOD_RENDEZVOUS";
    /// The subnet in which ranks of several hosts meet, where hosts have several addresses.
    pub const RENDEZVOUS_SUBNET: &str = "SAPWOOD_RENDEZVOUS_SUBNET";
    /// A file with the job's secret, or an inherited descriptor as `/dev/fd/N`.
    pub const SECRET_FILE: &str = "SAPWOOD_SECRET_FILE";
    /// How long a blocking step waits for the others, in seconds.
    pub const TIMEOUT: &str = "SAPWOOD_TIMEOUT";
    /// Which fabric to use: `auto`, `shm`, `verbs` or `tcp`.
    pub const FABRIC: &str = "SAPWOOD_FABRIC";
    /// The host that this rank says it is on, instead of the one it is on; for tests.
    pub const HOST: &str = "SAPWOOD_HOST";
    /// The file that plans are chosen from; rank 0's counts.
    pub const TUNING: &str = "SAPWOOD_TUNING";
    /// By how many milliseconds messages are held back; for tests.
    pub const DELAY: &str = "SAPWOOD_DELAY";
    /// How often the launcher has started this rank anew, from 0.
    pub const ATTEMPT: &str = "SAPWOOD_ATTEMPT";
    /// Whether a rank that has died may come back.
    pub const RETURNS: &str = "SAPWOOD_RETURNS";
}

impl Job {
    /// This process's place in a job, as its launcher described it; `None` if it was not started by a launcher.
    ///
    /// Understood are Sapwood's own variables (see [`variable`]), which win, and those that `torchrun`, Open MPI's
    /// `mpirun`, process managers that speak PMI-1 (MPICH's `mpiexec`) and Slurm's `srun` set. Under PMI-1 on several
    /// hosts this is collective and waits for all ranks, as long as `SAPWOOD_TIMEOUT` says, and can be called once.
    ///
    /// # Errors
    /// A sentence that names the variable, what it holds and what would be right. Nothing is changed by a refusal.
    pub fn from_environment() -> Result<Option<Self>, BootstrapError> {
        let job = Self::from_variables(std::env::var_os)?;
        // Once for a whole job; outside of one it is for the program to say, which may start ranks that will.
        // Sapwood's own launcher, which counts attempts, has said it already.
        let said = std::env::var_os(variable::ATTEMPT).is_some();
        if job.as_ref().is_some_and(|job| job.rank == 0 && !said) {
            warn_of_unknown_variables();
        }
        Ok(job)
    }

    /// Puts in what the environment says that does not depend on who says which rank this is.
    pub(super) fn with_environment(self) -> Result<Self, BootstrapError> {
        let lookup = std::env::var_os::<&'static str>;
        Ok(Own::read(&Variables::new(&lookup))?.complete(self))
    }

    /// [`Self::from_environment`] with the environment given as a function.
    pub(super) fn from_variables(
        lookup: impl Fn(&'static str) -> Option<OsString>,
    ) -> Result<Option<Self>, BootstrapError> {
        let variables = Variables::new(&lookup);
        let own = Own::read(&variables)?;
        if let Some(job) = own.whole()? {
            return Ok(Some(job));
        }
        match find::placement(&variables)? {
            Some(placement) => meet::job(own, placement).map(Some),
            None => own.nothing_else().map(|()| None),
        }
    }
}

/// Logs a warning for every name in the environment that begins with `SAPWOOD_` and means nothing.
pub fn warn_of_unknown_variables() {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for unknown in unknown_variables(names) {
        tracing::warn!("{unknown}");
    }
}

#[cfg(test)]
mod launcher_tests;
#[cfg(test)]
mod tests;
