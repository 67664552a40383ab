//! What each element type does with each operation. No memory is walked here.
//!
//! Rust never contracts a multiplication and an addition into one rounding, so an instruction set that could cannot
//! change a bit.

use half::{bf16, f16};

/// What values are accumulated as between load and store: one, or a vector of them.
pub(super) trait Accumulator: Copy {
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
            fn add(self, other: Self) -> Self {
                self + other
            }
            #[inline(always)]
            fn multiply(self, other: Self) -> Self {
                self * other
            }
            // Each selection yields its second operand when both are zeros or one is NaN, as the processors' vector
            // minimum does. Done in both orders the two agree otherwise; the disjunction then keeps a set sign (−0)
            // and an all-ones exponent with a non-zero mantissa (NaN).
            #[inline(always)]
            fn smaller(self, other: Self) -> Self {
                let one = if self < other { self } else { other };
                let two = if other < self { other } else { self };
                Self::from_bits(one.to_bits() | two.to_bits())
            }
            #[inline(always)]
            fn larger(self, other: Self) -> Self {
                -((-self).smaller(-other))
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
integer_accumulator!(i8, i64);
integer_accumulator!(u32, u32);
integer_accumulator!(u64, u64);

/// Accumulators that a contribution can be multiplied in by a rank's factor.
pub(super) trait Scaled: Accumulator {
    /// The factor, rounded to what is accumulated in, in every lane.
    fn factor(factor: f64) -> Self;
}

impl Scaled for f32 {
    #[inline(always)]
    fn factor(factor: f64) -> Self {
        factor as f32
    }
}

impl Scaled for f64 {
    #[inline(always)]
    fn factor(factor: f64) -> Self {
        factor
    }
}

/// An element type as it lies in memory.
pub(super) trait Stored: Copy {
    type Wide: Accumulator + Default;
    fn widen(self) -> Self::Wide;
    /// Rounds to the nearest, ties to even.
    fn narrow(wide: Self::Wide) -> Self;
}

macro_rules! stored_as_accumulated {
    ($($number:ty),*) => {$(
        impl Stored for $number {
            type Wide = $number;
            #[inline(always)]
            fn widen(self) -> Self {
                self
            }
            #[inline(always)]
            fn narrow(wide: Self) -> Self {
                wide
            }
        }
    )*};
}
stored_as_accumulated!(f32, f64, i8, u8, i32, u32, i64, u64);

impl Stored for f16 {
    type Wide = f32;
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn narrow(wide: f32) -> Self {
        f16::from_f32(wide)
    }
}

impl Stored for bf16 {
    type Wide = f32;
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    // Adds a carry into the kept half exactly when the dropped half is above one half, or is one half and the kept
    // half is odd. Infinity has nothing to carry. Nor has a NaN, so that it stays one: it is the processor's own or
    // comes from a bfloat16, and in both the dropped half is zero.
    #[inline(always)]
    fn narrow(wide: f32) -> Self {
        let bits = wide.to_bits();
        bf16::from_bits((bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16) as u16)
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
