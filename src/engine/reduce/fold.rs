//! The one loop behind every kernel: walks all sources once, tile by tile. What is compiled from it differs in the
//! element type, the operation and the processor; the order of the operations never does.

use super::arithmetic::{Accumulator, Combine, Processor, Stored};

/// Elements that are loaded, combined and stored together.
const TILE: usize = 32;

/// Elements of which the accumulators stay in the first-level cache while sources beyond the fourth go by: at most
/// 4 KiB.
const BLOCK: usize = 512;

/// Folds `sources` left to right into `into`, then divides by `divisor` if it is above 1.
///
/// # Safety
/// As [`Kernel`](super::Kernel), with `into` and `sources` holding `S`.
#[inline(always)]
pub(super) unsafe fn fold<S: Stored, C: Combine, P: Processor>(
    into: *mut S,
    sources: &[*const u8],
    count: usize,
    divisor: u32,
) {
    // SAFETY (all arms): handed on from the caller; `few` gets as many sources as it is compiled for.
    match *sources {
        [] => debug_assert!(false, "a reduction needs a source"),
        // SAFETY: as above.
        [a, b] => unsafe { few::<S, C, P, 2>(into, [a.cast(), b.cast()], count, divisor) },
        // SAFETY: as above.
        [a, b, c] => unsafe { few::<S, C, P, 3>(into, [a.cast(), b.cast(), c.cast()], count, divisor) },
        // SAFETY: as above.
        [a, b, c, d] => unsafe {
            few::<S, C, P, 4>(into, [a.cast(), b.cast(), c.cast(), d.cast()], count, divisor)
        },
        // SAFETY: as above.
        _ => unsafe { many::<S, C, P>(into, sources, count, divisor) },
    }
}

/// A number of sources known to the compiler: everything between load and store stays in registers.
///
/// # Safety
/// As [`fold`].
#[inline(always)]
unsafe fn few<S: Stored, C: Combine, P: Processor, const SOURCES: usize>(
    into: *mut S,
    sources: [*const S; SOURCES],
    count: usize,
    divisor: u32,
) {
    let tiles = count - count % TILE;
    let mut at = 0;
    while at < tiles {
        // SAFETY: `at + TILE <= count`, so every source and `into` hold the tile.
        unsafe { tile::<S, C, P, SOURCES, TILE>(into, &sources, at, divisor) };
        at += TILE;
    }
    while at < count {
        // SAFETY: `at < count`, so every source and `into` hold the element.
        unsafe { tile::<S, C, P, SOURCES, 1>(into, &sources, at, divisor) };
        at += 1;
    }
}

/// # Safety
/// As [`fold`], with `at + WIDTH <= count`.
#[inline(always)]
unsafe fn tile<S: Stored, C: Combine, P: Processor, const SOURCES: usize, const WIDTH: usize>(
    into: *mut S,
    sources: &[*const S; SOURCES],
    at: usize,
    divisor: u32,
) {
    // SAFETY: in bounds and aligned to `S`, hence to `[S; WIDTH]`, by the caller's contract. Everything is loaded
    // before anything is stored, so that `into` may be one of the sources.
    let mut sum = S::widen::<P, WIDTH>(unsafe { sources[0].add(at).cast::<[S; WIDTH]>().read() });
    for source in &sources[1..] {
        // SAFETY: as above.
        let next = S::widen::<P, WIDTH>(unsafe { source.add(at).cast::<[S; WIDTH]>().read() });
        for i in 0..WIDTH {
            sum[i] = C::combine(sum[i], next[i]);
        }
    }
    if divisor > 1 {
        for value in &mut sum {
            *value = value.divide(divisor);
        }
    }
    // SAFETY: as above, and `into` is writable.
    unsafe {
        into.add(at)
            .cast::<[S; WIDTH]>()
            .write(S::narrow::<P, WIDTH>(sum))
    };
}

/// Any number of sources: accumulators of a block wait in the first-level cache while the sources go by.
///
/// # Safety
/// As [`fold`], with at least one source.
#[inline(always)]
unsafe fn many<S: Stored, C: Combine, P: Processor>(
    into: *mut S,
    sources: &[*const u8],
    count: usize,
    divisor: u32,
) {
    let mut block = [S::Wide::zero(); BLOCK];
    let mut start = 0;
    while start < count {
        let elements = BLOCK.min(count - start);
        for (number, source) in sources.iter().enumerate() {
            // SAFETY: `start <= count`, and the source holds `count` elements.
            let source = unsafe { source.cast::<S>().add(start) };
            // SAFETY: `elements` are left there, and no more than `block` has.
            unsafe { accumulate::<S, C, P>(&mut block, source, elements, number == 0) };
        }
        if divisor > 1 {
            for value in &mut block[..elements] {
                *value = value.divide(divisor);
            }
        }
        // SAFETY: `into` holds `count` elements, of which `elements` are left; every source was read up to here
        // and is read only beyond from now on, so that `into` may be one of them.
        unsafe { store::<S, P>(&block, into.add(start), elements) };
        start += elements;
    }
}

/// Combines `elements` of a source into a block, or, if it is the `first`, puts them there.
///
/// # Safety
/// `source` holds `elements`, which are no more than `BLOCK`.
#[inline(always)]
unsafe fn accumulate<S: Stored, C: Combine, P: Processor>(
    block: &mut [S::Wide; BLOCK],
    source: *const S,
    elements: usize,
    first: bool,
) {
    let tiles = elements - elements % TILE;
    for at in (0..tiles).step_by(TILE) {
        // SAFETY: `at + TILE <= elements`.
        let next = S::widen::<P, TILE>(unsafe { source.add(at).cast::<[S; TILE]>().read() });
        let sum = &mut block[at..at + TILE];
        for i in 0..TILE {
            sum[i] = if first {
                next[i]
            } else {
                C::combine(sum[i], next[i])
            };
        }
    }
    for (at, sum) in block.iter_mut().enumerate().take(elements).skip(tiles) {
        // SAFETY: `at < elements`.
        let [next] = S::widen::<P, 1>([unsafe { source.add(at).read() }]);
        *sum = if first { next } else { C::combine(*sum, next) };
    }
}

/// Rounds and stores the accumulators of a block.
///
/// # Safety
/// `into` is writable for `elements`, which are no more than `BLOCK`.
#[inline(always)]
unsafe fn store<S: Stored, P: Processor>(block: &[S::Wide; BLOCK], into: *mut S, elements: usize) {
    let tiles = elements - elements % TILE;
    for at in (0..tiles).step_by(TILE) {
        let mut sum = [S::Wide::zero(); TILE];
        sum.copy_from_slice(&block[at..at + TILE]);
        // SAFETY: `at + TILE <= elements`.
        unsafe { into.add(at).cast::<[S; TILE]>().write(S::narrow::<P, TILE>(sum)) };
    }
    for (at, sum) in block.iter().enumerate().take(elements).skip(tiles) {
        let [value] = S::narrow::<P, 1>([*sum]);
        // SAFETY: `at < elements`.
        unsafe { into.add(at).write(value) };
    }
}
