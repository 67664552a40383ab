//! Memory that the device may reach, at its owner. Deregistered when the last handle goes, and not before: every
//! request in flight holds one (invariant 1).

use std::any::Any;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use sapwood_sys::verbs::bindings::*;

use super::device::Device;
use super::error::{VerbError, VerbsError};
use super::region_parcel::RegionParcel;
use super::{dmabuf, memlock};
use crate::fabric::{Access, DeviceMemory, FabricError, Parcel, Registration};
use crate::memory::Region;

/// A registration with a device.
pub(super) struct VerbsRegistration {
    /// Live from `new` to `drop`.
    raw: NonNull<ibv_mr>,
    /// For the owner's own requests.
    memory: DeviceMemory,
    remote_key: u32,
    access: Access,
    // Dropped after `drop` has deregistered: first the device may no longer reach the memory, then it goes.
    device: Arc<Device>,
    region: Region,
}

// SAFETY: the pointer is only handed to libibverbs, whose calls may come from any thread, and freed once in `drop`.
unsafe impl Send for VerbsRegistration {}
// SAFETY: as above; nothing is changed through a shared reference.
unsafe impl Sync for VerbsRegistration {}

/// The flags that verbs has for these rights. The owner's device may always write.
pub(super) fn flags(access: Access, relaxed_ordering: bool) -> u32 {
    let mut flags = IBV_ACCESS_LOCAL_WRITE;
    for (given, flag) in [
        (access.remote_read, IBV_ACCESS_REMOTE_READ),
        (access.remote_write, IBV_ACCESS_REMOTE_WRITE),
        (access.remote_atomic, IBV_ACCESS_REMOTE_ATOMIC),
        (relaxed_ordering, IBV_ACCESS_RELAXED_ORDERING),
    ] {
        if given {
            flags |= flag;
        }
    }
    flags
}

impl VerbsRegistration {
    /// Registers a region, or finds the registration of it that exists.
    pub fn of(device: &Arc<Device>, region: &Region, access: Access) -> Result<Arc<Self>, VerbsError> {
        device.registrations.find_or_make(region.id(), access, || {
            Self::new(device.clone(), region.clone(), access)
        })
    }

    fn new(device: Arc<Device>, region: Region, access: Access) -> Result<Self, VerbsError> {
        let (base, len) = (region.base().as_ptr(), region.len());
        let flags = flags(access, device.relaxed_ordering());
        let raw = match region.kind().dma_buf() {
            Some((descriptor, offset)) => {
                dmabuf::register(&device, descriptor, offset, len, base as u64, flags)?
            }
            None => {
                memlock::check(base as usize, len)?;
                // SAFETY: the domain is live, and the region, held until after the deregistration, keeps its memory
                // mapped at this address.
                unsafe { device.library().reg_mr(device.domain(), base.cast(), len, flags) }
            }
        };
        let raw = NonNull::new(raw).ok_or_else(|| {
            let errno = super::error::last_errno();
            let kind = region.kind().name();
            let asked = format!("{len} bytes of {kind} memory at {base:p}, access {flags:#x}");
            device
                .place()
                .failed_with(VerbError::RegisterMemory, errno, asked)
        })?;
        // SAFETY: a live registration; its keys do not change.
        let (local_key, remote_key) = unsafe { ((*raw.as_ptr()).lkey, (*raw.as_ptr()).rkey) };
        Ok(Self {
            raw,
            memory: DeviceMemory {
                scope: device.scope(),
                address: base as u64,
                len,
                key: local_key,
                host_accessible: region.kind().host_accessible(),
            },
            remote_key,
            access,
            device,
            region,
        })
    }

    /// Where the device sees its first byte.
    #[cfg(test)]
    pub fn address(&self) -> u64 {
        self.memory.address
    }

    /// Bytes.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.memory.len
    }

    /// For the owner's own requests.
    #[cfg(test)]
    pub fn local_key(&self) -> u32 {
        self.memory.key
    }

    /// For peers' requests; they get it with the exported parcel.
    #[cfg(test)]
    pub fn remote_key(&self) -> u32 {
        self.remote_key
    }
}

impl fmt::Debug for VerbsRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerbsRegistration")
            .field("device", &self.device.name())
            .field("region", &self.region)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl Registration for VerbsRegistration {
    fn region(&self) -> &Region {
        &self.region
    }

    fn export(&self) -> Result<Parcel, FabricError> {
        self.device.birthplace().check(FabricError::Forked)?;
        if self.access == Access::LOCAL {
            return Err(FabricError::NothingToExport {
                len: self.region.len(),
            });
        }
        let parcel = RegionParcel {
            address: self.memory.address,
            len: self.memory.len as u64,
            key: self.remote_key,
            access: self.access,
        };
        Ok(Parcel {
            bytes: parcel.encode(),
            descriptors: Vec::new(),
        })
    }

    fn device_memory(&self) -> Option<&DeviceMemory> {
        Some(&self.memory)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for VerbsRegistration {
    fn drop(&mut self) {
        // What a forked child inherited is its parent's.
        if !self.device.birthplace().is_here() {
            return;
        }
        self.device.registrations.forget(self.region.id(), self.access);
        // SAFETY: registered in `new`, given up once here; no request in flight names it, each would hold it.
        let errno = unsafe { (self.device.library().dereg_mr)(self.raw.as_ptr()) };
        if errno != 0 {
            // The device may still reach the memory, so it must never be used for anything else.
            let error = self.device.failed(VerbError::Deregister, errno);
            tracing::error!(%error, "the memory is kept for good");
            std::mem::forget(self.region.clone());
        }
    }
}
