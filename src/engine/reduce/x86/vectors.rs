//! 256-bit vectors: how each element type is loaded, combined and stored. Nothing here leaves the registers but
//! through `load` and `store`.
//!
//! # Safety
//! The types are private to `x86` and come into being only in `load`, which asks for AVX2 and F16C, and in `factor`,
//! which kernels call that have these enabled: whoever holds a vector may use these instructions. That is what "a vector exists" means below.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::super::arithmetic::{Accumulator, Scaled};
use super::Packed;

macro_rules! vector {
    ($(#[$doc:meta])* $name:ident($register:ty) { $($method:ident: |$one:ident, $two:ident| $body:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(in super::super) struct $name($register);

        impl Accumulator for $name {
            $(vector!(@method $method, |$one, $two| $body);)*
        }
    };
    (@method divide, |$one:ident, $two:ident| $body:expr) => {
        #[inline(always)]
        fn divide(self, $two: u32) -> Self {
            let $one = self.0;
            // SAFETY: a vector exists.
            Self(unsafe { $body })
        }
    };
    (@method $method:ident, |$one:ident, $two:ident| $body:expr) => {
        #[inline(always)]
        fn $method(self, other: Self) -> Self {
            let ($one, $two) = (self.0, other.0);
            // SAFETY: a vector exists.
            Self(unsafe { $body })
        }
    };
}

vector!(
    /// Eight binary32.
    F32x8(__m256) {
        add: |a, b| _mm256_add_ps(a, b),
        multiply: |a, b| _mm256_mul_ps(a, b),
        // See the scalar form for why this is right with NaN and zeros.
        smaller: |a, b| _mm256_or_ps(_mm256_min_ps(a, b), _mm256_min_ps(b, a)),
        larger: |a, b| {
            let sign = _mm256_set1_ps(-0.0);
            let (a, b) = (_mm256_xor_ps(a, sign), _mm256_xor_ps(b, sign));
            _mm256_xor_ps(_mm256_or_ps(_mm256_min_ps(a, b), _mm256_min_ps(b, a)), sign)
        },
        divide: |a, divisor| _mm256_div_ps(a, _mm256_set1_ps(divisor as f32)),
    }
);

vector!(
    /// Four binary64.
    F64x4(__m256d) {
        add: |a, b| _mm256_add_pd(a, b),
        multiply: |a, b| _mm256_mul_pd(a, b),
        smaller: |a, b| _mm256_or_pd(_mm256_min_pd(a, b), _mm256_min_pd(b, a)),
        larger: |a, b| {
            let sign = _mm256_set1_pd(-0.0);
            let (a, b) = (_mm256_xor_pd(a, sign), _mm256_xor_pd(b, sign));
            _mm256_xor_pd(_mm256_or_pd(_mm256_min_pd(a, b), _mm256_min_pd(b, a)), sign)
        },
        divide: |a, divisor| _mm256_div_pd(a, _mm256_set1_pd(f64::from(divisor))),
    }
);

vector!(
    /// Eight signed 32-bit integers.
    I32x8(__m256i) {
        add: |a, b| _mm256_add_epi32(a, b),
        multiply: |a, b| _mm256_mullo_epi32(a, b),
        smaller: |a, b| _mm256_min_epi32(a, b),
        larger: |a, b| _mm256_max_epi32(a, b),
        divide: |a, divisor| divide_lanes::<i32, 8>(a, divisor),
    }
);

vector!(
    /// Four signed 64-bit integers.
    I64x4(__m256i) {
        add: |a, b| _mm256_add_epi64(a, b),
        multiply: |a, b| products_of_64(a, b),
        smaller: |a, b| _mm256_blendv_epi8(a, b, _mm256_cmpgt_epi64(a, b)),
        larger: |a, b| _mm256_blendv_epi8(b, a, _mm256_cmpgt_epi64(a, b)),
        divide: |a, divisor| divide_lanes::<i64, 4>(a, divisor),
    }
);

vector!(
    /// Eight unsigned 32-bit integers.
    U32x8(__m256i) {
        add: |a, b| _mm256_add_epi32(a, b),
        multiply: |a, b| _mm256_mullo_epi32(a, b),
        smaller: |a, b| _mm256_min_epu32(a, b),
        larger: |a, b| _mm256_max_epu32(a, b),
        divide: |a, divisor| divide_lanes::<u32, 8>(a, divisor),
    }
);

vector!(
    /// Four unsigned 64-bit integers.
    U64x4(__m256i) {
        add: |a, b| _mm256_add_epi64(a, b),
        multiply: |a, b| products_of_64(a, b),
        smaller: |a, b| _mm256_blendv_epi8(a, b, is_above(a, b)),
        larger: |a, b| _mm256_blendv_epi8(b, a, is_above(a, b)),
        divide: |a, divisor| divide_lanes::<u64, 4>(a, divisor),
    }
);

/// The lower 64 bits of products, signed or not, from three products of 32-bit halves.
///
/// # Safety
/// AVX2 is there.
#[inline(always)]
unsafe fn products_of_64(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the caller's contract.
    unsafe {
        let low = _mm256_mul_epu32(a, b);
        let crossed = _mm256_add_epi64(
            _mm256_mul_epu32(_mm256_srli_epi64::<32>(a), b),
            _mm256_mul_epu32(a, _mm256_srli_epi64::<32>(b)),
        );
        _mm256_add_epi64(low, _mm256_slli_epi64::<32>(crossed))
    }
}

/// The lower bytes of products, signed or not: even bytes in place, odd ones moved down and back up; there is no
/// product of bytes.
///
/// # Safety
/// AVX2 is there.
#[inline(always)]
unsafe fn products_of_8(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the caller's contract.
    unsafe {
        let even = _mm256_and_si256(_mm256_mullo_epi16(a, b), _mm256_set1_epi16(0xFF));
        let odd = _mm256_mullo_epi16(_mm256_srli_epi16::<8>(a), _mm256_srli_epi16::<8>(b));
        _mm256_or_si256(even, _mm256_slli_epi16::<8>(odd))
    }
}

/// Lanes all of ones where `a` is larger than `b`, as unsigned 64-bit integers: with the upper bits turned round the
/// signed comparison orders them so.
///
/// # Safety
/// AVX2 is there.
#[inline(always)]
unsafe fn is_above(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the caller's contract.
    unsafe {
        let sign = _mm256_set1_epi64x(i64::MIN);
        _mm256_cmpgt_epi64(_mm256_xor_si256(a, sign), _mm256_xor_si256(b, sign))
    }
}

vector!(
    /// Thirty-two signed bytes.
    I8x32(__m256i) {
        add: |a, b| _mm256_add_epi8(a, b),
        multiply: |a, b| products_of_8(a, b),
        smaller: |a, b| _mm256_min_epi8(a, b),
        larger: |a, b| _mm256_max_epi8(a, b),
        divide: |a, divisor| divide_lanes::<i8, 32>(a, divisor),
    }
);

vector!(
    /// Thirty-two unsigned bytes.
    U8x32(__m256i) {
        add: |a, b| _mm256_add_epi8(a, b),
        multiply: |a, b| products_of_8(a, b),
        smaller: |a, b| _mm256_min_epu8(a, b),
        larger: |a, b| _mm256_max_epu8(a, b),
        divide: |a, divisor| divide_lanes::<u8, 32>(a, divisor),
    }
);

/// Divides lane by lane: no vector instruction divides integers.
///
/// # Safety
/// AVX is there; `LANES` elements `T` fill a vector.
#[inline(always)]
unsafe fn divide_lanes<T: Accumulator + Default, const LANES: usize>(
    vector: __m256i,
    divisor: u32,
) -> __m256i {
    const { assert!(LANES * size_of::<T>() == size_of::<__m256i>()) }
    let mut lanes = [T::default(); LANES];
    // SAFETY: the array is as large as the vector, as asserted; unaligned forms are used.
    unsafe {
        _mm256_storeu_si256(lanes.as_mut_ptr().cast(), vector);
        for lane in &mut lanes {
            *lane = lane.divide(divisor);
        }
        _mm256_loadu_si256(lanes.as_ptr().cast())
    }
}

macro_rules! packed {
    ($($element:ty => $vector:ident, $lanes:literal,
        |$from:ident| $load:expr, |$into:ident, $value:ident| $store:expr;)*) => {$(
        impl Packed for $element {
            type Vector = $vector;
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn load($from: *const Self) -> $vector {
                // SAFETY: the caller's contract; an unaligned load of exactly `LANES` elements.
                $vector(unsafe { $load })
            }

            #[inline(always)]
            unsafe fn store($value: $vector, $into: *mut Self) {
                let $value = $value.0;
                // SAFETY: the caller's contract; an unaligned store of exactly `LANES` elements.
                unsafe { $store }
            }
        }
    )*};
}

packed! {
    f32 => F32x8, 8, |from| _mm256_loadu_ps(from), |into, vector| _mm256_storeu_ps(into, vector);
    f64 => F64x4, 4, |from| _mm256_loadu_pd(from), |into, vector| _mm256_storeu_pd(into, vector);
    i32 => I32x8, 8, |from| _mm256_loadu_si256(from.cast()),
        |into, vector| _mm256_storeu_si256(into.cast(), vector);
    i64 => I64x4, 4, |from| _mm256_loadu_si256(from.cast()),
        |into, vector| _mm256_storeu_si256(into.cast(), vector);
    u8 => U8x32, 32, |from| _mm256_loadu_si256(from.cast()),
        |into, vector| _mm256_storeu_si256(into.cast(), vector);
    i8 => I8x32, 32, |from| _mm256_loadu_si256(from.cast()),
        |into, vector| _mm256_storeu_si256(into.cast(), vector);
    u32 => U32x8, 8, |from| _mm256_loadu_si256(from.cast()),
        |into, vector| _mm256_storeu_si256(into.cast(), vector);
    u64 => U64x4, 4, |from| _mm256_loadu_si256(from.cast()),
        |into, vector| _mm256_storeu_si256(into.cast(), vector);
    f16 => F32x8, 8, |from| _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
        |into, vector| {
            _mm_storeu_si128(into.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(vector));
        };
}

/// Sixteen bfloat16 as binary32: those at even places, those at odd places. Taking them apart and putting them
/// together again costs a shift and a mask, where keeping them in order would cost shuffles.
#[derive(Clone, Copy)]
pub(in super::super) struct Bf16x16(F32x8, F32x8);

impl Accumulator for Bf16x16 {
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0.add(other.0), self.1.add(other.1))
    }
    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        Self(self.0.multiply(other.0), self.1.multiply(other.1))
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        Self(self.0.smaller(other.0), self.1.smaller(other.1))
    }
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        Self(self.0.larger(other.0), self.1.larger(other.1))
    }
    #[inline(always)]
    fn divide(self, divisor: u32) -> Self {
        Self(self.0.divide(divisor), self.1.divide(divisor))
    }
}

impl Scaled for F32x8 {
    #[inline(always)]
    fn factor(factor: f64) -> Self {
        // SAFETY: called only where the kernel's instructions are there.
        Self(unsafe { _mm256_set1_ps(factor as f32) })
    }
}

impl Scaled for F64x4 {
    #[inline(always)]
    fn factor(factor: f64) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm256_set1_pd(factor) })
    }
}

impl Scaled for Bf16x16 {
    #[inline(always)]
    fn factor(factor: f64) -> Self {
        Self(F32x8::factor(factor), F32x8::factor(factor))
    }
}

/// The upper half of each lane.
///
/// # Safety
/// AVX is there.
#[inline(always)]
unsafe fn upper_halves() -> __m256i {
    // SAFETY: the caller's contract.
    unsafe { _mm256_set1_epi32(0xFFFF_0000_u32.cast_signed()) }
}

/// Each lane rounded to its upper half, as the scalar form does it; the lower half is left as it comes.
///
/// # Safety
/// AVX2 is there.
#[inline(always)]
unsafe fn round_to_upper_half(lanes: F32x8) -> __m256i {
    // SAFETY: the caller's contract.
    unsafe {
        let bits = _mm256_castps_si256(lanes.0);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd)
    }
}

impl Packed for bf16 {
    type Vector = Bf16x16;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn load(from: *const Self) -> Bf16x16 {
        // SAFETY: the caller's contract; an unaligned load of exactly `LANES` elements.
        unsafe {
            let both = _mm256_loadu_si256(from.cast());
            let even = _mm256_slli_epi32::<16>(both);
            let odd = _mm256_and_si256(both, upper_halves());
            Bf16x16(F32x8(_mm256_castsi256_ps(even)), F32x8(_mm256_castsi256_ps(odd)))
        }
    }

    #[inline(always)]
    unsafe fn store(vector: Bf16x16, into: *mut Self) {
        // SAFETY: the caller's contract; an unaligned store of exactly `LANES` elements.
        unsafe {
            let even = _mm256_srli_epi32::<16>(round_to_upper_half(vector.0));
            let odd = round_to_upper_half(vector.1);
            _mm256_storeu_si256(into.cast(), _mm256_blend_epi16::<0b1010_1010>(even, odd));
        }
    }
}
