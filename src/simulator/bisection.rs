//! Where a falling function is zero. Only for functions that are cheap.

use std::ops::Range;

/// The place where `falling` goes from above zero to below, to the last bit; an end of the range if it does not.
pub(super) fn zero_of(range: Range<f64>, falling: impl Fn(f64) -> f64) -> f64 {
    let (mut above, mut below) = (range.start, range.end);
    loop {
        let middle = above + (below - above) / 2.0;
        if middle <= above || middle >= below {
            return middle;
        }
        if falling(middle) > 0.0 {
            above = middle;
        } else {
            below = middle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_and_none() {
        let root = zero_of(0.0..10.0, |x| 2.0 - x * x);
        assert!((root - 2f64.sqrt()).abs() < 1e-15, "{root}");
        assert!(zero_of(0.0..1.0, |_| -1.0) < 1e-300);
        assert!(zero_of(0.0..1.0, |_| 1.0) > 1.0 - 1e-15);
    }
}
