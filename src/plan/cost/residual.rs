//! What the model does not explain: by how much it was off for what was measured. Knows shapes and factors; measures
//! nothing.

use serde::{Deserialize, Serialize};

use super::parameters::Amount;
use crate::plan::{Collective, builders};

/// How far off the model may have been.
const FACTORS: std::ops::RangeInclusive<f64> = 1e-3..=1e3;

/// By how much the model was off for a shape that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residual {
    /// Without the root.
    collective: Name,
    /// How many ranks took part.
    pub ranks: u32,
    /// On how many hosts.
    pub hosts: u32,
    /// Ranks loaded and stored each other's memory; else they sent messages.
    pub shared: bool,
    /// The plan's name.
    plan: PlanName,
    /// Input and result were the same memory.
    pub in_place: bool,
    /// Of the built-in size of a chunk, the one that was used.
    chunk: Amount,
    /// By size, ascending.
    points: Points,
}

/// One size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Of the longest buffer of a rank.
    pub bytes: u64,
    /// Measured over predicted.
    factor: Factor,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
struct Factor(f64);

impl TryFrom<f64> for Factor {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        let (low, high) = FACTORS.into_inner();
        match FACTORS.contains(&value) {
            true => Ok(Self(value)),
            false => Err(format!("a factor from {low} to {high} is needed, not {value}")),
        }
    }
}

impl From<Factor> for f64 {
    fn from(factor: Factor) -> Self {
        factor.0
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Point>", into = "Vec<Point>")]
struct Points(Vec<Point>);

impl TryFrom<Vec<Point>> for Points {
    type Error = String;

    fn try_from(points: Vec<Point>) -> Result<Self, String> {
        match !points.is_empty() && points.is_sorted_by(|a, b| a.bytes < b.bytes) {
            true => Ok(Self(points)),
            false => Err("one or more points are needed, with bytes that grow from one to the next".into()),
        }
    }
}

impl From<Points> for Vec<Point> {
    fn from(points: Points) -> Self {
        points.0
    }
}

/// A collective, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
struct Name(Collective);

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let every = Collective::every(0);
        let found = every.into_iter().find(|collective| collective.name() == name);
        found.map(Self).ok_or_else(|| {
            let names = every.map(Collective::name).join(", ");
            format!("\"{name}\" is no collective; there are {names}")
        })
    }
}

impl From<Name> for &'static str {
    fn from(name: Name) -> Self {
        name.0.name()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct PlanName(String);

impl TryFrom<String> for PlanName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match builders::find(&name) {
            Ok(_) => Ok(Self(name)),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl From<PlanName> for String {
    fn from(name: PlanName) -> Self {
        name.0
    }
}

impl Point {
    /// The factor is brought into the range of those that can be written.
    pub fn new(bytes: u64, factor: f64) -> Self {
        let (low, high) = FACTORS.into_inner();
        let factor = Factor(if factor.is_nan() {
            1.0
        } else {
            factor.clamp(low, high)
        });
        Self { bytes, factor }
    }

    /// Measured over predicted.
    pub fn factor(&self) -> f64 {
        self.factor.0
    }
}

/// What was measured with a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape<'a> {
    /// Which, with any root.
    pub collective: Collective,
    /// How many ranks.
    pub ranks: u32,
    /// On how many hosts.
    pub hosts: u32,
    /// Ranks load and store each other's memory.
    pub shared: bool,
    /// The plan's name.
    pub plan: &'a str,
    /// Input and result are the same memory.
    pub in_place: bool,
    /// Of the built-in size of a chunk.
    pub chunk: f64,
}

impl Residual {
    /// What was found; the points are put in order, and of two of one size the last one counts.
    pub fn new(shape: &Shape<'_>, mut points: Vec<Point>) -> Self {
        points.reverse();
        points.sort_by_key(|point| point.bytes);
        points.dedup_by_key(|point| point.bytes);
        Self {
            collective: Name(shape.collective),
            ranks: shape.ranks,
            hosts: shape.hosts,
            shared: shape.shared,
            plan: PlanName(shape.plan.to_owned()),
            in_place: shape.in_place,
            chunk: Amount::new(shape.chunk),
            points: Points(points),
        }
    }

    pub(super) fn is_of(&self, shape: &Shape<'_>) -> bool {
        self.is_of_any_plan(shape) && self.plan.0 == shape.plan && self.chunk.get() == shape.chunk
    }

    /// Whether it is of such calls, by whatever plan and chunks.
    pub(super) fn is_of_any_plan(&self, shape: &Shape<'_>) -> bool {
        let same_collective = self.collective.0.index() == shape.collective.index();
        let same_ranks = (self.ranks, self.hosts, self.shared) == (shape.ranks, shape.hosts, shape.shared);
        same_collective && same_ranks && self.in_place == shape.in_place
    }

    /// Between two sizes on a straight line, beyond the ends as at them.
    pub(super) fn at(&self, bytes: usize) -> f64 {
        let (points, bytes) = (&self.points.0, bytes as u64);
        let above = points.partition_point(|point| point.bytes <= bytes);
        match (above.checked_sub(1).map(|below| points[below]), points.get(above)) {
            (Some(low), Some(high)) => {
                let part = (bytes - low.bytes) as f64 / (high.bytes - low.bytes) as f64;
                low.factor() + part * (high.factor() - low.factor())
            }
            (Some(low), None) => low.factor(),
            (None, Some(high)) => high.factor(),
            (None, None) => 1.0,
        }
    }
}
