//! What each element type does with each operation, one element or one tile at a time. No memory is walked here.
//!
//! Everything is written so that LLVM can vectorise it over a tile: no branches, no calls. Rust never contracts a
//! multiplication and an addition into one rounding, so wider instruction sets cannot change a bit.

use half::{bf16, f16};

/// What a value is accumulated as between load and store.
pub(super) trait Accumulator: Copy {
    fn zero() -> Self;
    fn add(self, other: Self) -> Self;
    fn multiply(self, other: Self) -> Self;
    /// NaN if either is; −0 before +0. The order of the two does not matter.
    fn smaller(self, other: Self) -> Self;
    /// NaN if either is; +0 after −0. The order of the two does not matter.
    fn larger(self, other: Self) -> Self;
    /// For integers: truncated. `divisor` is at least 1.
    fn divide(self, divisor: u32) -> Self;
}

macro_rules! float_accumulator {
    ($float:ty) => {
        impl Accumulator for $float {
            #[inline(always)]
            fn zero() -> Self {
                0.0
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self + other
            }
            #[inline(always)]
            fn multiply(self, other: Self) -> Self {
                self * other
            }
            // Each selection is the vector minimum, which yields its second operand when both are zeros or one is
            // NaN. Done in both orders the two agree otherwise; the disjunction then keeps a set sign (−0) and
            // an all-ones exponent with a non-zero mantissa (NaN).
            #[inline(always)]
            fn smaller(self, other: Self) -> Self {
                let one = if self < other { self } else { other };
                let two = if other < self { other } else { self };
                Self::from_bits(one.to_bits() | two.to_bits())
            }
            #[inline(always)]
            fn larger(self, other: Self) -> Self {
                -(-self).smaller(-other)
            }
            #[inline(always)]
            fn divide(self, divisor: u32) -> Self {
                self / divisor as $float
            }
        }
    };
}
float_accumulator!(f32);
float_accumulator!(f64);

macro_rules! integer_accumulator {
    ($integer:ty, $wide:ty) => {
        impl Accumulator for $integer {
            #[inline(always)]
            fn zero() -> Self {
                0
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn multiply(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn smaller(self, other: Self) -> Self {
                self.min(other)
            }
            #[inline(always)]
            fn larger(self, other: Self) -> Self {
                self.max(other)
            }
            // In a type that holds the divisor, whatever it is. The quotient is no larger than the dividend.
            #[inline(always)]
            fn divide(self, divisor: u32) -> Self {
                (self as $wide / divisor as $wide) as $integer
            }
        }
    };
}
integer_accumulator!(i32, i64);
integer_accumulator!(i64, i64);
integer_accumulator!(u8, u32);

/// What the processor offers for whole tiles. The methods exist where LLVM finds no vector form by itself.
pub(super) trait Processor {
    fn widen_f16<const TILE: usize>(tile: [f16; TILE]) -> [f32; TILE];
    fn narrow_f16<const TILE: usize>(tile: [f32; TILE]) -> [f16; TILE];
}

/// Nothing is assumed.
pub(super) struct Portable;

impl Processor for Portable {
    #[inline(always)]
    fn widen_f16<const TILE: usize>(tile: [f16; TILE]) -> [f32; TILE] {
        each(tile, f16::to_f32)
    }
    #[inline(always)]
    fn narrow_f16<const TILE: usize>(tile: [f32; TILE]) -> [f16; TILE] {
        each(tile, f16::from_f32)
    }
}

/// An element type as it lies in memory.
pub(super) trait Stored: Copy {
    type Wide: Accumulator;
    fn widen<P: Processor, const TILE: usize>(tile: [Self; TILE]) -> [Self::Wide; TILE];
    /// Rounds to the nearest, ties to even.
    fn narrow<P: Processor, const TILE: usize>(tile: [Self::Wide; TILE]) -> [Self; TILE];
}

macro_rules! stored_as_accumulated {
    ($($number:ty),*) => {$(
        impl Stored for $number {
            type Wide = $number;
            #[inline(always)]
            fn widen<P: Processor, const TILE: usize>(tile: [Self; TILE]) -> [Self; TILE] {
                tile
            }
            #[inline(always)]
            fn narrow<P: Processor, const TILE: usize>(tile: [Self; TILE]) -> [Self; TILE] {
                tile
            }
        }
    )*};
}
stored_as_accumulated!(f32, f64, i32, i64, u8);

impl Stored for f16 {
    type Wide = f32;
    #[inline(always)]
    fn widen<P: Processor, const TILE: usize>(tile: [Self; TILE]) -> [f32; TILE] {
        P::widen_f16(tile)
    }
    #[inline(always)]
    fn narrow<P: Processor, const TILE: usize>(tile: [f32; TILE]) -> [Self; TILE] {
        P::narrow_f16(tile)
    }
}

impl Stored for bf16 {
    type Wide = f32;
    #[inline(always)]
    fn widen<P: Processor, const TILE: usize>(tile: [Self; TILE]) -> [f32; TILE] {
        each(tile, |value| f32::from_bits(u32::from(value.to_bits()) << 16))
    }
    #[inline(always)]
    fn narrow<P: Processor, const TILE: usize>(tile: [f32; TILE]) -> [Self; TILE] {
        each(tile, |value| {
            let bits = value.to_bits();
            // Carries into the kept half exactly when the dropped half is above one half, or is one half and the
            // kept half is odd. Infinity has nothing to carry; a NaN could become one and is quietened instead.
            let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
            let quiet = (bits >> 16) | 0x0040;
            let is_nan = bits & 0x7FFF_FFFF > 0x7F80_0000;
            bf16::from_bits(if is_nan { quiet } else { rounded } as u16)
        })
    }
}

/// An operation as a type, so that each kernel is compiled for one.
pub(super) trait Combine {
    fn combine<A: Accumulator>(one: A, two: A) -> A;
}

macro_rules! combines {
    ($($operation:ident => $method:ident),*) => {$(
        pub(super) struct $operation;
        impl Combine for $operation {
            #[inline(always)]
            fn combine<A: Accumulator>(one: A, two: A) -> A {
                one.$method(two)
            }
        }
    )*};
}
combines!(Sum => add, Product => multiply, Min => smaller, Max => larger);

/// `array::map` without its panic handling, which keeps LLVM from vectorising.
#[inline(always)]
pub(super) fn each<A: Copy, B: Default + Copy, const TILE: usize>(
    tile: [A; TILE],
    mut change: impl FnMut(A) -> B,
) -> [B; TILE] {
    let mut changed = [B::default(); TILE];
    for i in 0..TILE {
        changed[i] = change(tile[i]);
    }
    changed
}
