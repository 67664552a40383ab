//! Those who come to what a rank keeps open for others, its door or a switchboard, while its own threads do other
//! things: takes them in, has each prove that it knows the secret and say which rank it is, and hands what it asks to
//! whoever answers.
//!
//! One thread serves all of them, asleep in the kernel while nobody is there. Nobody is answered who has not proved
//! himself, and nobody can hold it up but whoever answers: in here nothing may block.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;

use super::channel::Channel;
use super::message::{self, Hello, Kind, Message};
use super::refusals::Refusals;
use super::socket::{self, Credentials, Listener, Origin};
use super::visitor::{Progress, Stage, Visitor};
use super::{Job, Rank, hub};
use crate::fabric::fork::Birthplace;

/// How long a visitor may take for all that it says, and while others wait for its place. While somebody else is being
/// answered nobody's time runs.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_WHEN_CROWDED: Duration = Duration::from_millis(250);
/// Visitors at a time; others wait in the kernel's line.
pub(super) const ROOM: usize = 64;
/// How long a look at them lasts.
const SLICE: Duration = Duration::from_millis(100);
/// Before something that the system refused is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// Who asks.
pub(super) struct Guest {
    pub(super) rank: Rank,
    /// It is on another host: no descriptors can be given to it.
    pub(super) from_network: bool,
}

/// What is said to a guest.
pub(super) struct Reply {
    pub(super) kind: Kind,
    pub(super) body: Vec<u8>,
    pub(super) descriptors: Arc<Vec<OwnedFd>>,
}

/// Who answers.
pub(super) trait Host: Send + 'static {
    /// What the guests come to, for the log.
    const PLACE: &'static str;
    /// The largest question.
    const QUESTION_LIMIT: usize;

    fn job(&self) -> &Job;

    /// Answers a guest's only question; the error is why there is no answer, which the guest is told.
    fn answer(&mut self, guest: &Guest, question: Message) -> Result<Reply, String>;
}

/// The thread that serves visitors, until this is dropped.
pub(super) struct Served {
    stop: Arc<OwnedFd>,
    birthplace: Birthplace,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Starts the thread; the listeners are heard already.
    pub(super) fn start(name: &str, listeners: Vec<Arc<Listener>>, host: impl Host) -> Result<Self, Errno> {
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stop = Arc::new(stop);
        let ends = stop.clone();
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                hub::take_no_signals();
                Visits::new(host).serve(&listeners, &ends);
            })
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        Ok(Self {
            stop,
            birthplace: Birthplace::here(),
            thread: Some(thread),
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if !self.birthplace.is_here() {
            // The thread is the parent's.
            std::mem::forget(thread);
            return;
        }
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        let _ = thread.join();
    }
}

/// One who has proved himself.
struct Seated {
    guest: Guest,
    origin: Origin,
    channel: Channel,
    since: Instant,
    answered: bool,
}

/// Everybody who is there.
struct Visits<H> {
    host: H,
    strangers: Vec<Visitor>,
    guests: Vec<Seated>,
    refusals: Refusals,
}

impl<H: Host> Visits<H> {
    fn new(host: H) -> Self {
        Self {
            host,
            strangers: Vec::new(),
            guests: Vec::new(),
            refusals: Refusals::at(H::PLACE),
        }
    }

    fn serve(&mut self, listeners: &[Arc<Listener>], stop: &OwnedFd) {
        loop {
            let mut entries = vec![PollFd::new(stop, PollFlags::IN)];
            if self.has_room() {
                let heard = listeners.iter();
                entries.extend(heard.map(|listener| PollFd::new(&listener.socket, PollFlags::IN)));
            }
            let strangers = self.strangers.iter();
            entries.extend(strangers.map(|one| PollFd::from_borrowed_fd(one.descriptor(), PollFlags::IN)));
            entries.extend(self.guests.iter().map(|Seated { channel, .. }| {
                PollFd::from_borrowed_fd(channel.socket().as_fd(), channel.interest())
            }));
            let idle = self.strangers.is_empty() && self.guests.is_empty();
            let until = Instant::now() + if idle { SLICE * 600 } else { SLICE };
            if socket::poll_until(&mut entries, until).is_err() {
                // The kernel has no memory to wait with at the moment.
                std::thread::sleep(PAUSE);
            }
            drop(entries);
            if rustix::io::read(stop, &mut [0; 8]).is_ok() {
                return;
            }
            for listener in listeners {
                self.accept(listener);
            }
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

    fn accept(&mut self, listener: &Listener) {
        while self.has_room() {
            let (socket, origin) = match listener.accept() {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "a visitor to {} could not be taken in", H::PLACE);
                    std::thread::sleep(PAUSE);
                    return;
                }
            };
            if let Origin::Process(Credentials { uid, .. }) = &origin
                && *uid != socket::own_user()
            {
                self.refusals.refuse(&origin, "it runs as another user");
                continue;
            }
            let visitor = Visitor::new(socket, origin);
            self.strangers.push(visitor.with_limit(H::QUESTION_LIMIT));
        }
    }

    fn hear_strangers(&mut self) {
        let (mut index, patience) = (0, self.patience());
        while index < self.strangers.len() {
            let visitor = &mut self.strangers[index];
            let progress = visitor.advance(self.host.job());
            if matches!(progress, Progress::Waiting) && visitor.since.elapsed() < patience {
                index += 1;
                continue;
            }
            let visitor = self.strangers.swap_remove(index);
            match progress {
                // Who only looks whether anybody is there.
                Progress::Refused(_) if visitor.said_nothing() => {}
                Progress::Refused(reason) => self.refusals.refuse(&visitor.origin, &reason),
                Progress::Waiting => {
                    let reason = "it did not finish the handshake in time";
                    self.refusals.refuse(&visitor.origin, reason);
                }
                Progress::Introduced(hello) => self.seat(visitor, &hello),
            }
        }
    }

    fn seat(&mut self, visitor: Visitor, hello: &Hello) {
        let (size, from_network) = (self.host.job().size, visitor.is_from_network());
        let Stage::Proved(mut channel) = visitor.stage else {
            return;
        };
        if hello.size != size || hello.rank >= size {
            let reason = format!(
                "it says that it is rank {} of {}, and this job has {size}",
                hello.rank, hello.size
            );
            refuse(&mut self.refusals, &visitor.origin, &mut channel, &reason);
            return;
        }
        self.guests.push(Seated {
            guest: Guest {
                rank: hello.rank,
                from_network,
            },
            origin: visitor.origin,
            channel: *channel,
            since: visitor.since,
            answered: false,
        });
    }

    /// One question each.
    fn hear_guests(&mut self) {
        let (mut index, patience) = (0, self.patience());
        while index < self.guests.len() {
            let began = Instant::now();
            if hear(
                &mut self.guests[index],
                &mut self.host,
                &mut self.refusals,
                patience,
            ) {
                index += 1;
            } else {
                self.guests.swap_remove(index);
            }
            let spent = began.elapsed();
            let since = self.strangers.iter_mut().map(|one| &mut one.since);
            let since = since.chain(self.guests.iter_mut().map(|one| &mut one.since));
            since.for_each(|since| *since += spent);
        }
    }
}

/// Hears one guest; false if it has nothing more to say or to be told.
fn hear(seated: &mut Seated, host: &mut impl Host, refusals: &mut Refusals, patience: Duration) -> bool {
    let Seated {
        guest,
        origin,
        channel,
        ..
    } = seated;
    if let Err(problem) = channel.receive() {
        refuse(refusals, origin, channel, &format!("it {problem}"));
        return false;
    }
    if channel.has_hung_up() {
        // Nobody waits for the answer any more.
        return false;
    }
    if !seated.answered
        && let Some(question) = channel.next_message()
    {
        match host.answer(guest, question) {
            Ok(reply) => channel.queue(reply.kind, Arc::new(reply.body), reply.descriptors),
            Err(reason) => {
                refuse(refusals, origin, channel, &reason);
                return false;
            }
        }
        seated.answered = true;
    } else if seated.since.elapsed() >= patience {
        refuse(refusals, origin, channel, "it did not ask in time");
        return false;
    }
    let sent = channel.flush();
    // What was sent can be read after this end was closed.
    sent.is_ok() && !(seated.answered && channel.is_flushed())
}

/// Tells one who has proved himself why he gets nothing. It fits a fresh socket; one that does not read is not waited
/// for.
fn refuse(refusals: &mut Refusals, origin: &Origin, channel: &mut Channel, reason: &str) {
    refusals.refuse(origin, reason);
    channel.queue_body(Kind::Refused, message::encode(&reason));
    let _ = channel.flush();
}
