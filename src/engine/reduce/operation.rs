//! The operations that a collective can combine elements with, as signatures, command lines and reports name them.

use serde::{Deserialize, Serialize};

/// How elements of several ranks become one. Named as nccl-tests names them: `sum`, `prod`, `min`, `max`, `avg`, `mulsum`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Addition; integers wrap.
    Sum,
    /// Multiplication; integers wrap.
    #[serde(rename = "prod")]
    Product,
    /// The smallest: a NaN if any is NaN, and −0 is smaller than +0.
    Min,
    /// The largest: a NaN if any is NaN, and +0 is larger than −0.
    Max,
    /// The sum divided by the number of contributions; integers truncate towards zero.
    #[serde(rename = "avg")]
    Average,
    /// The sum of the contributions, each multiplied by its own rank's factor before: NCCL's pre-multiplied sum. The
    /// ranks need not give the same factor. For floating-point types only; others are refused.
    #[serde(rename = "mulsum")]
    PreMultipliedSum(Factor),
}

/// What a rank multiplies its contribution by. It is rounded to what sums are accumulated in: binary64 for `double`,
/// binary32 for other types.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub struct Factor(u64);

impl Factor {
    /// As a number.
    pub fn value(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl From<f64> for Factor {
    fn from(value: f64) -> Self {
        Self(value.to_bits())
    }
}

impl From<Factor> for f64 {
    fn from(factor: Factor) -> Self {
        factor.value()
    }
}

impl std::fmt::Debug for Factor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.value().fmt(f)
    }
}

impl Operation {
    /// Every operation that takes no factor, in the order in which help texts list them.
    pub const ALL: [Operation; 5] = [Self::Sum, Self::Product, Self::Min, Self::Max, Self::Average];

    /// The name that nccl-tests gives the operation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Product => "prod",
            Self::Min => "min",
            Self::Max => "max",
            Self::Average => "avg",
            Self::PreMultipliedSum(_) => "mulsum",
        }
    }

    /// [`Operation::PreMultipliedSum`] with this factor.
    pub fn pre_multiplied_sum(factor: f64) -> Self {
        Self::PreMultipliedSum(factor.into())
    }

    /// This rank's factor, where there is one.
    pub fn factor(self) -> Option<f64> {
        match self {
            Self::PreMultipliedSum(factor) => Some(factor.value()),
            _ => None,
        }
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a reduction: expected one of sum, prod, min, max, avg")]
pub struct UnknownOperation(pub String);

impl std::str::FromStr for Operation {
    type Err = UnknownOperation;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|operation| operation.name() == word)
            .ok_or_else(|| UnknownOperation(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_is_the_serialised_one() {
        for operation in Operation::ALL {
            assert_eq!(operation.to_string().parse(), Ok(operation));
            assert_eq!(serde_json::to_value(operation).unwrap(), operation.name());
            assert_eq!(
                serde_json::from_value::<Operation>(operation.name().into()).unwrap(),
                operation
            );
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_choice() {
        let error = "mean".parse::<Operation>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"mean\" is not a reduction: expected one of sum, prod, min, max, avg"
        );
    }
}
