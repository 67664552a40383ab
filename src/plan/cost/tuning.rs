//! The file that `sapwood tune` writes: read, checked, written. What it says is used elsewhere.

use std::fmt::Write;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::parameters::{Class, Link, Own, Parameters};
use super::residual::{Residual, Shape};

/// The only version there is.
const VERSION: u32 = 1;
/// A file is not longer than this.
const LONGEST: u64 = 1 << 20;

/// What was measured of a machine: the model's parameters, and where measurements differ from the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// The model's.
    pub parameters: Parameters,
    /// What the model does not explain.
    pub residuals: Vec<Residual>,
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
    #[error("{origin}, line {line} ({field}): {expected}")]
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
