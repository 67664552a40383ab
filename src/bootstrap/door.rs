//! A rank's door: a socket at which ranks that come back after a death get what they need to take their old place,
//! while this rank's own threads do other things.
//!
//! Its name is made of the job's secret. One process at a time can have it, until it has ended: whoever has it is the
//! rank. It is open (listens, with a thread of its own) only while something is kept there; nobody gets anything who
//! has not proved that he knows the secret, and nothing that comes in changes anything here.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;

use super::channel::Channel;
use super::inherit::Unshared;
use super::message::{self, Kind, Knock, Peer, Welcome};
use super::noise::HANDSHAKE_BYTES;
use super::socket::{self, Credentials, Origin};
use super::visitor::{Progress, Stage, Visitor};
use super::{BootstrapError, Job, Rank, Rendezvous, noise};
use crate::fabric::fork::Birthplace;

/// How long a visitor may take for all that it says, and while others wait for its place.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_WHEN_CROWDED: Duration = Duration::from_millis(250);
/// Visitors at a time; others wait in the kernel's line.
const ROOM: usize = 64;
/// How long a look at them lasts.
const SLICE: Duration = Duration::from_millis(100);

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
    socket: Arc<OwnedFd>,
}

impl Lock {
    /// `None` if another process, or another membership of this one, has it.
    pub(super) fn take(job: &Job) -> Result<Option<Self>, BootstrapError> {
        match socket::bind_unheard(&place(job, job.rank)?) {
            Ok(socket) => Ok(Some(Self {
                _unshared: Unshared::new(&socket),
                socket: Arc::new(socket),
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
    birthplace: Birthplace,
    served: Mutex<Option<Served>>,
    // Last: who is the rank serves its door.
    lock: Lock,
}

struct Served {
    stop: Arc<OwnedFd>,
    thread: JoinHandle<()>,
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
            birthplace: Birthplace::here(),
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
        let stop =
            rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed())?;
        let stop = Arc::new(stop);
        socket::listen(&self.lock.socket).map_err(failed())?;
        let (ledger, listener, ends) = (self.ledger.clone(), self.lock.socket.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("sapwood-door".into())
            .spawn(move || Visits::new(ledger).serve(&listener, &ends))
            .map_err(|error| failed()(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN)))?;
        Ok(Served { stop, thread })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let served = self
            .served
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(Served { stop, thread }) = served else {
            return;
        };
        if !self.birthplace.is_here() {
            // The thread is the parent's.
            std::mem::forget(thread);
            return;
        }
        let _ = rustix::io::write(&stop, &1u64.to_ne_bytes());
        let _ = thread.join();
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

/// Those who are at the door.
struct Visits {
    ledger: Arc<Ledger>,
    strangers: Vec<Visitor>,
    /// Who have proved themselves and may ask.
    guests: Vec<(Channel, Instant)>,
}

impl Visits {
    fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            ledger,
            strangers: Vec::new(),
            guests: Vec::new(),
        }
    }

    fn serve(&mut self, listener: &OwnedFd, stop: &OwnedFd) {
        loop {
            let mut entries = vec![PollFd::new(stop, PollFlags::IN)];
            if self.has_room() {
                entries.push(PollFd::new(listener, PollFlags::IN));
            }
            let strangers = self.strangers.iter();
            entries.extend(strangers.map(|one| PollFd::from_borrowed_fd(one.descriptor(), PollFlags::IN)));
            let guests = self.guests.iter();
            entries.extend(
                guests.map(|(channel, _)| {
                    PollFd::from_borrowed_fd(channel.socket().as_fd(), channel.interest())
                }),
            );
            let idle = self.strangers.is_empty() && self.guests.is_empty();
            let until = Instant::now() + if idle { SLICE * 600 } else { SLICE };
            if socket::poll_until(&mut entries, until).is_err() || !entries[0].revents().is_empty() {
                return;
            }
            drop(entries);
            self.accept(listener);
            self.hear_strangers();
            self.hear_guests();
        }
    }

    fn has_room(&self) -> bool {
        self.strangers.len() + self.guests.len() < ROOM
    }

    fn patience(&self) -> Duration {
        match self.has_room() {
            true => PATIENCE,
            false => PATIENCE_WHEN_CROWDED,
        }
    }

    fn accept(&mut self, listener: &OwnedFd) {
        while self.has_room() {
            let socket = match socket::accept_here(listener) {
                Ok(socket) => socket,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    tracing::debug!(%error, "a visitor at the door could not be taken in");
                    std::thread::sleep(Duration::from_millis(20));
                    return;
                }
            };
            let Ok(credentials) = socket::peer_credentials(&socket) else {
                continue;
            };
            let Credentials { uid, .. } = credentials;
            if uid != socket::own_user() {
                tracing::warn!(
                    user = uid,
                    "refused a connection to this rank's door from another user"
                );
                continue;
            }
            let stage = Stage::Unproved {
                socket: Arc::new(socket),
                frame: [0; 4 + HANDSHAKE_BYTES],
                length: 0,
            };
            self.strangers.push(Visitor {
                origin: Origin::Process(credentials),
                since: Instant::now(),
                stage,
            });
        }
    }

    fn hear_strangers(&mut self) {
        let (mut index, patience) = (0, self.patience());
        while index < self.strangers.len() {
            let visitor = &mut self.strangers[index];
            match visitor.advance(&self.ledger.job) {
                Progress::Waiting if visitor.since.elapsed() < patience => index += 1,
                Progress::Waiting => drop(self.strangers.swap_remove(index)),
                Progress::Refused(reason) => {
                    let visitor = self.strangers.swap_remove(index);
                    tracing::debug!(from = %visitor.origin, reason, "refused a connection to this rank's door");
                }
                Progress::Introduced(hello) => {
                    let visitor = self.strangers.swap_remove(index);
                    let fits = hello.size == self.ledger.job.size && hello.rank < hello.size;
                    if let (Stage::Proved(channel), true) = (visitor.stage, fits) {
                        self.guests.push((*channel, visitor.since));
                    }
                }
            }
        }
    }

    /// One question each.
    fn hear_guests(&mut self) {
        let (patience, ledger) = (self.patience(), &self.ledger);
        self.guests.retain_mut(|(channel, since)| {
            if channel.receive().is_err() || since.elapsed() >= patience {
                return false;
            }
            let asked = channel.next_message();
            let waits = asked.is_none() && channel.is_flushed();
            if let Some(message) = asked {
                let knock = match (message.kind, message::decode::<Knock>(&message.body)) {
                    (Kind::Knock, Ok(knock)) => knock,
                    _ => return false,
                };
                let (welcome, descriptors) = ledger.answer(knock);
                channel.queue(Kind::Welcome, Arc::new(message::encode(&welcome)), descriptors);
            }
            if channel.is_closed() || channel.flush().is_err() {
                return false;
            }
            // What was sent can be read after this end was closed.
            waits || !channel.is_flushed()
        });
    }
}

#[cfg(test)]
mod tests;
