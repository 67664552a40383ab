//! Two fabrics as one: some peers are reached by the one, all others by the other, as ranks of one host are by shared
//! memory and other hosts by a network. Moves no byte itself and knows no provider: it only picks one for each peer.
//!
//! What it says that it can do, it can do with every peer ([`Mixed::combined`]). Load/store reach is never among that: a
//! rank sleeps on one doorbell, and two fabrics have two. Nor are atomics, unless the CPU performs them on either side: a
//! word that a device updates for one peer and the CPU for another has two domains, and additions to it are lost (a
//! device serializes its own operations only). There, registrations give no rights to atomics, so an attempt ends with
//! an error at whoever makes it. Who needs words on which all ranks operate takes the far fabric for every pair
//! ([`Fabric::by_one_means`]).

mod endpoint;
mod parcel;
mod registration;
mod waiting;

use std::sync::Arc;

use super::{
    Access, AtomicDomain, Capabilities, Endpoint, Fabric, FabricError, OrderingScope, Rank, Registration,
};
use crate::memory::Region;

const NAME: &str = "mixed";

/// Which of the two fabrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Near,
    Far,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Mixed {
    capabilities: Capabilities,
    near: Arc<dyn Fabric>,
    far: Arc<dyn Fabric>,
    /// Ascending.
    near_ranks: Arc<[Rank]>,
}

impl Mixed {
    /// Reaches `near_ranks`, and every rank itself, over `near`, all others over `far`, which could reach all of them.
    /// Nearness is mutual: whoever is in this rank's list has this rank in its own.
    pub fn new(
        near: Arc<dyn Fabric>,
        far: Arc<dyn Fabric>,
        near_ranks: impl IntoIterator<Item = Rank>,
    ) -> Self {
        let mut near_ranks: Vec<Rank> = near_ranks.into_iter().collect();
        near_ranks.sort_unstable();
        near_ranks.dedup();
        Self {
            capabilities: Self::combined(near.capabilities(), far.capabilities()),
            near,
            far,
            near_ranks: near_ranks.into(),
        }
    }

    /// What holds for every peer if some are reached by the one fabric and some by the other.
    pub fn combined(near: &Capabilities, far: &Capabilities) -> Capabilities {
        let weak = [near.ordering, far.ordering].contains(&OrderingScope::ImmediateOnly);
        let cpu = near.atomic_domain == AtomicDomain::Cpu && far.atomic_domain == AtomicDomain::Cpu;
        Capabilities {
            load_store: false,
            inline_size: near.inline_size.min(far.inline_size),
            gpu_memory: near.gpu_memory && far.gpu_memory,
            foreign_memory: near.foreign_memory && far.foreign_memory,
            ordering: if weak {
                OrderingScope::ImmediateOnly
            } else {
                OrderingScope::QueuePair
            },
            atomic_domain: if cpu {
                AtomicDomain::Cpu
            } else {
                AtomicDomain::None
            },
            progress_while_stopped: near.progress_while_stopped && far.progress_while_stopped,
            queue_depth: near.queue_depth.min(far.queue_depth),
        }
    }
}

impl Fabric for Mixed {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Registers with both. A kind of memory that one of them cannot register serves with the other's peers alone.
    fn register(&self, region: &Region, access: Access) -> Result<Arc<dyn Registration>, FabricError> {
        let remote_atomic = access.remote_atomic && self.capabilities.atomic_domain != AtomicDomain::None;
        let access = Access {
            remote_atomic,
            ..access
        };
        let registration = registration::MixedRegistration::new(region, access, &*self.near, &*self.far)?;
        Ok(Arc::new(registration))
    }

    fn endpoint(&self, rank: Rank, generation: u32) -> Result<Box<dyn Endpoint>, FabricError> {
        Ok(Box::new(endpoint::MixedEndpoint::new(
            rank,
            self.near_ranks.clone(),
            self.near.endpoint(rank, generation)?,
            self.far.endpoint(rank, generation)?,
            self.capabilities.atomic_domain == AtomicDomain::None,
        )))
    }

    fn by_one_means(&self) -> Option<Arc<dyn Fabric>> {
        Some(self.far.by_one_means().unwrap_or_else(|| self.far.clone()))
    }
}

#[cfg(test)]
mod tests;
