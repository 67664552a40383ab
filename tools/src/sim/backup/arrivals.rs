//! Where arrival times come from: the words of the command line, and the file that they may name.

use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use sapwood::simulator::Random;
use sapwood::simulator::backup::{HEADER, LongTail, MeasuredTimes, exponential};

use crate::output::Failure;

/// As typed.
#[derive(Clone, Debug)]
pub enum Distribution {
    Exponential,
    LongTail,
    File(PathBuf),
}

impl FromStr for Distribution {
    type Err = Infallible;

    fn from_str(word: &str) -> Result<Self, Infallible> {
        Ok(match word {
            "exponential" => Self::Exponential,
            "long-tail" => Self::LongTail,
            path => Self::File(path.into()),
        })
    }
}

impl Distribution {
    /// Its word, or the file's path.
    pub fn name(&self) -> String {
        match self {
            Self::Exponential => "exponential".to_owned(),
            Self::LongTail => "long-tail".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// What times are drawn from.
#[derive(Debug)]
pub enum Arrivals {
    /// In multiples of a worker's mean time.
    Exponential,
    /// In seconds.
    LongTail(LongTail),
    /// In seconds, each step once.
    Measured(MeasuredTimes),
}

impl Arrivals {
    /// Fits the law, or reads the file.
    pub fn open(distribution: &Distribution) -> Result<Self, Failure> {
        let path = match distribution {
            Distribution::Exponential => return Ok(Self::Exponential),
            Distribution::LongTail => return Ok(Self::LongTail(LongTail::fitted())),
            Distribution::File(path) => path,
        };
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::Arguments(format!(
                "--distribution {}: {error}; exponential, long-tail, or a CSV file with the header {HEADER} is needed",
                path.display()
            ))
        })?;
        MeasuredTimes::parse(&text)
            .map(Self::Measured)
            .map_err(|error| Failure::Arguments(format!("--distribution {}: {error}", path.display())))
    }

    /// The times of one step.
    pub fn draw(&self, step: usize, random: &mut Random, times: &mut [f64]) {
        match self {
            Self::Exponential => exponential::draw(random, times),
            Self::LongTail(law) => law.draw(random, times),
            Self::Measured(measured) => times.copy_from_slice(measured.step(step)),
        }
    }
}
