//! How the demo's workers meet and which plan they run: the one place that builds communicators.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use sapwood::bootstrap::{Job, Secret};
use sapwood::communicator::Communicator;
use sapwood::exchange::Exchange;
use sapwood::plan::lowered::Rank;
use sapwood::plan::{Collective, builders};
use serde::{Deserialize, Serialize};

use super::exchanged::{BUCKETS, Exchanged};
use super::gradients::ExchangeError;
use super::model::layer_size;

/// The plan that is used when none is named.
pub const DEFAULT_PLAN: &str = "double-binary-tree";

/// Whether there is a plan of this name for so many ranks; a sentence if not.
pub fn check_plan(name: &str, ranks: u32) -> Result<(), String> {
    builders::build(name, Collective::AllReduce, ranks)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// A drawing of the plan, as SVG, if there is one.
pub fn picture(plan: &str, ranks: u32) -> Option<String> {
    let plan = builders::build(plan, Collective::AllReduce, ranks).ok()?;
    Some(sapwood::plan::draw::svg(&plan))
}

/// What a worker is told about the meeting; the secret itself stays behind an inherited descriptor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Meeting {
    rendezvous: String,
    secret_descriptor: i32,
    plan: String,
}

/// The launcher's side of a meeting; keep it until the workers have been started.
#[derive(Debug)]
pub struct Host {
    rendezvous: String,
    secret: OwnedFd,
    plan: String,
}

impl Host {
    /// Prepares a meeting under a new name with a new secret. Processes started from now on inherit the secret.
    pub fn new(ranks: u32, plan: &str) -> Result<Self, ExchangeError> {
        let jobs = Job::local(ranks)?;
        let secret = jobs[0].secret.to_descriptor()?;
        rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty())?;
        Ok(Self {
            rendezvous: jobs[0].rendezvous.to_string(),
            secret,
            plan: plan.to_owned(),
        })
    }

    /// What a worker has to be told.
    pub fn meeting(&self) -> Meeting {
        Meeting {
            rendezvous: self.rendezvous.clone(),
            secret_descriptor: self.secret.as_raw_fd(),
            plan: self.plan.clone(),
        }
    }
}

/// A worker's exchange and the name of the plan that it runs. Returns when all workers have met.
pub fn join(
    meeting: &Meeting,
    rank: Rank,
    ranks: u32,
    timeout: Duration,
) -> Result<(Exchanged, String), ExchangeError> {
    let secret = Secret::from_file(&PathBuf::from(format!("/dev/fd/{}", meeting.secret_descriptor)))?;
    let mut job = Job::new(rank, ranks, rank, meeting.rendezvous.parse()?, secret)?;
    job.timeout = timeout;
    exchange(&job, &meeting.plan)
}

/// The exchange of a job's rank, with a bucket for each layer.
pub fn exchange(job: &Job, plan: &str) -> Result<(Exchanged, String), ExchangeError> {
    let communicator = Communicator::builder().plan(plan).join(job)?;
    let name = communicator.plan_name(Collective::AllReduce, layer_size(0) * size_of::<f32>());
    let mut builder = Exchange::builder(communicator);
    for (layer, bucket) in BUCKETS.into_iter().enumerate() {
        builder = builder.bucket(bucket, layer_size(layer));
    }
    Ok((Exchanged::new(builder.build()?), name))
}
