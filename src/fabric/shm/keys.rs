//! A protection domain: which registrations are valid, who may be in the middle of an operation on them, and what
//! memory is kept because somebody still is. Never frees memory that a peer could still reach by address.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::control::{Inbound, Shareable, Shared};
use super::life::Life;
use crate::fabric::FabricError;
use crate::fabric::fork::Birthplace;
use crate::memory::Region;

/// Keys of one table.
pub(super) const KEYS: usize = 512;

/// Readable by all peers: word `i` holds the key that is valid in slot `i`, or 0.
#[repr(C)]
pub(super) struct KeyTable {
    pub keys: [AtomicU64; KEYS],
}

// SAFETY: atomics only.
unsafe impl Shareable for KeyTable {}

/// The receiving half of a queue pair, as the domain watches it.
pub(super) struct Incoming {
    pub control: Shared<Inbound>,
    /// Known once connected.
    pub life: OnceLock<Life>,
}

impl Incoming {
    /// Whether an operation that was running at `activity` can go on.
    fn still_at(&self, activity: u32) -> bool {
        self.control.activity.in_progress() == Some(activity) && !self.life.get().is_some_and(Life::ended)
    }
}

struct Table {
    shared: Shared<KeyTable>,
    /// Opened for reading only.
    descriptor: Arc<OwnedFd>,
    free: Vec<u32>,
}

/// A valid key; invalid once dropped.
pub(super) struct Key {
    table: Shared<KeyTable>,
    table_number: usize,
    pub descriptor: Arc<OwnedFd>,
    pub slot: u32,
    pub value: u64,
}

/// Memory that was deregistered while a peer was in the middle of an operation.
struct Custody {
    region: Region,
    /// Who, and at which of its operations.
    watched: Vec<(Arc<Incoming>, u32)>,
}

/// See the module.
pub(super) struct Domain {
    /// Drawn at random; peers' requests name it.
    pub id: u64,
    pub birthplace: Birthplace,
    /// Whether users see load/store reach.
    pub reach: bool,
    /// Whether endpoints can be slept on by descriptor.
    pub pollable: bool,
    /// How long a request waits for a receive of the peer.
    pub receiver_patience: Duration,
    next_key: AtomicU64,
    tables: Mutex<Vec<Table>>,
    incoming: Mutex<Vec<Arc<Incoming>>>,
    custody: Mutex<Vec<Custody>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of another rank's thread leaves these lists complete: each change is one push or one removal.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the file behind a descriptor again, for reading only.
pub(super) fn read_only(descriptor: BorrowedFd<'_>) -> Result<OwnedFd, FabricError> {
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|error| {
        system(
            format!("opening {path} for reading only (is /proc mounted?)"),
            error,
        )
    })
}

pub(super) fn system(what: impl Into<String>, source: impl Into<std::io::Error>) -> FabricError {
    FabricError::System {
        fabric: "shm",
        what: what.into(),
        source: source.into(),
    }
}

impl Domain {
    pub fn new(reach: bool, pollable: bool, receiver_patience: Duration) -> Result<Self, FabricError> {
        let mut id = [0; 8];
        rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| system("drawing a random number", error))?;
        Ok(Self {
            id: u64::from_ne_bytes(id),
            birthplace: Birthplace::here(),
            reach,
            pollable,
            receiver_patience,
            next_key: AtomicU64::new(1),
            tables: Mutex::default(),
            incoming: Mutex::default(),
            custody: Mutex::default(),
        })
    }

    /// A key of its own for one registration.
    pub fn issue(&self) -> Result<Key, FabricError> {
        let mut tables = lock(&self.tables);
        let number = match tables.iter().position(|table| !table.free.is_empty()) {
            Some(number) => number,
            None => {
                let (shared, writable) = Shared::<KeyTable>::create()?;
                tables.push(Table {
                    shared,
                    descriptor: Arc::new(read_only(writable.as_fd())?),
                    free: (0..KEYS as u32).rev().collect(),
                });
                tables.len() - 1
            }
        };
        let table = &mut tables[number];
        let slot = table.free.pop().expect("a table with a free slot was chosen");
        let value = self.next_key.fetch_add(1, Ordering::Relaxed);
        table.shared.keys[slot as usize].store(value, Ordering::Release);
        Ok(Key {
            table: table.shared.clone(),
            table_number: number,
            descriptor: table.descriptor.clone(),
            slot,
            value,
        })
    }

    /// Makes a key invalid: no operation that begins from now on succeeds with it.
    pub fn revoke(&self, key: &Key) {
        key.table.keys[key.slot as usize].store(0, Ordering::SeqCst);
        lock(&self.tables)[key.table_number].free.push(key.slot);
    }

    /// Takes a region whose key was just revoked and frees it once nobody can be in the middle of an operation on it.
    pub fn bury(&self, region: Region) {
        // Pairs with the fence of an operation's start: it sees the revoked key, or we see it busy.
        fence(Ordering::SeqCst);
        let watched: Vec<_> = lock(&self.incoming)
            .iter()
            .filter_map(|incoming| Some((incoming.clone(), incoming.control.activity.in_progress()?)))
            .collect();
        if !watched.is_empty() {
            lock(&self.custody).push(Custody { region, watched });
        }
    }

    /// Frees what nobody can reach any more.
    pub fn clean_up(&self) {
        let over: Vec<_> = lock(&self.custody)
            .extract_if(.., |custody| {
                custody
                    .watched
                    .retain(|(incoming, activity)| incoming.still_at(*activity));
                custody.watched.is_empty()
            })
            .collect();
        // Not under the lock: what owns foreign memory may do anything when it is dropped, deregister for one.
        drop(over);
    }

    pub fn watch(&self, incoming: Arc<Incoming>) {
        lock(&self.incoming).push(incoming);
    }

    #[cfg(test)]
    pub fn incoming_of_a_test(&self) -> Vec<Arc<Incoming>> {
        lock(&self.incoming).clone()
    }

    /// Forgets receiving halves whose peers were revoked and have stopped. Others stay under watch.
    pub fn forget_idle(&self) {
        lock(&self.incoming).retain(|incoming| {
            let control = &incoming.control;
            if !control.revocation.is_revoked() {
                return true;
            }
            // Whoever revoked it may not yet have passed its own fence.
            fence(Ordering::SeqCst);
            let activity = control.activity.in_progress();
            activity.is_some_and(|activity| incoming.still_at(activity))
        });
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        if !self.birthplace.is_here() {
            return;
        }
        self.clean_up();
        for custody in lock(&self.custody).drain(..) {
            tracing::warn!(
                bytes = custody.region.len(),
                "a peer was stopped in the middle of an operation on registered memory; the memory is never freed"
            );
            std::mem::forget(custody.region);
        }
    }
}
