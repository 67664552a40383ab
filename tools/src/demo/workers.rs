//! How the demo's workers get an exchange: the one place that knows which implementation carries the gradients.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use sapwood::plan::lowered::Rank;
use serde::{Deserialize, Serialize};

use super::direct::{Direct, Shared};
use super::gradients::ExchangeError;

/// The plan that is used when none is named.
pub const DEFAULT_PLAN: &str = "direct";

/// Whether there is a plan of this name for so many ranks; a sentence if not.
pub fn check_plan(name: &str, _ranks: u32) -> Result<(), String> {
    match name {
        "direct" => Ok(()),
        _ => Err("no such plan; direct is needed".to_owned()),
    }
}

/// A drawing of the plan, as SVG, if there is one worth drawing.
pub fn picture(_plan: &str, _ranks: u32) -> Option<String> {
    None
}

/// What workers need to find each other; made by the launcher, which keeps it alive.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Meeting {
    descriptor: i32,
    plan: String,
}

/// The launcher's side of a meeting.
#[derive(Debug)]
pub struct Host {
    memory: OwnedFd,
    plan: String,
}

impl Host {
    /// Prepares a meeting of so many ranks; the workers started afterwards can join.
    pub fn new(ranks: u32, plan: &str) -> Result<Self, ExchangeError> {
        Ok(Self {
            memory: Shared::create(ranks)?,
            plan: plan.to_owned(),
        })
    }

    /// What a worker has to be told.
    pub fn meeting(&self) -> Meeting {
        Meeting {
            descriptor: self.memory.as_raw_fd(),
            plan: self.plan.clone(),
        }
    }
}

/// A worker's exchange and the name of the plan that it runs.
pub fn join(
    meeting: &Meeting,
    rank: Rank,
    ranks: u32,
    timeout: Duration,
) -> Result<(Direct, String), ExchangeError> {
    // SAFETY: the launcher made this descriptor for its workers, and nothing else in this process owns it. Another
    // number than the launcher's fails the size check of `open`.
    let memory = unsafe { OwnedFd::from_raw_fd(meeting.descriptor) };
    Ok((Direct::open(memory, rank, ranks, timeout)?, meeting.plan.clone()))
}
