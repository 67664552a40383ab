//! The kernels for every processor, in a form that LLVM vectorises with whatever the target has.

use super::arithmetic::{Accumulator, Combine, Scaled, Stored};

/// Elements of which the accumulators stay in the first-level cache while the sources go by: at most 4 KiB.
const BLOCK: usize = 512;

/// Folds `sources` left to right into `into`, then divides by `divisor` if it is asked to.
///
/// The accumulators are a local array, which no source can overlap: LLVM then vectorises without asking at run time
/// whether `into` is one of the sources, as it often is.
///
/// # Safety
/// As [`Kernel`](super::Kernel), with `into` and `sources` holding `S`.
#[inline(never)]
unsafe fn fold<S: Stored, C: Combine, const DIVIDE: bool>(
    into: *mut u8,
    sources: &[*const u8],
    count: usize,
    divisor: u32,
) {
    let Some((first, others)) = sources.split_first() else {
        return;
    };
    let into = into.cast::<S>();
    let mut block = [S::Wide::default(); BLOCK];
    let mut start = 0;
    while start < count {
        let block = &mut block[..BLOCK.min(count - start)];
        for (i, sum) in block.iter_mut().enumerate() {
            // SAFETY: `start + i < count`, and the source holds `count` elements.
            *sum = unsafe { first.cast::<S>().add(start + i).read() }.widen();
        }
        for source in others {
            for (i, sum) in block.iter_mut().enumerate() {
                // SAFETY: as above.
                *sum = C::combine(*sum, unsafe { source.cast::<S>().add(start + i).read() }.widen());
            }
        }
        if DIVIDE {
            for sum in block.iter_mut() {
                *sum = sum.divide(divisor);
            }
        }
        for (i, sum) in block.iter().enumerate() {
            // SAFETY: `start + i < count`, and `into` holds `count` elements. Every source has been read up to the
            // end of the block and is read only beyond from now on, so that `into` may be one of them.
            unsafe { into.add(start + i).write(S::narrow(*sum)) };
        }
        start += block.len();
    }
}

/// A kernel that multiplies each source by its factor before it is added.
///
/// # Safety
/// As [`ScaledKernel`](super::ScaledKernel), with `into` and `sources` holding `S`.
#[inline(never)]
pub(super) unsafe fn scaled<S: Stored<Wide: Scaled>>(
    into: *mut u8,
    sources: &[*const u8],
    factors: &[f64],
    count: usize,
) {
    let into = into.cast::<S>();
    let mut block = [S::Wide::default(); BLOCK];
    let mut start = 0;
    while start < count && !sources.is_empty() {
        let block = &mut block[..BLOCK.min(count - start)];
        for (number, (source, factor)) in sources.iter().zip(factors).enumerate() {
            let factor = S::Wide::factor(*factor);
            for (i, sum) in block.iter_mut().enumerate() {
                // SAFETY: `start + i < count`, and the source holds `count` elements.
                let value = unsafe { source.cast::<S>().add(start + i).read() }.widen();
                let product = value.multiply(factor);
                *sum = if number == 0 { product } else { sum.add(product) };
            }
        }
        for (i, sum) in block.iter().enumerate() {
            // SAFETY: `start + i < count`, and `into` holds `count` elements; every source has been read up to the
            // end of the block, so that `into` may be one of them.
            unsafe { into.add(start + i).write(S::narrow(*sum)) };
        }
        start += block.len();
    }
}

/// A kernel for operations that take no average.
///
/// # Safety
/// As [`fold`].
pub(super) unsafe fn undivided<S: Stored, C: Combine>(
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
pub(super) unsafe fn divided<S: Stored, C: Combine>(
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
