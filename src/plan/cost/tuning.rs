//! The file that `sapwood tune` writes: read, checked, written. What it says is used elsewhere.

use std::fmt::Write;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::parameters::{Amount, Class, Link, Own, Parameters};
use crate::plan::{Collective, builders};

/// The only version there is.
const VERSION: u32 = 1;
/// A file is not longer than this.
const LONGEST: u64 = 1 << 20;
/// How far off the model may have been.
const FACTORS: std::ops::RangeInclusive<f64> = 1e-3..=1e3;

/// What was measured of a machine: the model's parameters, and where measurements differ from the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// The model's.
    pub parameters: Parameters,
    /// What the model does not explain.
    pub residuals: Vec<Residual>,
}

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

    fn is_of(&self, shape: &Shape<'_>) -> bool {
        let same_collective = self.collective.0.index() == shape.collective.index();
        let same_ranks = (self.ranks, self.hosts, self.shared) == (shape.ranks, shape.hosts, shape.shared);
        let same_way = (self.plan.0.as_str(), self.in_place) == (shape.plan, shape.in_place);
        same_collective && same_ranks && same_way && self.chunk.get() == shape.chunk
    }

    /// Between two sizes on a straight line, beyond the ends as at them.
    fn at(&self, bytes: usize) -> f64 {
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

/// The file, as it is laid out.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Version,
    cores: Cores,
    own: Own,
    memory: Option<Link>,
    host: Option<Link>,
    network: Option<Link>,
    #[serde(default, rename = "residual", skip_serializing_if = "Vec::is_empty")]
    residuals: Vec<Residual>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
struct Version(u32);

impl TryFrom<u32> for Version {
    type Error = String;

    fn try_from(version: u32) -> Result<Self, String> {
        match version {
            VERSION => Ok(Self(version)),
            other => Err(format!(
                "version {VERSION} is needed, not {other}; 'sapwood tune' writes one"
            )),
        }
    }
}

impl From<Version> for u32 {
    fn from(version: Version) -> Self {
        version.0
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
struct Cores(u32);

impl TryFrom<u32> for Cores {
    type Error = String;

    fn try_from(cores: u32) -> Result<Self, String> {
        match cores {
            1..=65536 => Ok(Self(cores)),
            other => Err(format!("1 to 65536 cores are needed, not {other}")),
        }
    }
}

impl From<Cores> for u32 {
    fn from(cores: Cores) -> Self {
        cores.0
    }
}

/// Why a file cannot be used; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TuningError {
    /// It cannot be read.
    #[error("tuning file {path}: {why}; 'sapwood tune -o {path}' writes one")]
    Unreadable {
        /// Which.
        path: String,
        /// The system's words.
        why: String,
    },
    /// It says something that cannot be.
    #[error("{origin}, line {line}{}: {expected}", if field.is_empty() { String::new() } else { format!(" ({field})") })]
    Malformed {
        /// The file, or who has sent it.
        origin: String,
        /// From 1.
        line: usize,
        /// What stands in that line.
        field: String,
        /// What is wrong and what would be right.
        expected: String,
    },
}

impl Tuning {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or what it says cannot be used: which line, which field, what was expected.
    pub fn read(path: &Path) -> Result<Self, TuningError> {
        let shown = path.display().to_string();
        let unreadable = |why: String| TuningError::Unreadable {
            path: shown.clone(),
            why,
        };
        let length = std::fs::metadata(path)
            .map_err(|error| unreadable(error.to_string()))?
            .len();
        if length > LONGEST {
            return Err(unreadable(format!(
                "it has {length} bytes, more than the {LONGEST} of any tuning"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        Self::parse(&text, &format!("tuning file {shown}"))
    }

    /// Reads a file's text; `origin` is where it comes from, for errors.
    ///
    /// # Errors
    /// As [`Tuning::read`].
    pub fn parse(text: &str, origin: &str) -> Result<Self, TuningError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start).min(text.len());
            let before = text.as_bytes()[..start]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            let field = text.lines().nth(before).unwrap_or("").trim();
            TuningError::Malformed {
                origin: origin.to_owned(),
                line: before + 1,
                field: field.chars().take(80).collect(),
                expected: error.message().split_whitespace().collect::<Vec<_>>().join(" "),
            }
        })?;
        Ok(Self {
            parameters: Parameters {
                cores: file.cores.0,
                own: file.own,
                links: [file.memory, file.host, file.network],
            },
            residuals: file.residuals,
        })
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let [memory, host, network] = self.parameters.links.clone();
        let file = File {
            version: Version(VERSION),
            cores: Cores(self.parameters.cores),
            own: self.parameters.own.clone(),
            memory,
            host,
            network,
            residuals: self.residuals.clone(),
        };
        let mut text = String::from(
            "# Written by 'sapwood tune'. Latency (L), overhead (o) and gap (g) in microseconds; gaps per byte (G) in\n\
             # nanoseconds, by the bytes that a rank goes through in a call. own: a rank's own work; memory: between ranks\n\
             # that load and store each other's memory; host and network: messages inside a host and between hosts.\n\
             # residual: measured over predicted.\n\n",
        );
        let written = toml::to_string(&file).expect("plain data");
        let _ = text.write_str(&written);
        text
    }

    /// Measured over predicted, where such a shape was measured; of another size of a chunk what is known of the built-in
    /// one.
    pub fn residual(&self, shape: &Shape<'_>, bytes: usize) -> Option<f64> {
        let known = |shape: &Shape<'_>| self.residuals.iter().find(|residual| residual.is_of(shape));
        let found = known(shape).or_else(|| known(&Shape { chunk: 1.0, ..*shape }));
        found.map(|residual| residual.at(bytes))
    }

    /// The figures of a class, if it was measured.
    pub fn link(&self, class: Class) -> Option<&Link> {
        self.parameters.link(class)
    }
}

impl FromStr for Tuning {
    type Err = TuningError;

    fn from_str(text: &str) -> Result<Self, TuningError> {
        Self::parse(text, "tuning")
    }
}
