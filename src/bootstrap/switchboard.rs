//! A rank's switchboard: calls from other ranks are answered by a thread of its own while the training thread does
//! other things. It is how two ranks agree on something that only they need, when they need it.
//!
//! To ranks of the same host it is an abstract socket whose name is made of the job's secret, the rank and the rank's
//! life, so that who comes back after a death is found without having told anybody; to other hosts a TCP port, which
//! is told them. Nobody is answered who has not proved that he knows the secret. It must never be open longer than
//! whoever answers lives, and never answer for another rank, life or membership.

mod caller;
mod place;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::inherit::Unshared;
use super::message::{self, Kind, Message};
use super::socket::Listener;
use super::visits::{Guest, Host, Reply, Served};
use super::{BootstrapError, Job, Membership, Rank};
pub(crate) use caller::{CallError, Caller};
pub(crate) use place::Place;

/// The most bytes that are said in a call, or answered.
const SAID_LIMIT: usize = 1 << 20;
/// What stands before them is shorter.
const HEADER_LIMIT: usize = 4096;

/// What stands before the bytes of a call: whom it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CallHeader {
    salt: u128,
    number: u32,
    rank: Rank,
    life: u64,
}

/// What stands before the bytes of a reply.
#[derive(Debug, Serialize, Deserialize)]
enum ReplyHeader {
    Answered,
    Refused {
        why: String,
    },
    /// The call was for another switchboard, which had this port before.
    NotHere,
}

/// What is said in a call, or answered: bytes, at most 1 MiB, and, on one host, descriptors.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Answers calls, one after the other, on the switchboard's thread: who calls meanwhile waits. The first is the caller's
/// rank. An `Err` is told to the caller as the reason. It must come to an end: whoever drops the switchboard waits for
/// it. Who has hung up by the time that it would be his turn is not answered any more.
pub(crate) type Answer = Box<dyn FnMut(Rank, Said) -> Result<Said, String> + Send>;

/// A rank's, open until it is dropped. Its thread is joined then, which takes as long as the answer that it is in.
pub(crate) struct Switchboard {
    // In this order: nobody is taken in any more, children may be given the numbers, the sockets are closed.
    _served: Served,
    _unshared: Vec<Unshared>,
    _listeners: Vec<Arc<Listener>>,
    place: Place,
}

impl Switchboard {
    /// Where ranks of other hosts reach it.
    pub(crate) fn place(&self) -> Place {
        self.place.clone()
    }
}

impl Membership {
    /// Opens this rank's switchboard of that number, until what is returned is dropped.
    ///
    /// # Errors
    /// [`BootstrapError::System`] if this rank has one of that number open already, or the system refuses something.
    pub(crate) fn answer_calls(&self, number: u32, answer: Answer) -> Result<Switchboard, BootstrapError> {
        self.check_process()?;
        let rank = self.rank();
        let failed =
            |why: &str| BootstrapError::system(format!("opening rank {rank}'s switchboard {number}{why}"));
        let header = CallHeader {
            salt: self.salt,
            number,
            rank,
            life: self.life(),
        };
        let near = Listener::unheard(&place::near(&self.job, &header)?).map_err(|error| match error {
            Errno::ADDRINUSE => failed(", which is open already")(error),
            error => failed("")(error),
        })?;
        near.listen().map_err(failed(""))?;
        let (far, place) = match place::open(self)? {
            Some((far, place)) => (Some(far), place),
            None => (None, Place::default()),
        };
        let listeners: Vec<Arc<Listener>> = [near].into_iter().chain(far).map(Arc::new).collect();
        let unshared = listeners
            .iter()
            .map(|listener| Unshared::new(&listener.socket))
            .collect();
        let answers = Answers {
            job: self.job.clone(),
            header,
            answer: Some(answer),
        };
        let served = Served::start("sapwood-switchboard", listeners.clone(), answers).map_err(failed(""))?;
        Ok(Switchboard {
            _served: served,
            _unshared: unshared,
            _listeners: listeners,
            place,
        })
    }
}

/// The end that answers.
struct Answers {
    job: Job,
    /// What calls for this switchboard say.
    header: CallHeader,
    /// None once it has panicked.
    answer: Option<Answer>,
}

impl Host for Answers {
    const PLACE: &'static str = "this rank's switchboard";
    const QUESTION_LIMIT: usize = SAID_LIMIT + HEADER_LIMIT;

    fn job(&self) -> &Job {
        &self.job
    }

    fn answer(&mut self, guest: &Guest, question: Message) -> Result<Reply, String> {
        if question.kind != Kind::Call {
            return Err(format!("it sent a {:?} instead of a call", question.kind));
        }
        let decoded = message::decode_with_payload::<CallHeader>(question.body);
        let (header, bytes) = decoded.map_err(|problem| format!("it {problem}"))?;
        let reply = |header, said: Said| Reply {
            kind: Kind::Reply,
            body: message::encode_with_payload(&header, &said.bytes),
            descriptors: Arc::new(said.descriptors),
        };
        if header != self.header {
            // A port may be another switchboard's by now.
            return Ok(reply(ReplyHeader::NotHere, Said::default()));
        }
        let descriptors = question.descriptors;
        Ok(match self.ask(guest, Said { bytes, descriptors }) {
            Ok(said) => reply(ReplyHeader::Answered, said),
            Err(why) => reply(ReplyHeader::Refused { why }, Said::default()),
        })
    }
}

impl Answers {
    fn ask(&mut self, guest: &Guest, said: Said) -> Result<Said, String> {
        let panicked = || "its answer has panicked, and answers nobody any more".to_owned();
        let mut answer = self.answer.take().ok_or_else(panicked)?;
        // What a panic leaves behind is never used again.
        let answered = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let answered = answer(guest.rank, said);
            (answer, answered)
        }));
        let (answer, answered) = answered.map_err(|_| panicked())?;
        self.answer = Some(answer);
        let answered = answered?;
        if answered.bytes.len() > SAID_LIMIT {
            let length = answered.bytes.len();
            return Err(format!(
                "its answer has {length} bytes, more than the {SAID_LIMIT} that a call carries"
            ));
        }
        if guest.from_network && !answered.descriptors.is_empty() {
            return Err("its answer has descriptors, which mean something on one host only".into());
        }
        Ok(answered)
    }
}
