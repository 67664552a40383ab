//! A job within a job: some of its ranks meet anew among themselves, at a place and with a secret that only the job's
//! members can know.
//!
//! What comes of it is a membership like any other, with connections, a roll and witnesses of its own, so that the two
//! share nothing. The secret is derived from the job's on every rank, and never sent (invariant 9). Nothing in here
//! may wait for a rank of which the job knows that it is gone.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::membership::Meeting;
use super::near::of_job;
use super::progress::Watch;
use super::{BootstrapError, DepartureKind, Job, Membership, Rank, Rendezvous, Secret, noise};

/// Bytes of a derived name, of which each takes two letters.
const NAME_BYTES: usize = 16;

/// At which addresses other hosts reach a rank's host, as far as that rank knows. For [`Membership::open_part`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reachable {
    /// Its own, from which it speaks to rank 0.
    own: Option<IpAddr>,
    /// Rank 0's, to which it speaks.
    root: Option<IpAddr>,
}

impl Reachable {
    /// Its own address, unless that leads other hosts to themselves: a rank on rank 0's host may speak to it so.
    pub(super) fn own_elsewhere(&self) -> Option<IpAddr> {
        self.own.filter(|own| !own.is_loopback())
    }

    /// At which address all of these reach this one's host.
    pub(super) fn seen_by<'a>(&self, all: impl Iterator<Item = &'a Self> + Clone) -> Option<IpAddr> {
        // Nobody but the others can say how rank 0's host is reached: it may listen at every address. Who speaks to it
        // by a loopback address is on it, too.
        let mut seen = all.clone().filter_map(|one| one.root);
        let elsewhere = || seen.find(|root| !root.is_loopback());
        let known = self.own_elsewhere().or_else(elsewhere).or(self.own);
        known.or_else(|| all.clone().find_map(|one| one.root))
    }
}

/// Where the ranks of a part meet, as the first of them tells the others. There is no secret in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Invitation {
    rendezvous: String,
    salt: u128,
}

/// Some of a job's ranks, about to meet as a job of their own. See [`Membership::open_part`].
#[derive(Debug)]
pub struct Part<'job> {
    whole: &'job Membership,
    /// The job's ranks, by their ranks in the part.
    ranks: Vec<Rank>,
    job: Job,
}

impl Membership {
    /// What others need to know if they are to meet at this rank's host.
    pub fn reachable(&self) -> Reachable {
        match &self.meeting {
            Meeting::OneHost(_) => Reachable::default(),
            Meeting::Network(star) => {
                let (own, root) = star.addresses();
                Reachable { own, root }
            }
        }
    }

    /// Opens the place where `ranks`, of which this one is the first, meet as a job of their own; the others must be
    /// given the invitation. `reachable` is what every rank of the job says of itself, by rank.
    ///
    /// # Errors
    /// [`BootstrapError::InvalidJob`] for ranks that cannot be a part; what opening a rendezvous refuses.
    pub fn open_part(
        &self,
        ranks: &[Rank],
        reachable: &[Reachable],
    ) -> Result<(Part<'_>, Invitation), BootstrapError> {
        let mut salt = [0; 16];
        noise::fill_random(&mut salt)?;
        let salt = u128::from_le_bytes(salt);
        let rendezvous = self.place_of_part(ranks, reachable, salt)?;
        let mut part = self.part(ranks, rendezvous, "the secret of a part", salt, 0)?;
        if ranks.len() > 1 {
            part.job.open()?;
        }
        let rendezvous = part.job.rendezvous.to_string();
        Ok((part, Invitation { rendezvous, salt }))
    }

    /// This rank's place among `ranks`, whose first has opened where they meet.
    ///
    /// # Errors
    /// [`BootstrapError::InvalidJob`] for ranks that cannot be a part, or an invitation that cannot be read.
    pub fn invited(&self, ranks: &[Rank], invitation: &Invitation) -> Result<Part<'_>, BootstrapError> {
        let place = invitation.rendezvous.parse().map_err(|problem| {
            BootstrapError::InvalidJob(format!("an invitation to {:?}: {problem}", invitation.rendezvous))
        })?;
        self.part(ranks, place, "the secret of a part", invitation.salt, 0)
    }

    /// The part of these ranks, at a place of theirs.
    pub(super) fn part(
        &self,
        ranks: &[Rank],
        rendezvous: Rendezvous,
        purpose: &str,
        salt: u128,
        number: u32,
    ) -> Result<Part<'_>, BootstrapError> {
        let odd = |what: String| BootstrapError::InvalidJob(format!("a part of the job {what}"));
        let known = |rank: &Rank| *rank < self.size();
        let twice = ranks
            .iter()
            .enumerate()
            .any(|(at, rank)| ranks[..at].contains(rank));
        if !ranks.iter().all(known) || twice {
            return Err(odd(format!("cannot consist of {ranks:?}")));
        }
        let own = ranks.iter().position(|rank| *rank == self.rank());
        let own = own.ok_or_else(|| odd(format!("without rank {} is none of its business", self.rank())))?;
        let secret = noise::derive(&self.job.secret, purpose, salt, number)?;
        let mut job = self.job.part(own as Rank, ranks.len() as u32);
        job.rendezvous = rendezvous;
        job.secret = Secret::from_bytes(secret.to_vec())?;
        Ok(Part {
            whole: self,
            ranks: ranks.to_vec(),
            job,
        })
    }

    /// A place that a part's first rank can open and all of its ranks can reach.
    fn place_of_part(
        &self,
        ranks: &[Rank],
        reachable: &[Reachable],
        salt: u128,
    ) -> Result<Rendezvous, BootstrapError> {
        let one_host = ranks
            .iter()
            .all(|rank| self.host(*rank) == self.host(self.rank()));
        match &self.meeting {
            Meeting::Network(_) if !one_host => {
                let own = reachable.get(self.rank() as usize);
                let seen = own.and_then(|own| own.seen_by(reachable.iter()));
                let address = seen.ok_or_else(|| {
                    BootstrapError::InvalidJob(
                        "no rank knows at which address this rank's host can be reached".into(),
                    )
                })?;
                Rendezvous::network(&address.to_string(), 0)
            }
            _ => self.local_place("the name of a part", salt, 0),
        }
    }

    /// A Unix socket that this host's ranks of the job can reach, and nobody can guess who is not of the job.
    pub(super) fn local_place(
        &self,
        purpose: &str,
        salt: u128,
        number: u32,
    ) -> Result<Rendezvous, BootstrapError> {
        let name = noise::derive(&self.job.secret, purpose, salt, number)?;
        let name: String = name[..NAME_BYTES]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(match &self.job.rendezvous {
            // They may share the folder and not the name space of abstract sockets.
            Rendezvous::Path(path) => Rendezvous::Path(beside(path.clone(), &name)),
            _ => Rendezvous::Abstract(format!("sapwood-part-{name}")),
        })
    }
}

/// A path in the same folder, as short as can be: a socket's name has few bytes.
fn beside(path: PathBuf, name: &str) -> PathBuf {
    path.with_file_name(format!(".{}", &name[..12]))
}

impl Part<'_> {
    /// The job's ranks, by their ranks in the part.
    pub fn ranks(&self) -> &[Rank] {
        &self.ranks
    }

    pub(super) fn whole(&self) -> &Membership {
        self.whole
    }

    /// This rank is the first, and has opened the place before.
    pub(super) fn take_place(&mut self, opened: Job) {
        self.job = self.job.clone().at(opened);
    }

    /// Meets the part's other ranks.
    ///
    /// # Errors
    /// As [`Membership::join`]; a rank of the part that is gone ends it at once. Errors speak of the job's ranks.
    pub fn join(&self, deadline: Instant) -> Result<Membership, BootstrapError> {
        self.join_while(deadline, || match self.whole.is_interrupted() {
            false => Ok(()),
            true => Err(BootstrapError::Interrupted {
                step: "joining".into(),
            }),
        })
    }

    /// [`Self::join`], as long as `still` says so.
    pub(super) fn join_while(
        &self,
        deadline: Instant,
        mut still: impl FnMut() -> Result<(), BootstrapError>,
    ) -> Result<Membership, BootstrapError> {
        let mut still = || {
            still()?;
            match self.gone() {
                None => Ok(()),
                Some((rank, how)) => Err(BootstrapError::Departed {
                    rank,
                    how,
                    step: String::new(),
                }),
            }
        };
        // What `still` says is in the job's ranks already, what the join says is not.
        let mut ended = None;
        let mut watched = || {
            still().inspect_err(|error| {
                ended = Some(error.clone());
            })
        };
        let mut watch = Watch {
            tell: &mut |_| {},
            still: Some(&mut watched),
        };
        let met = Membership::meet(&self.job, deadline, &mut watch);
        met.map_err(|error| match ended {
            Some(ended) if ended == error => error,
            _ => of_job(error, &self.ranks),
        })
    }

    /// A rank of the part that cannot come any more: who has given up on a step of the job still can.
    pub(super) fn gone(&self) -> Option<(Rank, DepartureKind)> {
        let mut gone = self.whole.ended().into_iter();
        gone.find(|(rank, _)| self.ranks.contains(rank))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_host_is_led_to_itself() {
        let reachable = |own: Option<&str>, root: Option<&str>| Reachable {
            own: own.map(|own| own.parse().unwrap()),
            root: root.map(|root| root.parse().unwrap()),
        };
        let address = |all: &[Reachable], of: usize| all[of].seen_by(all.iter()).map(|ip| ip.to_string());
        // Rank 1 shares a host with rank 0, whose name means a loopback address there; ranks 2 and 3 are elsewhere.
        let two_hosts = [
            reachable(None, None),
            reachable(Some("127.0.0.1"), Some("127.0.1.1")),
            reachable(Some("192.0.2.7"), Some("192.0.2.1")),
            reachable(Some("192.0.2.8"), Some("192.0.2.1")),
        ];
        let first = Some("192.0.2.1".to_owned());
        assert_eq!([0, 1].map(|of| address(&two_hosts, of)), [first.clone(), first]);
        assert_eq!(address(&two_hosts, 2).as_deref(), Some("192.0.2.7"));
        // All on one host, which some say is several.
        let one_host = [
            reachable(None, None),
            reachable(Some("127.0.0.1"), Some("127.0.0.1")),
        ];
        assert_eq!(address(&one_host, 0).as_deref(), Some("127.0.0.1"));
        assert_eq!(address(&one_host, 1).as_deref(), Some("127.0.0.1"));
        assert_eq!(address(&[reachable(None, None)], 0), None);
    }
}
