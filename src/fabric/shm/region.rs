//! Registered regions, at their owner and as a peer has them: where the bytes are, and whether the key still holds.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::control::Shared;
use super::copy::{self, Direction};
use super::keys::{Domain, Key, KeyTable, read_only, system};
use super::life::{Life, Process};
use super::parcel::{Reach, RegionParcel};
use crate::fabric::{
    Access, FabricError, Parcel, Rank, Registration, RemoteRegion, RemoteSlice, Slice, Status,
};
use crate::memory::{Mapping, Region};

/// A registration in this process.
pub(super) struct ShmRegistration {
    region: Region,
    access: Access,
    domain: Arc<Domain>,
    key: Key,
}

impl ShmRegistration {
    pub fn new(region: &Region, access: Access, domain: Arc<Domain>) -> Result<Self, FabricError> {
        if !region.kind().host_accessible() {
            return Err(FabricError::MemoryKind {
                fabric: "shm",
                kind: region.kind().name(),
                why: "it moves bytes with the CPU, which cannot load or store this memory".into(),
            });
        }
        domain.clean_up();
        let key = domain.issue()?;
        let region = region.clone();
        Ok(Self {
            region,
            access,
            domain,
            key,
        })
    }
}

impl fmt::Debug for ShmRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShmRegistration")
            .field("region", &self.region)
            .field("access", &self.access)
            .field("key", &self.key.value)
            .finish()
    }
}

impl Registration for ShmRegistration {
    fn region(&self) -> &Region {
        &self.region
    }

    fn export(&self) -> Result<Parcel, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        if self.access == Access::LOCAL {
            return Err(FabricError::NothingToExport {
                len: self.region.len(),
            });
        }
        let duplicate = |descriptor: std::os::fd::BorrowedFd<'_>| {
            descriptor
                .try_clone_to_owned()
                .map_err(|error| system("duplicating a descriptor for a peer", error))
        };
        let mut descriptors = vec![duplicate(self.key.descriptor.as_fd())?];
        let reach = match self.region.kind().share() {
            Some(file) => {
                let writable = self.access.remote_write || self.access.remote_atomic;
                descriptors.push(if writable {
                    duplicate(file)?
                } else {
                    read_only(file)?
                });
                Reach::Shared
            }
            None => Reach::Attach {
                address: self.region.base().as_ptr() as u64,
            },
        };
        let bytes = RegionParcel {
            domain: self.domain.id,
            process: Process::own(),
            len: self.region.len() as u64,
            access: self.access,
            reach,
            slot: self.key.slot,
            key: self.key.value,
        }
        .encode();
        Ok(Parcel { bytes, descriptors })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for ShmRegistration {
    fn drop(&mut self) {
        // A forked child shares the table with its parent, whose registration this is.
        if self.domain.birthplace.is_here() {
            self.domain.revoke(&self.key);
            self.domain.clean_up();
            self.domain.bury(self.region.clone());
        }
    }
}

/// The first byte of a local slice, if it lies in its registration and that is one of this provider.
#[inline]
pub(super) fn local(slice: &Slice) -> Result<NonNull<u8>, Status> {
    let registration = slice.registration.as_any().downcast_ref::<ShmRegistration>();
    let region = &registration.ok_or(Status::LocalProtection)?.region;
    let end = slice.offset.checked_add(slice.len);
    if end.is_none_or(|end| end > region.len()) {
        return Err(Status::LocalProtection);
    }
    // SAFETY: the offset was checked against the region's length.
    Ok(unsafe { region.base().add(slice.offset) })
}

/// Where a peer's bytes are.
#[derive(Debug)]
pub(super) enum Place {
    /// In this address space.
    Mapped(Mapping),
    /// At an address of that process, reached through the kernel.
    Attached { address: usize, pid: i32, life: Life },
}

/// A peer's registration.
pub(super) struct ShmRemote {
    peer: Rank,
    domain: u64,
    len: usize,
    access: Access,
    place: Place,
    table: Shared<KeyTable>,
    slot: usize,
    key: u64,
    /// Whether users may see the mapping.
    reach: bool,
}

impl ShmRemote {
    pub fn import(rank: Rank, peer: Rank, reach: bool, parcel: Parcel) -> Result<Self, FabricError> {
        let refuse = |why: String| FabricError::Parcel {
            rank,
            peer,
            what: "a region",
            why,
        };
        let told = RegionParcel::decode(&parcel.bytes).map_err(refuse)?;
        let needed = if told.reach == Reach::Shared { 2 } else { 1 };
        if parcel.descriptors.len() != needed {
            return Err(refuse(format!(
                "it came with {} descriptors instead of {needed}",
                parcel.descriptors.len()
            )));
        }
        let mut descriptors = parcel.descriptors.into_iter();
        let mut next = || descriptors.next().expect("counted above");
        let unmappable = |error| refuse(format!("{error}"));
        let table = Shared::map(&next(), false).map_err(unmappable)?;
        let len = usize::try_from(told.len).map_err(|_| refuse("it is too long for this machine".into()))?;
        let place = match told.reach {
            Reach::Shared => {
                let writable = told.access.remote_write || told.access.remote_atomic;
                Place::Mapped(Mapping::of(&next(), len, writable).map_err(unmappable)?)
            }
            Reach::Attach { address } => {
                let place = Place::Attached {
                    address: address as usize,
                    pid: told.process.pid as i32,
                    life: Life::watch(told.process).map_err(refuse)?,
                };
                try_attach(peer, &told, &place)?;
                place
            }
        };
        Ok(Self {
            peer,
            domain: told.domain,
            len,
            access: told.access,
            place,
            table,
            slot: told.slot as usize,
            key: told.key,
            reach,
        })
    }

    /// Whether the owner still has it registered.
    #[inline]
    pub fn valid(&self) -> bool {
        self.table.keys[self.slot].load(Ordering::Acquire) == self.key
    }

    pub fn place(&self) -> &Place {
        &self.place
    }
}

/// Reads one byte, so that a refusal of the system is an error now and not at the first gradient.
fn try_attach(peer: Rank, told: &RegionParcel, place: &Place) -> Result<(), FabricError> {
    let Place::Attached { address, pid, .. } = place else {
        return Ok(());
    };
    let mut byte = 0u8;
    // SAFETY: one byte into a local variable.
    match unsafe { copy::attach(*pid, *address, &raw mut byte, 1, Direction::Pull) } {
        Ok(()) => Ok(()),
        Err(error @ (Errno::PERM | Errno::ACCESS)) => Err(system(
            format!(
                "reaching {} bytes of memory that rank {peer} (process {pid}) registered but cannot share by \
                 descriptor: the system refuses cross-memory attach. Either `sysctl kernel.yama.ptrace_scope=0` (in \
                 containers: --cap-add=SYS_PTRACE), or keep that data in regions of this library's own",
                told.len
            ),
            error,
        )),
        Err(error) => Err(system(
            format!("reading memory that rank {peer} (process {pid}) registered"),
            error,
        )),
    }
}

impl fmt::Debug for ShmRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShmRemote")
            .field("peer", &self.peer)
            .field("len", &self.len)
            .field("access", &self.access)
            .field("place", &self.place)
            .field("key", &self.key)
            .finish()
    }
}

impl RemoteRegion for ShmRemote {
    fn peer(&self) -> Rank {
        self.peer
    }

    fn len(&self) -> usize {
        self.len
    }

    fn mapped(&self) -> Option<NonNull<u8>> {
        match &self.place {
            Place::Mapped(mapping) if self.reach => Some(mapping.base()),
            _ => None,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What an operation needs the peer to allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    Read,
    Write,
    Atomic,
}

/// The region behind a remote slice, if everything but the key's validity, which is looked at last, allows `right`
/// on `range`.
#[inline]
pub(super) fn remote(
    slice: &RemoteSlice,
    len: usize,
    peer: Rank,
    domain: u64,
    right: Right,
) -> Result<(&ShmRemote, Range<usize>), Status> {
    let region = slice.region.as_any().downcast_ref::<ShmRemote>();
    let region = region.ok_or(Status::RemoteAccess)?;
    let end = slice.offset.checked_add(len);
    let end = end.filter(|end| *end <= region.len).ok_or(Status::RemoteAccess)?;
    let allowed = match right {
        Right::Read => region.access.remote_read,
        Right::Write => region.access.remote_write,
        Right::Atomic => region.access.remote_atomic,
    };
    if region.peer != peer || region.domain != domain || !allowed {
        return Err(Status::RemoteAccess);
    }
    Ok((region, slice.offset..end))
}
