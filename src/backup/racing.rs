//! Reading memory that its owner may be writing at the same time. What was read then is garbage, and is noticed by a word
//! that the owner changes before it writes; it must never be used before that was looked at.

use std::sync::atomic::{Ordering, fence};

/// Copies bytes out of memory that another worker may be writing.
///
/// # Safety
/// `from` is valid for reads and `into` for writes of `bytes` bytes, both aligned to 8; nobody else accesses `into`. `from`
/// may be written by other processes or threads during the call, by means that tear no aligned word of 8 bytes: the copy
/// is made of volatile reads, which the compiler neither repeats nor assumes anything of.
pub(super) unsafe fn copy(into: *mut u8, from: *const u8, bytes: usize) {
    debug_assert!((into as usize | from as usize).is_multiple_of(8));
    let words = bytes / 8;
    let (to, source) = (into.cast::<u64>(), from.cast::<u64>());
    for index in 0..words {
        // SAFETY: within the caller's bounds, aligned.
        unsafe { to.add(index).write(source.add(index).read_volatile()) };
    }
    for index in 8 * words..bytes {
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
        let from: Vec<u64> = (0..64).map(|i| i * 0x0123_4567_89ab_cdef).collect();
        for bytes in [0, 1, 7, 8, 9, 63, 64, 500, 512] {
            let mut into = vec![u64::MAX; 65];
            // SAFETY: both hold 512 bytes.
            unsafe { copy(into.as_mut_ptr().cast(), from.as_ptr().cast(), bytes) };
            let copied: Vec<u8> = into.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let expected: Vec<u8> = from.iter().flat_map(|word| word.to_ne_bytes()).collect();
            assert_eq!(copied[..bytes], expected[..bytes]);
            assert!(copied[bytes..].iter().all(|byte| *byte == 0xff));
        }
    }
}
