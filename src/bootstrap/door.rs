//! A rank's door: a socket at which ranks that come back after a death get what they need to take their old place,
//! while this rank's own threads do other things.
//!
//! Its name is made of the job's secret. One process at a time can have it, until it has ended: whoever has it is the
//! rank. It is open (listens, with a thread of its own) only while something is kept there; nobody gets anything who
//! has not proved that he knows the secret, and nothing that comes in changes anything here.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::inherit::Unshared;
use super::message::{self, Kind, Knock, Message, Peer, Welcome};
use super::socket::Listener;
use super::visits::{Guest, Host, Reply, Served};
use super::{BootstrapError, Job, Rank, Rendezvous, noise};

/// Where a rank's door is.
pub(super) fn place(job: &Job, rank: Rank) -> Result<Rendezvous, BootstrapError> {
    let meets = u128::from_le_bytes(noise::fingerprint(&[&job.rendezvous.to_string()])?);
    let name = noise::derive(&job.secret, "the name of a rank's door", meets, rank)?;
    let name: String = name[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Rendezvous::Abstract(format!("sapwood-door-{name}")))
}

/// The right to be a rank, as long as it is held.
pub(super) struct Lock {
    // Before the socket: a forked child must not hold it.
    _unshared: Unshared,
    listener: Arc<Listener>,
}

impl Lock {
    /// `None` if another process, or another membership of this one, has it.
    pub(super) fn take(job: &Job) -> Result<Option<Self>, BootstrapError> {
        match Listener::unheard(&place(job, job.rank)?) {
            Ok(listener) => Ok(Some(Self {
                _unshared: Unshared::new(&listener.socket),
                listener: Arc::new(listener),
            })),
            Err(Errno::ADDRINUSE) => Ok(None),
            Err(error) => Err(BootstrapError::system("making this rank's door")(error)),
        }
    }
}

/// Something that is kept for those who come back: text and descriptors; or why there is nothing for them.
type Kept = (u32, Result<(String, Arc<Vec<OwnedFd>>), String>);

/// What there is to be had at a door.
struct Ledger {
    job: Job,
    peers: Vec<Peer>,
    salt: u128,
    roll: Arc<Vec<OwnedFd>>,
    kept: Mutex<Vec<Kept>>,
}

/// See the module.
pub(super) struct Door {
    ledger: Arc<Ledger>,
    served: Mutex<Option<Served>>,
    // Last: who is the rank serves its door.
    lock: Lock,
}

impl Door {
    pub(super) fn new(lock: Lock, job: &Job, (peers, salt): (Vec<Peer>, u128), roll: OwnedFd) -> Self {
        Self {
            ledger: Arc::new(Ledger {
                job: job.clone(),
                peers,
                salt,
                roll: Arc::new(vec![roll]),
                kept: Mutex::default(),
            }),
            served: Mutex::default(),
            lock,
        }
    }

    /// Keeps something for those who come back, under a number; the door is open from then on.
    pub(super) fn keep(
        &self,
        number: u32,
        what: Result<(String, Vec<OwnedFd>), String>,
    ) -> Result<(), BootstrapError> {
        let what = what.map(|(text, descriptors)| (text, Arc::new(descriptors)));
        self.ledger.kept().push((number, what));
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if served.is_none() {
            *served = Some(self.open()?);
        }
        Ok(())
    }

    /// Keeps it no more.
    pub(super) fn forget(&self, number: u32) {
        self.ledger.kept().retain(|(kept, _)| *kept != number);
    }

    fn open(&self) -> Result<Served, BootstrapError> {
        let failed = || BootstrapError::system("opening this rank's door");
        let listener = self.lock.listener.clone();
        listener.listen().map_err(failed())?;
        Served::start("sapwood-door", vec![listener], self.ledger.clone()).map_err(failed())
    }
}

impl Ledger {
    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to who has proved that he knows the secret, and what comes along.
    fn answer(&self, knock: Knock) -> (Welcome, Arc<Vec<OwnedFd>>) {
        let without = |welcome| (welcome, Arc::default());
        let kept = self.kept();
        match knock {
            Knock::Job if kept.is_empty() => without(Welcome::Later {
                why: "it has no backup workers any more".into(),
            }),
            Knock::Job => {
                let (peers, salt) = (self.peers.clone(), self.salt);
                (Welcome::Job { peers, salt }, self.roll.clone())
            }
            Knock::Kept { salt, .. } if salt != self.salt => without(Welcome::Later {
                why: "it is in another job by now".into(),
            }),
            Knock::Kept { number, .. } => match kept.iter().find(|(kept, _)| *kept == number) {
                Some((_, Ok((payload, descriptors)))) => {
                    let payload = payload.clone();
                    (Welcome::Kept { payload }, descriptors.clone())
                }
                Some((_, Err(why))) => without(Welcome::Never { why: why.clone() }),
                None => without(Welcome::Later {
                    why: format!("it has no backup workers number {number} (any more)"),
                }),
            },
        }
    }
}

impl Host for Arc<Ledger> {
    const PLACE: &'static str = "this rank's door";
    const QUESTION_LIMIT: usize = 4096;

    fn job(&self) -> &Job {
        &self.job
    }

    fn answer(&mut self, guest: &Guest, question: Message) -> Result<Reply, String> {
        if question.kind != Kind::Knock {
            return Err(format!("it sent a {:?} instead of a knock", question.kind));
        }
        let knock = message::decode(&question.body).map_err(|problem| format!("it {problem}"))?;
        tracing::debug!(
            rank = guest.rank,
            ?knock,
            "a rank that comes back is at this rank's door"
        );
        let (welcome, descriptors) = Ledger::answer(self, knock);
        Ok(Reply {
            kind: Kind::Welcome,
            body: message::encode(&welcome),
            descriptors,
        })
    }
}

#[cfg(test)]
mod tests;
