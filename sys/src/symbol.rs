//! Looks a symbol up by name and version.

use std::ffi::{CStr, c_void};

/// The symbol's address, or null.
///
/// # Safety
/// `handle` is an open library.
#[cfg(target_env = "gnu")]
pub(crate) unsafe fn versioned(handle: *mut c_void, symbol: &CStr, version: &CStr) -> *mut c_void {
    // SAFETY: the caller's contract; both names end with a zero.
    unsafe { libc::dlvsym(handle, symbol.as_ptr(), version.as_ptr()) }
}

/// Other C libraries know no versions and take the default one, which is the newest: the one that is asked for.
///
/// # Safety
/// `handle` is an open library.
#[cfg(not(target_env = "gnu"))]
pub(crate) unsafe fn versioned(handle: *mut c_void, symbol: &CStr, _: &CStr) -> *mut c_void {
    // SAFETY: the caller's contract; the name ends with a zero.
    unsafe { libc::dlsym(handle, symbol.as_ptr()) }
}
