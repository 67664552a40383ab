//! Registered regions: at their owner, where peers' frames look them up by key, and as a peer has them.
//!
//! A key is never given out twice. Deregistration waits for the one system call that may just be filling, or reading,
//! the memory; after it nothing lands, and nothing keeps the memory.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::parcel::RegionParcel;
use super::seal::random;
use crate::fabric::fork::Birthplace;
use crate::fabric::{
    Access, FabricError, Parcel, Rank, Registration, RemoteRegion, RemoteSlice, Slice, Status,
};
use crate::memory::Region;

/// No peer may use the region any more; the other bits count those that just do.
const REVOKED: u32 = 1 << 31;

/// A region with a key.
#[derive(Debug)]
pub(super) struct Entry {
    region: Region,
    access: Access,
    key: u64,
    users: AtomicU32,
}

/// The right to touch a region's bytes on behalf of a peer. Held for the time of one copy or one system call.
pub(super) struct Use<'a>(&'a Entry);

impl Entry {
    /// `None`: it is not registered any more.
    #[inline]
    pub fn enter(&self) -> Option<Use<'_>> {
        let guard = Use(self);
        let before = self.users.fetch_add(1, Ordering::Acquire);
        (before & REVOKED == 0).then_some(guard)
    }

    fn revoke(&self) {
        let mut users = self.users.fetch_or(REVOKED, Ordering::AcqRel);
        // As long as one copy of at most a fragment, on another thread, takes.
        while users & !REVOKED != 0 {
            std::thread::yield_now();
            users = self.users.load(Ordering::Acquire);
        }
    }

    /// Whether a peer may do that with `len` bytes at `offset`.
    pub fn allows(&self, right: Right, offset: u64, len: u64) -> bool {
        right.of(self.access) && inside(self.region.len(), offset, len)
    }
}

impl Use<'_> {
    /// The first of `len` bytes at `offset`, which must have been found to be allowed.
    #[inline]
    pub fn at(&self, offset: u64, len: usize) -> NonNull<u8> {
        assert!(inside(self.0.region.len(), offset, len as u64));
        // SAFETY: just checked.
        unsafe { self.0.region.base().add(offset as usize) }
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::Release);
    }
}

fn inside(whole: usize, offset: u64, len: u64) -> bool {
    offset.checked_add(len).is_some_and(|end| end <= whole as u64)
}

/// What an operation needs the owner to allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    Read,
    Write,
    Atomic,
}

impl Right {
    fn of(self, access: Access) -> bool {
        match self {
            Self::Read => access.remote_read,
            Self::Write => access.remote_write,
            Self::Atomic => access.remote_atomic,
        }
    }
}

/// A protection domain: what is registered with one [`super::Tcp`].
#[derive(Debug)]
pub(super) struct Domain {
    /// Drawn at random; parcels name it.
    pub id: u64,
    pub birthplace: Birthplace,
    next_key: AtomicU64,
    entries: Mutex<HashMap<u64, Weak<Entry>>>,
}

impl Domain {
    pub fn new() -> Result<Self, FabricError> {
        Ok(Self {
            id: u64::from_ne_bytes(random()?),
            birthplace: Birthplace::here(),
            next_key: AtomicU64::new(1),
            entries: Mutex::default(),
        })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<u64, Weak<Entry>>> {
        // Each change is one insertion or one removal, so a panic elsewhere leaves the table complete.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one endpoint has looked up, so that frames take no lock.
#[derive(Debug, Default)]
pub(super) struct KnownKeys(HashMap<u64, Weak<Entry>>);

impl KnownKeys {
    /// The region behind a key, as long as it is registered.
    #[inline]
    pub fn find(&mut self, key: u64, domain: &Domain) -> Option<Arc<Entry>> {
        match self.0.get(&key) {
            Some(known) => known.upgrade(),
            None => self.look_up(key, domain),
        }
    }

    #[cold]
    fn look_up(&mut self, key: u64, domain: &Domain) -> Option<Arc<Entry>> {
        let found = domain.entries().get(&key)?.clone();
        self.0.retain(|_, known| known.strong_count() != 0);
        self.0.insert(key, found.clone());
        found.upgrade()
    }
}

/// A registration in this process.
pub(super) struct TcpRegistration {
    entry: Arc<Entry>,
    domain: Arc<Domain>,
}

impl TcpRegistration {
    pub fn new(region: &Region, access: Access, domain: Arc<Domain>) -> Result<Self, FabricError> {
        if !region.kind().host_accessible() {
            return Err(FabricError::MemoryKind {
                fabric: super::NAME,
                kind: region.kind().name(),
                why: "sockets move bytes with the CPU, which cannot load or store this memory".into(),
            });
        }
        let entry = Arc::new(Entry {
            region: region.clone(),
            access,
            key: domain.next_key.fetch_add(1, Ordering::Relaxed),
            users: AtomicU32::new(0),
        });
        if access != Access::LOCAL {
            domain.entries().insert(entry.key, Arc::downgrade(&entry));
        }
        Ok(Self { entry, domain })
    }
}

impl fmt::Debug for TcpRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpRegistration")
            .field("entry", &self.entry)
            .finish()
    }
}

impl Registration for TcpRegistration {
    fn region(&self) -> &Region {
        &self.entry.region
    }

    fn export(&self) -> Result<Parcel, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        let len = self.entry.region.len();
        if self.entry.access == Access::LOCAL {
            return Err(FabricError::NothingToExport { len });
        }
        let parcel = RegionParcel {
            domain: self.domain.id,
            len: len as u64,
            access: self.entry.access,
            key: self.entry.key,
        };
        Ok(Parcel {
            bytes: parcel.encode(),
            descriptors: Vec::new(),
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for TcpRegistration {
    fn drop(&mut self) {
        // In a forked child another thread's lock, or use, may never end; nobody reaches its memory from outside.
        if self.domain.birthplace.is_here() {
            self.domain.entries().remove(&self.entry.key);
            self.entry.revoke();
        }
    }
}

/// The first byte of a local slice, if it lies in its registration and that is one of this provider.
#[inline]
pub(super) fn local(slice: &Slice) -> Result<NonNull<u8>, Status> {
    let registration = slice.registration.as_any().downcast_ref::<TcpRegistration>();
    let region = &registration.ok_or(Status::LocalProtection)?.entry.region;
    if !inside(region.len(), slice.offset as u64, slice.len as u64) {
        return Err(Status::LocalProtection);
    }
    // SAFETY: the offset was checked against the region's length.
    Ok(unsafe { region.base().add(slice.offset) })
}

/// A peer's registration.
#[derive(Debug)]
pub(super) struct TcpRemote {
    peer: Rank,
    told: RegionParcel,
}

impl TcpRemote {
    pub fn import(rank: Rank, peer: Rank, parcel: &Parcel) -> Result<Self, FabricError> {
        let refuse = |why: String| FabricError::Parcel {
            rank,
            peer,
            what: "a region",
            why,
        };
        let told = RegionParcel::decode(&parcel.bytes).map_err(refuse)?;
        if usize::try_from(told.len).is_err() {
            return Err(refuse("it is too long for this machine".into()));
        }
        Ok(Self { peer, told })
    }
}

impl RemoteRegion for TcpRemote {
    fn peer(&self) -> Rank {
        self.peer
    }

    fn len(&self) -> usize {
        self.told.len as usize
    }

    fn mapped(&self) -> Option<NonNull<u8>> {
        None
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The key of a remote slice, if what its owner told allows `right` on `len` bytes. The owner looks again.
#[inline]
pub(super) fn remote(
    slice: &RemoteSlice,
    len: usize,
    (peer, domain): (Rank, u64),
    right: Right,
) -> Result<u64, Status> {
    let region = slice.region.as_any().downcast_ref::<TcpRemote>();
    let TcpRemote { peer: owner, told } = region.ok_or(Status::RemoteAccess)?;
    let fits = inside(told.len as usize, slice.offset as u64, len as u64);
    if *owner != peer || told.domain != domain || !right.of(told.access) || !fits {
        return Err(Status::RemoteAccess);
    }
    Ok(told.key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HugePages;

    #[test]
    fn a_key_is_good_as_long_as_its_registration() {
        let domain = Arc::new(Domain::new().unwrap());
        let region = Region::host(100, HugePages::Never).unwrap();
        let register = |access| TcpRegistration::new(&region, access, domain.clone()).unwrap();
        let mut known = KnownKeys::default();
        let (first, local) = (register(Access::READ), register(Access::LOCAL));
        let key = first.entry.key;
        let entry = known.find(key, &domain).unwrap();
        assert!(entry.allows(Right::Read, 0, 100) && entry.allows(Right::Read, 100, 0));
        for (offset, len) in [(0, 101), (101, 0), (u64::MAX, 1), (u64::MAX, 2)] {
            assert!(!entry.allows(Right::Read, offset, len));
        }
        assert!(!entry.allows(Right::Write, 0, 1) && !entry.allows(Right::Atomic, 0, 8));
        assert!(entry.enter().is_some());
        assert!(known.find(local.entry.key, &domain).is_none(), "not for peers");
        drop(first);
        assert!(entry.enter().is_none());
        drop(entry);
        assert!(known.find(key, &domain).is_none());
        assert_ne!(register(Access::READ).entry.key, key);
        assert!(domain.entries().is_empty());
    }

    #[test]
    fn deregistration_waits_for_a_use_on_another_thread() {
        let domain = Arc::new(Domain::new().unwrap());
        let region = Region::host(100, HugePages::Never).unwrap();
        let registration = TcpRegistration::new(&region, Access::ALL, domain.clone()).unwrap();
        let entry = registration.entry.clone();
        let guard = entry.enter().unwrap();
        let (over, is_over) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            drop(registration);
            over.send(()).unwrap();
        });
        while entry.users.load(Ordering::Acquire) & REVOKED == 0 {
            std::thread::yield_now();
        }
        assert!(is_over.try_recv().is_err());
        drop(guard);
        is_over.recv().unwrap();
        thread.join().unwrap();
    }
}
