//! Ranks of any hosts over TCP, for machines without RDMA.
//!
//! One connection for each pair of ranks: opened when a queue pair is connected, by the rank with the higher number, to
//! the port that the other one's parcel names. The side that is called says a number first, which the caller's words,
//! and the keys of both, must fit; nothing of a request is sent to whoever has not proved that it is the peer and goes on
//! with this connection. Until then the caller may give up and call again (`calling`). Requests travel as frames (`frame`), each authenticated by a key that
//! only the two sides know, with its number in the stream (`seal`): what is changed, inserted, repeated or left out on
//! the way ends the connection before anything is done with it. Nothing is encrypted. Bytes of writes, sends and answers
//! go from registered memory to the kernel and from the kernel to registered memory, with no stop in between; so a
//! body's bytes may be seen at their place before it is known that they are good, which only an immediate, or the
//! writer's completion, says ([`OrderingScope::ImmediateOnly`]).
//!
//! No thread and no device works for a rank here: what peers ask of it is done by its own endpoint, whenever that is
//! polled, waited on, armed or posted to. A process that is stopped, or busy elsewhere, is asked in vain until it is back.
//! Atomics are the CPU's own.
//!
//! A child that this process has forked holds copies of its sockets: as long as it lives after its parent, or until it
//! executes another program, peers are not told of the parent's end. That a rank lives is known from the job's bootstrap.
//!
//! A queue pair ends at the first error, and the peer gets [`super::Status::PeerUnreachable`] then. So does whoever
//! talks to a process that ends (at once), or to a host that falls silent ([`Settings::silence`]).

mod address;
mod bell;
mod caller;
mod calling;
mod dial;
mod ending;
mod endpoint;
mod error;
mod frame;
mod incoming;
mod outgoing;
mod own;
mod parcel;
mod queue_pair;
mod receives;
mod region;
mod requests;
mod seal;
mod settings;
mod silence;
mod sink;
mod taking;
mod target;
mod visitor;
mod waiting;
mod wire;

use std::sync::Arc;

pub use error::TcpError;
pub use settings::Settings;

use super::{
    Access, AtomicDomain, Capabilities, Endpoint, Fabric, FabricError, OrderingScope, Rank, Registration,
};
use crate::memory::Region;

const NAME: &str = "tcp";

/// The tcp fabric. One per process is enough for any number of ranks; regions and endpoints that work together at one
/// rank come from the same one.
pub struct Tcp {
    capabilities: Capabilities,
    settings: Arc<Settings>,
    domain: Arc<region::Domain>,
}

impl std::fmt::Debug for Tcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tcp")
            .field("capabilities", &self.capabilities)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

fn system(what: &str, source: impl Into<std::io::Error>) -> FabricError {
    FabricError::System {
        fabric: NAME,
        what: what.to_owned(),
        source: source.into(),
    }
}

impl Tcp {
    /// Opens the fabric. Ports are opened when the first queue pair of an endpoint is prepared.
    ///
    /// # Errors
    /// No address of this host fits the settings; the system gives no random numbers, or no list of its addresses.
    pub fn open(settings: Settings) -> Result<Self, FabricError> {
        address::to_be_called_at(&address::of_this_host()?, &settings)?;
        let capabilities = Capabilities {
            load_store: false,
            inline_size: 0,
            gpu_memory: false,
            foreign_memory: true,
            ordering: OrderingScope::ImmediateOnly,
            atomic_domain: AtomicDomain::Cpu,
            progress_while_stopped: false,
            queue_depth: queue_pair::DEPTH,
        };
        Ok(Self {
            capabilities,
            settings: Arc::new(settings),
            domain: Arc::new(region::Domain::new()?),
        })
    }

    /// How it was opened.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

impl Fabric for Tcp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn register(&self, region: &Region, access: Access) -> Result<Arc<dyn Registration>, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        let registration = region::TcpRegistration::new(region, access, self.domain.clone())?;
        Ok(Arc::new(registration))
    }

    fn endpoint(&self, rank: Rank, generation: u32) -> Result<Box<dyn Endpoint>, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        let (settings, domain) = (self.settings.clone(), self.domain.clone());
        Ok(Box::new(endpoint::TcpEndpoint::new(
            rank, generation, settings, domain,
        )?))
    }
}

#[cfg(test)]
mod tests;
