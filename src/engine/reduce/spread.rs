//! One combination that is needed in several places: computed once, while it is in the first-level cache stored into
//! all of them. It knows neither types nor operations; the kernel does.

use super::Level;

/// Bytes combined at a time: small enough that they stay in the first-level cache beside their sources, large enough that
/// the calls between do not count.
const PIECE: usize = 8 << 10;

#[repr(align(64))]
struct Scratch([std::mem::MaybeUninit<u8>; PIECE]);

/// Combines `count` elements of `element` bytes of each of `sources` by `combine` and stores them into every one of `into`.
/// With `past`, stores go past the caches: for what is too large to be found there when it is read next.
///
/// `sources` are moved on to the end.
///
/// # Safety
/// * `into` are valid for writes and `sources` for reads of so many elements; at least one of each.
/// * Each of `into` may be exactly one of the sources, but overlaps none partially; they do not overlap each other.
/// * During the call nobody else writes the sources, and nobody else reads or writes `into`.
/// * `combine(into, sources, count)` does nothing but write `into` from the sources, for any `count` up to this one.
pub(in crate::engine) unsafe fn spread(
    into: &[*mut u8],
    sources: &mut [*const u8],
    (count, element): (usize, usize),
    past: bool,
    mut combine: impl FnMut(*mut u8, &[*const u8], usize),
) {
    let store = copier(past);
    let mut scratch = Scratch([std::mem::MaybeUninit::uninit(); PIECE]);
    let at_once = PIECE / element;
    let mut done = 0;
    while done < count {
        let now = at_once.min(count - done);
        let at = done * element;
        let place = |base: *mut u8| base.wrapping_add(at);
        let (first, others) = if past {
            (scratch.0.as_mut_ptr().cast::<u8>(), into)
        } else {
            (place(into[0]), &into[1..])
        };
        combine(first, sources, now);
        for other in others {
            // SAFETY: within the caller's bounds; the first place overlaps no other, and holds what was just combined.
            unsafe { store(place(*other), first, now * element) };
        }
        for source in sources.iter_mut() {
            *source = source.wrapping_add(now * element);
        }
        done += now;
    }
    if past {
        settle();
    }
}

/// Copies bytes that do not overlap.
type Copier = unsafe fn(into: *mut u8, from: *const u8, bytes: usize);

fn copier(past: bool) -> Copier {
    match Level::best() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::Avx512 if past => super::x86::stream,
        _ => super::copy,
    }
}

/// Stores that went past the caches are seen by whoever sees what this thread stores next.
fn settle() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has the instruction.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::reduce::{Operation, kernel};
    use crate::memory::DataType;

    #[test]
    fn every_place_gets_the_sum_whatever_its_alignment_and_the_rest_stays() {
        for count in [0, 1, 7, 2047, 2048, 2049, 5000] {
            for (skew, past) in [(0, false), (0, true), (1, true), (3, false), (7, true)] {
                let source =
                    |rank: usize| -> Vec<f32> { (0..count).map(|i| (i * (rank + 1)) as f32 * 0.5).collect() };
                let inputs = [source(0), source(1), source(2)];
                let mut places = vec![vec![-1f32; count + 16]; 4];
                let into: Vec<*mut u8> = places
                    .iter_mut()
                    .enumerate()
                    .map(|(index, place)| place[skew + index..].as_mut_ptr().cast())
                    .collect();
                let mut sources: Vec<*const u8> = inputs.iter().map(|input| input.as_ptr().cast()).collect();
                let sum = kernel(DataType::F32, Operation::Sum);
                // SAFETY: all hold `count` elements behind their beginnings, and none overlaps another.
                unsafe {
                    spread(&into, &mut sources, (count, 4), past, |into, sources, count| {
                        sum(into, sources, count, 1)
                    })
                };
                for (index, place) in places.iter().enumerate() {
                    let (before, rest) = place.split_at(skew + index);
                    let (result, after) = rest.split_at(count);
                    assert!(before.iter().chain(after).all(|one| *one == -1.0));
                    for (i, value) in result.iter().enumerate() {
                        assert_eq!(
                            *value,
                            inputs[0][i] + inputs[1][i] + inputs[2][i],
                            "{count} {skew} {past} {i}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn places_may_be_the_sources() {
        let mut inputs = [vec![1u64; 3000], vec![2; 3000], vec![3; 3000]];
        let into: Vec<*mut u8> = inputs.iter_mut().map(|input| input.as_mut_ptr().cast()).collect();
        let mut sources: Vec<*const u8> = into.iter().map(|into| into.cast_const()).collect();
        let sum = kernel(DataType::U64, Operation::Sum);
        // SAFETY: each place is exactly one of the sources.
        unsafe {
            spread(&into, &mut sources, (3000, 8), false, |into, sources, count| {
                sum(into, sources, count, 1)
            })
        };
        assert!(inputs.iter().flatten().all(|value| *value == 6));
    }
}
