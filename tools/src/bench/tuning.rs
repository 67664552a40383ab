//! The tuning that a benchmark's ranks choose plans by: refused before they are started, if it cannot be used.

use std::path::PathBuf;

use sapwood::bootstrap::{Job, variable};
use sapwood::plan::cost::Tuning;

use crate::output::Failure;

/// Rank 0's counts, so that it is looked at there, or by who starts the ranks.
pub(super) fn check(predict: bool, job: Option<&Job>) -> Result<(), Failure> {
    let name = variable::TUNING;
    let path = match job {
        Some(job) if job.rank != 0 => return Ok(()),
        Some(job) => job.tuning.clone(),
        None => std::env::var_os(name)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
    };
    match path {
        Some(path) => Tuning::read(&path)
            .map(drop)
            .map_err(|error| Failure::Arguments(format!("{name}: {error}"))),
        None if predict => Err(Failure::Arguments(format!(
            "--predict: there is nothing to predict by; 'sapwood tune -o tuning.toml' measures it, and {name}=tuning.toml names it"
        ))),
        None => Ok(()),
    }
}
