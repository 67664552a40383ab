//! Which plan, in how many channels and with which chunks, takes the least by prediction.

use super::model::{Case, CostError, Prediction, predict};
use super::residual::Shape;
use super::tuning::Tuning;
use crate::plan::{
    Collective, Plan, Reach, builders, default_chunk_bytes, default_plan_on, hierarchical_name,
};

/// Plans that are compared; channels and arities are parts of names. One that nobody would want is not among them.
const NAMES: [&str; 10] = [
    "direct",
    "ring",
    "ring:2",
    "halving-doubling",
    "double-binary-tree",
    "k-ary-tree",
    "k-ary-tree:2",
    "binomial-tree",
    "k-nomial",
    "pairwise",
];
/// Of the built-in size of a chunk.
const CHUNKS: [f64; 3] = [1.0, 0.25, 4.0];
/// No chunk is smaller, or larger.
const CHUNK_BYTES: std::ops::RangeInclusive<usize> = 4 << 10..=4 << 20;
/// Another plan than the built-in table's, and another size of a chunk, must each promise at least this: less is noise.
const WORTH: f64 = 0.95;
/// With more ranks than these the built-in table chooses: playing all of them through would take too long.
const MOST_RANKS: usize = 64;

/// Among which ranks a plan is to run.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The host of each rank, as a number.
    pub hosts: Vec<u32>,
    /// What ranks can do with each other's memory.
    pub reach: Reach,
    /// Bytes of a staging slot.
    pub slot_bytes: usize,
    /// The most tasks of a rank.
    pub most_tasks: usize,
}

/// A plan that could be run.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The plan.
    pub plan: Plan,
    /// Of the built-in size of a chunk.
    pub chunk: f64,
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The plan's name.
    pub plan: String,
    /// Of the built-in size of a chunk.
    pub chunk: f64,
    /// The predicted time of a call out of place, in microseconds.
    pub time: f64,
}

impl Candidate {
    /// Bytes of a chunk, where the longest buffer has `bytes`.
    pub fn chunk_bytes(&self, bytes: usize) -> usize {
        scaled_chunk_bytes(block_bytes(&self.plan, bytes), self.chunk)
    }
}

/// Bytes of a block, where the longest buffer has `bytes`.
fn block_bytes(plan: &Plan, bytes: usize) -> usize {
    let blocks = match plan.collective() {
        Collective::AllToAll => plan.blocks() / plan.ranks(),
        _ => plan.blocks(),
    };
    bytes / blocks as usize
}

/// The built-in size of a chunk for a block, times `scale`.
pub fn scaled_chunk_bytes(block: usize, scale: f64) -> usize {
    let built_in = default_chunk_bytes(block);
    if scale == 1.0 {
        return built_in;
    }
    let scaled = (built_in as f64 * scale) as usize;
    let (low, high) = CHUNK_BYTES.into_inner();
    scaled.clamp(low, high).next_multiple_of(64)
}

impl Setting {
    /// How many ranks there are.
    pub fn ranks(&self) -> u32 {
        self.hosts.len() as u32
    }

    /// How many hosts there are.
    fn host_count(&self) -> u32 {
        let mut hosts = self.hosts.clone();
        hosts.sort_unstable();
        hosts.dedup();
        hosts.len() as u32
    }

    /// What is measured here with a plan, out of place.
    pub fn shape<'a>(&self, plan: &'a Plan, chunk: f64) -> Shape<'a> {
        Shape {
            collective: plan.collective(),
            ranks: self.ranks(),
            hosts: self.host_count(),
            shared: !matches!(self.reach, Reach::Message { .. }),
            plan: plan.name(),
            in_place: false,
            chunk,
        }
    }

    /// The plans that a collective could run here, with the built-in size of a chunk.
    pub fn candidates(&self, collective: Collective) -> Vec<Plan> {
        let hosts = self.host_count();
        let hierarchical = (hosts > 1 && hosts < self.ranks()).then(|| hierarchical_name(&self.hosts));
        let names = NAMES.iter().copied().chain(hierarchical.as_deref());
        let built = names.filter_map(|name| builders::build(name, collective, self.ranks()).ok());
        let fits = |plan: &Plan| {
            let mut programs = (0..self.ranks()).map(|rank| plan.lower(rank, self.reach));
            programs.all(|program| program.is_ok_and(|program| program.tasks.len() <= self.most_tasks))
        };
        built.filter(fits).collect()
    }
}

impl Tuning {
    /// The time of one call, as it was measured where it was, else by the model alone.
    ///
    /// # Errors
    /// As [`predict`].
    pub fn predict(
        &self,
        setting: &Setting,
        candidate: &Candidate,
        bytes: usize,
        in_place: bool,
    ) -> Result<Prediction, CostError> {
        let mut prediction = self.model(setting, candidate, bytes, in_place)?;
        let shape = Shape {
            in_place,
            ..setting.shape(&candidate.plan, candidate.chunk)
        };
        if let Some(factor) = self.residual(&shape, bytes) {
            prediction.scale(factor);
        }
        Ok(prediction)
    }

    /// The time of one call by the model alone.
    ///
    /// # Errors
    /// As [`predict`].
    pub fn model(
        &self,
        setting: &Setting,
        candidate: &Candidate,
        bytes: usize,
        in_place: bool,
    ) -> Result<Prediction, CostError> {
        let case = Case {
            reach: setting.reach,
            hosts: &setting.hosts,
            bytes,
            chunk: candidate.chunk_bytes(bytes),
            slot_bytes: setting.slot_bytes,
            in_place,
        };
        predict(&candidate.plan, &case, &self.parameters)
    }

    /// The plan and the chunks that take the least, in place and out of place together; what the built-in table has, unless
    /// something is clearly better. None where nothing can be
    /// predicted: the figures are of other pairs of ranks, or there are too many.
    pub fn choose(&self, setting: &Setting, collective: Collective, bytes: usize) -> Option<Chosen> {
        if setting.hosts.len() > MOST_RANKS {
            return None;
        }
        let built_in_plan = default_plan_on(collective, &setting.hosts, bytes);
        let mut best: Option<(f64, Chosen)> = None;
        for plan in setting.candidates(collective) {
            let block = block_bytes(&plan, bytes);
            let built_in = scaled_chunk_bytes(block, 1.0);
            for chunk in CHUNKS {
                let candidate = Candidate {
                    plan: plan.clone(),
                    chunk,
                };
                // A block that is one chunk either way is no other choice.
                if chunk != 1.0 && candidate.chunk_bytes(bytes).min(block) == built_in.min(block) {
                    continue;
                }
                let Ok(time) = self.predict(setting, &candidate, bytes, false) else {
                    continue;
                };
                let Ok(both) = self.in_place(setting, &candidate, bytes, time.time) else {
                    continue;
                };
                let unlike = [chunk != 1.0, plan.name() != built_in_plan];
                let worth = unlike
                    .iter()
                    .filter(|unlike| **unlike)
                    .fold(both, |worth, _| worth / WORTH);
                if best.as_ref().is_none_or(|(least, _)| worth < *least) {
                    let chosen = Chosen {
                        plan: plan.name().to_owned(),
                        chunk,
                        time: time.time,
                    };
                    best = Some((worth, chosen));
                }
            }
        }
        best.map(|(_, chosen)| chosen)
    }

    /// The time of a call out of place and of one in place, where there is such.
    fn in_place(
        &self,
        setting: &Setting,
        candidate: &Candidate,
        bytes: usize,
        out_of_place: f64,
    ) -> Result<f64, CostError> {
        match candidate.plan.collective() {
            Collective::AllToAll | Collective::Barrier => Ok(out_of_place),
            _ => Ok(out_of_place + self.predict(setting, candidate, bytes, true)?.time),
        }
    }
}
