//! What the ranks say to each other, and how it is cut into records.
//!
//! A message is a kind, a body and descriptors; it travels as one or more records, each of which is sealed by Noise
//! on its own. Everything in here reads bytes from outside: it refuses and never panics.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::verdict::Verdict;
use super::{DepartureKind, HostIdentity, Rank, noise};

/// Grows whenever an older peer would misunderstand.
pub(super) const PROTOCOL_VERSION: u32 = 6;
/// Spoken in the hello, inside the encrypted channel.
pub(super) const MAGIC: &str = "sapwood";
/// The first bytes of each record: kind, flags, number of descriptors, zero.
pub(super) const HEADER_BYTES: usize = 4;
/// The most body bytes in a record.
pub(super) const BODY_LIMIT: usize = noise::MESSAGE_LIMIT - noise::TAG_BYTES - HEADER_BYTES;
/// The most descriptors that the kernel passes at once (SCM_MAX_FD).
pub(super) const DESCRIPTORS_LIMIT: usize = 253;
/// The largest message: a payload and its header.
pub(super) const MESSAGE_LIMIT: usize = 64 << 20;
/// The largest payload of one rank.
pub(super) const PAYLOAD_LIMIT: usize = MESSAGE_LIMIT - 4096;
/// The longest name of a step that is carried; longer ones are cut.
pub(super) const STEP_LIMIT: usize = 256;
const LAST: u8 = 1;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A rank introduces itself to rank 0.
    Hello = 1,
    /// Rank 0 takes it in; carries the roll.
    Accepted = 2,
    /// Rank 0 does not.
    Refused = 3,
    /// All have come; carries the table of ranks and a descriptor for each process.
    Table = 4,
    /// What a rank brings to a collective step.
    Contribution = 5,
    /// What another rank brought, passed on by rank 0.
    Relayed = 6,
    /// Rank 0 says why a step or the join cannot be finished.
    Verdict = 7,
    /// A rank says how it leaves, or that it has given up. Over the network only, as all that follow: on one host
    /// the roll says it.
    Leaving = 8,
    /// Who has gone, and how.
    News = 9,
    /// A rank asks who has not come to a step.
    Question = 10,
    /// Who has not.
    Answer = 11,
    /// What several ranks brought, in one message.
    Parts = 12,
    /// After a death a rank says that it lives, and something besides.
    Survive = 13,
    /// Which ranks have said so, when all that live had.
    Survivors = 14,
    /// A rank that has come back asks for something at another's door.
    Knock = 15,
    /// The answer.
    Welcome = 16,
    /// A rank asks another something, at its switchboard.
    Call = 17,
    /// The answer.
    Reply = 18,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        let all = [
            Hello,
            Accepted,
            Refused,
            Table,
            Contribution,
            Relayed,
            Verdict,
            Leaving,
            News,
            Question,
            Answer,
            Parts,
            Survive,
            Survivors,
            Knock,
            Welcome,
            Call,
            Reply,
        ];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A whole message as it was received.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) body: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// The only part of a hello that every version of the protocol understands.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Greeting {
    pub(super) magic: String,
    pub(super) version: u32,
}

/// How a rank introduces itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) magic: String,
    pub(super) version: u32,
    pub(super) rank: Rank,
    pub(super) size: u32,
    pub(super) local_rank: u32,
    pub(super) host: HostIdentity,
    /// Its process, as its own PID name space numbers it: what is believed where the kernel cannot tell.
    pub(super) pid: i32,
}

/// One line of the table that rank 0 sends to all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Peer {
    /// The process, as rank 0's PID name space numbers it, or over the network as its own does.
    pub(super) pid: i32,
    pub(super) host: HostIdentity,
}

/// The table: peers by rank, and the processes whose descriptors come with it, in their order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Table {
    pub(super) peers: Vec<Peer>,
    pub(super) watched: Vec<i32>,
    /// Random, for this job alone: what the ranks derive names from that no other job has.
    pub(super) salt: u128,
}

/// What stands before the payload of a contribution.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ContributionHeader {
    pub(super) step: String,
    pub(super) sequence: u64,
    /// How many descriptors the rank brings, if they do not come with this message.
    pub(super) apart: u32,
}

/// What stands before the payload of a relayed contribution.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RelayedHeader {
    pub(super) rank: Rank,
    pub(super) sequence: u64,
}

/// How a rank leaves, or why it has given up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Leaving {
    pub(super) how: DepartureKind,
    pub(super) verdict: Option<Verdict>,
    /// Nothing more comes from it.
    pub(super) last: bool,
}

/// Ranks that have gone since the last news.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct News {
    pub(super) gone: Vec<(Rank, Leaving)>,
}

/// Who has not come to a step yet? The number of the join is 0.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) sequence: u64,
}

/// These have not.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) sequence: u64,
    pub(super) behind: Vec<Rank>,
}

/// A rank lives, and says something to all others that do, in this stage of what they agree on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Survive {
    pub(super) stage: u64,
    pub(super) said: Vec<u8>,
}

/// What those have said who live, ascending.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Survivors {
    pub(super) stage: u64,
    pub(super) said: Vec<(Rank, Vec<u8>)>,
}

/// What a rank that has come back wants at another's door.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Knock {
    /// To know the job, and its roll.
    Job,
    /// What is kept there under a number, of the job with that salt.
    Kept { salt: u128, number: u32 },
}

/// What it gets there; descriptors come along.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Welcome {
    /// With the roll.
    Job { peers: Vec<Peer>, salt: u128 },
    /// With what is kept.
    Kept { payload: String },
    /// Nothing now, for this reason.
    Later { why: String },
    /// Nothing, ever.
    Never { why: String },
}

/// Makes the number of a step out of that of a stage, for a [`Question`] about it.
pub(super) const STAGES: u64 = 1 << 63;

/// A control body. Only types of this module are written, and none of them can fail to be.
pub(super) fn encode(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

pub(super) fn decode<'bytes, Body: Deserialize<'bytes>>(bytes: &'bytes [u8]) -> Result<Body, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("sent a message that cannot be read ({error})"))
}

/// A header and a payload in one body: the header's length in 4 bytes, the header, the payload.
pub(super) fn encode_with_payload(header: &impl Serialize, payload: &[u8]) -> Vec<u8> {
    let header = encode(header);
    let mut body = Vec::with_capacity(4 + header.len() + payload.len());
    body.extend_from_slice(&(header.len() as u32).to_le_bytes());
    body.extend_from_slice(&header);
    body.extend_from_slice(payload);
    body
}

/// Takes a body apart again; the payload is what remains of the body's own allocation.
pub(super) fn decode_with_payload<Header: for<'bytes> Deserialize<'bytes>>(
    mut body: Vec<u8>,
) -> Result<(Header, Vec<u8>), String> {
    let short = || "sent a message that ends too early".to_owned();
    let length = body
        .first_chunk::<4>()
        .map(|bytes| u32::from_le_bytes(*bytes) as usize)
        .ok_or_else(short)?;
    let end = length.checked_add(4).ok_or_else(short)?;
    let header = decode(body.get(4..end).ok_or_else(short)?)?;
    body.drain(..end);
    Ok((header, body))
}

/// Writes a record's header.
pub(super) fn record_header(kind: Kind, last: bool, descriptors: usize) -> [u8; HEADER_BYTES] {
    [kind as u8, if last { LAST } else { 0 }, descriptors as u8, 0]
}

/// Puts messages together again from records.
pub(super) struct Assembler {
    partial: Option<Message>,
    limit: usize,
}

impl Assembler {
    /// Refuses messages longer than `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { partial: None, limit }
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes one opened record, and its descriptors from those that have arrived; gives the message that it ends.
    pub(super) fn push(
        &mut self,
        record: &[u8],
        arrived: &mut VecDeque<OwnedFd>,
    ) -> Result<Option<Message>, String> {
        let Some((&[kind, flags, descriptors, zero], body)) = record.split_first_chunk::<HEADER_BYTES>()
        else {
            return Err("sent a record without a header".into());
        };
        let kind = Kind::from_byte(kind).ok_or_else(|| format!("sent a message of unknown kind {kind}"))?;
        if flags & !LAST != 0 || zero != 0 || usize::from(descriptors) > DESCRIPTORS_LIMIT {
            return Err("sent a record with a malformed header".into());
        }
        if usize::from(descriptors) > arrived.len() {
            return Err(format!(
                "sent {descriptors} descriptors of which {} arrived (is the limit on open files reached? ulimit -n)",
                arrived.len()
            ));
        }
        let message = self.partial.get_or_insert_with(|| Message {
            kind,
            body: Vec::new(),
            descriptors: Vec::new(),
        });
        if message.kind != kind {
            return Err("sent a record of one message inside another".into());
        }
        if message.body.len() + body.len() > self.limit {
            return Err(format!("sent a message of more than {} bytes", self.limit));
        }
        message.body.extend_from_slice(body);
        message
            .descriptors
            .extend(arrived.drain(..usize::from(descriptors)));
        Ok(if flags & LAST != 0 {
            self.partial.take()
        } else {
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(kind: Kind, body: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let pieces: Vec<&[u8]> = if body.is_empty() {
            vec![body]
        } else {
            body.chunks(piece).collect()
        };
        let count = pieces.len();
        let cut = |(index, piece): (usize, &&[u8])| {
            [&record_header(kind, index + 1 == count, 0)[..], piece].concat()
        };
        pieces.iter().enumerate().map(cut).collect()
    }

    proptest! {
        #[test]
        fn a_message_survives_any_cut(body in prop::collection::vec(any::<u8>(), 0..2000), piece in 1usize..300) {
            let mut assembler = Assembler::new(4096);
            let mut whole = Vec::new();
            for record in records(Kind::Relayed, &body, piece) {
                whole.extend(assembler.push(&record, &mut VecDeque::new()).unwrap());
            }
            prop_assert_eq!(whole.len(), 1);
            prop_assert_eq!(&whole[0].body, &body);
        }

        #[test]
        fn random_records_never_panic(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..20)) {
            let mut assembler = Assembler::new(256);
            for record in records {
                let _ = assembler.push(&record, &mut VecDeque::new());
            }
        }

        #[test]
        fn random_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Hello>(&body);
            let _ = decode::<Table>(&body);
            let _ = decode::<Verdict>(&body);
            let _ = decode::<Leaving>(&body);
            let _ = decode::<News>(&body);
            let _ = decode::<Question>(&body);
            let _ = decode::<Answer>(&body);
            let _ = decode::<Survive>(&body);
            let _ = decode::<Survivors>(&body);
            let _ = decode::<Knock>(&body);
            let _ = decode::<Welcome>(&body);
            let _ = decode_with_payload::<ContributionHeader>(body.clone());
            let _ = decode_with_payload::<RelayedHeader>(body);
        }

        #[test]
        fn headers_and_payloads_come_apart_as_they_went_in(payload in prop::collection::vec(any::<u8>(), 0..500), sequence: u64, step in ".{0,50}") {
            let body = encode_with_payload(&ContributionHeader { step: step.clone(), sequence, apart: 0 }, &payload);
            let (header, rest) = decode_with_payload::<ContributionHeader>(body).unwrap();
            prop_assert_eq!((header.step, header.sequence, rest), (step, sequence, payload));
        }
    }

    #[test]
    fn a_message_that_grows_without_end_is_refused() {
        let mut assembler = Assembler::new(100);
        let record = [&record_header(Kind::Hello, false, 0)[..], &[0; 60]].concat();
        assert!(assembler.push(&record, &mut VecDeque::new()).unwrap().is_none());
        assert!(assembler.push(&record, &mut VecDeque::new()).is_err());
    }
}
