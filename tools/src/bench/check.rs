//! What each rank contributes to a checked row, what must come out, and how far off it may be. Shares no code with
//! the library's kernels and plans, and never talks to another rank: everyone can draw everyone's data.
//!
//! # Tolerance
//! Integers, minima and maxima must be exact. For floats of unit roundoff `u` (half an ulp of 1: 2⁻⁸ bfloat16, 2⁻¹¹
//! half, 2⁻²⁴ float, 2⁻⁵³ double) and `n` ranks, a sum may be off by `((1 + u)ⁿ⁺¹ − 1) · Σ|xᵢ|`, an average by an
//! n-th of that, a product by `((1 + u)ⁿ⁺¹ − 1) · |Πxᵢ|`: every order of `n − 1` operations, each rounded once,
//! stays within it, with two roundings to spare for the average's division and the reference itself (which is
//! computed in compensated binary64). Magnitudes are drawn from [½, 1), so that a missing or doubled contribution
//! exceeds the tolerance for any number of ranks up to 2,895 with float, 32 with half and 11 with bfloat16; beyond
//! that most of them still do, and a block of wrong elements cannot hide.

use half::{bf16, f16};
use sapwood::engine::reduce::Operation;
use sapwood::memory::Element;

use super::case::{Origin, Redop, factor};

/// One checked row: who contributes what to which operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    redop: Redop,
    ranks: u32,
    seed: u64,
}

impl Check {
    /// `row` is the same on every rank, and another for each check.
    pub(super) fn new(redop: Redop, ranks: u32, row: u64) -> Self {
        Self {
            redop,
            ranks,
            seed: mix(row),
        }
    }

    /// What `rank` contributes to element `index`.
    pub(super) fn contribution<T: Checked>(&self, rank: u32, index: usize) -> T {
        T::draw(
            self.redop,
            rank,
            mix(mix(self.seed ^ u64::from(rank)) ^ index as u64),
        )
    }

    /// Fills a rank's input.
    pub(super) fn fill<T: Checked>(&self, rank: u32, input: &mut [T]) {
        for (index, element) in input.iter_mut().enumerate() {
            *element = self.contribution(rank, index);
        }
    }

    /// How many elements of an input are no longer what the rank contributed.
    pub(super) fn count_changed<T: Checked>(&self, rank: u32, input: &[T]) -> u64 {
        let changed = |(index, element): &(usize, &T)| **element != self.contribution(rank, *index);
        input.iter().enumerate().filter(changed).count() as u64
    }

    /// How many elements of a result are wrong; `origin` says what each is to be.
    pub(super) fn count_wrong<T: Checked>(&self, result: &[T], origin: impl Fn(usize) -> Origin) -> u64 {
        let growth = T::growth(self.ranks);
        let wrong = |(index, element): &(usize, &T)| match origin(*index) {
            Origin::From(rank, index) => **element != self.contribution(rank, index),
            Origin::All(index) => {
                let contributions = (0..self.ranks).map(|rank| self.contribution::<T>(rank, index));
                !element.is_right(self.redop, self.ranks, growth, contributions)
            }
        };
        result.iter().enumerate().filter(wrong).count() as u64
    }
}

/// An element type with data to draw, a poison and a reference.
pub(super) trait Checked: Element {
    /// What a result holds before the operation: a NaN, or all bits set.
    const POISON: Self;
    /// A value that the operation maps to itself, however often it is repeated: for timing in place.
    fn fixed_point(redop: Redop) -> Self;
    /// A contribution made of random bits.
    fn draw(redop: Redop, rank: u32, bits: u64) -> Self;
    /// `(1 + u)ⁿ⁺¹ − 1`; 0 where results are exact.
    fn growth(ranks: u32) -> f64;
    /// Whether this is an acceptable result.
    fn is_right(
        self,
        redop: Redop,
        ranks: u32,
        growth: f64,
        contributions: impl Iterator<Item = Self>,
    ) -> bool;
}

/// The finaliser of splitmix64: every bit of the input moves every bit of the output.
fn mix(bits: u64) -> u64 {
    let z = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The ranks whose factors are not ±1: beyond, products of random magnitudes would leave the range of a half.
const RANKS_WITH_MAGNITUDE: u32 = 16;

fn draw_float(redop: Redop, rank: u32, bits: u64) -> f64 {
    let fraction = (bits >> 11) as f64 * (0.5f64).powi(53);
    let magnitude = match redop {
        Redop::Plain(Operation::Product) if rank >= RANKS_WITH_MAGNITUDE => 1.0,
        Redop::Plain(Operation::Product) => 0.75 + fraction / 2.0,
        _ => 0.5 + fraction / 2.0,
    };
    if bits & 1 == 0 { magnitude } else { -magnitude }
}

/// The reference for floats, in compensated binary64.
fn float_is_right(
    result: f64,
    redop: Redop,
    ranks: u32,
    growth: f64,
    contributions: impl Iterator<Item = f64>,
) -> bool {
    let operation = match redop {
        Redop::None => return false,
        Redop::Plain(operation) => operation,
        Redop::PreMultiplied => {
            let multiplied = (0..).zip(contributions).map(|(rank, x)| factor(rank) * x);
            let sum = Redop::Plain(Operation::Sum);
            return float_is_right(
                result,
                sum,
                ranks,
                growth,
                multiplied.collect::<Vec<_>>().into_iter(),
            );
        }
    };
    match operation {
        Operation::Min => result == contributions.fold(f64::INFINITY, f64::min),
        Operation::Max => result == contributions.fold(f64::NEG_INFINITY, f64::max),
        Operation::Sum | Operation::Average | Operation::PreMultipliedSum(_) => {
            let (mut sum, mut lost, mut magnitude) = (0.0f64, 0.0f64, 0.0f64);
            for x in contributions {
                // Knuth's exact sum of two.
                let next = sum + x;
                let part = next - sum;
                lost += (sum - (next - part)) + (x - part);
                sum = next;
                magnitude += x.abs();
            }
            let divisor = if operation == Operation::Average {
                f64::from(ranks)
            } else {
                1.0
            };
            (result - (sum + lost) / divisor).abs() <= growth * magnitude / divisor
        }
        Operation::Product => {
            let (mut product, mut lost) = (1.0f64, 0.0f64);
            for x in contributions {
                let next = product * x;
                lost = lost * x + product.mul_add(x, -next);
                product = next;
            }
            let product = product + lost;
            (result - product).abs() <= growth * product.abs()
        }
    }
}

macro_rules! floats {
    ($($type:ty, $unit_roundoff:expr, $from:expr, $to:expr;)*) => {$(
        impl Checked for $type {
            const POISON: Self = <$type>::NAN;

            fn fixed_point(redop: Redop) -> Self {
                let from: fn(f64) -> $type = $from;
                from(if redop == Redop::Plain(Operation::Product) { 1.0 } else { 0.0 })
            }

            fn draw(redop: Redop, rank: u32, bits: u64) -> Self {
                let from: fn(f64) -> $type = $from;
                from(draw_float(redop, rank, bits))
            }

            fn growth(ranks: u32) -> f64 {
                let unit_roundoff: f64 = $unit_roundoff;
                (f64::from(ranks + 1) * unit_roundoff.ln_1p()).exp_m1()
            }

            fn is_right(self, redop: Redop, ranks: u32, growth: f64,
                contributions: impl Iterator<Item = Self>) -> bool
            {
                let to: fn($type) -> f64 = $to;
                float_is_right(to(self), redop, ranks, growth, contributions.map(to))
            }
        }
    )*};
}
floats! {
    f32, 1.0 / (1u64 << 24) as f64, |x| x as f32, f64::from;
    f64, 1.0 / (1u64 << 53) as f64, |x| x, |x| x;
    f16, 1.0 / (1u64 << 11) as f64, f16::from_f64, f16::to_f64;
    bf16, 1.0 / (1u64 << 8) as f64, bf16::from_f64, bf16::to_f64;
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Checked for $type {
            const POISON: Self = !0;

            fn fixed_point(redop: Redop) -> Self {
                <$type>::from(redop == Redop::Plain(Operation::Product))
            }

            fn draw(redop: Redop, _rank: u32, bits: u64) -> Self {
                // Products of odd numbers keep all their bits; even ones would soon be zero.
                (if redop == Redop::Plain(Operation::Product) { bits | 1 } else { bits }) as $type
            }

            fn growth(_ranks: u32) -> f64 {
                0.0
            }

            fn is_right(self, redop: Redop, ranks: u32, _growth: f64,
                contributions: impl Iterator<Item = Self>) -> bool
            {
                let sum = |contributions| Iterator::fold(contributions, 0, <$type>::wrapping_add);
                let Redop::Plain(operation) = redop else { return false };
                Some(self) == match operation {
                    Operation::PreMultipliedSum(_) => None,
                    Operation::Sum => Some(sum(contributions)),
                    Operation::Average => Some((sum(contributions) as i128 / i128::from(ranks)) as $type),
                    Operation::Product => Some(contributions.fold(1, <$type>::wrapping_mul)),
                    Operation::Min => contributions.min(),
                    Operation::Max => contributions.max(),
                }
            }
        }
    )*};
}
integers!(i8, u8, i32, u32, i64, u64);

#[cfg(test)]
mod tests {
    use super::*;

    const RANKS: u32 = 5;
    const COUNT: usize = 1000;

    fn plain(operation: Operation) -> Redop {
        Redop::Plain(operation)
    }

    /// Sums one contribution after the other, in the type itself.
    fn folded(check: &Check, leave_out: Option<u32>) -> Vec<f32> {
        let mine = |index| {
            let ranks = (0..RANKS).filter(|rank| Some(*rank) != leave_out);
            ranks.map(|rank| check.contribution::<f32>(rank, index)).sum()
        };
        (0..COUNT).map(mine).collect()
    }

    #[test]
    fn a_sum_in_any_rounding_is_right() {
        let check = Check::new(plain(Operation::Sum), RANKS, 1);
        assert_eq!(check.count_wrong(&folded(&check, None), Origin::All), 0);
    }

    #[test]
    fn every_missing_contribution_is_wrong() {
        let check = Check::new(plain(Operation::Sum), RANKS, 2);
        for rank in 0..RANKS {
            assert_eq!(
                check.count_wrong(&folded(&check, Some(rank)), Origin::All),
                COUNT as u64,
                "without rank {rank}"
            );
        }
    }

    fn poison_is_wrong_and_one_rank_is_itself<T: Checked>() {
        for operation in Operation::ALL {
            let check = Check::new(plain(operation), RANKS, 3);
            let wrong = check.count_wrong(&[T::POISON; COUNT], Origin::All);
            // A byte is the poison by chance now and then.
            assert!(
                wrong >= COUNT as u64 * 9 / 10,
                "{} {operation}: {wrong} of {COUNT}",
                T::TYPE
            );

            let alone = Check::new(plain(operation), 1, 4);
            let mut data = [T::POISON; COUNT];
            alone.fill(0, &mut data);
            assert_eq!(
                (
                    alone.count_wrong(&data, Origin::All),
                    alone.count_changed(0, &data)
                ),
                (0, 0),
                "{} {operation}",
                T::TYPE
            );
            data[7] = T::POISON;
            assert_eq!(alone.count_changed(0, &data), 1, "{} {operation}", T::TYPE);
        }
    }

    #[test]
    fn poison_is_wrong_for_every_type_and_operation() {
        poison_is_wrong_and_one_rank_is_itself::<f32>();
        poison_is_wrong_and_one_rank_is_itself::<f64>();
        poison_is_wrong_and_one_rank_is_itself::<f16>();
        poison_is_wrong_and_one_rank_is_itself::<bf16>();
        poison_is_wrong_and_one_rank_is_itself::<i32>();
        poison_is_wrong_and_one_rank_is_itself::<i64>();
        poison_is_wrong_and_one_rank_is_itself::<i8>();
        poison_is_wrong_and_one_rank_is_itself::<u8>();
        poison_is_wrong_and_one_rank_is_itself::<u32>();
        poison_is_wrong_and_one_rank_is_itself::<u64>();
    }

    #[test]
    fn half_rounded_at_every_hop_is_right() {
        let check = Check::new(plain(Operation::Average), 30, 5);
        let mean = |index| {
            let sum = (0..30).fold(f16::ZERO, |sum, rank| {
                f16::from_f32(sum.to_f32() + check.contribution::<f16>(rank, index).to_f32())
            });
            f16::from_f32(sum.to_f32() / 30.0)
        };
        assert_eq!(
            check.count_wrong(&(0..COUNT).map(mean).collect::<Vec<_>>(), Origin::All),
            0
        );
    }

    #[test]
    fn a_contribution_that_was_not_multiplied_is_wrong() {
        let check = Check::new(Redop::PreMultiplied, RANKS, 8);
        let sum = |left_alone: Option<u32>| {
            let element = move |index| {
                let multiplied = move |rank| {
                    let factor = if left_alone == Some(rank) {
                        1.0
                    } else {
                        factor(rank)
                    };
                    check.contribution::<f32>(rank, index) * factor as f32
                };
                (0..RANKS).map(multiplied).sum::<f32>()
            };
            (0..COUNT).map(element).collect::<Vec<_>>()
        };
        assert_eq!(check.count_wrong(&sum(None), Origin::All), 0);
        assert_eq!(check.count_wrong(&sum(Some(0)), Origin::All), COUNT as u64);
    }

    #[test]
    fn what_comes_from_another_rank_or_place_is_wrong() {
        let check = Check::new(Redop::None, RANKS, 9);
        let data = (0..COUNT)
            .map(|index| check.contribution::<f64>(3, index + 5))
            .collect::<Vec<_>>();
        let wrong = |rank, at: usize| check.count_wrong(&data, |index| Origin::From(rank, index + at));
        assert_eq!(
            (wrong(3, 5), wrong(2, 5), wrong(3, 4)),
            (0, COUNT as u64, COUNT as u64)
        );
    }

    #[test]
    fn integers_wrap() {
        let check = Check::new(plain(Operation::Average), RANKS, 6);
        let mean = |index| {
            let sum = (0..RANKS).fold(0i32, |sum, rank| {
                sum.wrapping_add(check.contribution(rank, index))
            });
            sum / RANKS as i32
        };
        let mut means: Vec<i32> = (0..COUNT).map(mean).collect();
        assert_eq!(check.count_wrong(&means, Origin::All), 0);
        means[3] += 1;
        assert_eq!(check.count_wrong(&means, Origin::All), 1);
    }

    #[test]
    fn ranks_and_elements_draw_different_data() {
        let check = Check::new(plain(Operation::Sum), 2, 7);
        let (mut a, mut b) = ([0i64; COUNT], [0i64; COUNT]);
        check.fill(0, &mut a);
        check.fill(1, &mut b);
        let mut all: Vec<i64> = a.into_iter().chain(b).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2 * COUNT);
    }
}
