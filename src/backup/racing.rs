//! Reading memory that its owner may be writing at the same time. What was read then is garbage, and is noticed by a word
//! that the owner changes before it writes; it must never be used before that was looked at.

use std::sync::atomic::{Ordering, fence};

/// The widest that every processor of this kind copies at once, without tearing a word of 8 bytes.
#[cfg(target_arch = "x86_64")]
type Wide = std::arch::x86_64::__m128i;
#[cfg(not(target_arch = "x86_64"))]
type Wide = u64;

/// Copies bytes out of memory that another worker may be writing.
///
/// # Safety
/// `from` is valid for reads and `into` for writes of `bytes` bytes, both aligned to 16; nobody else accesses `into`. `from`
/// may be written by other processes or threads during the call, by means that tear no aligned word of 8 bytes: the copy
/// is made of volatile reads, which the compiler neither repeats nor assumes anything of.
pub(super) unsafe fn copy(into: *mut u8, from: *const u8, bytes: usize) {
    const WIDTH: usize = size_of::<Wide>();
    /// Reads in a row, so that the loop does not cost more than what it does.
    const ROW: usize = 4;
    debug_assert!((into as usize | from as usize).is_multiple_of(WIDTH));
    let (to, source) = (into.cast::<Wide>(), from.cast::<Wide>());
    let rows = bytes / (ROW * WIDTH);
    for row in 0..rows {
        // SAFETY: within the caller's bounds, aligned.
        unsafe {
            let (to, source) = (to.add(ROW * row), source.add(ROW * row));
            let read: [Wide; ROW] = std::array::from_fn(|index| source.add(index).read_volatile());
            for (index, wide) in read.into_iter().enumerate() {
                to.add(index).write(wide);
            }
        }
    }
    let done = rows * ROW * WIDTH;
    for word in 0..(bytes - done) / 8 {
        // SAFETY: as above.
        unsafe {
            let word = done + 8 * word;
            let read = from.add(word).cast::<u64>().read_volatile();
            into.add(word).cast::<u64>().write(read);
        }
    }
    for index in bytes & !7..bytes {
        // SAFETY: as above.
        unsafe { into.add(index).write(from.add(index).read_volatile()) };
    }
}

/// After a [`copy`]: what is loaded from here on is what was there after the copy, so that a word which has not changed
/// says that the copy is whole.
#[inline]
pub(super) fn after() {
    fence(Ordering::Acquire);
}

/// Before writing over what others may copy, after the word was changed: whoever reads something of what is written from
/// here on finds that word changed.
#[inline]
pub(super) fn before_writing() {
    fence(Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_copied_and_none_beside() {
        let from: Vec<u128> = (0..32).map(|i| i * 0x0123_4567_89ab_cdef_0123_4567).collect();
        for bytes in [0, 1, 7, 8, 9, 63, 64, 72, 500, 512] {
            let mut into = vec![u128::MAX; 33];
            // SAFETY: both hold 512 bytes.
            unsafe { copy(into.as_mut_ptr().cast(), from.as_ptr().cast(), bytes) };
            let copied: Vec<u8> = into.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let expected: Vec<u8> = from.iter().flat_map(|word| word.to_ne_bytes()).collect();
            assert_eq!(copied[..bytes], expected[..bytes]);
            assert!(copied[bytes..].iter().all(|byte| *byte == 0xff));
        }
    }
}
