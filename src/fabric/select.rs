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
//! let rank = 2; // membership.rank()
//! let local_rank = select::local_rank(&hosts, rank);
//! let selected = select::open(choice, &hosts, rank, local_rank)?;
//! let endpoint = selected.fabric.endpoint(rank, 0)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The decision follows from the choice and the list of hosts alone, so that all ranks, which have the same, come to
//! the same one: their fabrics have the same capabilities and understand each other's parcels.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::mixed::Mixed;
use super::shm::Shm;
use super::verbs::{Settings, Verbs};
use super::{Fabric, FabricError, Rank};

/// The environment's name for a [`Choice`].
pub const VARIABLE: &str = "SAPWOOD_FABRIC";

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Shared memory inside a host, verbs across hosts.
    #[default]
    Auto,
    /// Shared memory for every pair; all ranks are on one host.
    Shm,
    /// Verbs for every pair, also inside a host.
    Verbs,
}

impl Choice {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Shm, Self::Verbs];

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
        })
    }
}

/// No fabric has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// A fabric that is planned.
    #[error(
        "fabric tcp is not built yet: choose auto, shm (all ranks on one host) or verbs (RDMA devices; soft-RoCE, \
         `rdma link add rxe0 type rxe netdev eth0`, makes one of any network card)"
    )]
    Tcp,
    /// Anything else.
    #[error("there is no fabric \"{0}\": choose auto, shm or verbs")]
    Unknown(String),
}

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        let known = Self::ALL.into_iter().find(|choice| choice.to_string() == text);
        match (known, text) {
            (Some(choice), _) => Ok(choice),
            (None, "tcp") => Err(ChoiceError::Tcp),
            (None, _) => Err(ChoiceError::Unknown(text.to_owned())),
        }
    }
}

/// Why the fabric that is needed cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// Shared memory was asked for across hosts.
    #[error(
        "fabric shm reaches ranks of one host only, but {placement}: leave the choice to auto, choose verbs, or start \
         all ranks on one host"
    )]
    SeveralHosts {
        /// Which ranks are where.
        placement: String,
    },
    /// Verbs are needed and cannot be opened.
    #[error("{need}, but it cannot be opened: {source}{}", or(.otherwise))]
    Verbs {
        /// Why they are needed.
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
            SelectError::Verbs { .. } => "verbs",
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

/// Opens the fabric for `rank` of a job whose ranks are on these hosts: one number per rank, equal on one host.
/// `local_rank` spreads the ranks of a host over its devices ([`local_rank`]).
///
/// # Errors
/// [`SelectError`], as the source of a [`FabricError::Provider`]; what opening shared memory refuses.
///
/// # Panics
/// If there is no such rank.
pub fn open(choice: Choice, hosts: &[u32], rank: Rank, local_rank: usize) -> Result<Selected, FabricError> {
    let verbs = |most: usize| -> Result<Arc<dyn Fabric>, FabricError> {
        let mut settings = Settings::from_environment()?;
        settings.local_rank = local_rank;
        settings.queue_depth = settings.queue_depth.min(most);
        Ok(Arc::new(Verbs::open(&settings)?))
    };
    open_with(choice, hosts, rank, &verbs)
}

/// What a job of this shape uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Shm,
    Verbs,
    Mixed,
}

fn decide(choice: Choice, hosts: &[u32]) -> Result<Decision, SelectError> {
    let several = hosts.iter().any(|host| *host != hosts[0]);
    let shared = || (1..hosts.len()).any(|rank| hosts[..rank].contains(&hosts[rank]));
    match choice {
        Choice::Shm if several => Err(SelectError::SeveralHosts {
            placement: placement(hosts),
        }),
        Choice::Shm => Ok(Decision::Shm),
        Choice::Verbs => Ok(Decision::Verbs),
        Choice::Auto if !several => Ok(Decision::Shm),
        Choice::Auto if shared() => Ok(Decision::Mixed),
        Choice::Auto => Ok(Decision::Verbs),
    }
}

/// `verbs` opens that fabric, with queues that hold no more than it is told.
fn open_with(
    choice: Choice,
    hosts: &[u32],
    rank: Rank,
    verbs: &dyn Fn(usize) -> Result<Arc<dyn Fabric>, FabricError>,
) -> Result<Selected, FabricError> {
    assert!(
        (rank as usize) < hosts.len(),
        "rank {rank} is not one of {}",
        hosts.len()
    );
    let decision = decide(choice, hosts)?;
    let count = hosts
        .iter()
        .enumerate()
        .filter(|(rank, host)| !hosts[..*rank].contains(host))
        .count();
    let over_verbs = |most, need: &str, otherwise| {
        verbs(most).map_err(|source| {
            FabricError::from(SelectError::Verbs {
                need: need.to_owned(),
                source: Box::new(source),
                otherwise,
            })
        })
    };
    let across = || format!("{}: across hosts fabric verbs is needed", placement(hosts));
    let elsewhere = "start all ranks on one host, where shared memory serves";
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
        (Decision::Verbs, Choice::Verbs) => {
            let fabric = over_verbs(
                usize::MAX,
                "fabric verbs was asked for",
                "choose auto or shm, if all ranks are on one host",
            )?;
            (fabric, "verbs for every pair: it was asked for".into())
        }
        (Decision::Verbs, _) => {
            let fabric = over_verbs(usize::MAX, &across(), elsewhere)?;
            (
                fabric,
                format!("verbs: each of the {ranks} ranks is on a host of its own"),
            )
        }
        (Decision::Mixed, _) => {
            let near = Arc::new(Shm::options().without_reach().pollable().open()?);
            // More than what every pair holds nobody can use, and a queue that is full is noticed alike on both.
            let far = over_verbs(near.capabilities().queue_depth, &across(), elsewhere)?;
            let own = hosts[rank as usize];
            let mates = (0..)
                .zip(hosts)
                .filter(|(_, host)| **host == own)
                .map(|(rank, _)| rank);
            let why = format!("shm inside a host, verbs across: {ranks} ranks are on {count} hosts");
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

    fn refusal(choice: Choice, hosts: &[u32]) -> String {
        open_with(choice, hosts, 0, &no_device).unwrap_err().to_string()
    }

    #[test]
    fn names_are_read_and_others_refused_in_words() {
        for choice in Choice::ALL {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        let said = |text: &str| text.parse::<Choice>().unwrap_err().to_string();
        assert!(said("infiniband").contains("auto, shm or verbs") && said("").contains("auto"));
        assert!(said("tcp").contains("not built yet"), "{}", said("tcp"));
    }

    #[test]
    fn hosts_decide() {
        let opened = |choice, hosts: &[u32]| open_with(choice, hosts, 1, &a_network).unwrap();
        let one = opened(Choice::Auto, &[3, 3, 3]);
        assert_eq!(
            (one.fabric.name(), one.fabric.capabilities().load_store),
            ("shm", true)
        );
        assert_eq!(one.why, "shm: all 3 ranks are on one host");
        let two = opened(Choice::Auto, &[0, 0, 1, 1]);
        assert_eq!(two.fabric.name(), "mixed");
        assert!(two.why.contains("4 ranks are on 2 hosts"), "{}", two.why);
        assert!(opened(Choice::Auto, &[0, 1, 2]).why.contains("host of its own"));
        assert!(opened(Choice::Verbs, &[0, 0]).why.contains("every pair"));
        // All ranks decide alike, whether or not they share a host.
        assert_eq!(
            open_with(Choice::Auto, &[0, 0, 1], 2, &a_network)
                .unwrap()
                .fabric
                .name(),
            "mixed"
        );
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
