//! Which plan, in how many channels and with which chunks, takes the least by prediction.

use super::model::{Case, CostError, Prediction, predict};
use super::residual::Shape;
use super::setting::Setting;
use super::tuning::Tuning;
use crate::plan::{Collective, Plan, default_chunk_bytes, default_plan_on};

/// Of the built-in size of a chunk.
const CHUNKS: [f64; 3] = [1.0, 0.25, 4.0];
/// No chunk is smaller, or larger.
const CHUNK_BYTES: std::ops::RangeInclusive<usize> = 4 << 10..=4 << 20;
/// Another plan than the built-in table's, and another size of a chunk, must each promise at least this: less is noise.
const WORTH: f64 = 0.95;
/// The sizes of a class that a choice for it is made by, over its smallest one.
const OF_CLASS: [f64; 2] = [1.0, 1.6];
/// With more ranks than these the built-in table chooses: playing all of them through would take too long.
const MOST_RANKS: usize = 64;

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
        let factor = self
            .residual(&shape, bytes)
            .or_else(|| self.by_another_name(setting, &shape, bytes));
        if let Some(factor) = factor {
            prediction.scale(factor);
        }
        Ok(prediction)
    }

    /// Measured over predicted, of a plan that was measured by another of its names.
    fn by_another_name(&self, setting: &Setting, shape: &Shape<'_>, bytes: usize) -> Option<f64> {
        if !self
            .residuals
            .iter()
            .any(|residual| residual.is_of_any_plan(shape))
        {
            return None;
        }
        let alternatives = setting.alternatives(shape.collective);
        let same = alternatives
            .iter()
            .find(|alternative| alternative.is_called(shape.plan))?;
        let mut names = same.names.iter();
        names.find_map(|plan| self.residual(&Shape { plan, ..*shape }, bytes))
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

    /// The plan and the chunks that take the least in the size class of `bytes`, which begins at a power of two: smaller and
    /// larger sizes of it, in place and out of place, taken together; what the built-in table has there, unless something is clearly
    /// better. None where nothing can be predicted: the figures are of other pairs of ranks, or there are too many.
    pub fn choose(&self, setting: &Setting, collective: Collective, bytes: usize) -> Option<Chosen> {
        if setting.hosts.len() > MOST_RANKS {
            return None;
        }
        let class = 1 << bytes.max(1).ilog2();
        let built_in_plan = default_plan_on(collective, &setting.hosts, class);
        let mut best: Option<(f64, Candidate)> = None;
        for alternative in setting.alternatives(collective) {
            let block = block_bytes(&alternative.plan, class);
            let built_in = scaled_chunk_bytes(block, 1.0);
            for chunk in CHUNKS {
                let candidate = Candidate {
                    plan: alternative.plan.clone(),
                    chunk,
                };
                // A block that is one chunk either way is no other choice.
                if chunk != 1.0 && candidate.chunk_bytes(class).min(block) == built_in.min(block) {
                    continue;
                }
                let Ok(time) = self.of_class(setting, &candidate, class) else {
                    continue;
                };
                let unlike = [chunk != 1.0, !alternative.is_called(&built_in_plan)];
                let worth = unlike
                    .iter()
                    .filter(|unlike| **unlike)
                    .fold(time, |worth, _| worth / WORTH);
                if best.as_ref().is_none_or(|(least, _)| worth < *least) {
                    best = Some((worth, candidate));
                }
            }
        }
        let (_, candidate) = best?;
        let prediction = self.predict(setting, &candidate, bytes, false).ok()?;
        Some(Chosen {
            plan: candidate.plan.name().to_owned(),
            chunk: candidate.chunk,
            time: prediction.time,
        })
    }

    /// The geometric mean of the times of calls of a class, out of place and in place where there is such: so each counts by
    /// how many times longer another plan takes.
    fn of_class(&self, setting: &Setting, candidate: &Candidate, class: usize) -> Result<f64, CostError> {
        let placements = match candidate.plan.collective() {
            Collective::AllToAll | Collective::Barrier => &[false][..],
            _ => &[false, true],
        };
        // By the model alone the rest of a class is as its beginning.
        let shape = setting.shape(&candidate.plan, candidate.chunk);
        let sizes = match self.is_measured(&shape) {
            true => &OF_CLASS[..],
            false => &OF_CLASS[..1],
        };
        let (mut logarithms, mut count) = (0.0, 0);
        for part in sizes {
            for in_place in placements {
                let bytes = (class as f64 * part) as usize;
                let time = self.predict(setting, candidate, bytes, *in_place)?.time;
                logarithms += time.max(f64::MIN_POSITIVE).ln();
                count += 1;
            }
        }
        Ok((logarithms / f64::from(count)).exp())
    }

    /// Whether such calls were measured, by whatever plan and chunks.
    fn is_measured(&self, shape: &Shape<'_>) -> bool {
        self.residuals
            .iter()
            .any(|residual| residual.is_of_any_plan(shape))
    }
}
