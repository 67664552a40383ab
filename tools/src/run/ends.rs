//! How a job and its ranks ended, in words and as a status. Decides nothing.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use sapwood::bootstrap::Rank;

use super::signals;

/// How one rank ended.
#[derive(Debug, Clone, Copy)]
pub struct RankEnd {
    /// Its process.
    pub pid: u32,
    /// Its exit status.
    pub status: ExitStatus,
    /// It went on for some time after another had failed or a signal had asked it to end, and was killed.
    pub killed_by_launcher: bool,
}

impl fmt::Display for RankEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(formatter, "(process {}) exited with status {code}", self.pid),
            (None, Some(signal)) => {
                write!(
                    formatter,
                    "(process {}) was killed by {}",
                    self.pid,
                    signals::name(signal)
                )
            }
            (None, None) => write!(formatter, "(process {}) ended: {}", self.pid, self.status),
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct JobEnd {
    /// How each rank ended, by rank.
    pub ranks: Vec<RankEnd>,
    /// The first rank seen to have failed.
    pub first_failure: Option<Rank>,
    /// The signal to the launcher that was passed on.
    pub interrupted: Option<i32>,
}

impl JobEnd {
    /// Which rank failed first, and how, in one line; `None` if all ended well.
    pub fn failure(&self) -> Option<String> {
        let rank = self.first_failure?;
        let end = self.ranks.get(rank as usize)?;
        let others = if self.ranks.iter().any(|end| end.killed_by_launcher) {
            "; ranks that went on after that were killed"
        } else {
            ""
        };
        Some(match self.interrupted {
            Some(signal) => format!("ended by {}; rank {rank} {end}{others}", signals::name(signal)),
            None => format!("rank {rank} {end}{others}"),
        })
    }

    /// The first failing rank's status, 128 and the signal's number where a signal ended it; 0 if none failed.
    pub fn exit_code(&self) -> ExitCode {
        let status = self
            .first_failure
            .and_then(|rank| self.ranks.get(rank as usize))
            .map(|end| end.status);
        let code = status.map_or(0, |status| match (status.code(), status.signal()) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            (None, None) => 1,
        });
        ExitCode::from(u8::try_from(code).unwrap_or(1))
    }
}
