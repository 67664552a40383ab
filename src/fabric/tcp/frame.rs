//! What travels between two ranks: headers of a fixed size, some with a body behind them. Decoding checks everything
//! that a header alone can tell, whoever it is from, and allocates nothing.
//!
//! On the wire: 56 bytes of header, 16 bytes of tag; then, if the header says so, a body of at most [`FRAGMENT`] bytes
//! and its 16 bytes of tag. Little-endian. Up to [`INLINE`] bytes of payload ride in the header itself.

use crate::fabric::Status;

/// Bytes of a header without its tag.
pub(super) const PLAIN: usize = 56;
/// Bytes of a tag.
pub(super) const TAG: usize = 16;
/// Bytes of a header on the wire.
pub(super) const HEADER: usize = PLAIN + TAG;
/// The longest payload that needs no body.
pub(super) const INLINE: usize = 16;
/// The longest body. What is longer travels in several.
pub(super) const FRAGMENT: usize = 256 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of a write.
    Write,
    /// A piece of a send.
    Send,
    /// Asks for bytes.
    Read,
    /// Asks for an addition.
    FetchAdd,
    /// Asks for an exchange.
    CompareSwap,
    /// A piece of what a read, or an atomic, asked for.
    Answer,
    /// The request behind those that are acknowledged ends so, and with it everything.
    Refusal(Status),
    /// Nothing but the counts that every header carries.
    Counts,
}

/// See the module. Which of the words mean what depends on the kind; all others are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub kind: Kind,
    /// The first of a message.
    pub first: bool,
    /// The last of a message.
    pub last: bool,
    /// Whoever posted it waits for its end.
    pub signaled: bool,
    /// Delivered with the message's end; with the last frame of a write or a send only.
    pub immediate: Option<u32>,
    /// Bytes of payload in the header.
    pub inline: usize,
    /// Bytes of the body.
    pub body: usize,
    /// How many requests of the other side have ended well since the beginning, modulo 2^32.
    pub acknowledged: u32,
    /// How many receives this side has posted since the beginning, modulo 2^32.
    pub receives: u32,
    /// The key, of what names memory; of a send or an answer the bytes of the whole message.
    pub key: u64,
    /// Where in the region this frame's bytes, or the word, are.
    pub offset: u64,
    /// A write's or read's bytes in all; else an atomic's operands; else the payload itself.
    pub words: [u64; 2],
}

const FIRST: u8 = 1;
const LAST: u8 = 2;
const SIGNALED: u8 = 4;
const IMMEDIATE: u8 = 8;

impl Frame {
    /// One with nothing but the counts.
    pub fn counts(acknowledged: u32, receives: u32) -> Self {
        Self {
            kind: Kind::Counts,
            first: false,
            last: false,
            signaled: false,
            immediate: None,
            inline: 0,
            body: 0,
            acknowledged,
            receives,
            key: 0,
            offset: 0,
            words: [0; 2],
        }
    }

    /// Payload in the header.
    pub fn payload(&self) -> [u8; INLINE] {
        let mut bytes = [0; INLINE];
        bytes[..8].copy_from_slice(&self.words[0].to_le_bytes());
        bytes[8..].copy_from_slice(&self.words[1].to_le_bytes());
        bytes
    }

    /// Puts payload into the header.
    pub fn set_payload(&mut self, bytes: [u8; INLINE], len: usize) {
        self.words = [0, 8].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")));
        self.inline = len;
    }

    pub fn encode(&self) -> [u8; PLAIN] {
        let (kind, status) = match self.kind {
            Kind::Write => (1, 0),
            Kind::Send => (2, 0),
            Kind::Read => (3, 0),
            Kind::FetchAdd => (4, 0),
            Kind::CompareSwap => (5, 0),
            Kind::Answer => (6, 0),
            Kind::Refusal(status) => (7, from_status(status)),
            Kind::Counts => (8, 0),
        };
        let bit = |set, bit| if set { bit } else { 0 };
        let flags = bit(self.first, FIRST)
            | bit(self.last, LAST)
            | bit(self.signaled, SIGNALED)
            | bit(self.immediate.is_some(), IMMEDIATE);
        let mut bytes = [0; PLAIN];
        bytes[..4].copy_from_slice(&[kind, flags, self.inline as u8, status]);
        let halves = [
            self.immediate.unwrap_or(0),
            self.body as u32,
            self.acknowledged,
            self.receives,
        ];
        for (at, half) in halves.into_iter().enumerate() {
            bytes[4 + 4 * at..][..4].copy_from_slice(&half.to_le_bytes());
        }
        let words = [self.key, self.offset, self.words[0], self.words[1]];
        for (at, word) in words.into_iter().enumerate() {
            bytes[24 + 8 * at..][..8].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// # Errors
    /// In words: no rank that runs this release sends such a thing.
    pub fn decode(bytes: &[u8; PLAIN]) -> Result<Self, &'static str> {
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let [kind, flags, inline, status] = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let kind = match (kind, status) {
            (1, 0) => Kind::Write,
            (2, 0) => Kind::Send,
            (3, 0) => Kind::Read,
            (4, 0) => Kind::FetchAdd,
            (5, 0) => Kind::CompareSwap,
            (6, 0) => Kind::Answer,
            (7, status) => Kind::Refusal(to_status(status).ok_or("a refusal without a reason")?),
            (8, 0) => Kind::Counts,
            _ => return Err("a frame of no known kind"),
        };
        if flags & !(FIRST | LAST | SIGNALED | IMMEDIATE) != 0 || half(20) != 0 {
            return Err("bits that mean nothing");
        }
        let has = |bit| flags & bit != 0;
        let immediate = has(IMMEDIATE).then(|| half(4));
        if immediate.is_none() && half(4) != 0 {
            return Err("an immediate that is none");
        }
        let frame = Self {
            kind,
            first: has(FIRST),
            last: has(LAST),
            signaled: has(SIGNALED),
            immediate,
            inline: inline.into(),
            body: half(8) as usize,
            acknowledged: half(12),
            receives: half(16),
            key: word(24),
            offset: word(32),
            words: [word(40), word(48)],
        };
        let carries = matches!(kind, Kind::Write | Kind::Send | Kind::Answer);
        if frame.inline > INLINE || frame.body > FRAGMENT || frame.inline != 0 && frame.body != 0 {
            return Err("more payload than a frame may carry");
        }
        if !carries && (frame.inline != 0 || frame.body != 0) {
            return Err("payload where none can be");
        }
        let message = matches!(kind, Kind::Write | Kind::Send);
        if immediate.is_some() && !(message && frame.last) {
            return Err("an immediate where none can be");
        }
        if carries && frame.body == 0 && !(frame.first && frame.last) {
            return Err("a piece of a message without payload");
        }
        Ok(frame)
    }
}

fn from_status(status: Status) -> u8 {
    match status {
        Status::RemoteAccess => 1,
        _ => 2,
    }
}

fn to_status(byte: u8) -> Option<Status> {
    match byte {
        1 => Some(Status::RemoteAccess),
        2 => Some(Status::RemoteOperation),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut frame = Frame::counts(7, u32::MAX);
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        frame.kind = Kind::Refusal(Status::RemoteAccess);
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        frame = Frame {
            kind: Kind::Write,
            first: true,
            last: true,
            signaled: true,
            immediate: Some(9),
            key: 3,
            offset: u64::MAX,
            ..frame
        };
        frame.set_payload(*b"sixteen letters!", 16);
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        assert_eq!(&frame.payload(), b"sixteen letters!");
        frame.inline = 0;
        frame.body = FRAGMENT;
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = Frame {
            kind: Kind::Write,
            first: true,
            last: true,
            ..Frame::counts(0, 0)
        };
        for bad in [
            Frame {
                body: FRAGMENT + 1,
                ..good
            },
            Frame {
                inline: INLINE + 1,
                ..good
            },
            Frame {
                inline: 1,
                body: 1,
                ..good
            },
            Frame {
                kind: Kind::Read,
                body: 1,
                ..good
            },
            Frame {
                kind: Kind::Answer,
                immediate: Some(1),
                ..good
            },
            Frame { last: false, ..good },
            Frame {
                last: false,
                body: 9,
                immediate: Some(1),
                ..good
            },
        ] {
            assert!(Frame::decode(&bad.encode()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_decoded_is_within_bounds(bytes in proptest::array::uniform32(any::<u8>()), kind in 0u8..10) {
            let mut plain = [0; PLAIN];
            plain[..32].copy_from_slice(&bytes);
            (plain[0], plain[3]) = (kind, 0);
            plain[20..24].fill(0);
            if let Ok(frame) = Frame::decode(&plain) {
                prop_assert!(frame.body <= FRAGMENT && frame.inline <= INLINE);
                prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
            }
        }
    }
}
