//! The ranks of one host, of a job that meets over the network: they meet at an abstract Unix socket besides, which
//! carries descriptors and tells of each other's processes.
//!
//! Its name and its secret are made of the job's secret and of what rank 0 drew at random for this job, so that nobody
//! else can know either. In there they are a job of their own, with ranks of its own; everything that leaves this
//! module speaks of the whole job's.

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::message::Peer;
use super::progress::Watch;
use super::{
    BootstrapError, Departure, DepartureKind, Job, Membership, Rank, Rendezvous, Secret, host, noise,
};

/// This rank among those of its host.
pub(super) struct Near {
    membership: Box<Membership>,
    /// The whole job's ranks, ascending.
    ranks: Vec<Rank>,
}

impl Near {
    /// Meets the host's other ranks; `None` if there are none. `watch` can end the wait.
    pub(super) fn meet(
        job: &Job,
        peers: &[Peer],
        salt: u128,
        deadline: Instant,
        watch: &mut Watch<'_>,
    ) -> Result<Option<Self>, BootstrapError> {
        let hosts = host::numbered(peers.iter().map(|peer| &peer.host));
        let host = hosts[job.rank as usize];
        let ranks: Vec<Rank> = (0..)
            .zip(&hosts)
            .filter(|(_, other)| **other == host)
            .map(|(rank, _)| rank)
            .collect();
        if ranks.len() < 2 {
            return Ok(None);
        }
        let own = ranks.iter().position(|rank| *rank == job.rank).unwrap_or(0) as Rank;
        let derive = |what| noise::derive(&job.secret, what, salt, host);
        let name = derive("the name of a host's socket")?;
        let name: String = name[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let rendezvous = Rendezvous::Abstract(format!("sapwood-host-{name}"));
        let secret = Secret::from_bytes(derive("the secret of a host")?.to_vec())?;
        let near = Job::new(own, ranks.len() as u32, own, rendezvous, secret)?;
        let membership = Membership::meet(&near, deadline, watch).map_err(|error| of_job(error, &ranks))?;
        Ok(Some(Self {
            membership: Box::new(membership),
            ranks,
        }))
    }

    /// The whole job's ranks on this host.
    pub(super) fn ranks(&self) -> &[Rank] {
        &self.ranks
    }

    /// Every host-mate's descriptors, this rank's own included.
    pub(super) fn all_gather(
        &self,
        name: &str,
        descriptors: Vec<OwnedFd>,
        deadline: Instant,
    ) -> Result<Vec<(Rank, Vec<OwnedFd>)>, BootstrapError> {
        let gathered = self.membership.all_gather(name, &[], descriptors, deadline);
        let gathered = gathered.map_err(|error| of_job(error, &self.ranks))?;
        let descriptors = gathered.into_iter().map(|one| one.descriptors);
        Ok(self.ranks.iter().copied().zip(descriptors).collect())
    }

    pub(super) fn departures(&self) -> Vec<Departure> {
        let of_job = |gone: Departure| Departure {
            rank: self.ranks[gone.rank as usize],
            how: gone.how,
        };
        self.membership.departures().into_iter().map(of_job).collect()
    }

    /// See [`Membership::ended`].
    pub(super) fn ended(&self) -> Vec<(Rank, DepartureKind)> {
        let ended = self.membership.ended().into_iter();
        ended
            .map(|(rank, how)| (self.ranks[rank as usize], how))
            .collect()
    }

    /// See [`Membership::interrupt`].
    pub(super) fn interrupt(&self) {
        self.membership.interrupt();
    }

    pub(super) fn give_up(&self) {
        self.membership.give_up_silently();
    }
}

/// An error with the whole job's ranks in it.
pub(super) fn of_job(error: BootstrapError, ranks: &[Rank]) -> BootstrapError {
    let whole = |rank: Rank| ranks.get(rank as usize).copied().unwrap_or(rank);
    match error {
        BootstrapError::Missing {
            ranks,
            size,
            step,
            waited,
        } => BootstrapError::Missing {
            ranks: ranks.into_iter().map(whole).collect(),
            size,
            step,
            waited,
        },
        BootstrapError::Departed { rank, how, step } => BootstrapError::Departed {
            rank: whole(rank),
            how,
            step,
        },
        BootstrapError::Protocol { rank, problem } => BootstrapError::Protocol {
            rank: whole(rank),
            problem,
        },
        BootstrapError::GaveUp { rank, step, why } => BootstrapError::GaveUp {
            rank: whole(rank),
            step,
            why,
        },
        BootstrapError::Refused { rank, reason } => BootstrapError::Refused {
            rank: whole(rank),
            reason,
        },
        BootstrapError::Mismatch {
            rank,
            step,
            sequence,
            other_rank,
            other_step,
            other_sequence,
        } => BootstrapError::Mismatch {
            rank: whole(rank),
            step,
            sequence,
            other_rank: whole(other_rank),
            other_step,
            other_sequence,
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_speak_of_the_whole_jobs_ranks() {
        let error = BootstrapError::Departed {
            rank: 1,
            how: DepartureKind::Died,
            step: "windows".into(),
        };
        let text = of_job(error, &[2, 5, 7]).to_string();
        assert!(text.starts_with("rank 5 died"), "{text}");
        // What the other side made up is passed on as it is.
        let error = BootstrapError::Protocol {
            rank: 99,
            problem: "nonsense".into(),
        };
        assert!(of_job(error, &[2, 5, 7]).to_string().starts_with("rank 99"));
    }
}
