//! The calling end: one connection for each call.
//!
//! A call that ends with an error may have been answered all the same: whoever answers must bear to be asked again.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::super::attempt::{self, Attempt};
use super::super::channel::Channel;
use super::super::message::{self, Kind, Message};
use super::super::progress::Watch;
use super::super::{BootstrapError, DepartureKind, Job, Membership, Rank, Rendezvous, socket, tcp};
use super::{CallHeader, HEADER_LIMIT, Place, ReplyHeader, SAID_LIMIT, Said, place};
use crate::fabric::fork::Birthplace;

/// How often a handshake is tried again that ended with a hang-up: a switchboard that is just being closed, or that has
/// too many visitors, hangs up as one does whose secret is another one.
const TRIES: u32 = 3;
/// Before another try: at first, and at last.
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Why a call got no answer. [`Self::of`] says whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallError {
    /// Nobody is there: gone, or not open (any more).
    NobodyThere,
    /// It does not answer in time.
    Silent,
    /// It refused, or the call could not be made; and why.
    Refused(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NobodyThere => formatter.write_str(
                "nobody is there who answers calls: its process has ended, or does not answer them (any more)",
            ),
            Self::Silent => formatter.write_str(
                "the call was not answered in time: is its process stopped, or its host out of reach?",
            ),
            Self::Refused(why) => write!(formatter, "the call was refused: {why}"),
        }
    }
}

impl std::error::Error for CallError {}

impl CallError {
    /// The error, with the rank that was called, for people.
    pub(crate) fn of(&self, peer: Rank) -> String {
        format!("rank {peer}: {self}")
    }
}

/// Calls the switchboards of one number. See [`Membership::caller`].
#[derive(Clone)]
pub(crate) struct Caller(Arc<Known>);

struct Known {
    birthplace: Birthplace,
    job: Job,
    salt: u128,
    number: u32,
    /// By rank.
    ways: Vec<Way>,
}

/// How a rank is called.
enum Way {
    /// At the socket of its name.
    Near,
    Far(Rendezvous),
    /// On another host, and it has not said where.
    Unknown,
}

impl Membership {
    /// For calls to switchboards of that number. `places` is what [`super::Switchboard::place`] said on every rank, by
    /// rank; nothing, where all are on one host. It may outlive the membership.
    pub(crate) fn caller(&self, number: u32, places: &[Place]) -> Caller {
        let way = |rank: Rank| match place::is_near(self, rank) {
            true => Way::Near,
            false => {
                let seen = places.get(rank as usize).and_then(|one| one.seen_by(places));
                seen.map_or(Way::Unknown, Way::Far)
            }
        };
        Caller(Arc::new(Known {
            birthplace: Birthplace::here(),
            job: self.job.clone(),
            salt: self.salt,
            number,
            ways: (0..self.size()).map(way).collect(),
        }))
    }
}

/// The call could not be made.
fn failed(error: impl fmt::Display) -> CallError {
    CallError::Refused(error.to_string())
}

impl Caller {
    /// One call; blocks at most until the deadline. `life`: in which of its lives the callee is to be (0: the first;
    /// one's own is [`Membership::life`]).
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) fn call(
        &self,
        peer: Rank,
        life: u64,
        said: Said,
        deadline: Instant,
    ) -> Result<Said, CallError> {
        self.0.birthplace.check(failed(BootstrapError::Forked))?;
        let header = CallHeader {
            salt: self.0.salt,
            number: self.0.number,
            rank: peer,
            life,
        };
        let mut there = self.0.job.clone();
        there.rendezvous = match self.0.ways.get(peer as usize) {
            Some(Way::Near) => place::near(&self.0.job, &header).map_err(failed)?,
            Some(Way::Far(_)) if !said.descriptors.is_empty() => {
                return Err(failed("it is on another host, where descriptors mean nothing"));
            }
            Some(Way::Far(place)) => place.clone(),
            Some(Way::Unknown) => {
                return Err(failed(
                    "it is on another host, and has not said where it answers calls",
                ));
            }
            None => return Err(failed(format!("the job has {} ranks", self.0.ways.len()))),
        };
        if said.bytes.len() > SAID_LIMIT {
            let length = said.bytes.len();
            return Err(failed(format!(
                "{length} bytes are more than the {SAID_LIMIT} that a call carries"
            )));
        }
        let body = Arc::new(message::encode_with_payload(&header, &said.bytes));
        let descriptors = Arc::new(said.descriptors);
        let mut tries = 1;
        loop {
            let socket = connect(&there, deadline)?;
            let mut watch = Watch {
                tell: &mut |_| {},
                still: None,
            };
            let mut attempt = Attempt::new(&there, deadline, &mut watch);
            match attempt.introduce(socket) {
                Ok(mut channel) => {
                    channel.set_limit(SAID_LIMIT + HEADER_LIMIT);
                    channel.queue(Kind::Call, body, descriptors);
                    return converse(&mut attempt, &mut channel);
                }
                Err(BootstrapError::NotAuthenticated { .. })
                    if tries < TRIES && Instant::now() < deadline =>
                {
                    tries += 1;
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(not_introduced(error)),
            }
        }
    }
}

/// Until somebody is there, or it is clear that nobody is.
fn connect(there: &Job, deadline: Instant) -> Result<OwnedFd, CallError> {
    let mut pause = PAUSE;
    loop {
        let last = match socket::connect_once(&there.rendezvous, None, deadline) {
            Ok(socket) => return Ok(socket),
            Err(last) => last,
        };
        match last.error {
            Errno::CONNREFUSED | Errno::NOENT => return Err(CallError::NobodyThere),
            // Its line is full; or, over the network, the way there is not to be had at the moment.
            error if attempt::may_pass(error, there.rendezvous.is_network()) => {}
            error => {
                let doing = "connecting to it".into();
                return Err(failed(BootstrapError::System { doing, source: error }));
            }
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(CallError::Silent);
        }
        std::thread::sleep(pause.min(deadline - now));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What it means that a switchboard has not let this rank speak.
fn not_introduced(error: BootstrapError) -> CallError {
    match error {
        BootstrapError::Silent { .. } => CallError::Silent,
        BootstrapError::Departed {
            how: DepartureKind::OutOfReach,
            ..
        } => CallError::Silent,
        BootstrapError::Departed { .. } => CallError::NobodyThere,
        BootstrapError::NotAuthenticated { problem, .. } => failed(format!(
            "{problem}: its job secret differs from this rank's, or it has too many callers"
        )),
        BootstrapError::ForeignUser { expected, found, .. } => failed(format!(
            "its socket is held by user {found}, not by user {expected} who runs this job"
        )),
        BootstrapError::Protocol { problem, .. } => failed(format!("it {problem}")),
        BootstrapError::System { source, .. } if tcp::is_out_of_reach(source) => CallError::Silent,
        error => failed(error),
    }
}

/// Says what is queued, and hears the answer.
fn converse(attempt: &mut Attempt<'_, '_>, channel: &mut Channel) -> Result<Said, CallError> {
    channel
        .flush()
        .map_err(|problem| failed(format!("its connection {problem}")))?;
    let hung_up = |channel: &Channel| BootstrapError::Departed {
        rank: 0,
        how: match channel.is_out_of_reach() {
            true => DepartureKind::OutOfReach,
            false => DepartureKind::Died,
        },
        step: String::new(),
    };
    match attempt.next(channel, None, hung_up) {
        Ok(Some(message)) => read(message),
        Ok(None) => Err(CallError::Silent),
        Err(error) => Err(not_introduced(error)),
    }
}

fn read(message: Message) -> Result<Said, CallError> {
    let odd = |problem: String| failed(format!("it {problem}"));
    match message.kind {
        Kind::Reply => {
            let (header, bytes) = message::decode_with_payload(message.body).map_err(odd)?;
            match header {
                ReplyHeader::Answered => Ok(Said {
                    bytes,
                    descriptors: message.descriptors,
                }),
                ReplyHeader::Refused { why } => Err(CallError::Refused(why)),
                ReplyHeader::NotHere => Err(CallError::NobodyThere),
            }
        }
        Kind::Refused => Err(CallError::Refused(message::decode(&message.body).map_err(odd)?)),
        kind => Err(odd(format!("answered with a {kind:?}"))),
    }
}
