//! Where a rank's switchboard is: for its host-mates a name that they can make themselves, for other hosts an address
//! that it tells them.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::super::membership::Meeting;
use super::super::socket::Listener;
use super::super::{BootstrapError, Job, Membership, Rank, Reachable, Rendezvous, noise};
use super::CallHeader;

/// Where ranks of other hosts reach a switchboard; nowhere, if there are none. There is no secret in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    reachable: Reachable,
    /// None: it is open to its own host alone.
    port: Option<u16>,
}

impl Place {
    /// The same, as a rank of another host sees it that knows all of them.
    pub(super) fn seen_by(&self, all: &[Self]) -> Option<Rendezvous> {
        let address = self.reachable.seen_by(all.iter().map(|one| &one.reachable))?;
        Rendezvous::network(&address.to_string(), self.port?).ok()
    }
}

/// The socket's name on the callee's host.
pub(super) fn near(job: &Job, callee: &CallHeader) -> Result<Rendezvous, BootstrapError> {
    let CallHeader {
        salt,
        number,
        rank,
        life,
    } = callee;
    let purpose = format!("the name of rank {rank}'s switchboard in life {life}");
    let name = noise::derive(&job.secret, &purpose, *salt, *number)?;
    let name: String = name[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Rendezvous::Abstract(format!("sapwood-calls-{name}")))
}

/// Whether that rank is called at a socket of this host. Who has met at one Unix socket shares it, whatever he says.
pub(super) fn is_near(membership: &Membership, rank: Rank) -> bool {
    match &membership.meeting {
        Meeting::OneHost(_) => true,
        Meeting::Network(_) => membership.host(rank) == membership.host(membership.rank()),
    }
}

/// Opens a port for ranks of other hosts, if there are any.
pub(super) fn open(membership: &Membership) -> Result<Option<(Listener, Place)>, BootstrapError> {
    if (0..membership.size()).all(|rank| is_near(membership, rank)) {
        return Ok(None);
    }
    let (job, reachable) = (&membership.job, membership.reachable());
    let at = match (reachable.own_elsewhere(), &job.rendezvous) {
        // It is told others as it is: of that address nobody else's word counts.
        (Some(own), _) => Rendezvous::network(&own.to_string(), 0)?,
        // Rank 0, or on its host: what reaches the rendezvous reaches this.
        (None, Rendezvous::Network { host, .. }) => Rendezvous::network(host, 0)?,
        (None, _) => return Ok(None),
    };
    let subnet = match reachable.own_elsewhere() {
        Some(_) => None,
        None => job.subnet.as_ref(),
    };
    let listener = Listener::open(&at, subnet, Instant::now() + job.timeout)?;
    let port = match listener.found_at(&at)? {
        Rendezvous::Network { port, .. } => Some(port),
        _ => None,
    };
    Ok(Some((listener, Place { reachable, port })))
}
