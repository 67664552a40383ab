//! An open device as a fabric uses it: its protection domain, the chosen port and address, what it can do, and what
//! is registered with it. Shared by every endpoint and registration of one `Verbs`, and closed with the last of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sapwood_sys::verbs::Verbs as Library;
use sapwood_sys::verbs::bindings::{ibv_context, ibv_pd};

use super::cache::Cache;
use super::choice::Choice;
use super::context::{Context, ProtectionDomain};
use super::error::{Place, VerbError, VerbsError};
use super::events::Events;
use super::inventory::{DeviceDetails, Limits};
use super::mtu::Mtu;
use super::probe::{self, Granted};
use super::settings::Settings;
use super::survey::{self, DeviceList};
use super::{dmabuf, partition};
use crate::fabric::Rank;
use crate::fabric::fork::Birthplace;

/// See the module. Endpoints and registrations hold it in an `Arc`: it is closed after the last queue pair, completion
/// queue and registration are gone (invariant 1).
#[derive(Debug)]
pub(super) struct Device {
    /// Handles to registrations; holds none of them alive.
    pub registrations: Cache,
    // From here on the order of the fields is the order of the teardown.
    domain: ProtectionDomain,
    pub events: Events,
    context: Context,
    // Plain data.
    choice: Choice,
    settings: Settings,
    details: DeviceDetails,
    partition_key_index: u16,
    partition_keys: u16,
    gid_table: u32,
    /// Of the chosen GID: tables are filled anew when a link or an address comes back.
    gid_index: AtomicU32,
    granted: Granted,
    dma_buf: bool,
}

impl Device {
    pub fn open(library: Library, choice: Choice, settings: &Settings) -> Result<Arc<Self>, VerbsError> {
        let context = DeviceList::get(library)?.open(&choice.device)?;
        let events = Events::new(&context)?;
        let domain = ProtectionDomain::allocate(&context)?;
        let details = survey::details(&context)?;
        let port = survey::query_port(&context, choice.port)?;
        let partition_keys = port.pkey_tbl_len;
        let partition_key_index = match settings.partition_key {
            Some(key) => partition::find(&context, choice.port, partition_keys, key)?,
            None => 0,
        };
        let granted = probe::queue_pair(&context, &domain, settings, &details.limits)?;
        let dma_buf = dmabuf::supported(&library, &domain);
        let gid_index = AtomicU32::new(choice.gid.index);
        Ok(Arc::new(Self {
            registrations: Cache::default(),
            domain,
            events,
            choice,
            settings: settings.clone(),
            details,
            partition_key_index,
            partition_keys,
            gid_table: u32::try_from(port.gid_tbl_len).unwrap_or(0),
            gid_index,
            granted,
            dma_buf,
            context,
        }))
    }

    pub fn library(&self) -> &Library {
        &self.context.library
    }

    /// Valid as long as this device is held.
    pub fn context(&self) -> *mut ibv_context {
        self.context.raw()
    }

    /// Valid as long as this device is held.
    pub fn domain(&self) -> *mut ibv_pd {
        self.domain.raw()
    }

    /// Tells its registrations from those of other devices: they hold it, so no other can have this number meanwhile.
    pub fn scope(&self) -> u64 {
        std::ptr::from_ref(self) as u64
    }

    /// The open device itself, for events.
    pub fn opened(&self) -> &Context {
        &self.context
    }

    pub fn name(&self) -> &str {
        self.context.name()
    }

    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn limits(&self) -> &Limits {
        &self.details.limits
    }

    /// The largest packet that this side wants: the link's MTU or what the settings allow.
    pub fn mtu(&self) -> Mtu {
        let limit = self.settings.mtu.unwrap_or(Mtu::Bytes4096);
        self.choice.active_mtu.min(limit)
    }

    /// Of the partition key, in the port's table.
    pub fn partition_key_index(&self) -> u16 {
        self.partition_key_index
    }

    /// Entries of the port's table of partition keys.
    pub fn partition_keys(&self) -> u16 {
        self.partition_keys
    }

    /// Entries of the port's GID table.
    pub fn gid_table(&self) -> u32 {
        self.gid_table
    }

    /// Where the chosen GID is in that table now.
    pub fn gid_index(&self) -> u32 {
        self.gid_index.load(Ordering::Relaxed)
    }

    /// Looks where the chosen GID is, after the device said that the table changed. Connected queue pairs keep the
    /// entry that they were given; new ones must not take whatever stands at the old index.
    pub fn find_gid_again(&self) {
        let Choice {
            port,
            link_layer,
            gid,
            ..
        } = &self.choice;
        match survey::find_gid(&self.context, *port, self.gid_table, gid, *link_layer) {
            Some(index) => {
                let before = self.gid_index.swap(index, Ordering::Relaxed);
                if before != index {
                    tracing::info!(device = self.name(), gid = %gid.gid, before, index, "the GID moved in its table");
                }
            }
            None => tracing::warn!(
                device = self.name(),
                gid = %gid,
                "the GID is no longer in the table: no new connection can be made until its address is back"
            ),
        }
    }

    /// What queue pairs get when they are made as [`Granted`] says.
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// Reads and atomics that one queue pair may have under way, as the device allows and the settings want.
    pub fn reads_started(&self) -> u8 {
        self.limits().reads_started.min(self.settings.read_depth)
    }

    /// Reads and atomics of a peer that one queue pair answers at a time.
    pub fn reads_answered(&self) -> u8 {
        self.limits().reads_answered.min(self.settings.read_depth)
    }

    /// Whether registrations ask for relaxed ordering: set, and known to the library (drivers ignore it where the
    /// device cannot).
    pub fn relaxed_ordering(&self) -> bool {
        self.settings.relaxed_ordering && self.library().reg_mr_iova2.is_some()
    }

    /// Whether dma-bufs (GPU memory) can be registered.
    pub fn dma_buf(&self) -> bool {
        self.dma_buf
    }

    pub fn birthplace(&self) -> Birthplace {
        self.context.birthplace()
    }

    /// Completion vectors to spread completion queues over; at least 1.
    pub fn completion_vectors(&self) -> usize {
        self.context.completion_vectors()
    }

    /// For errors about the device and its port.
    pub fn place(&self) -> Place {
        Place::device(self.name()).port(self.choice.port)
    }

    /// For errors about a queue pair.
    pub fn place_of_peer(&self, peer: Rank) -> Place {
        self.place().peer(peer)
    }

    /// The error of a verb that answered `errno` about this device.
    pub fn failed(&self, variant: fn(super::error::Failure) -> VerbError, errno: i32) -> VerbsError {
        self.place().failed(variant, errno)
    }
}
