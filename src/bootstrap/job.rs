//! What one rank knows before it has met any other: who it is, where to meet, and with which secret.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::socket::Listener;
use super::{BootstrapError, Rank, Rendezvous, Secret};
use crate::fabric::select::Choice;
use crate::fabric::verbs::Subnet;

/// The most ranks that a job may have.
pub const MAXIMUM_SIZE: u32 = 4096;
/// How long a rank waits for the others where nobody says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// One rank's description of the job it belongs to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Job {
    /// This rank.
    pub rank: Rank,
    /// Ranks in the job, from 1 to [`MAXIMUM_SIZE`].
    pub size: u32,
    /// This rank's number among the ranks on its host.
    pub local_rank: u32,
    /// Where the ranks meet.
    pub rendezvous: Rendezvous,
    /// What they prove to each other that they know.
    pub secret: Secret,
    /// How long each blocking step waits for the others unless the caller says otherwise.
    pub timeout: Duration,
    /// The host that this rank says it is on, instead of the one it is on: ranks of one machine that pretend to be on
    /// several, for tests.
    pub host: Option<String>,
    /// The fabric that was asked for.
    pub fabric: Choice,
    /// Where a host that the ranks meet at has several addresses: those in this subnet only.
    pub subnet: Option<Subnet>,
    /// The file that plans are chosen from; rank 0's counts.
    pub tuning: Option<PathBuf>,
    /// How long messages between ranks are held back, for tests of slow links on one host.
    pub delay: Option<Duration>,
    /// A rank that has died may be started again and come back to its backup workers; the same on all ranks.
    pub returns: bool,
    /// How often this rank has been started again, by whoever does.
    pub attempt: u32,
    /// The rendezvous, opened before the join by the process that is rank 0.
    opened: Option<Arc<Mutex<Option<Listener>>>>,
}

impl Job {
    /// A job's description for one of its ranks, with the default timeout.
    ///
    /// # Errors
    /// [`BootstrapError::InvalidJob`] if the size is 0 or above [`MAXIMUM_SIZE`], or the rank or local rank is not
    /// below the size.
    pub fn new(
        rank: Rank,
        size: u32,
        local_rank: u32,
        rendezvous: Rendezvous,
        secret: Secret,
    ) -> Result<Self, BootstrapError> {
        let invalid = |sentence: String| Err(BootstrapError::InvalidJob(sentence));
        if size == 0 || size > MAXIMUM_SIZE {
            return invalid(format!(
                "a job of {size} ranks: there must be 1 to {MAXIMUM_SIZE}"
            ));
        }
        if rank >= size {
            return invalid(format!(
                "rank {rank} of {size}: ranks count from 0, so the last one is {}",
                size - 1
            ));
        }
        if local_rank >= size {
            return invalid(format!(
                "local rank {local_rank} in a job of {size} ranks: it must be below {size}"
            ));
        }
        Ok(Self {
            rank,
            size,
            local_rank,
            rendezvous,
            secret,
            timeout: DEFAULT_TIMEOUT,
            host: None,
            fabric: Choice::default(),
            tuning: None,
            delay: None,
            returns: false,
            attempt: 0,
            subnet: None,
            opened: None,
        })
    }

    /// A job of this size that is a part of this one; where it meets, and with which secret, is yet to be said. The
    /// local rank stays that of the launcher, so that the rank goes on using the same device.
    pub(super) fn part(&self, rank: Rank, size: u32) -> Self {
        Self {
            rank,
            size,
            // The place is going to be an address, in that subnet already.
            subnet: None,
            // Who comes back does so to the whole job.
            returns: false,
            attempt: 0,
            opened: None,
            ..self.clone()
        }
    }

    /// This job, at the place that another one has opened.
    pub(super) fn at(self, opened: Self) -> Self {
        Self {
            rendezvous: opened.rendezvous,
            opened: opened.opened,
            ..self
        }
    }

    /// The descriptions of all ranks of a new job on this host, by rank, with a random secret and rendezvous: for
    /// ranks that are threads of this process, or for a launcher to pass on.
    ///
    /// # Errors
    /// [`BootstrapError::InvalidJob`] for a size that no job can have.
    pub fn local(size: u32) -> Result<Vec<Self>, BootstrapError> {
        let (rendezvous, secret) = (Rendezvous::random()?, Secret::random()?);
        // Rank 0's description is made first so that a size of 0 is refused and not an empty list.
        let first = Self::new(0, size, 0, rendezvous, secret)?;
        Ok((0..size)
            .map(|rank| Self {
                rank,
                local_rank: rank,
                ..first.clone()
            })
            .collect())
    }

    /// The descriptions of all ranks of a new job that meets at a free port of one of this host's addresses: as
    /// [`Self::local`], over the network. Rank 0's holds the port open.
    ///
    /// # Errors
    /// As [`Self::local`] and [`Self::open`].
    pub fn networked(size: u32, host: &str) -> Result<Vec<Self>, BootstrapError> {
        let mut jobs = Self::local(size)?;
        jobs[0].rendezvous = Rendezvous::network(host, 0)?;
        jobs[0].open()?;
        let rendezvous = jobs[0].rendezvous.clone();
        for job in &mut jobs {
            job.rendezvous.clone_from(&rendezvous);
        }
        Ok(jobs)
    }

    /// Opens the rendezvous before the join, for rank 0 alone: other ranks can come from now on, and port 0 becomes the
    /// free one that the system picked. The first clone of the job that joins takes it.
    ///
    /// # Errors
    /// [`BootstrapError::RendezvousTaken`], [`BootstrapError::System`] if the address is not this host's, and
    /// [`BootstrapError::InvalidJob`] for another rank.
    pub fn open(&mut self) -> Result<(), BootstrapError> {
        if self.rank != 0 {
            return Err(BootstrapError::InvalidJob(format!(
                "rank {} cannot open the rendezvous: rank 0 does",
                self.rank
            )));
        }
        let listener = Listener::open(
            &self.rendezvous,
            self.subnet.as_ref(),
            Instant::now() + self.timeout,
        )?;
        self.rendezvous = listener.found_at(&self.rendezvous)?;
        self.opened = Some(Arc::new(Mutex::new(Some(listener))));
        Ok(())
    }

    /// The rendezvous, open.
    pub(super) fn listener(&self, deadline: Instant) -> Result<Listener, BootstrapError> {
        let opened = self.opened.as_ref();
        let opened = opened.and_then(|place| place.lock().unwrap_or_else(PoisonError::into_inner).take());
        match opened {
            Some(listener) => Ok(listener),
            None => Listener::open(&self.rendezvous, self.subnet.as_ref(), deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_jobs_are_refused() {
        for size in [0, MAXIMUM_SIZE + 1, u32::MAX] {
            let error = Job::local(size).unwrap_err().to_string();
            assert!(error.contains("1 to 4096"), "{error}");
        }
        let job = Job::local(2).unwrap().remove(0);
        let error = Job::new(2, 2, 0, job.rendezvous, job.secret)
            .unwrap_err()
            .to_string();
        assert!(error.contains("the last one is 1"), "{error}");
    }
}
