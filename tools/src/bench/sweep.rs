//! Which sizes, types and operations a benchmark goes through. Reads words; measures nothing.

use sapwood::engine::reduce::Operation;
use sapwood::memory::DataType;

use super::case::Redop;

/// The sizes from `smallest` to `largest`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) smallest: usize,
    pub(super) largest: usize,
    pub(super) step: Step,
}

/// From one size to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes more.
    Add(usize),
    /// So many times as much.
    Multiply(usize),
}

/// More rows than anybody reads: a step of one byte up to gigabytes is a slip.
const MOST_ROWS: usize = 100_000;

impl Sizes {
    /// Refuses, in a sentence, what could not be swept.
    pub(super) fn new(smallest: usize, largest: usize, step: Step) -> Result<Self, String> {
        if smallest == 0 {
            return Err("-b 0: the smallest size must be at least one element, 8 for example".into());
        }
        if largest < smallest {
            return Err(format!(
                "-e {largest} is below -b {smallest}; give an -e that is not below -b"
            ));
        }
        if largest > isize::MAX as usize {
            return Err(format!(
                "-e {largest}: an address space holds at most {} bytes",
                isize::MAX
            ));
        }
        match step {
            Step::Add(0) => return Err("-i 0 never reaches -e; give a step of at least 1 byte".into()),
            Step::Multiply(factor @ 0..=1) => {
                return Err(format!(
                    "-f {factor} never reaches -e; give a factor of at least 2, or a step with -i"
                ));
            }
            Step::Add(bytes) if (largest - smallest) / bytes >= MOST_ROWS => {
                return Err(format!(
                    "-i {bytes} makes more than {MOST_ROWS} rows from {smallest} to {largest} bytes; give a larger one"
                ));
            }
            Step::Add(_) | Step::Multiply(_) => {}
        }
        Ok(Self {
            smallest,
            largest,
            step,
        })
    }

    /// Ascending, `smallest` first.
    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(self.smallest), move |size| match self.step {
            Step::Add(bytes) => size.checked_add(bytes),
            Step::Multiply(factor) => size.checked_mul(factor),
        })
        .take_while(move |size| *size <= self.largest)
    }
}

/// Reads a type's name, or `all`.
pub(super) fn parse_types(word: &str) -> Result<Vec<DataType>, String> {
    choose(word, &DataType::ALL, DataType::name)
}

/// Reads an operation's name, or `all`; `mulsum` is for floating-point types.
pub(super) fn parse_operations(word: &str) -> Result<Vec<Redop>, String> {
    let plain = Operation::ALL.into_iter().map(Redop::Plain);
    let known = plain.chain([Redop::PreMultiplied]).collect::<Vec<_>>();
    choose(word, &known, Redop::name)
}

fn choose<T: Copy>(word: &str, known: &[T], name: fn(T) -> &'static str) -> Result<Vec<T>, String> {
    if word == "all" {
        return Ok(known.to_vec());
    }
    let names = || known.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", ");
    let found = known.iter().find(|one| name(**one) == word);
    found
        .map(|one| vec![*one])
        .ok_or_else(|| format!("expected one of {}, all", names()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_sweeps_to_the_largest_that_fits() {
        let sizes = Sizes::new(8, 600, Step::Multiply(4)).unwrap();
        assert_eq!(sizes.iter().collect::<Vec<_>>(), [8, 32, 128, 512]);
        let sizes = Sizes::new(8, 24, Step::Add(8)).unwrap();
        assert_eq!(sizes.iter().collect::<Vec<_>>(), [8, 16, 24]);
    }

    #[test]
    fn a_sweep_near_the_end_of_the_address_space_ends() {
        let largest = isize::MAX as usize;
        let sizes = Sizes::new(largest - 1, largest, Step::Multiply(usize::MAX)).unwrap();
        assert_eq!(sizes.iter().count(), 1);
    }

    #[test]
    fn sweeps_that_would_not_end_are_refused() {
        for (smallest, largest, step) in [
            (0, 8, Step::Multiply(2)),
            (16, 8, Step::Multiply(2)),
            (8, 16, Step::Multiply(1)),
            (8, 16, Step::Add(0)),
            (8, 1 << 30, Step::Add(1)),
            (8, usize::MAX, Step::Multiply(2)),
        ] {
            assert!(
                Sizes::new(smallest, largest, step).is_err(),
                "{smallest}..{largest} {step:?}"
            );
        }
    }

    #[test]
    fn names_are_those_of_nccl_tests() {
        assert_eq!(parse_types("bfloat16"), Ok(vec![DataType::Bf16]));
        assert_eq!(
            parse_operations("avg"),
            Ok(vec![Redop::Plain(Operation::Average)])
        );
        assert_eq!(parse_types("all").unwrap().len(), DataType::ALL.len());
        let sentence = parse_operations("mean").unwrap_err();
        assert!(
            sentence.contains("sum, prod, min, max, avg, mulsum"),
            "{sentence}"
        );
    }
}
