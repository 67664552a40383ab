//! What `torchrun` sets, and whoever starts ranks by hand as torch's manual says. `MASTER_PORT` is the port of torch's
//! own store: nothing of Sapwood's may listen there.

use super::super::BootstrapError;
use super::placement::{Launcher, Meeting, Names, Placement, derived_port, socket_name};
use super::variables::{Variables, number, refuse};

const NAMES: Names = Names {
    rank: "RANK",
    size: "WORLD_SIZE",
    local_rank: "LOCAL_RANK",
    local_size: "LOCAL_WORLD_SIZE",
};
const ADDRESS: &str = "MASTER_ADDR";
const PORT: &str = "MASTER_PORT";
/// The same for all ranks of a job; "none" where nobody has named it.
const RUN: &str = "TORCHELASTIC_RUN_ID";
/// How often torchrun has started the ranks anew.
const RESTARTS: &str = "TORCHELASTIC_RESTART_COUNT";

pub(super) fn read(variables: &Variables<'_>) -> Result<Option<Placement>, BootstrapError> {
    let Some(mut placement) = Placement::read(Launcher::Torchrun, NAMES, variables)? else {
        return Ok(None);
    };
    let address = variables.filled(ADDRESS)?;
    let port_text = variables.filled(PORT)?;
    let port = match &port_text {
        None => None,
        Some(text) => match number(PORT, text, "a port, from 1 to 65535")? {
            port @ 1..=65535 => Some(port),
            _ => return Err(refuse(PORT, text, "it must be a port, from 1 to 65535")),
        },
    };
    let here = |address: &str| {
        address == "localhost"
            || address
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    };
    let one_host =
        placement.is_on_one_host() || placement.local_size.is_none() && address.as_deref().is_some_and(here);
    placement.meeting = match (address, port) {
        (_, Some(port)) if one_host => {
            let run = variables.filled(RUN)?.unwrap_or_default();
            let restarts = variables.filled(RESTARTS)?.unwrap_or_default();
            Meeting::OneHost(socket_name("torchrun", &[&run, &port.to_string(), &restarts])?)
        }
        (Some(host), Some(port)) => Meeting::Network {
            host,
            port: derived_port(port.into()),
        },
        (None, Some(_)) => Meeting::Unknown {
            missing: ADDRESS,
            hint: "the host that rank 0 is on",
        },
        (_, None) => Meeting::Unknown {
            missing: PORT,
            hint: "a port, from which Sapwood derives its own",
        },
    };
    Ok(Some(placement))
}
