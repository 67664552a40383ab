//! The kernels of 16-bit floats for processors with AVX-512, chosen at run time: their conversions are what bounds them, and
//! twice as many lanes halve these. Types that are loaded as they are combined are bound by memory, and stay with AVX2.
//!
//! # Safety
//! As in the module on 256-bit vectors: a vector exists only where the instructions are there.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::super::arithmetic::{Accumulator, Combine};
use super::{ABREAST, Packed, Ymm, vectors};

/// 512-bit vectors.
pub(in super::super) struct Zmm;

/// Whether the kernels may run here.
pub(in super::super) fn available() -> bool {
    super::available()
        && std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vnni")
}

/// Folds `sources` left to right into `into`, then divides by `divisor` if it is asked to.
///
/// # Safety
/// As [`Kernel`](super::super::Kernel), with `into` and `sources` holding `S`; besides, [`available`] must have said yes.
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vnni")]
#[inline(never)]
unsafe fn fold<S: Packed<Zmm> + Packed<Ymm>, C: Combine, const DIVIDE: bool>(
    into: *mut u8,
    sources: &[*const u8],
    count: usize,
    divisor: u32,
) {
    if sources.is_empty() {
        return;
    }
    let lanes = <S as Packed<Zmm>>::LANES;
    let mut at = 0;
    while count - at >= ABREAST * lanes {
        // SAFETY: so many elements are left in every source and in `into`; the features are enabled here.
        unsafe { vectors::<Zmm, S, C, ABREAST, DIVIDE>(into.cast(), sources, at, divisor) };
        at += ABREAST * lanes;
    }
    // SAFETY: the caller's contract, from an element on that is within the count.
    unsafe { super::fold::<S, C, DIVIDE>(into, sources, at, count, divisor) }
}

/// A kernel for operations that take no average.
///
/// # Safety
/// As [`fold`].
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vnni")]
pub(in super::super) unsafe fn undivided<S: Packed<Zmm> + Packed<Ymm>, C: Combine>(
    into: *mut u8,
    sources: &[*const u8],
    count: usize,
    _: u32,
) {
    // SAFETY: the caller's contract.
    unsafe { fold::<S, C, false>(into, sources, count, 1) }
}

/// A kernel that divides at the end, unless the divisor is 1 (or 0).
///
/// # Safety
/// As [`fold`].
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vnni")]
pub(in super::super) unsafe fn divided<S: Packed<Zmm> + Packed<Ymm>, C: Combine>(
    into: *mut u8,
    sources: &[*const u8],
    count: usize,
    divisor: u32,
) {
    if divisor > 1 {
        // SAFETY: the caller's contract.
        unsafe { fold::<S, C, true>(into, sources, count, divisor) }
    } else {
        // SAFETY: the caller's contract.
        unsafe { fold::<S, C, false>(into, sources, count, 1) }
    }
}

/// Sixteen binary32.
#[derive(Clone, Copy)]
pub(in super::super) struct F32x16(__m512);

impl Accumulator for F32x16 {
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: a vector exists.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    // See the scalar form for why this is right with NaN and zeros.
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            let one = _mm512_castps_si512(_mm512_min_ps(self.0, other.0));
            let two = _mm512_castps_si512(_mm512_min_ps(other.0, self.0));
            Self(_mm512_castsi512_ps(_mm512_or_si512(one, two)))
        }
    }
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        self.negative().smaller(other.negative()).negative()
    }
    #[inline(always)]
    fn divide(self, divisor: u32) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_div_ps(self.0, _mm512_set1_ps(divisor as f32)) })
    }
}

impl F32x16 {
    #[inline(always)]
    fn negative(self) -> Self {
        // SAFETY: a vector exists.
        unsafe {
            let sign = _mm512_set1_epi32(i32::MIN);
            Self(_mm512_castsi512_ps(_mm512_xor_si512(
                _mm512_castps_si512(self.0),
                sign,
            )))
        }
    }

    /// Each lane rounded to its upper half, as the scalar form does it; the lower half is left as it comes.
    ///
    /// What is added is 0x7FFF, and 1 more where the kept half is odd: as a sum of products of 16-bit halves, the lower
    /// one (made 1) times 0x7FFF and the upper one's last bit times 1. (The processor's own conversion takes denormals
    /// for zeros, so it cannot be used.)
    #[inline(always)]
    fn round_to_upper_half(self) -> __m512i {
        // SAFETY: a vector exists.
        unsafe {
            let bits = _mm512_castps_si512(self.0);
            let last_kept = _mm512_set1_epi32(0x0001_0000);
            let one = _mm512_set1_epi32(0x0000_0001);
            // one | (bits & last_kept)
            let halves = _mm512_ternarylogic_epi32::<0xF8>(one, bits, last_kept);
            _mm512_dpwssd_epi32(bits, halves, _mm512_set1_epi32(0x0001_7FFF))
        }
    }
}

/// Thirty-two bfloat16 as binary32: those at even places, those at odd places, as in 256-bit vectors.
#[derive(Clone, Copy)]
pub(in super::super) struct Bf16x32(F32x16, F32x16);

impl Accumulator for Bf16x32 {
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

impl Packed<Zmm> for bf16 {
    type Vector = Bf16x32;
    const LANES: usize = 32;

    #[inline(always)]
    unsafe fn load(from: *const Self) -> Bf16x32 {
        // SAFETY: the caller's contract; an unaligned load of exactly `LANES` elements.
        unsafe {
            let both = _mm512_loadu_si512(from.cast());
            let even = _mm512_slli_epi32::<16>(both);
            let odd = _mm512_and_si512(both, upper_halves());
            Bf16x32(
                F32x16(_mm512_castsi512_ps(even)),
                F32x16(_mm512_castsi512_ps(odd)),
            )
        }
    }

    #[inline(always)]
    unsafe fn store(vector: Bf16x32, into: *mut Self) {
        // SAFETY: the caller's contract; an unaligned store of exactly `LANES` elements.
        unsafe {
            let even = _mm512_srli_epi32::<16>(vector.0.round_to_upper_half());
            let odd = vector.1.round_to_upper_half();
            // even | (odd & upper_halves)
            let both = _mm512_ternarylogic_epi32::<0xF8>(even, odd, upper_halves());
            _mm512_storeu_si512(into.cast(), both);
        }
    }
}

/// The upper half of each lane.
///
/// # Safety
/// AVX-512 is there.
#[inline(always)]
unsafe fn upper_halves() -> __m512i {
    // SAFETY: the caller's contract.
    unsafe { _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed()) }
}

impl Packed<Zmm> for f16 {
    type Vector = F32x16;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn load(from: *const Self) -> F32x16 {
        // SAFETY: the caller's contract; an unaligned load of exactly `LANES` elements.
        F32x16(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }

    #[inline(always)]
    unsafe fn store(vector: F32x16, into: *mut Self) {
        // SAFETY: the caller's contract; an unaligned store of exactly `LANES` elements.
        unsafe {
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(vector.0);
            _mm256_storeu_si256(into.cast(), halves);
        }
    }
}
