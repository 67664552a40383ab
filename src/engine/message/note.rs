//! What ranks say to each other in so many words: that an operation has begun, for whom they wait, that they give up
//! or leave, that they have a message for one other. Decoding checks everything.

use crate::engine::details::Details;
use crate::engine::letter::Header;
use crate::engine::{Signature, Trouble};

/// Bytes that a receive must hold.
pub(super) const NOTE_BYTES: usize = 128;

/// What a rank called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Called {
    pub signature: Signature,
    pub details: Details,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Note {
    /// The sender has begun operation `sequence`; its staging slots for it start at number `staging`. At most 64
    /// bytes: it goes out at the begin of every operation.
    Begin {
        sequence: u64,
        called: Called,
        staging: u32,
        /// What its contribution is multiplied by, where there are factors.
        factor: f64,
    },
    /// The sender has waited for long in operation `sequence`, because of rank `culprit` as far as it knows.
    Waits { sequence: u64, culprit: u32 },
    /// Rank `origin` has given up, and so does the sender.
    Trouble { origin: u32, trouble: Trouble },
    /// Ranks called different things: two of them, and what.
    Mismatch {
        origin: u32,
        sequence: u64,
        ranks: [(u32, Called); 2],
    },
    /// The sender has a message for the receiver.
    Offer { number: u64, header: Header },
    /// The sender receives the message with this number here, or wants something else.
    Answer {
        number: u64,
        place: Option<u64>,
        header: Header,
    },
    /// The message has been written, or cannot be: the sender has no such window.
    Written { number: u64, well: bool },
    /// The sender has ended all its operations and takes part in no other.
    Leave,
}

impl Note {
    /// Writes it; says how many bytes it took.
    pub fn encode(self, generation: u32, bytes: &mut [u8; NOTE_BYTES]) -> usize {
        let mut writer = Writer { bytes, len: 0 };
        let mut header = |kind: u32| {
            writer.u32(kind << 16 | generation & 0xffff);
        };
        match self {
            Self::Begin {
                sequence,
                called,
                staging,
                factor,
            } => {
                header(1);
                writer.u32(staging);
                writer.u64(sequence);
                writer.called(called);
                writer.u64(factor.to_bits());
            }
            Self::Waits { sequence, culprit } => {
                header(2);
                writer.u32(culprit);
                writer.u64(sequence);
            }
            Self::Trouble { origin, trouble } => {
                header(3);
                writer.u32(origin);
                writer.u64(trouble.pack());
            }
            Self::Mismatch {
                origin,
                sequence,
                ranks,
            } => {
                header(4);
                writer.u32(origin);
                writer.u64(sequence);
                for (rank, called) in ranks {
                    writer.u32(rank);
                    writer.called(called);
                }
            }
            Self::Leave => header(5),
            Self::Offer { number, header: what } => {
                header(6);
                writer.u64(number);
                writer.header(what);
            }
            Self::Answer {
                number,
                place,
                header: what,
            } => {
                header(7);
                writer.u64(number);
                writer.u32(u32::from(place.is_some()));
                writer.u64(place.unwrap_or(0));
                writer.header(what);
            }
            Self::Written { number, well } => {
                header(8);
                writer.u64(number);
                writer.u32(u32::from(well));
            }
        }
        writer.len
    }

    /// Reads one; `None` if it is none of this generation.
    pub fn decode(bytes: &[u8], generation: u32) -> Option<Self> {
        let mut reader = Reader(bytes);
        let head = reader.u32()?;
        if head & 0xffff != generation & 0xffff {
            return None;
        }
        let note = match head >> 16 {
            1 => {
                let staging = reader.u32()?;
                Self::Begin {
                    staging,
                    sequence: reader.u64()?,
                    called: reader.called()?,
                    factor: f64::from_bits(reader.u64()?),
                }
            }
            2 => Self::Waits {
                culprit: reader.u32()?,
                sequence: reader.u64()?,
            },
            3 => Self::Trouble {
                origin: reader.u32()?,
                trouble: Trouble::unpack(reader.u64()?)?,
            },
            4 => Self::Mismatch {
                origin: reader.u32()?,
                sequence: reader.u64()?,
                ranks: [
                    (reader.u32()?, reader.called()?),
                    (reader.u32()?, reader.called()?),
                ],
            },
            5 => Self::Leave,
            6 => Self::Offer {
                number: reader.u64()?,
                header: reader.header()?,
            },
            7 => Self::Answer {
                number: reader.u64()?,
                place: {
                    let (there, place) = (reader.u32()?, reader.u64()?);
                    (there != 0).then_some(place)
                },
                header: reader.header()?,
            },
            8 => Self::Written {
                number: reader.u64()?,
                well: reader.u32()? != 0,
            },
            _ => return None,
        };
        reader.0.is_empty().then_some(note)
    }
}

struct Writer<'a> {
    bytes: &'a mut [u8; NOTE_BYTES],
    len: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
    fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }
    fn header(&mut self, header: Header) {
        self.u64(header.bytes);
        self.u64(header.label());
    }
    fn called(&mut self, called: Called) {
        self.u64(called.signature.0);
        called.details.0.into_iter().for_each(|word| self.u64(word));
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
    fn header(&mut self) -> Option<Header> {
        Some(Header::labelled(self.u64()?, self.u64()?))
    }
    fn called(&mut self) -> Option<Called> {
        Some(Called {
            signature: Signature(self.u64()?),
            details: Details([self.u64()?, self.u64()?, self.u64()?]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn called(word: u64) -> Called {
        Called {
            signature: Signature(word),
            details: Details([word + 1, word + 2, word + 3]),
        }
    }

    #[test]
    fn every_note_survives_the_way() {
        let notes = [
            Note::Begin {
                sequence: 1 << 39,
                called: called(7),
                staging: 24,
                factor: 0.25,
            },
            Note::Waits {
                sequence: 3,
                culprit: 5,
            },
            Note::Trouble {
                origin: 2,
                trouble: Trouble::Deadline(9),
            },
            Note::Mismatch {
                origin: 1,
                sequence: 4,
                ranks: [(1, called(1)), (4095, called(9))],
            },
            Note::Leave,
            Note::Offer {
                number: 1 << 40,
                header: Header::labelled(1 << 41, 7 << 32 | 9),
            },
            Note::Answer {
                number: 3,
                place: Some(1 << 48 | 64),
                header: Header::labelled(5, 0),
            },
            Note::Written {
                number: 3,
                well: true,
            },
        ];
        for note in notes {
            let mut bytes = [0; NOTE_BYTES];
            let len = note.encode(3, &mut bytes);
            assert!(
                len <= 64 || !matches!(note, Note::Begin { .. }),
                "a begin goes inline"
            );
            assert_eq!(Note::decode(&bytes[..len], 3), Some(note));
            assert_eq!(Note::decode(&bytes[..len], 4), None);
            assert_eq!(Note::decode(&bytes[..len - 1], 3), None);
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..NOTE_BYTES)) {
            let _ = Note::decode(&bytes, 0);
        }
    }
}
