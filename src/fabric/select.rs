//! Which fabric a job uses, from what was asked for and from who is on which host. Decides and opens; whoever uses the
//! fabric then asks for its capabilities only.
//!
//! How a communicator uses it, between the rendezvous and the first registration:
//!
//! ```no_run
//! use sapwood::fabric::select::{self, Choice};
//!
//! let choice = Choice::from_environment()?; // SAPWOOD_FABRIC, or what the builder was told
//! let hosts = [0, 0, 1, 1]; // membership.hosts(): one number per rank, equal on one host
//! let devices = match select::depends_on_devices(choice, &hosts) {
//!     true => vec![select::has_device(); 4], // every rank's answer, by rank
//!     false => Vec::new(),
//! };
//! let rank = 2; // membership.rank()
//! let local_rank = select::local_rank(&hosts, rank);
//! let selected = select::open(choice, &hosts, &devices, rank, local_rank)?;
//! let endpoint = selected.fabric.endpoint(rank, 0)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The decision follows from the choice, the list of hosts and the list of devices alone, so that all ranks, which have
//! the same, come to the same one: their fabrics have the same capabilities and understand each other's parcels.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::mixed::Mixed;
use super::shm::Shm;
use super::tcp::{self, Tcp};
use super::verbs::{Settings, Verbs, choose, inventory};
use super::{Fabric, FabricError, Rank};

/// The environment's name for a [`Choice`].
pub const VARIABLE: &str = "SAPWOOD_FABRIC";

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Shared memory inside a host; across hosts verbs where every rank has a device, else tcp.
    #[default]
    Auto,
    /// Shared memory for every pair; all ranks are on one host.
    Shm,
    /// Verbs for every pair, also inside a host.
    Verbs,
    /// Sockets for every pair, also inside a host.
    Tcp,
}

impl Choice {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Shm, Self::Verbs, Self::Tcp];

    /// What [`VARIABLE`] says; [`Choice::Auto`] if it is not set or empty.
    ///
    /// # Errors
    /// It says something else.
    pub fn from_environment() -> Result<Self, ChoiceError> {
        match std::env::var_os(VARIABLE) {
            Some(text) if !text.is_empty() => text.to_string_lossy().parse(),
            _ => Ok(Self::Auto),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Auto => "auto",
            Self::Shm => "shm",
            Self::Verbs => "verbs",
            Self::Tcp => "tcp",
        })
    }
}

/// No fabric has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// Says that it has.
    #[error("there is no fabric \"{0}\": choose auto, shm, verbs or tcp")]
    Unknown(String),
}

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        let known = Self::ALL.into_iter().find(|choice| choice.to_string() == text);
        known.ok_or_else(|| ChoiceError::Unknown(text.to_owned()))
    }
}

/// Why the fabric that is needed cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// Shared memory was asked for across hosts.
    #[error(
        "fabric shm reaches ranks of one host only, but {placement}: leave the choice to auto, choose verbs or tcp, or \
         start all ranks on one host"
    )]
    SeveralHosts {
        /// Which ranks are where.
        placement: String,
    },
    /// A fabric is needed and cannot be opened.
    #[error("{need}, but it cannot be opened: {source}{}", or(.otherwise))]
    Closed {
        /// Which.
        fabric: &'static str,
        /// Why it is needed.
        need: String,
        /// What stands against it, and what mends that.
        source: Box<FabricError>,
        /// What could be done instead.
        otherwise: &'static str,
    },
}

fn or(otherwise: &str) -> String {
    if otherwise.is_empty() {
        String::new()
    } else {
        format!(". Or {otherwise}")
    }
}

impl From<SelectError> for FabricError {
    fn from(error: SelectError) -> Self {
        let fabric = match error {
            SelectError::SeveralHosts { .. } => "shm",
            SelectError::Closed { fabric, .. } => fabric,
        };
        FabricError::Provider {
            fabric,
            source: Box::new(error),
        }
    }
}

/// A fabric for one rank of a job.
#[derive(Clone, Debug)]
pub struct Selected {
    /// To be used for all ranks.
    pub fabric: Arc<dyn Fabric>,
    /// What was chosen and why, in a sentence.
    pub why: String,
}

/// Which of the ranks of its host a rank is, from 0.
///
/// # Panics
/// If there is no such rank.
pub fn local_rank(hosts: &[u32], rank: Rank) -> usize {
    let before = &hosts[..rank as usize];
    before
        .iter()
        .filter(|host| **host == hosts[rank as usize])
        .count()
}

/// Whether what is chosen depends on who has a device: then each rank says whether it has, and all are told.
pub fn depends_on_devices(choice: Choice, hosts: &[u32]) -> bool {
    choice == Choice::Auto && are_several(hosts)
}

/// Whether this rank could use verbs. What stands against it is said in the log.
pub fn has_device() -> bool {
    let usable = || -> Result<(), Box<dyn std::error::Error>> {
        choose(&inventory()?, &Settings::from_environment()?)?;
        Ok(())
    };
    match usable() {
        Ok(()) => true,
        Err(error) => {
            tracing::info!(%error, "no RDMA device can be used");
            false
        }
    }
}

/// How the fabrics of a network are opened; tests have others.
struct Openers<'a> {
    /// With queues that hold no more than it is told.
    verbs: &'a dyn Fn(usize) -> Result<Arc<dyn Fabric>, FabricError>,
    tcp: &'a dyn Fn() -> Result<Arc<dyn Fabric>, FabricError>,
}

/// Opens the fabric for `rank` of a job whose ranks are on these hosts: one number per rank, equal on one host.
/// `devices`: what each rank said ([`has_device`]), where the choice depends on it ([`depends_on_devices`]).
/// `local_rank` spreads the ranks of a host over its devices ([`local_rank`]).
///
/// # Errors
/// [`SelectError`], as the source of a [`FabricError::Provider`]; what opening shared memory refuses.
///
/// # Panics
/// If there is no such rank, or if devices are depended on and not one is given for each rank.
pub fn open(
    choice: Choice,
    hosts: &[u32],
    devices: &[bool],
    rank: Rank,
    local_rank: usize,
) -> Result<Selected, FabricError> {
    let verbs = |most: usize| -> Result<Arc<dyn Fabric>, FabricError> {
        let mut settings = Settings::from_environment()?;
        settings.local_rank = local_rank;
        settings.queue_depth = settings.queue_depth.min(most);
        Ok(Arc::new(Verbs::open(&settings)?))
    };
    let tcp = || -> Result<Arc<dyn Fabric>, FabricError> {
        Ok(Arc::new(Tcp::open(tcp::Settings::from_environment()?)?))
    };
    let openers = Openers {
        verbs: &verbs,
        tcp: &tcp,
    };
    open_with(choice, hosts, devices, rank, &openers)
}

/// What a job of this shape uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Shm,
    /// For every pair.
    Network(Network),
    /// Across hosts, and shared memory inside.
    Mixed(Network),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Verbs,
    Tcp,
}

impl Network {
    fn name(self) -> &'static str {
        match self {
            Self::Verbs => "verbs",
            Self::Tcp => "tcp",
        }
    }
}

fn are_several(hosts: &[u32]) -> bool {
    hosts.iter().any(|host| *host != hosts[0])
}

fn decide(choice: Choice, hosts: &[u32], devices: &[bool]) -> Result<Decision, SelectError> {
    let several = are_several(hosts);
    let shared = || (1..hosts.len()).any(|rank| hosts[..rank].contains(&hosts[rank]));
    let network = || {
        assert_eq!(
            devices.len(),
            hosts.len(),
            "every rank says whether it has a device"
        );
        if devices.iter().all(|has| *has) {
            Network::Verbs
        } else {
            Network::Tcp
        }
    };
    match choice {
        Choice::Shm if several => Err(SelectError::SeveralHosts {
            placement: placement(hosts),
        }),
        Choice::Shm => Ok(Decision::Shm),
        Choice::Verbs => Ok(Decision::Network(Network::Verbs)),
        Choice::Tcp => Ok(Decision::Network(Network::Tcp)),
        Choice::Auto if !several => Ok(Decision::Shm),
        Choice::Auto if shared() => Ok(Decision::Mixed(network())),
        Choice::Auto => Ok(Decision::Network(network())),
    }
}

fn open_with(
    choice: Choice,
    hosts: &[u32],
    devices: &[bool],
    rank: Rank,
    openers: &Openers<'_>,
) -> Result<Selected, FabricError> {
    assert!(
        (rank as usize) < hosts.len(),
        "rank {rank} is not one of {}",
        hosts.len()
    );
    let decision = decide(choice, hosts, devices)?;
    let count = hosts
        .iter()
        .enumerate()
        .filter(|(rank, host)| !hosts[..*rank].contains(host))
        .count();
    let over = |network: Network, most, need: String, otherwise| {
        let opened = match network {
            Network::Verbs => (openers.verbs)(most),
            Network::Tcp => (openers.tcp)(),
        };
        opened.map_err(|source| {
            FabricError::from(SelectError::Closed {
                fabric: network.name(),
                need,
                source: Box::new(source),
                otherwise,
            })
        })
    };
    let across = |network: Network| {
        format!(
            "{}: across hosts fabric {} is needed",
            placement(hosts),
            network.name()
        )
    };
    let elsewhere = "start all ranks on one host, where shared memory serves";
    let without = devices.iter().position(|has| !has);
    let because = |network| match (network, without) {
        (Network::Tcp, Some(rank)) => format!("; rank {rank} has no RDMA device that could be used"),
        _ => String::new(),
    };
    let ranks = hosts.len();
    let (fabric, why): (Arc<dyn Fabric>, String) = match (decision, choice) {
        (Decision::Shm, Choice::Shm) => (Arc::new(Shm::new()?), "shm: it was asked for".into()),
        (Decision::Shm, _) => {
            let who = if ranks == 1 {
                "the only rank is".to_owned()
            } else {
                format!("all {ranks} ranks are")
            };
            (Arc::new(Shm::new()?), format!("shm: {who} on one host"))
        }
        (Decision::Network(network), Choice::Auto) => {
            let fabric = over(network, usize::MAX, across(network), elsewhere)?;
            let why = format!(
                "{}: each of the {ranks} ranks is on a host of its own{}",
                network.name(),
                because(network)
            );
            (fabric, why)
        }
        (Decision::Network(network), _) => {
            let name = network.name();
            let fabric = over(
                network,
                usize::MAX,
                format!("fabric {name} was asked for"),
                "leave the choice to auto",
            )?;
            (fabric, format!("{name} for every pair: it was asked for"))
        }
        (Decision::Mixed(network), _) => {
            let near = Arc::new(Shm::options().without_reach().pollable().open()?);
            // More than what every pair holds nobody can use, and a queue that is full is noticed alike on both.
            let far = over(
                network,
                near.capabilities().queue_depth,
                across(network),
                elsewhere,
            )?;
            let own = hosts[rank as usize];
            let mates = (0..)
                .zip(hosts)
                .filter(|(_, host)| **host == own)
                .map(|(rank, _)| rank);
            let why = format!(
                "shm inside a host, {} across: {ranks} ranks are on {count} hosts{}",
                network.name(),
                because(network)
            );
            (Arc::new(Mixed::new(near, far, mates)), why)
        }
    };
    tracing::info!(rank, %choice, "fabric {why}");
    Ok(Selected { fabric, why })
}

/// Which ranks are on which host, for people: the first few hosts.
fn placement(hosts: &[u32]) -> String {
    const MOST: usize = 4;
    let mut order: Vec<u32> = Vec::new();
    for host in hosts {
        if !order.contains(host) {
            order.push(*host);
        }
    }
    let of_host = |host: &u32| {
        let ranks: Vec<Rank> = (0..)
            .zip(hosts)
            .filter(|(_, other)| *other == host)
            .map(|(rank, _)| rank)
            .collect();
        let runs = ranks.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
            [one] => one.to_string(),
            _ => format!("{}-{}", run[0], run[run.len() - 1]),
        });
        let runs: Vec<String> = runs.collect();
        let word = if ranks.len() == 1 { "rank" } else { "ranks" };
        format!("{word} {}", runs.join(", "))
    };
    let mut groups: Vec<String> = order.iter().take(MOST).map(of_host).collect();
    if order.len() > MOST {
        groups.push(format!("others on {} more", order.len() - MOST));
    }
    format!("the ranks are on {} hosts ({})", order.len(), groups.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_device(_: usize) -> Result<Arc<dyn Fabric>, FabricError> {
        Err(FabricError::System {
            fabric: "verbs",
            what: "looking for RDMA devices".into(),
            source: std::io::Error::other("there is none"),
        })
    }

    /// In the place of devices.
    fn a_network(_: usize) -> Result<Arc<dyn Fabric>, FabricError> {
        Ok(Arc::new(Shm::options().without_reach().pollable().open()?))
    }

    fn opened(choice: Choice, hosts: &[u32], devices: &[bool], rank: Rank) -> Selected {
        let openers = Openers {
            verbs: &a_network,
            tcp: &|| a_network(0),
        };
        open_with(choice, hosts, devices, rank, &openers).unwrap()
    }

    fn refusal(choice: Choice, hosts: &[u32]) -> String {
        let openers = Openers {
            verbs: &no_device,
            tcp: &|| no_device(0),
        };
        let devices = vec![true; hosts.len()];
        open_with(choice, hosts, &devices, 0, &openers)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn names_are_read_and_others_refused_in_words() {
        for choice in Choice::ALL {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        let said = |text: &str| text.parse::<Choice>().unwrap_err().to_string();
        assert!(said("infiniband").contains("auto, shm, verbs or tcp") && said("").contains("auto"));
    }

    #[test]
    fn hosts_decide() {
        let one = opened(Choice::Auto, &[3, 3, 3], &[], 1);
        assert_eq!(
            (one.fabric.name(), one.fabric.capabilities().load_store),
            ("shm", true)
        );
        assert_eq!(one.why, "shm: all 3 ranks are on one host");
        let two = opened(Choice::Auto, &[0, 0, 1, 1], &[true; 4], 1);
        assert_eq!(two.fabric.name(), "mixed");
        assert_eq!(two.why, "shm inside a host, verbs across: 4 ranks are on 2 hosts");
        let own = opened(Choice::Auto, &[0, 1, 2], &[true; 3], 1);
        assert!(
            own.why.starts_with("verbs") && own.why.contains("host of its own"),
            "{}",
            own.why
        );
        assert!(
            opened(Choice::Verbs, &[0, 0], &[], 1)
                .why
                .contains("verbs for every pair")
        );
        assert!(
            opened(Choice::Tcp, &[0, 1], &[], 1)
                .why
                .contains("tcp for every pair")
        );
        // All ranks decide alike, whether or not they share a host.
        assert_eq!(
            opened(Choice::Auto, &[0, 0, 1], &[true; 3], 2).fabric.name(),
            "mixed"
        );
    }

    #[test]
    fn one_rank_without_a_device_is_enough_for_tcp() {
        let two = opened(Choice::Auto, &[0, 0, 1, 1], &[true, true, false, true], 1);
        assert_eq!(
            two.why,
            "shm inside a host, tcp across: 4 ranks are on 2 hosts; rank 2 has no RDMA device that could be used"
        );
        let own = opened(Choice::Auto, &[0, 1], &[false, false], 1);
        assert!(
            own.why.starts_with("tcp: each") && own.why.contains("rank 0 has no"),
            "{}",
            own.why
        );
        assert!(depends_on_devices(Choice::Auto, &[0, 1]));
        for (choice, hosts) in [
            (Choice::Auto, [4, 4]),
            (Choice::Verbs, [0, 1]),
            (Choice::Tcp, [0, 1]),
        ] {
            assert!(!depends_on_devices(choice, &hosts));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let across = refusal(Choice::Auto, &[0, 0, 1, 0]);
        for part in [
            "ranks 0-1, 3",
            "rank 2",
            "2 hosts",
            "across hosts",
            "there is none",
            "on one host",
        ] {
            assert!(across.contains(part), "{part}: {across}");
        }
        let forced = refusal(Choice::Verbs, &[0, 0]);
        assert!(
            forced.contains("asked for") && forced.contains("there is none"),
            "{forced}"
        );
        let shm = refusal(Choice::Shm, &[0, 0, 0, 1, 1]);
        assert!(
            shm.contains("ranks 0-2; ranks 3-4") && shm.contains("verbs"),
            "{shm}"
        );
        let many: Vec<u32> = (0..200).collect();
        assert!(refusal(Choice::Shm, &many).contains("others on 196 more"));
    }

    #[test]
    fn local_ranks_count_within_a_host() {
        let hosts = [4, 4, 7, 4, 7];
        let found: Vec<usize> = (0..5).map(|rank| local_rank(&hosts, rank)).collect();
        assert_eq!(found, [0, 1, 0, 2, 1]);
    }
}
