//! An open device and its protection domain: the two handles that everything else of a device lives under. Closes
//! them, in the right order, and does nothing else.

use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::NonNull;

use sapwood_sys::verbs::Verbs as Library;
use sapwood_sys::verbs::bindings::{ibv_context, ibv_device, ibv_pd};

use super::error::{Place, VerbError, VerbsError};
use crate::fabric::fork::Birthplace;

/// An open device.
#[derive(Debug)]
pub(super) struct Context {
    pub library: Library,
    raw: NonNull<ibv_context>,
    birthplace: Birthplace,
    name: String,
}

// SAFETY: libibverbs' calls on a context may come from any thread; the pointer is to memory that only `drop` frees.
unsafe impl Send for Context {}
// SAFETY: as above, and several at a time: the library and its drivers lock what they share.
unsafe impl Sync for Context {}

impl Context {
    /// Opens a device of a list that has not been freed.
    ///
    /// # Safety
    /// `device` is an entry of a list of `library` that is not yet freed.
    pub unsafe fn open(library: Library, device: *mut ibv_device, name: &str) -> Result<Self, VerbsError> {
        // SAFETY: the caller's contract.
        let raw = unsafe { (library.open_device)(device) };
        let Some(raw) = NonNull::new(raw) else {
            let errno = super::error::last_errno();
            // SAFETY: the caller's contract: the entry is still there to be read.
            let file = unsafe { super::permission::file_of(device) };
            return Err(match super::permission::explain(name, &file) {
                Some(error) => error.into(),
                None => Place::device(name).failed(VerbError::OpenDevice, errno),
            });
        };
        Ok(Self {
            library,
            raw,
            birthplace: Birthplace::here(),
            name: name.to_owned(),
        })
    }

    pub fn raw(&self) -> *mut ibv_context {
        self.raw.as_ptr()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn birthplace(&self) -> Birthplace {
        self.birthplace
    }

    /// The descriptor that asynchronous events are read from.
    pub fn async_descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the context is open, and its fields that the header declares do not change.
        let descriptor: RawFd = unsafe { (*self.raw.as_ptr()).async_fd };
        // SAFETY: the descriptor is the context's own and open as long as this borrow of the context lasts.
        unsafe { BorrowedFd::borrow_raw(descriptor) }
    }

    /// How many completion vectors (interrupts) there are to spread completion queues over; at least 1.
    pub fn completion_vectors(&self) -> usize {
        // SAFETY: as in `async_descriptor`.
        usize::try_from(unsafe { (*self.raw.as_ptr()).num_comp_vectors })
            .unwrap_or(0)
            .max(1)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // What a forked child inherited is its parent's: closing it there would reach into the parent's device.
        if !self.birthplace.is_here() {
            return;
        }
        // SAFETY: opened once by `open`, closed once here, and whoever holds something of it holds it too.
        if unsafe { (self.library.close_device)(self.raw.as_ptr()) } != 0 {
            tracing::warn!(
                device = self.name,
                "ibv_close_device failed: something of the device is still open"
            );
        }
    }
}

/// What registrations and queue pairs that may meet have in common.
#[derive(Debug)]
pub(super) struct ProtectionDomain {
    raw: NonNull<ibv_pd>,
    library: Library,
    birthplace: Birthplace,
    place: Place,
}

// SAFETY: as for `Context`.
unsafe impl Send for ProtectionDomain {}
// SAFETY: as for `Context`.
unsafe impl Sync for ProtectionDomain {}

impl ProtectionDomain {
    /// The caller keeps the context until after the domain.
    pub fn allocate(context: &Context) -> Result<Self, VerbsError> {
        // SAFETY: the context is open.
        let raw = unsafe { (context.library.alloc_pd)(context.raw()) };
        let raw = NonNull::new(raw)
            .ok_or_else(|| Place::device(context.name()).failed_now(VerbError::AllocateProtectionDomain))?;
        Ok(Self {
            raw,
            library: context.library,
            birthplace: context.birthplace,
            place: Place::device(context.name()),
        })
    }

    pub fn raw(&self) -> *mut ibv_pd {
        self.raw.as_ptr()
    }
}

impl Drop for ProtectionDomain {
    fn drop(&mut self) {
        if !self.birthplace.is_here() {
            return;
        }
        // SAFETY: allocated once, freed once; registrations and queue pairs hold the device, which holds this.
        let errno = unsafe { (self.library.dealloc_pd)(self.raw.as_ptr()) };
        if errno != 0 {
            let error = self.place.failed(VerbError::DeallocateProtectionDomain, errno);
            tracing::warn!(%error);
        }
    }
}
