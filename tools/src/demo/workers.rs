//! Which plan the demo's workers run: the one place that builds communicators.

use sapwood::bootstrap::Job;
use sapwood::communicator::Communicator;
use sapwood::exchange::{Builder, Exchange};
use sapwood::plan::{Collective, builders};

use super::exchanged::{BUCKETS, Exchanged, STATE};
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

/// The exchanges of a rank, and the names of what carries them.
pub struct Carried {
    /// With a bucket for each layer; waits for all.
    pub exchange: Exchanged,
    /// The same with backup workers, if there are to be any.
    pub with_backups: Option<Exchanged>,
    /// The plan that the one that waits for all runs.
    pub plan: String,
    /// The fabric that the bytes take.
    pub fabric: String,
    /// Whether gradients on their way up lie in staging slots until they are summed.
    pub staged: bool,
}

/// The exchanges of a job's rank. Returns when all ranks have met.
pub fn exchanges(job: &Job, plan: &str, backups: u32) -> Result<Carried, ExchangeError> {
    let communicator = Communicator::builder().plan(plan).join(job)?;
    let plan = communicator.plan_name(Collective::AllReduce, layer_size(0) * size_of::<f32>());
    let fabric = communicator.fabric_name().to_owned();
    let staged = !communicator.has_load_store();
    let mut with_backups = None;
    if backups > 0 {
        let mut builder = builder(communicator.duplicate()?).backups(backups);
        for (layer, names) in STATE.into_iter().enumerate() {
            for name in names {
                builder = builder.state(name, layer_size(layer));
            }
        }
        with_backups = Some(Exchanged::new(builder.build()?, true));
    }
    Ok(Carried {
        exchange: Exchanged::new(builder(communicator).build()?, false),
        with_backups,
        plan,
        fabric,
        staged,
    })
}

fn builder(communicator: Communicator) -> Builder {
    let buckets = BUCKETS.into_iter().enumerate();
    buckets.fold(Exchange::builder(communicator), |builder, (layer, bucket)| {
        builder.bucket(bucket, layer_size(layer))
    })
}
