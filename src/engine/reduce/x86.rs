//! The kernels compiled for processors with AVX2 and F16C. Chosen at run time; the arithmetic is the portable one.

use std::arch::x86_64::{
    __m128i, __m256, _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_cvtph_ps,
    _mm256_cvtps_ph, _mm256_loadu_ps, _mm256_storeu_ps,
};

use half::f16;

use super::arithmetic::{Combine, Portable, Processor, Stored};
use super::fold::fold;

/// Elements that one conversion instruction takes.
const LANES: usize = 8;

/// Whether [`kernel`] may run here.
pub(super) fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("f16c")
}

/// Private to this module, so that its methods are reached only from [`kernel`], where the features are there.
struct Avx2;

impl Processor for Avx2 {
    #[inline(always)]
    fn widen_f16<const TILE: usize>(tile: [f16; TILE]) -> [f32; TILE] {
        if !TILE.is_multiple_of(LANES) {
            return Portable::widen_f16(tile);
        }
        let mut wide = [0.0; TILE];
        for at in (0..TILE).step_by(LANES) {
            // SAFETY: `at + LANES <= TILE`, so load and store stay inside the arrays, and unaligned forms are used;
            // only `kernel`, which has f16c enabled, instantiates this.
            unsafe {
                let halves: __m128i = _mm_loadu_si128(tile.as_ptr().add(at).cast());
                _mm256_storeu_ps(wide.as_mut_ptr().add(at), _mm256_cvtph_ps(halves));
            }
        }
        wide
    }

    #[inline(always)]
    fn narrow_f16<const TILE: usize>(tile: [f32; TILE]) -> [f16; TILE] {
        if !TILE.is_multiple_of(LANES) {
            return Portable::narrow_f16(tile);
        }
        let mut narrow = [f16::ZERO; TILE];
        for at in (0..TILE).step_by(LANES) {
            // SAFETY: as in `widen_f16`.
            unsafe {
                let floats: __m256 = _mm256_loadu_ps(tile.as_ptr().add(at));
                let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(floats);
                _mm_storeu_si128(narrow.as_mut_ptr().add(at).cast(), halves);
            }
        }
        narrow
    }
}

/// # Safety
/// As [`Kernel`](super::Kernel); besides, [`available`] must have said yes.
#[target_feature(enable = "avx2,f16c")]
pub(super) unsafe fn kernel<S: Stored, C: Combine, const AVERAGE: bool>(
    into: *mut u8,
    sources: &[*const u8],
    count: usize,
    divisor: u32,
) {
    let divisor = if AVERAGE { divisor } else { 1 };
    // SAFETY: the caller's contract; the elements are `S` because `reduce::kernel` pairs type and instance.
    unsafe { fold::<S, C, Avx2>(into.cast(), sources, count, divisor) }
}
