//! Reads a job's description from the environment that its launcher set. The only place that does.
//!
//! What other launchers set (Open MPI, Slurm, torchrun) will be read here too, where Sapwood's own is absent.

use std::ffi::OsString;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use super::{BootstrapError, DEFAULT_TIMEOUT, Job, MAXIMUM_SIZE, Rendezvous, Secret, host};
use crate::fabric::select::{Choice, ChoiceError};

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
    /// A file with the job's secret, or an inherited descriptor as `/dev/fd/N`.
    pub const SECRET_FILE: &str = "SAPWOOD_SECRET_FILE";
    /// How long a blocking step waits for the others, in seconds.
    pub const TIMEOUT: &str = "SAPWOOD_TIMEOUT";
    /// Which fabric to use: `auto`, `shm` or `verbs`.
    pub const FABRIC: &str = "SAPWOOD_FABRIC";
    /// The host that this rank says it is on, instead of the one it is on; for tests.
    pub const HOST: &str = "SAPWOOD_HOST";
}

impl Job {
    /// This process's place in a job, as its launcher described it; `None` if it was not started by a launcher.
    ///
    /// # Errors
    /// A sentence that names the variable, what it holds and what would be right. Nothing is changed by a refusal.
    pub fn from_environment() -> Result<Option<Self>, BootstrapError> {
        Self::from_variables(std::env::var_os)
    }

    /// [`Self::from_environment`] with the environment given as a function.
    pub(super) fn from_variables(
        lookup: impl Fn(&'static str) -> Option<OsString>,
    ) -> Result<Option<Self>, BootstrapError> {
        use variable::{FABRIC, HOST, LOCAL_RANK, RANK, RENDEZVOUS, SECRET_FILE, SIZE, TIMEOUT};
        let text = |name: &'static str| -> Result<Option<String>, BootstrapError> {
            match lookup(name).map(OsString::into_string) {
                None => Ok(None),
                Some(Ok(value)) => Ok(Some(value)),
                Some(Err(value)) => Err(refuse(name, &value.to_string_lossy(), "it is not valid UTF-8")),
            }
        };

        // A timeout alone does not make a job: programs outside of one honour it too.
        let needed = [
            (RANK, "this process's rank, from 0"),
            (SIZE, "the number of ranks"),
            (RENDEZVOUS, "@NAME or /PATH of a socket, or HOST:PORT of rank 0"),
            (SECRET_FILE, "a file of at least 16 secret bytes"),
        ];
        let mut values = Vec::with_capacity(needed.len());
        for (name, _) in needed {
            values.push(text(name)?);
        }
        let Some(present) = needed
            .iter()
            .zip(&values)
            .find_map(|(entry, value)| value.is_some().then_some(entry.0))
        else {
            return match text(LOCAL_RANK)? {
                None => Ok(None),
                Some(_) => Err(BootstrapError::EnvironmentIncomplete {
                    present: LOCAL_RANK,
                    missing: RANK,
                    hint: needed[0].1,
                }),
            };
        };
        if let Some(&(missing, hint)) = needed
            .iter()
            .zip(&values)
            .find_map(|(entry, value)| value.is_none().then_some(entry))
        {
            return Err(BootstrapError::EnvironmentIncomplete {
                present,
                missing,
                hint,
            });
        }
        let [rank_text, size_text, rendezvous_text, secret_path] = <[Option<String>; 4]>::try_from(values)
            .unwrap_or_default()
            .map(Option::unwrap_or_default);

        let size: u32 = number(SIZE, &size_text, &format!("a number from 1 to {MAXIMUM_SIZE}"))?;
        if size == 0 || size > MAXIMUM_SIZE {
            return Err(refuse(
                SIZE,
                &size_text,
                &format!("a job has 1 to {MAXIMUM_SIZE} ranks"),
            ));
        }
        let below_size = format!("a number from 0 to {} ({SIZE} is {size})", size - 1);
        let rank = below(RANK, &rank_text, size, &below_size)?;
        let local_rank = match text(LOCAL_RANK)? {
            Some(value) => below(LOCAL_RANK, &value, size, &below_size)?,
            None => rank,
        };
        let rendezvous = Rendezvous::from_str(&rendezvous_text)
            .map_err(|expected| refuse(RENDEZVOUS, &rendezvous_text, &expected))?;
        if matches!(rendezvous, Rendezvous::Network { port: 0, .. }) {
            let expected = "port 0 is no port that all ranks could know; it must be 1 to 65535";
            return Err(refuse(RENDEZVOUS, &rendezvous_text, expected));
        }
        let timeout = match text(TIMEOUT)? {
            Some(value) => parse_timeout(&value).map_err(|expected| refuse(TIMEOUT, &value, &expected))?,
            None => DEFAULT_TIMEOUT,
        };
        let fabric = match text(FABRIC)? {
            Some(name) => name
                .parse()
                .map_err(|error: ChoiceError| refuse(FABRIC, &name, &error.to_string()))?,
            None => Choice::default(),
        };
        let host = text(HOST)?;
        if let Some(name) = &host {
            host::check_name(name).map_err(|error| refuse(HOST, name, &error.to_string()))?;
        }
        let secret = Secret::from_file(Path::new(&secret_path)).map_err(|error| match error {
            BootstrapError::Secret { problem, .. } => refuse(SECRET_FILE, &secret_path, &problem),
            other => other,
        })?;
        let mut job = Self::new(rank, size, local_rank, rendezvous, secret)?;
        job.timeout = timeout;
        job.host = host;
        job.fabric = fabric;
        Ok(Some(job))
    }
}

fn refuse(variable: &'static str, value: &str, expected: &str) -> BootstrapError {
    BootstrapError::Environment {
        variable,
        value: value.into(),
        expected: expected.into(),
    }
}

fn number(variable: &'static str, value: &str, expected: &str) -> Result<u32, BootstrapError> {
    // `u32::from_str` takes a leading plus, which no launcher writes.
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| value.parse().ok())
        .flatten()
        .ok_or_else(|| refuse(variable, value, &format!("it must be {expected}")))
}

fn below(variable: &'static str, value: &str, limit: u32, expected: &str) -> Result<u32, BootstrapError> {
    match number(variable, value, expected)? {
        number if number < limit => Ok(number),
        _ => Err(refuse(variable, value, &format!("it must be {expected}"))),
    }
}

/// Seconds, with a fraction if wanted; the error says what would be right.
fn parse_timeout(value: &str) -> Result<Duration, String> {
    const LONGEST: f64 = 365.0 * 24.0 * 3600.0;
    match value.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= LONGEST => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("it must be a number of seconds above 0, 60 for example, and at most a year".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::os::fd::{AsRawFd, OwnedFd};

    fn good() -> (OwnedFd, HashMap<&'static str, String>) {
        let descriptor = Secret::random().unwrap().to_descriptor().unwrap();
        let secret_path = format!("/dev/fd/{}", descriptor.as_raw_fd());
        let pairs = [
            (variable::RANK, "3".into()),
            (variable::SIZE, "8".into()),
            (variable::RENDEZVOUS, "@meet".into()),
            (variable::SECRET_FILE, secret_path),
        ];
        (descriptor, pairs.into())
    }

    fn read(variables: &HashMap<&'static str, String>) -> Result<Option<Job>, BootstrapError> {
        Job::from_variables(|name| variables.get(name).map(OsString::from))
    }

    #[test]
    fn no_launcher_no_job() {
        assert!(read(&HashMap::new()).unwrap().is_none());
        assert!(read(&[(variable::TIMEOUT, "5".into())].into()).unwrap().is_none());
    }

    #[test]
    fn a_whole_description_is_understood() {
        let (_descriptor, mut variables) = good();
        variables.insert(variable::LOCAL_RANK, "1".into());
        variables.insert(variable::TIMEOUT, "2.5".into());
        variables.insert(variable::FABRIC, "verbs".into());
        variables.insert(variable::HOST, "left".into());
        let job = read(&variables).unwrap().unwrap();
        assert_eq!((job.rank, job.size, job.local_rank), (3, 8, 1));
        assert_eq!(job.rendezvous, Rendezvous::Abstract("meet".into()));
        assert_eq!(job.timeout, Duration::from_millis(2500));
        assert_eq!((job.fabric, job.host.as_deref()), (Choice::Verbs, Some("left")));
    }

    #[test]
    fn every_refusal_names_variable_value_and_what_would_be_right() {
        for (name, value, right) in [
            (variable::RANK, "8", "from 0 to 7"),
            (variable::RANK, "-1", "from 0 to 7"),
            (variable::FABRIC, "tcp", "not built yet"),
            (variable::FABRIC, "carrier-pigeon", "choose auto, shm or verbs"),
            (variable::HOST, "", "printable"),
            (variable::RANK, "+1", "from 0 to 7"),
            (variable::RANK, "three", "from 0 to 7"),
            (variable::SIZE, "0", "1 to 4096"),
            (variable::SIZE, "4097", "1 to 4096"),
            (variable::SIZE, "99999999999", "1 to 4096"),
            (variable::LOCAL_RANK, "9", "from 0 to 7"),
            (variable::RENDEZVOUS, "meet", "@NAME"),
            (variable::RENDEZVOUS, "node:port", "HOST:PORT"),
            (variable::RENDEZVOUS, "node:0", "1 to 65535"),
            (variable::TIMEOUT, "0", "seconds above 0"),
            (variable::TIMEOUT, "NaN", "seconds above 0"),
            (variable::TIMEOUT, "1e300", "seconds above 0"),
            (variable::SECRET_FILE, "/nonexistent", "cannot be opened"),
        ] {
            let (_descriptor, mut variables) = good();
            variables.insert(name, value.into());
            let error = read(&variables).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains(value) && error.contains(right),
                "{error}"
            );
        }
    }

    #[test]
    fn half_a_description_names_the_missing_half() {
        for name in [
            variable::RANK,
            variable::SIZE,
            variable::RENDEZVOUS,
            variable::SECRET_FILE,
        ] {
            let (_descriptor, mut variables) = good();
            variables.remove(name);
            let error = read(&variables).unwrap_err().to_string();
            assert!(error.contains(&format!("{name} is not")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_in_the_environment_panics(values in prop::collection::vec(prop::option::of(".{0,40}"), 8)) {
            let names = [variable::RANK, variable::SIZE, variable::LOCAL_RANK, variable::RENDEZVOUS,
                variable::SECRET_FILE, variable::TIMEOUT, variable::FABRIC, variable::HOST];
            let variables: HashMap<_, _> =
                names.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect();
            let _ = read(&variables);
        }
    }
}
