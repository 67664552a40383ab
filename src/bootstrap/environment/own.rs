//! Sapwood's own variables: each is read here, once, and refused here if it cannot be used.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::super::{BootstrapError, DEFAULT_TIMEOUT, Job, MAXIMUM_SIZE, Rank, Rendezvous, Secret, host};
use super::variable::{
    ATTEMPT, DELAY, FABRIC, HOST, LOCAL_RANK, RANK, RENDEZVOUS, RENDEZVOUS_SUBNET, RETURNS, SECRET_FILE,
    SIZE, TIMEOUT, TUNING,
};
use super::variables::{Variables, below, incomplete, number, refuse};
use crate::fabric::select::{Choice, ChoiceError};
use crate::fabric::verbs::Subnet;

const RANK_HINT: &str = "this process's rank, from 0";
const SIZE_HINT: &str = "the number of ranks";
const RENDEZVOUS_HINT: &str = "@NAME or /PATH of a socket, or HOST:PORT of rank 0";
pub(super) const SECRET_HINT: &str = "a file of at least 16 secret bytes";

/// What they say. Ranks are checked against a size that another launcher may have to give.
pub(super) struct Own {
    rank: Option<String>,
    size: Option<String>,
    local_rank: Option<String>,
    pub(super) rendezvous: Option<Rendezvous>,
    pub(super) subnet: Option<Subnet>,
    secret_file: Option<PathBuf>,
    pub(super) timeout: Duration,
    fabric: Choice,
    host: Option<String>,
    tuning: Option<PathBuf>,
    delay: Option<Duration>,
    returns: bool,
    attempt: u32,
}

impl Own {
    pub(super) fn read(variables: &Variables<'_>) -> Result<Self, BootstrapError> {
        let text = |name| variables.text(name);
        let rendezvous = text(RENDEZVOUS)?
            .map(|text| {
                let read =
                    Rendezvous::from_str(&text).map_err(|expected| refuse(RENDEZVOUS, &text, &expected))?;
                if matches!(read, Rendezvous::Network { port: 0, .. }) {
                    let expected = "port 0 is no port that all ranks could know; it must be 1 to 65535";
                    return Err(refuse(RENDEZVOUS, &text, expected));
                }
                Ok(read)
            })
            .transpose()?;
        let subnet = text(RENDEZVOUS_SUBNET)?
            .map(|text| {
                Subnet::from_str(&text).map_err(|error| refuse(RENDEZVOUS_SUBNET, &text, &error.to_string()))
            })
            .transpose()?;
        let timeout = text(TIMEOUT)?
            .map(|value| parse_timeout(&value).map_err(|expected| refuse(TIMEOUT, &value, &expected)))
            .transpose()?;
        let fabric = text(FABRIC)?
            .map(|name| {
                name.parse()
                    .map_err(|error: ChoiceError| refuse(FABRIC, &name, &error.to_string()))
            })
            .transpose()?;
        let host = text(HOST)?;
        if let Some(name) = &host {
            host::check_name(name).map_err(|error| refuse(HOST, name, &error.to_string()))?;
        }
        let delay = text(DELAY)?
            .map(|value| parse_delay(&value).map_err(|expected| refuse(DELAY, &value, &expected)))
            .transpose()?;
        let returns = match text(RETURNS)?.as_deref() {
            None | Some("0") => false,
            Some("1") => true,
            Some(other) => {
                let expected = "it must be 1 (a rank that died may come back) or 0";
                return Err(refuse(RETURNS, other, expected));
            }
        };
        let attempt = match text(ATTEMPT)? {
            Some(text) => number(
                ATTEMPT,
                &text,
                "a whole number: how often this rank was started anew",
            )?,
            None => 0,
        };
        Ok(Self {
            rank: text(RANK)?,
            size: text(SIZE)?,
            local_rank: text(LOCAL_RANK)?,
            rendezvous,
            subnet,
            secret_file: text(SECRET_FILE)?.map(PathBuf::from),
            timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
            fabric: fabric.unwrap_or_default(),
            host,
            tuning: text(TUNING)?.map(PathBuf::from),
            delay,
            returns,
            attempt,
        })
    }

    /// The job, if these variables say who this process is: they must then say everything.
    pub(super) fn whole(&self) -> Result<Option<Job>, BootstrapError> {
        let (rank, size) = match (&self.rank, &self.size) {
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(incomplete(RANK, SIZE, SIZE_HINT)),
            (None, Some(_)) => return Err(incomplete(SIZE, RANK, RANK_HINT)),
            (Some(rank), Some(size)) => (rank, size),
        };
        let ranks: u32 = number(SIZE, size, &format!("a number from 1 to {MAXIMUM_SIZE}"))?;
        if ranks == 0 || ranks > MAXIMUM_SIZE {
            let expected = format!("a job has 1 to {MAXIMUM_SIZE} ranks");
            return Err(refuse(SIZE, size, &expected));
        }
        let expected = format!("a number from 0 to {} ({SIZE} is {ranks})", ranks - 1);
        let rank = below(RANK, rank, ranks, &expected)?;
        let local_rank = self.local_rank(ranks)?.unwrap_or(rank);
        let Some(rendezvous) = self.rendezvous.clone() else {
            return Err(incomplete(RANK, RENDEZVOUS, RENDEZVOUS_HINT));
        };
        let Some(secret) = self.secret()? else {
            return Err(incomplete(RANK, SECRET_FILE, SECRET_HINT));
        };
        let job = Job::new(rank, ranks, local_rank, rendezvous, secret)?;
        Ok(Some(self.complete(job)))
    }

    /// This rank's number on its host, if it is given, in a job of so many ranks.
    pub(super) fn local_rank(&self, ranks: u32) -> Result<Option<Rank>, BootstrapError> {
        let expected = format!("a number from 0 to {}, in a job of {ranks} ranks", ranks - 1);
        self.local_rank
            .as_ref()
            .map(|text| below(LOCAL_RANK, text, ranks, &expected))
            .transpose()
    }

    pub(super) fn secret(&self) -> Result<Option<Secret>, BootstrapError> {
        let Some(path) = &self.secret_file else {
            return Ok(None);
        };
        let refused = |error| match error {
            BootstrapError::Secret { problem, .. } => {
                refuse(SECRET_FILE, &path.display().to_string(), &problem)
            }
            other => other,
        };
        Secret::from_file_until(Path::new(path), self.timeout)
            .map(Some)
            .map_err(refused)
    }

    /// Puts in what does not depend on who says which rank this is.
    pub(super) fn complete(&self, mut job: Job) -> Job {
        job.timeout = self.timeout;
        job.host.clone_from(&self.host);
        job.fabric = self.fabric;
        job.subnet = self.subnet;
        job.tuning.clone_from(&self.tuning);
        job.delay = self.delay;
        job.returns = self.returns;
        job.attempt = self.attempt;
        job
    }

    /// Nobody says which rank this is: refuses what only a rank can need. A timeout alone does not make a job: programs
    /// outside of one honour it too.
    pub(super) fn nothing_else(&self) -> Result<(), BootstrapError> {
        let present = [
            (RENDEZVOUS, self.rendezvous.is_some()),
            (SECRET_FILE, self.secret_file.is_some()),
            (LOCAL_RANK, self.local_rank.is_some()),
        ];
        match present.into_iter().find(|(_, present)| *present) {
            Some((present, _)) => Err(incomplete(present, RANK, RANK_HINT)),
            None => Ok(()),
        }
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

/// Milliseconds, with a fraction if wanted; the error says what would be right.
fn parse_delay(value: &str) -> Result<Duration, String> {
    const LONGEST: f64 = 60_000.0;
    match value.parse::<f64>() {
        Ok(milliseconds) if milliseconds > 0.0 && milliseconds <= LONGEST => {
            Ok(Duration::from_secs_f64(milliseconds / 1e3))
        }
        _ => Err("it must be a number of milliseconds above 0, 5 for example, and at most a minute".into()),
    }
}
