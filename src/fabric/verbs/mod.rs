//! Ranks of many hosts over verbs devices: InfiniBand and RoCE adapters, and RoCE made of software. libibverbs is
//! loaded when the fabric is opened, and never linked.
//!
//! One open device with one protection domain serves every endpoint and registration of a [`Verbs`]; they hold it, so
//! it is closed after the last of them. Which device, port and GID that is, is chosen by [`choose`] and said.

mod acting;
mod alarm;
mod attributes;
mod batch;
mod bell;
mod budget;
mod cache;
mod choice;
mod choose;
mod completion_queue;
mod connection;
mod context;
mod device;
mod dmabuf;
mod driving;
mod ending;
mod endpoint;
mod error;
mod events;
mod explain;
mod foreign;
mod gid;
mod in_flight;
mod inventory;
mod link;
mod liveness;
mod lone;
mod lone_fetch;
mod memlock;
mod mtu;
mod opening;
mod parcel;
mod partition;
mod permission;
mod posting;
mod probe;
mod queue_pair;
mod receiving;
mod region_parcel;
mod registration;
mod remote;
mod settings;
mod stripes;
mod survey;
mod sysfs;
mod ticket;
mod transition;
mod waiting;
mod wide;
mod work;

use std::sync::Arc;

use sapwood_sys::verbs::Verbs as Library;

pub use attributes::InvalidAttributes;
pub use choice::{Choice, ChoiceError};
pub use choose::choose;
pub use error::{Failure, PermissionError, Place, Unsupported, VerbError, VerbsError};
pub use events::DeviceEvent;
pub use foreign::{ForeignQueuePair, ForeignRegion, NotVerbs};
pub use gid::{Gid, GidType, NoSubnet, Scope, Subnet};
pub use inventory::{
    AtomicSupport, DeviceDetails, DeviceReport, GidReport, Inventory, Limits, LinkLayer, PortReport,
    PortState, Transport,
};
pub use memlock::MemlockError;
pub use mtu::{Mtu, NoMtu};
pub use settings::Settings;

use super::{
    Access, AtomicDomain, Capabilities, Endpoint, Fabric, FabricError, OrderingScope, Rank, Registration,
};
use crate::memory::Region;

/// What [`alarm`] is built on; its model has another.
mod atomics {
    pub(super) use std::sync::atomic::{AtomicBool, Ordering};
}

const NAME: &str = "verbs";

/// The verbs fabric, open on one device and port.
#[derive(Debug)]
pub struct Verbs {
    capabilities: Capabilities,
    device: Arc<device::Device>,
}

impl Verbs {
    /// Loads libibverbs, looks at the devices, chooses and opens one.
    ///
    /// # Errors
    /// [`VerbsError`], as the source of a [`FabricError::Provider`]: no library, no device, none that can be used, no
    /// permission, or the device refuses.
    pub fn open(settings: &Settings) -> Result<Self, FabricError> {
        settings.check()?;
        Ok(Self::try_open(
            Library::load().map_err(VerbsError::from)?,
            settings,
        )?)
    }

    /// As [`Verbs::open`], with the functions of a library that is loaded already, or of what stands in for it in a
    /// test.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// The functions keep the promises of libibverbs.
    pub unsafe fn open_with(library: Library, settings: &Settings) -> Result<Self, FabricError> {
        Ok(Self::try_open(library, settings)?)
    }

    fn try_open(library: Library, settings: &Settings) -> Result<Self, VerbsError> {
        settings.check()?;
        // A child of fork() must not take the parent's registered pages away by writing to them. Kernels from 5.12 on
        // see to it, and this does nothing there.
        // SAFETY: it may be called at any time; before the first registration of this library it is not too late.
        let errno = unsafe { (library.fork_init)() };
        if errno != 0 {
            tracing::debug!(
                errno,
                "ibv_fork_init failed: do not fork while foreign memory is registered"
            );
        }
        let named = choose::named(settings).map(|(name, _)| name.to_owned());
        let inventory = survey::take(library, |name| named.as_ref().is_none_or(|named| named == name))?;
        let choice = choose(&inventory, settings)?;
        tracing::info!(%choice, missing = inventory.missing_functions.join(", "), "verbs fabric");
        let device = device::Device::open(library, choice, settings)?;
        let capabilities = Capabilities {
            load_store: false,
            inline_size: device.granted().inline_size as usize,
            gpu_memory: device.dma_buf(),
            foreign_memory: true,
            ordering: if device.relaxed_ordering() || settings.queue_pairs > 1 {
                OrderingScope::ImmediateOnly
            } else {
                OrderingScope::QueuePair
            },
            atomic_domain: match device.limits().atomics {
                AtomicSupport::None => AtomicDomain::None,
                AtomicSupport::Device => AtomicDomain::Device,
                AtomicSupport::Global => AtomicDomain::Cpu,
            },
            progress_while_stopped: true,
            queue_depth: device.granted().depth(),
        };
        Ok(Self { capabilities, device })
    }

    /// What was chosen, and why.
    pub fn choice(&self) -> &Choice {
        self.device.choice()
    }
}

impl Fabric for Verbs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn register(&self, region: &Region, access: Access) -> Result<Arc<dyn Registration>, FabricError> {
        self.device.birthplace().check(FabricError::Forked)?;
        if !region.kind().host_accessible() && region.kind().dma_buf().is_none() {
            return Err(FabricError::MemoryKind {
                fabric: NAME,
                kind: region.kind().name(),
                why: "it is neither the CPU's memory nor has it a dma-buf that the device could reach it through".into(),
            });
        }
        Ok(registration::VerbsRegistration::of(&self.device, region, access)?)
    }

    fn endpoint(&self, rank: Rank, generation: u32) -> Result<Box<dyn Endpoint>, FabricError> {
        self.device.birthplace().check(FabricError::Forked)?;
        let device = self.device.clone();
        Ok(Box::new(endpoint::VerbsEndpoint::new(device, rank, generation)?))
    }
}

/// Everything that libibverbs and the kernel tell about this machine's RDMA devices. Devices that cannot be opened
/// are in it, with the reason.
///
/// # Errors
/// libibverbs is missing, or its devices cannot be listed.
pub fn inventory() -> Result<Inventory, VerbsError> {
    let mut inventory = survey::take(Library::load()?, |_| true)?;
    survey::count(&mut inventory);
    Ok(inventory)
}

#[cfg(test)]
mod device_tests;
