//! The kernels for processors with AVX2 and F16C, and with AVX-512 ([`wide`]), chosen at run time.
//!
//! Explicit vectors instead of the compiler's: it loses its way in half of the combinations of type and operation.
//! The instructions do to each lane what the portable code does to each element, in the same order.

mod vectors;
pub(super) mod wide;

use super::arithmetic::{Accumulator, Combine, Scaled, Stored};

/// 256-bit vectors.
pub(super) struct Ymm;

/// An element type with its form in registers of a width.
pub(super) trait Packed<Width = Ymm>: Stored {
    type Vector: Accumulator;
    /// Elements in a vector.
    const LANES: usize;

    /// # Safety
    /// `LANES` elements can be read at `from`, which need not be aligned to the vector; the instructions of the width
    /// are there.
    unsafe fn load(from: *const Self) -> Self::Vector;

    /// Rounds to the nearest, ties to even.
    ///
    /// # Safety
    /// `LANES` elements can be written at `into`, which need not be aligned to the vector; the instructions of the
    /// width are there.
    unsafe fn store(vector: Self::Vector, into: *mut Self);
}

/// Vectors that are combined side by side: enough to hide the latency of an addition, few enough for the registers.
const ABREAST: usize = 4;

/// Whether the kernels may run here.
pub(super) fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("f16c")
}

/// Folds `sources` left to right into `into`, from element `at` on, then divides by `divisor` if it is asked to.
///
/// # Safety
/// As [`Kernel`](super::Kernel), with `into` and `sources` holding `S`; besides, `at` is at most the count, and
/// [`available`] must have said yes.
#[target_feature(enable = "avx2,f16c")]
#[inline(never)]
unsafe fn fold<S: Packed, C: Combine, const DIVIDE: bool>(
    into: *mut u8,
    sources: &[*const u8],
    mut at: usize,
    count: usize,
    divisor: u32,
) {
    if sources.is_empty() {
        return;
    }
    let into = into.cast::<S>();
    while count - at >= ABREAST * S::LANES {
        // SAFETY: so many elements are left in every source and in `into`; the features are enabled here.
        unsafe { vectors::<Ymm, S, C, ABREAST, DIVIDE>(into, sources, at, divisor) };
        at += ABREAST * S::LANES;
    }
    while count - at >= S::LANES {
        // SAFETY: as above.
        unsafe { vectors::<Ymm, S, C, 1, DIVIDE>(into, sources, at, divisor) };
        at += S::LANES;
    }
    while at < count {
        // SAFETY: `at < count`, so every source and `into` hold the element; all sources are read before `into`,
        // which may be one of them, is written.
        unsafe {
            let mut sum = sources[0].cast::<S>().add(at).read().widen();
            for source in &sources[1..] {
                sum = C::combine(sum, source.cast::<S>().add(at).read().widen());
            }
            into.add(at)
                .write(S::narrow(if DIVIDE { sum.divide(divisor) } else { sum }));
        }
        at += 1;
    }
}

/// A kernel for operations that take no average.
///
/// # Safety
/// As [`fold`].
#[target_feature(enable = "avx2,f16c")]
pub(super) unsafe fn undivided<S: Packed, C: Combine>(
    into: *mut u8,
    sources: &[*const u8],
    count: usize,
    _: u32,
) {
    // SAFETY: the caller's contract.
    unsafe { fold::<S, C, false>(into, sources, 0, count, 1) }
}

/// A kernel that divides at the end, unless the divisor is 1 (or 0).
///
/// # Safety
/// As [`fold`].
#[target_feature(enable = "avx2,f16c")]
pub(super) unsafe fn divided<S: Packed, C: Combine>(
    into: *mut u8,
    sources: &[*const u8],
    count: usize,
    divisor: u32,
) {
    if divisor > 1 {
        // SAFETY: the caller's contract.
        unsafe { fold::<S, C, true>(into, sources, 0, count, divisor) }
    } else {
        // SAFETY: the caller's contract.
        unsafe { fold::<S, C, false>(into, sources, 0, count, 1) }
    }
}

/// Copies past the caches. The stores are ordered with later ones only by a fence.
///
/// # Safety
/// `from` is valid for reads and `into` for writes of `bytes` bytes, which do not overlap; [`available`] must have said yes.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn stream(into: *mut u8, from: *const u8, bytes: usize) {
    use std::arch::x86_64::{__m256i, _mm256_loadu_si256, _mm256_stream_si256};
    const LANE: usize = size_of::<__m256i>();
    let head = into.align_offset(LANE).min(bytes);
    // SAFETY: in bounds by the caller's contract; a lane is stored only where it is aligned.
    unsafe {
        std::ptr::copy_nonoverlapping(from, into, head);
        let mut at = head;
        while bytes - at >= LANE {
            _mm256_stream_si256(into.add(at).cast(), _mm256_loadu_si256(from.add(at).cast()));
            at += LANE;
        }
        std::ptr::copy_nonoverlapping(from.add(at), into.add(at), bytes - at);
    }
}

/// A kernel that multiplies each source by its factor before it is added.
///
/// # Safety
/// As [`ScaledKernel`](super::ScaledKernel), with `into` and `sources` holding `S`; besides, [`available`] must have
/// said yes.
#[target_feature(enable = "avx2,f16c")]
#[inline(never)]
pub(super) unsafe fn scaled<S: Packed<Vector: Scaled, Wide: Scaled>>(
    into: *mut u8,
    sources: &[*const u8],
    factors: &[f64],
    count: usize,
) {
    let (Some((first, others)), Some((own, factors))) = (sources.split_first(), factors.split_first()) else {
        return;
    };
    let into = into.cast::<S>();
    let mut at = 0;
    while count - at >= ABREAST * S::LANES {
        // SAFETY: so many elements are left in every source and in `into`; the features are enabled here. Everything
        // is loaded before anything is stored, so that `into` may be one of the sources.
        unsafe {
            let factor = S::Vector::factor(*own);
            let start = first.cast::<S>().add(at);
            let mut sums: [S::Vector; ABREAST] =
                std::array::from_fn(|i| S::load(start.add(i * S::LANES)).multiply(factor));
            for (source, factor) in others.iter().zip(factors) {
                let (start, factor) = (source.cast::<S>().add(at), S::Vector::factor(*factor));
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.add(S::load(start.add(i * S::LANES)).multiply(factor));
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                S::store(sum, into.add(at + i * S::LANES));
            }
        }
        at += ABREAST * S::LANES;
    }
    while at < count {
        // SAFETY: `at < count`, so every source and `into` hold the element; all sources are read before `into`,
        // which may be one of them, is written.
        unsafe {
            let value = first.cast::<S>().add(at).read().widen();
            let mut sum = value.multiply(S::Wide::factor(*own));
            for (source, factor) in others.iter().zip(factors) {
                let value = source.cast::<S>().add(at).read().widen();
                sum = sum.add(value.multiply(S::Wide::factor(*factor)));
            }
            into.add(at).write(S::narrow(sum));
        }
        at += 1;
    }
}

/// Folds `ABREAST` vectors of every source, from element `at` on.
///
/// # Safety
/// As the `fold` of the width, with at least one source and `ABREAST` vectors left in each at `at`.
#[inline(always)]
unsafe fn vectors<Width, S: Packed<Width>, C: Combine, const ABREAST: usize, const DIVIDE: bool>(
    into: *mut S,
    sources: &[*const u8],
    at: usize,
    divisor: u32,
) {
    // SAFETY: in bounds and the features are there by the caller's contract. Everything is loaded before anything is
    // stored, so that `into` may be one of the sources.
    unsafe {
        let first = sources.get_unchecked(0).cast::<S>().add(at);
        let mut sums: [S::Vector; ABREAST] = std::array::from_fn(|i| S::load(first.add(i * S::LANES)));
        for source in sources.get_unchecked(1..) {
            let next = source.cast::<S>().add(at);
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = C::combine(*sum, S::load(next.add(i * S::LANES)));
            }
        }
        if DIVIDE {
            for sum in &mut sums {
                *sum = sum.divide(divisor);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            S::store(sum, into.add(at + i * S::LANES));
        }
    }
}
