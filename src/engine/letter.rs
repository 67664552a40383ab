//! Messages from one rank to one other, which the rest of the ranks hear nothing of. The n-th that a rank sends to
//! another is the n-th that that one receives from it; both give its tag and type, and the receiver how much it takes.
//! Nothing moves before both have come.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::{EngineError, Extent, Ticket, Waited, WindowMap};
use crate::memory::DataType;

/// The end at which a rank has a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It sends.
    Send,
    /// It receives.
    Receive,
}

/// One end of a message.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Which end.
    pub way: Way,
    /// The rank at the other end.
    pub peer: u32,
    /// Which message it is of those that go this way between the two, from 1.
    pub number: u64,
    /// What sender and receiver must agree on.
    pub tag: u32,
    /// The elements' type.
    pub data_type: DataType,
    /// From where, or to where.
    pub extent: Extent,
    /// How many bytes are sent, or at most received.
    pub bytes: usize,
    /// How long it may take.
    pub timeout: Duration,
}

/// What one end says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub bytes: u64,
    pub tag: u32,
    /// The number of the type in [`DataType::ALL`].
    pub data_type: u32,
}

impl Header {
    /// Tag and type in one word.
    pub fn label(self) -> u64 {
        u64::from(self.data_type) << 32 | u64::from(self.tag)
    }

    pub fn labelled(bytes: u64, label: u64) -> Self {
        Self {
            bytes,
            tag: label as u32,
            data_type: (label >> 32) as u32,
        }
    }

    fn type_name(self) -> &'static str {
        DataType::ALL
            .get(self.data_type as usize)
            .map_or("?", |known| known.name())
    }
}

impl Letter {
    pub(super) fn header(&self) -> Header {
        let data_type = DataType::ALL.iter().position(|known| *known == self.data_type);
        Header {
            bytes: self.bytes as u64,
            tag: self.tag,
            data_type: data_type.expect("every type is listed") as u32,
        }
    }

    /// The sender's and the receiver's words on it: whether they go together.
    pub(super) fn fits(sent: Header, wanted: Header) -> bool {
        (sent.tag, sent.data_type) == (wanted.tag, wanted.data_type) && sent.bytes <= wanted.bytes
    }

    /// The error where `theirs` do not go together with this end's.
    pub(super) fn unfit(&self, rank: u32, theirs: Header) -> EngineError {
        let own = self.header();
        let (from, to, sent, wanted) = match self.way {
            Way::Send => (rank, self.peer, own, theirs),
            Way::Receive => (self.peer, rank, theirs, own),
        };
        let what = format!(
            "rank {from} sends {} bytes of {} with tag {}, rank {to} receives at most {} bytes of {} with tag {}",
            sent.bytes,
            sent.type_name(),
            sent.tag,
            wanted.bytes,
            wanted.type_name(),
            wanted.tag
        );
        EngineError::Letter {
            rank,
            from,
            to,
            number: self.number,
            what,
        }
    }

    /// The error where the window that the other rank names is not there.
    pub(super) fn without_window(&self, rank: u32, dropped_by: u32) -> EngineError {
        let (from, to) = match self.way {
            Way::Send => (rank, self.peer),
            Way::Receive => (self.peer, rank),
        };
        let what = format!(
            "rank {dropped_by} has dropped its part of the window that the other rank's memory lies in; keep windows on \
             all ranks until no rank uses them"
        );
        EngineError::Letter {
            rank,
            from,
            to,
            number: self.number,
            what,
        }
    }

    /// What it is waited for.
    pub(super) fn waited(&self, reached: &str) -> Waited {
        let Header { bytes, tag, .. } = self.header();
        let (peer, number) = (self.peer, self.number);
        let operation = match self.way {
            Way::Send => format!("send of {bytes} bytes with tag {tag} to rank {peer}"),
            Way::Receive => format!("receive of up to {bytes} bytes with tag {tag} from rank {peer}"),
        };
        Waited {
            operation,
            sequence: number,
            plan: "point-to-point".into(),
            peer,
            last: peer,
            step: reached.to_owned(),
        }
    }
}

/// One end of a message, under way.
#[derive(Debug)]
pub(super) struct UnderWay<S> {
    pub letter: Letter,
    pub ticket: Ticket,
    pub began: Instant,
    pub state: S,
}

/// The windows that messages may lie in, found by their number.
#[derive(Debug, Default)]
pub(super) struct Windows(Vec<Weak<WindowMap>>);

impl Windows {
    pub fn remember(&mut self, window: &Arc<WindowMap>) {
        self.0.retain(|known| known.strong_count() != 0);
        self.0.push(Arc::downgrade(window));
    }

    /// `bytes` bytes at a place that another rank named (see [`Extent::place`]), if they are in a window that is here.
    pub fn find(&self, place: u64, bytes: usize) -> Option<Extent> {
        let (number, offset) = ((place >> 48) as u16, (place & ((1 << 48) - 1)) as usize);
        // Numbers come round again: the latest.
        let mut windows = self.0.iter().rev().filter_map(Weak::upgrade);
        let window = windows.find(|window| window.number() == number)?;
        let inside = offset <= window.len() && bytes <= window.len() - offset;
        inside.then(|| Extent::new(window, offset, bytes))
    }
}
