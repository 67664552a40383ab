//! What a launcher other than Sapwood's own says of one process, and whether that can be true.

use std::os::fd::RawFd;

use super::super::{BootstrapError, MAXIMUM_SIZE, Rank, noise, socket};
use super::variables::{Variables, incomplete, refuse};

/// Which launcher has said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Launcher {
    Torchrun,
    OpenMpi,
    /// A process manager that speaks PMI-1: MPICH's `mpiexec`, or `srun --mpi=pmi2`.
    Pmi,
    Slurm,
}

impl Launcher {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Torchrun => "torchrun",
            Self::OpenMpi => "Open MPI's mpirun",
            Self::Pmi => "a PMI-1 process manager",
            Self::Slurm => "Slurm's srun",
        }
    }
}

/// The names of the variables in which a launcher says who a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) rank: &'static str,
    pub(super) size: &'static str,
    pub(super) local_rank: &'static str,
    pub(super) local_size: &'static str,
}

/// Where the ranks of a launcher's job can meet, as far as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meeting {
    /// All ranks are on this host: an abstract socket's name, which no other job has at the same time.
    OneHost(String),
    /// On several, of which this is rank 0's, and a port that follows from the job's own number.
    Network { host: String, port: u16 },
    /// They can tell each other, through the process manager at the other end of this descriptor.
    KeyValue(RawFd),
    /// It says too little. The variable is one that would mend it, if any would.
    Unknown {
        missing: &'static str,
        hint: &'static str,
    },
}

/// One process's place, as a launcher says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) launcher: Launcher,
    pub(super) names: Names,
    pub(super) rank: Rank,
    pub(super) size: u32,
    pub(super) local_rank: Option<u32>,
    pub(super) local_size: Option<u32>,
    pub(super) meeting: Meeting,
}

impl Placement {
    /// What the four variables say; `None` if neither rank nor size is there. The meeting is still to be found out.
    pub(super) fn read(
        launcher: Launcher,
        names: Names,
        variables: &Variables<'_>,
    ) -> Result<Option<Self>, BootstrapError> {
        let rank = variables.number(names.rank)?;
        let size = variables.number(names.size)?;
        let (rank, size) = match (rank, size) {
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(incomplete(names.rank, names.size, "the number of ranks")),
            (None, Some(_)) => return Err(incomplete(names.size, names.rank, "this process's rank, from 0")),
            (Some(rank), Some(size)) => (rank, size),
        };
        let placement = Self {
            launcher,
            names,
            rank,
            size,
            local_rank: variables.number(names.local_rank)?,
            local_size: variables.number(names.local_size)?,
            meeting: Meeting::Unknown {
                missing: names.rank,
                hint: "",
            },
        };
        placement.check().map(Some)
    }

    /// Refuses what cannot be true, with the variables that say so.
    fn check(self) -> Result<Self, BootstrapError> {
        let Self { names, size, .. } = self;
        let contradiction = |sentence: String| Err(BootstrapError::EnvironmentContradiction(sentence));
        if size == 0 || size > MAXIMUM_SIZE {
            let expected = format!("a job has 1 to {MAXIMUM_SIZE} ranks");
            return Err(refuse(names.size, &size.to_string(), &expected));
        }
        if self.rank >= size {
            return contradiction(format!(
                "{}={} and {}={size}: ranks count from 0, so that the last one is {}",
                names.rank,
                self.rank,
                names.size,
                size - 1
            ));
        }
        if let Some(local_size) = self.local_size
            && (local_size == 0 || local_size > size)
        {
            return contradiction(format!(
                "{}={local_size} and {}={size}: this host has 1 to {size} of the ranks",
                names.local_size, names.size
            ));
        }
        if let Some(local_rank) = self.local_rank {
            let (limit, limiting) = match self.local_size {
                Some(local_size) => (local_size, names.local_size),
                None => (size, names.size),
            };
            if local_rank >= limit {
                return contradiction(format!(
                    "{}={local_rank} and {limiting}={limit}: ranks on a host count from 0, so that the last one is {}",
                    names.local_rank,
                    limit - 1
                ));
            }
        }
        Ok(self)
    }

    /// Whether all ranks are on this host, as far as the launcher says.
    pub(super) fn is_on_one_host(&self) -> bool {
        self.size == 1 || self.local_size == Some(self.size)
    }

    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        (self.rank, self.size) == (other.rank, other.size)
    }

    /// "RANK=3 of WORLD_SIZE=8 (torchrun)".
    pub(super) fn described(&self) -> String {
        format!(
            "{}={} of {}={} ({})",
            self.names.rank,
            self.rank,
            self.names.size,
            self.size,
            self.launcher.name()
        )
    }
}

/// An abstract socket's name for a job of this user's: the same on every rank that knows these words. Who else can
/// guess it gains nothing: at a Unix socket the kernel tells each side which user the other is.
pub(super) fn socket_name(launcher: &str, words: &[&str]) -> Result<String, BootstrapError> {
    let user = socket::own_user();
    let digest = noise::fingerprint(words)?;
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sapwood-{launcher}-{user}-{digest}"))
}

/// A port that follows from a number, below those that systems give to connections by themselves.
pub(super) fn derived_port(number: u64) -> u16 {
    const FIRST: u64 = 20_000;
    const PORTS: u64 = 12_000;
    // The offset keeps a port in this range from being derived from itself.
    (FIRST + (number % PORTS + 6_000) % PORTS) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_port_is_never_the_one_that_it_is_derived_from() {
        for port in 0..=u16::MAX {
            let derived = derived_port(port.into());
            assert!(derived != port && (20_000..32_000).contains(&derived), "{port}");
        }
        assert_ne!(derived_port(29_500), derived_port(29_501));
    }

    #[test]
    fn names_differ_with_every_word() {
        let name = |words: &[&str]| socket_name("test", words).unwrap();
        assert_eq!(name(&["a", "b"]), name(&["a", "b"]));
        assert_ne!(name(&["a", "b"]), name(&["ab", ""]));
        assert!(name(&["a"]).len() < 100);
    }
}
