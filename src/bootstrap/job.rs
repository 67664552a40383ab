//! What one rank knows before it has met any other: who it is, where to meet, and with which secret.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{BootstrapError, Rank, Secret, noise};

/// The most ranks that a job may have.
pub const MAXIMUM_SIZE: u32 = 4096;
/// How long a rank waits for the others where nobody says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// `sun_path` holds 108 bytes; a path needs one for its end, an abstract name one for its beginning.
const NAME_LIMIT: usize = 107;

/// One rank's description of the job it belongs to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Job {
    /// This rank.
    pub rank: Rank,
    /// Ranks in the job, from 1 to [`MAXIMUM_SIZE`].
    pub size: u32,
    /// This rank's number among the ranks on its host.
    pub local_rank: u32,
    /// Where the ranks meet.
    pub rendezvous: Rendezvous,
    /// What they prove to each other that they know.
    pub secret: Secret,
    /// How long each blocking step waits for the others unless the caller says otherwise.
    pub timeout: Duration,
}

impl Job {
    /// A job's description for one of its ranks, with the default timeout.
    ///
    /// # Errors
    /// [`BootstrapError::InvalidJob`] if the size is 0 or above [`MAXIMUM_SIZE`], or the rank or local rank is not
    /// below the size.
    pub fn new(
        rank: Rank,
        size: u32,
        local_rank: u32,
        rendezvous: Rendezvous,
        secret: Secret,
    ) -> Result<Self, BootstrapError> {
        let invalid = |sentence: String| Err(BootstrapError::InvalidJob(sentence));
        if size == 0 || size > MAXIMUM_SIZE {
            return invalid(format!(
                "a job of {size} ranks: there must be 1 to {MAXIMUM_SIZE}"
            ));
        }
        if rank >= size {
            return invalid(format!(
                "rank {rank} of {size}: ranks count from 0, so the last one is {}",
                size - 1
            ));
        }
        if local_rank >= size {
            return invalid(format!(
                "local rank {local_rank} in a job of {size} ranks: it must be below {size}"
            ));
        }
        Ok(Self {
            rank,
            size,
            local_rank,
            rendezvous,
            secret,
            timeout: DEFAULT_TIMEOUT,
        })
    }

    /// The descriptions of all ranks of a new job on this host, by rank, with a random secret and rendezvous: for
    /// ranks that are threads of this process, or for a launcher to pass on.
    ///
    /// # Errors
    /// [`BootstrapError::InvalidJob`] for a size that no job can have.
    pub fn local(size: u32) -> Result<Vec<Self>, BootstrapError> {
        let (rendezvous, secret) = (Rendezvous::random()?, Secret::random()?);
        // Rank 0's description is made first so that a size of 0 is refused and not an empty list.
        let first = Self::new(0, size, 0, rendezvous, secret)?;
        Ok((0..size)
            .map(|rank| Self {
                rank,
                local_rank: rank,
                ..first.clone()
            })
            .collect())
    }
}

/// Where the ranks of a job meet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rendezvous {
    /// A Unix socket in the abstract name space: no file, gone with its process. Written `@name`.
    Abstract(String),
    /// A Unix socket in the file system. Written as its absolute path.
    Path(PathBuf),
}

impl Rendezvous {
    /// An abstract name that nobody else has.
    ///
    /// # Errors
    /// [`BootstrapError::System`] if the system gives no random bytes.
    pub fn random() -> Result<Self, BootstrapError> {
        let mut bytes = [0; 16];
        noise::fill_random(&mut bytes)?;
        Ok(Self::Abstract(format!(
            "sapwood-{:032x}",
            u128::from_ne_bytes(bytes)
        )))
    }
}

impl std::str::FromStr for Rendezvous {
    type Err = String;

    /// Reads `@name` or `/path`; the error says what would be right.
    fn from_str(text: &str) -> Result<Self, String> {
        let what_would_be_right = "it must be @NAME (an abstract socket) or /PATH (a socket's absolute path)";
        if text.len() > NAME_LIMIT {
            return Err(format!(
                "it is {} bytes long and a socket's name has at most {NAME_LIMIT}",
                text.len()
            ));
        }
        if text.contains('\0') {
            return Err(format!("it contains a zero byte; {what_would_be_right}"));
        }
        match text.as_bytes() {
            [b'@', _, ..] => Ok(Self::Abstract(text[1..].into())),
            [b'/', _, ..] => Ok(Self::Path(text.into())),
            _ if text
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) =>
            {
                Err(format!(
                    "ranks on several hosts cannot meet yet; on one host {what_would_be_right}"
                ))
            }
            _ => Err(what_would_be_right.into()),
        }
    }
}

impl fmt::Display for Rendezvous {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abstract(name) => write!(formatter, "@{name}"),
            Self::Path(path) => write!(formatter, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn impossible_jobs_are_refused() {
        for size in [0, MAXIMUM_SIZE + 1, u32::MAX] {
            let error = Job::local(size).unwrap_err().to_string();
            assert!(error.contains("1 to 4096"), "{error}");
        }
        let job = Job::local(2).unwrap().remove(0);
        let error = Job::new(2, 2, 0, job.rendezvous, job.secret)
            .unwrap_err()
            .to_string();
        assert!(error.contains("the last one is 1"), "{error}");
    }

    #[test]
    fn several_hosts_are_refused_with_a_sentence() {
        let error = "node7:4000".parse::<Rendezvous>().unwrap_err();
        assert!(error.contains("several hosts"), "{error}");
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        assert!(format!("@{}", "x".repeat(106)).parse::<Rendezvous>().is_ok());
        assert!(format!("@{}", "x".repeat(107)).parse::<Rendezvous>().is_err());
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_it_was_written(text in "[@/]?.{0,120}") {
            if let Ok(rendezvous) = text.parse::<Rendezvous>() {
                prop_assert_eq!(rendezvous.to_string(), text);
            }
        }
    }
}
