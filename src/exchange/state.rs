//! Training state by name (weights, what the optimizer keeps), and the means by name: views of the vectors in which they
//! lie one after the other.

use std::ops::Range;

/// Parts of one vector, each on a cache line of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    parts: Vec<(String, Range<usize>)>,
    total: usize,
}

/// Parts start on a cache line of their own.
pub(super) const ALIGNMENT: usize = 64 / size_of::<f32>();

impl Names {
    /// `None` if they are more than can be counted.
    pub fn new(parts: Vec<(String, usize)>) -> Option<Self> {
        let mut names = Self::default();
        for (name, count) in parts {
            let end = names.total.checked_add(count)?;
            names.parts.push((name, names.total..end));
            names.total = end.checked_next_multiple_of(ALIGNMENT)?;
        }
        Some(names)
    }

    /// Elements of the whole vector.
    pub fn total(&self) -> usize {
        self.total
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Range<usize>)> {
        self.parts
            .iter()
            .map(|(name, range)| (name.as_str(), range.clone()))
    }

    pub fn len(&self) -> usize {
        self.parts.len()
    }

    pub fn index(&self, name: &str) -> Option<usize> {
        self.parts.iter().position(|(known, _)| known == name)
    }

    pub fn name(&self, index: usize) -> &str {
        &self.parts[index].0
    }

    pub fn range(&self, index: usize) -> Range<usize> {
        self.parts[index].1.clone()
    }

    fn expect(&self, kind: &str, name: &str) -> Range<usize> {
        let index = self.index(name);
        self.range(index.unwrap_or_else(|| panic!("there is no {kind} {name:?}")))
    }
}

/// The mean gradients of a step.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    pub(super) names: &'a Names,
    pub(super) buckets: Averaged<'a>,
}

/// Where means lie.
#[derive(Clone, Copy, Debug)]
pub(super) enum Averaged<'a> {
    /// Each in its bucket.
    Apart(&'a [super::bucket::Slot]),
    /// One after the other; nowhere, if there are none.
    Together(&'a [f32]),
}

impl<'a> Means<'a> {
    /// The mean gradient of a bucket.
    ///
    /// # Panics
    /// If there is no bucket of that name, or no mean: see [`super::Outcome::caught_up`].
    pub fn of(&self, name: &str) -> &'a [f32] {
        let range = self.names.expect("bucket", name);
        match self.buckets {
            Averaged::Apart(slots) => {
                let index = self.names.index(name).expect("just found");
                let window = slots[index].window.as_ref();
                window.expect("every bucket is back when a step has finished")
            }
            Averaged::Together(result) => {
                assert!(
                    !result.is_empty(),
                    "this step was jumped over: it has no mean here"
                );
                &result[range]
            }
        }
    }
}

/// Training state, to be changed.
#[derive(Debug)]
pub struct State<'a> {
    pub(super) names: &'a Names,
    pub(super) whole: &'a mut [f32],
}

impl State<'_> {
    /// A part of it.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn of(&mut self, name: &str) -> &mut [f32] {
        &mut self.whole[self.names.expect("state", name)]
    }

    /// Several parts at once.
    ///
    /// # Panics
    /// If there is none of a name, or a name is there twice.
    pub fn these<const N: usize>(&mut self, names: [&str; N]) -> [&mut [f32]; N] {
        let ranges = names.map(|name| self.names.expect("state", name));
        let parts = self.whole.get_disjoint_mut(ranges);
        parts.expect("each part is asked for once")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_on_lines_of_their_own() {
        let names = Names::new(vec![("a".into(), 3), ("b".into(), 16), ("c".into(), 1)]).unwrap();
        assert_eq!(
            (names.range(0), names.range(1), names.range(2)),
            (0..3, 16..32, 32..33)
        );
        assert_eq!(
            (names.total(), names.index("b"), names.index("d")),
            (48, Some(1), None)
        );
        assert!(Names::new(vec![("a".into(), usize::MAX)]).is_none());
        let mut whole = vec![0.0; 48];
        let mut state = State {
            names: &names,
            whole: &mut whole,
        };
        let [c, a] = state.these(["c", "a"]);
        (c[0], a[2]) = (1.0, 2.0);
        assert_eq!(state.of("a"), [0.0, 0.0, 2.0]);
        assert_eq!(whole[32], 1.0);
    }
}
