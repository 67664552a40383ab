//! Memory behind a dma-buf: another device's, a GPU's for one, that this one reaches without the CPU. Says whether a
//! device can do it, and registers it.

use std::os::fd::{AsRawFd, BorrowedFd};

use sapwood_sys::verbs::Verbs as Library;
use sapwood_sys::verbs::bindings::ibv_mr;

use super::context::ProtectionDomain;
use super::device::Device;
use super::error::{Unsupported, VerbError, VerbsError, last_errno};

/// Asks for a registration of a descriptor that is none: who knows dma-bufs says that it is a bad one.
pub(super) fn supported(library: &Library, domain: &ProtectionDomain) -> bool {
    let Some(register) = library.reg_dmabuf_mr else {
        return false;
    };
    let page = rustix::param::page_size();
    // SAFETY: the domain is live; -1 is no descriptor, so nothing is registered.
    let region = unsafe { register(domain.raw(), 0, page, 0, -1, 0) };
    if region.is_null() {
        let errno = last_errno();
        return !matches!(errno, libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::ENOSYS);
    }
    // SAFETY: it was registered after all, by nobody else's hand.
    unsafe { (library.dereg_mr)(region) };
    false
}

/// Registers `len` bytes of a dma-buf from `offset` on; keys see them at `address`.
pub(super) fn register(
    device: &Device,
    descriptor: BorrowedFd<'_>,
    offset: u64,
    len: usize,
    address: u64,
    access: u32,
) -> Result<*mut ibv_mr, VerbsError> {
    let Some(register) = device.library().reg_dmabuf_mr else {
        return Err(Unsupported {
            verb: "ibv_reg_dmabuf_mr",
            place: device.place(),
            why: Some("this libibverbs has no such function (it came with version 34 of rdma-core)".into()),
        }
        .into());
    };
    let descriptor = descriptor.as_raw_fd();
    // SAFETY: the domain is live. The kernel holds the dma-buf itself as long as the registration exists.
    let region = unsafe {
        register(
            device.domain(),
            offset,
            len,
            address,
            descriptor,
            access.cast_signed(),
        )
    };
    if !region.is_null() {
        return Ok(region);
    }
    let errno = last_errno();
    let asked = format!("{len} bytes at offset {offset}");
    Err(match device.place().failed_with(VerbError::RegisterDmaBuf, errno, asked) {
        VerbsError::Unsupported(unsupported) => Unsupported {
            why: Some(format!(
                "the driver of {} or its kernel module registers no dma-bufs; GPU memory then has to be staged through \
                 host memory",
                device.name()
            )),
            ..unsupported
        }
        .into(),
        error => error,
    })
}
