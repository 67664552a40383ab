//! Cache lines that are asked for before they are needed. Hints: nothing may depend on them.

/// Asks for a cache line for writing.
#[inline]
pub(crate) fn for_writing(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint that changes nothing, whatever the address; processors that do not know it skip it.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Asks for a cache line.
#[inline]
pub(crate) fn for_reading(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint that changes nothing, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
