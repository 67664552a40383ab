//! What remains of a job after deaths: its survivors agree on who they are, meet anew, and agree on whether they have.
//!
//! On one host they do so on the roll's page (see `ballot`), whoever has died. Over the network the hub decides, which
//! is a thread of rank 0's process: once that has ended, every survivor gets the same error. Nothing in here goes by
//! what a rank *thinks* of another: a rank is left out if its end was seen, or if it has left the job.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::ballot::{Closed, End};
use super::membership::Meeting;
use super::one_host::OneHost;
use super::part::{Part, Reachable};
use super::star::Star;
use super::{BootstrapError, Job, Membership, Rank, Rendezvous};

/// What errors call it.
const STEP: &str = "shrinking";
/// How soon and how late the others are looked at again.
const FIRST_LOOK: Duration = Duration::from_micros(50);
const LAST_LOOK: Duration = Duration::from_millis(2);
/// How long a death may take to show that has made what the survivors build fail: a connection to a process closes
/// before the process has quite ended, and on a busy machine long before.
const WITNESS: Duration = Duration::from_secs(3);

/// The living ranks of a job, about to meet anew. See [`Membership::survivors`].
#[derive(Debug)]
pub struct Survivors<'job> {
    part: Part<'job>,
    attempt: u32,
}

/// How an attempt to bring the survivors together has ended, on all of them alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// All of them have what they built. One that has died since will be missed in there.
    Made,
    /// One of them died too early: what was built is to be dropped, and [`Membership::survivors`] to be called again.
    Again,
}

/// What a rank over the network says when it comes.
#[derive(Serialize, Deserialize)]
struct Coming {
    reachable: Reachable,
    /// At which it has opened a place to meet.
    port: u16,
}

impl Membership {
    /// Waits until every rank has come here or is gone, and says who has come: the same on all of them. It can be
    /// called after any failure, and again after an error of its own; once an attempt has been
    /// [made](Conclusion::Made), no more.
    ///
    /// # Errors
    /// [`BootstrapError::Missing`] names ranks that live and have not come by the deadline.
    /// [`BootstrapError::Departed`], over the network, where rank 0's process has ended.
    pub fn survivors(&self, deadline: Instant) -> Result<Survivors<'_>, BootstrapError> {
        self.check_process()?;
        match &self.meeting {
            Meeting::OneHost(one_host) => self.on_the_page(one_host, deadline),
            Meeting::Network(star) => self.through_the_hub(star, deadline),
        }
    }

    fn on_the_page(&self, one_host: &OneHost, deadline: Instant) -> Result<Survivors<'_>, BootstrapError> {
        let liveness = &one_host.liveness;
        let ballot = liveness.roll.ballot(self.rank());
        let (started, mut pause) = (Instant::now(), FIRST_LOOK);
        loop {
            let attempt = ballot.come().map_err(|closed| self.closed(closed))?;
            ballot.exclude(attempt, liveness.ended().into_iter().map(|(rank, _)| rank));
            match ballot.survivors(attempt) {
                None => continue,
                Some(Ok(ranks)) => {
                    let place = self.local_place("the name of survivors", self.salt, attempt)?;
                    let part = self.part(&ranks, place, "the secret of survivors", self.salt, attempt)?;
                    return Ok(Survivors { part, attempt });
                }
                Some(Err(missing)) if Instant::now() >= deadline => {
                    return Err(self.missing(missing, started));
                }
                Some(Err(_)) => rest(&mut pause),
            }
        }
    }

    fn through_the_hub(&self, star: &Star, deadline: Instant) -> Result<Survivors<'_>, BootstrapError> {
        let attempt = star.attempt().ok_or_else(|| self.closed(Closed::Over))?;
        // Nobody knows yet whose place it is where all meet.
        let mut place: Job = self.job.part(0, 1);
        let reachable = self.reachable();
        let host = match (&self.job.rendezvous, reachable.own_elsewhere()) {
            (_, Some(own)) => own.to_string(),
            (Rendezvous::Network { host, .. }, None) => host.clone(),
            _ => return Err(BootstrapError::InvalidJob("a hub without a network".into())),
        };
        place.rendezvous = Rendezvous::network(&host, 0)?;
        place.open()?;
        let Rendezvous::Network { port, .. } = place.rendezvous else {
            return Err(BootstrapError::InvalidJob("a network without a port".into()));
        };
        let said = super::message::encode(&Coming { reachable, port });
        let came = star.survive(2 * u64::from(attempt), STEP, said, deadline)?;
        let mut ranks = Vec::with_capacity(came.len());
        let mut coming: Vec<Coming> = Vec::with_capacity(came.len());
        for (rank, said) in came {
            ranks.push(rank);
            let read = super::message::decode(&said);
            coming.push(read.map_err(|problem| BootstrapError::Protocol { rank, problem })?);
        }
        let nobody = || BootstrapError::InvalidJob("no survivor knows where to meet the others".into());
        let first = coming.first().ok_or_else(nobody)?;
        let rendezvous = match first.reachable.seen_by(coming.iter().map(|one| &one.reachable)) {
            Some(address) => Rendezvous::network(&address.to_string(), first.port)?,
            None => place.rendezvous.clone(),
        };
        let mut part = self.part(&ranks, rendezvous, "the secret of survivors", self.salt, attempt)?;
        if ranks.first() == Some(&self.rank()) {
            part.take_place(place);
        }
        Ok(Survivors { part, attempt })
    }

    fn closed(&self, closed: Closed) -> BootstrapError {
        BootstrapError::InvalidJob(match closed {
            Closed::Over => "its survivors have come together already, in another job".into(),
            Closed::Excluded => format!("its survivors have seen rank {} gone", self.rank()),
        })
    }

    fn missing(&self, ranks: Vec<Rank>, started: Instant) -> BootstrapError {
        BootstrapError::Missing {
            ranks,
            size: self.size(),
            step: STEP.into(),
            waited: started.elapsed(),
        }
    }
}

impl Survivors<'_> {
    /// The job's ranks that have come, ascending: their ranks among the survivors are their places in here.
    pub fn ranks(&self) -> &[Rank] {
        self.part.ranks()
    }

    /// Meets the others. Whatever comes of it, [`Self::conclude`] is to be called.
    ///
    /// # Errors
    /// As [`Membership::join`]; a survivor that dies ends it at once. Errors speak of the job's ranks.
    pub fn join(&self, deadline: Instant) -> Result<Membership, BootstrapError> {
        let void = || match &self.part.whole().meeting {
            Meeting::OneHost(one_host) => {
                let own = one_host.liveness.rank;
                one_host.liveness.roll.ballot(own).is_void(self.attempt)
            }
            Meeting::Network(_) => false,
        };
        self.part.join_while(deadline, || match void() {
            false => Ok(()),
            true => Err(BootstrapError::InvalidJob(
                "its survivors have begun anew, without one that has died".into(),
            )),
        })
    }

    /// Says whether this rank has what it built with what [`Self::join`] gave, and waits until the others have said
    /// so too.
    ///
    /// # Errors
    /// [`BootstrapError::Protocol`] names a rank that lives and could not, or was waited for until the deadline; what
    /// was built is then to be dropped on all.
    pub fn conclude(self, made: bool, deadline: Instant) -> Result<Conclusion, BootstrapError> {
        let whole = self.part.whole();
        let end = match &whole.meeting {
            Meeting::OneHost(one_host) => self.on_the_page(one_host, made, deadline),
            Meeting::Network(star) => self.through_the_hub(star, made, deadline)?,
        };
        match end {
            End::Made => Ok(Conclusion::Made),
            End::Again => Ok(Conclusion::Again),
            End::Failed(rank) => Err(BootstrapError::Protocol {
                rank,
                problem: "could not take part in what the survivors were building, or did not in time".into(),
            }),
        }
    }

    fn on_the_page(&self, one_host: &OneHost, made: bool, deadline: Instant) -> End {
        let liveness = &one_host.liveness;
        let (own, ranks) = (liveness.rank, self.part.ranks());
        let ballot = liveness.roll.ballot(own);
        // Who has failed gives the reason a moment to show: it may be a death.
        let until = if made {
            ballot.be_ready(self.attempt);
            deadline
        } else {
            Instant::now() + WITNESS
        };
        let mut pause = FIRST_LOOK;
        loop {
            let gone: Vec<Rank> = liveness.ended().into_iter().map(|(rank, _)| rank).collect();
            if let Some(end) = ballot.end(self.attempt, ranks, &gone) {
                return end;
            }
            // The one that made this rank's part fail may have been ready itself, and is missed by nobody else.
            if !made && ranks.iter().any(|rank| gone.contains(rank)) {
                return ballot.begin_anew(self.attempt);
            }
            if Instant::now() >= until {
                let late = ballot.late(self.attempt, ranks).into_iter();
                let blamed = if made { late.min().unwrap_or(own) } else { own };
                return ballot.fail(self.attempt, blamed);
            }
            rest(&mut pause);
        }
    }

    fn through_the_hub(&self, star: &Star, made: bool, deadline: Instant) -> Result<End, BootstrapError> {
        let until = Instant::now() + WITNESS;
        while !made && self.part.gone().is_none() && Instant::now() < until {
            std::thread::sleep(LAST_LOOK);
        }
        // Who has seen a death is not to blame.
        let fine = made || self.part.gone().is_some();
        let stage = 2 * u64::from(self.attempt) + 1;
        let said = super::message::encode(&(made, fine));
        let said = star.survive(stage, STEP, said, deadline)?;
        let end = self.verdict_of(&said)?;
        star.end_attempt(end == End::Made);
        Ok(end)
    }

    /// What follows from what all have said, of themselves, in the end: the same for everybody.
    fn verdict_of(&self, said: &[(Rank, Vec<u8>)]) -> Result<End, BootstrapError> {
        let mut all_made = said.len() == self.part.ranks().len();
        for (rank, said) in said {
            let (made, fine): (bool, bool) = super::message::decode(said)
                .map_err(|problem| BootstrapError::Protocol { rank: *rank, problem })?;
            if !fine {
                return Ok(End::Failed(*rank));
            }
            all_made &= made;
        }
        Ok(if all_made { End::Made } else { End::Again })
    }
}

/// Waits a little, longer each time.
fn rest(pause: &mut Duration) {
    std::thread::sleep(*pause);
    *pause = (*pause * 2).min(LAST_LOOK);
}
