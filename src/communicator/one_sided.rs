//! For what is above: queue pairs of its own to all ranks and to itself, for one-sided operations on memory that all offer.
//! Nothing here waits for what others do with them.

use std::sync::Arc;

use super::boards::Mapped;
use super::{Communicator, CommunicatorError, Window};
use crate::engine::{Engine, Keys, Liveness, WindowMap};
use crate::fabric::{Access, AtomicDomain, Endpoint, Fabric, Patience, Registration, RemoteRegion};
use crate::memory::{Buffer, Element};

/// Memory that every rank offers, and what is needed to operate on each other's.
pub(crate) struct Offered {
    pub own: Arc<dyn Registration>,
    /// By rank, the own one too.
    pub all: Vec<Arc<dyn RemoteRegion>>,
}

impl Communicator {
    /// What one-sided operations on memory of any rank go over: everything in this module. Where host-mates are reached by
    /// other means than other hosts, that is the network for them, too, so that each word has one atomic domain.
    pub(crate) fn one_sided(&self) -> Arc<dyn Fabric> {
        let fabric = &self.meeting.borrow().fabric;
        fabric.by_one_means().unwrap_or_else(|| fabric.clone())
    }

    /// Whether one-sided operations of all ranks on one word are atomic to each other, and are done whatever the word's owner
    /// does.
    pub(crate) fn has_one_sided_words(&self) -> bool {
        let fabric = self.one_sided();
        let capabilities = fabric.capabilities();
        capabilities.atomic_domain != AtomicDomain::None && capabilities.progress_while_stopped
    }

    /// An endpoint that is connected to every rank, itself included. Collective.
    pub(crate) fn endpoint(&self) -> Result<Box<dyn Endpoint>, CommunicatorError> {
        self.settle()?;
        let (fabric, meeting) = (self.one_sided(), self.meeting.borrow());
        let mapped = Mapped::connect(&meeting, &*fabric, self.ranks, self.generation)?;
        Ok(mapped.into_endpoint())
    }

    /// Offers a buffer to the endpoints of all ranks and takes in theirs. Collective.
    pub(crate) fn offer<T: Element>(
        &self,
        endpoint: &mut dyn Endpoint,
        buffer: &Buffer<T>,
        access: Access,
    ) -> Result<Offered, CommunicatorError> {
        self.settle()?;
        let fabric = self.one_sided();
        let meeting = &mut *self.meeting.borrow_mut();
        let bytes = (buffer.offset(), buffer.len() * size_of::<T>());
        debug_assert_eq!(buffer.offset(), 0, "a region of its own");
        let import = |peer, parcel| endpoint.import(peer, parcel);
        let shared = meeting.share_over(
            &*fabric,
            "offering memory",
            (buffer.region(), access),
            bytes,
            T::TYPE.name(),
            import,
        )?;
        let own = shared.registration;
        let mut all = Vec::with_capacity(shared.remote.len());
        for remote in shared.remote {
            all.push(match remote {
                Some((region, _)) => region,
                None => endpoint.import(self.rank, own.export()?)?,
            });
        }
        Ok(Offered { own, all })
    }

    /// A window that no operation of this communicator can name: others reach it by what was [offered](Self::offer) alone.
    pub(crate) fn apart<T: Element>(&self, buffer: Buffer<T>, own: Arc<dyn Registration>) -> Window<T> {
        let len = buffer.len() * size_of::<T>();
        let keys = Keys {
            local: (own, buffer.offset()),
            remote: Box::new([]),
        };
        Window::new(buffer, WindowMap::by_keys(u16::MAX, keys, len), u64::MAX)
    }

    /// How this rank waits for others.
    pub(crate) fn patience(&self) -> Patience {
        match &**self.engine() {
            Engine::Boards(core) => core.group().patience(),
            Engine::Messages(_) => Patience::for_ranks(self.ranks as usize),
        }
    }

    /// Who is still there.
    pub(crate) fn liveness(&self) -> Box<dyn Liveness> {
        Box::new(self.meeting.borrow().members.clone())
    }
}
