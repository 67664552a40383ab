//! Which plan the demo's workers run: the one place that builds communicators.

use sapwood::bootstrap::Job;
use sapwood::communicator::Communicator;
use sapwood::exchange::Exchange;
use sapwood::plan::{Collective, builders};

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

/// An exchange, and the names of what carries it.
pub struct Carried {
    /// With a bucket for each layer.
    pub exchange: Exchanged,
    /// The plan that it runs.
    pub plan: String,
    /// The fabric that the bytes take.
    pub fabric: String,
    /// Whether gradients on their way up lie in staging slots until they are summed.
    pub staged: bool,
}

/// The exchange of a job's rank. Returns when all ranks have met.
pub fn exchange(job: &Job, plan: &str) -> Result<Carried, ExchangeError> {
    let communicator = Communicator::builder().plan(plan).join(job)?;
    let plan = communicator.plan_name(Collective::AllReduce, layer_size(0) * size_of::<f32>());
    let fabric = communicator.fabric_name().to_owned();
    let staged = !communicator.has_load_store();
    let mut builder = Exchange::builder(communicator);
    for (layer, bucket) in BUCKETS.into_iter().enumerate() {
        builder = builder.bucket(bucket, layer_size(layer));
    }
    Ok(Carried {
        exchange: Exchanged::new(builder.build()?),
        plan,
        fabric,
        staged,
    })
}
