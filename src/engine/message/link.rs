//! This rank's end of one queue pair: what may still be posted to it, what the peer has said, and whether it lives.
//!
//! Every message uses up a receive of the peer. Each side posts a fixed number of them, posts each anew as soon as it
//! was used, and says so now and then; so nobody sends what nobody would receive. A few are kept for those messages
//! about receives themselves (else both sides could wait for the other's), and for giving up.

use std::ptr::NonNull;
use std::sync::Arc;

use super::immediate::{Immediate, MOST_RECEIVES};
use super::note::{Called, NOTE_BYTES, Note};
use crate::engine::board::DEPTH;
use crate::fabric::{
    Completion, Endpoint, Operation, PostError, Receive, Registration, RemoteRegion, Request, Slice, Status,
};

/// Receives on each queue pair, where its depth allows.
const RECEIVES: u64 = 64;
/// Notes of one's own under way on a queue pair.
const NOTES: u32 = 16;
/// Receives of the peer that only messages about receives may use.
const FOR_RECEIVES: u64 = 2;
/// Receives of the peer that only last words may use.
const FOR_LAST_WORDS: u64 = 3;

/// Bytes of registered memory for one link's notes.
pub(super) const LINK_BYTES: usize = (RECEIVES as usize + NOTES as usize) * NOTE_BYTES;

/// How urgent a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Ordinary,
    AboutReceives,
    LastWords,
}

/// What a completion of this rank's own request is about, packed into its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// A receive, by its place.
    Receive(u16),
    /// A note, by its place.
    Note(u16),
    /// An immediate without data.
    Bare,
    /// A piece of a message between two ranks: its number modulo 2^32.
    Letter(u32),
    /// A chunk of a push: the operation's number modulo 2^28, the task, and which of its destinations.
    Push { sequence: u32, task: u16, push: u16 },
}

impl Tag {
    #[inline]
    pub fn pack(self) -> u64 {
        match self {
            Self::Receive(place) => 1 << 60 | u64::from(place),
            Self::Note(place) => 2 << 60 | u64::from(place),
            Self::Bare => 3 << 60,
            Self::Letter(number) => 5 << 60 | u64::from(number),
            Self::Push { sequence, task, push } => {
                4 << 60 | u64::from(sequence & 0x0fff_ffff) << 32 | u64::from(task) << 16 | u64::from(push)
            }
        }
    }

    #[inline]
    pub fn unpack(id: u64) -> Option<Self> {
        Some(match id >> 60 {
            1 => Self::Receive(id as u16),
            2 => Self::Note(id as u16),
            3 => Self::Bare,
            5 => Self::Letter(id as u32),
            4 => Self::Push {
                sequence: (id >> 32) as u32 & 0x0fff_ffff,
                task: (id >> 16) as u16,
                push: id as u16,
            },
            _ => return None,
        })
    }
}

/// What the peer announced as an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announced {
    /// 0: nothing.
    pub sequence: u64,
    pub called: Called,
    /// Its first staging slot for it.
    pub staging: u32,
    /// What its contribution is multiplied by, where there are factors.
    pub factor: f64,
}

/// See the module.
pub(super) struct Link {
    pub peer: u32,
    /// Memory for notes: the receives' first.
    notes: (Arc<dyn Registration>, usize),
    base: NonNull<u8>,
    receives: u64,
    /// Requests that the queue holds, and how many of them are under way.
    depth: u32,
    pub in_flight: u32,
    /// Receives of the peer that were used, and how many of those it has posted anew.
    sent: u64,
    acknowledged: u64,
    /// Own receives that were used, and how many of those the peer has been told to be there again.
    received: u64,
    told: u64,
    /// Places of notes that are free, a bit for each.
    free: u32,
    /// The peer's staging slots.
    pub staging: Option<Arc<dyn RemoteRegion>>,
    /// By number modulo [`DEPTH`].
    announced: Box<[Announced]>,
    /// For whom the peer says that it waits, and in which operation.
    pub waits: Option<(u64, u32)>,
    /// Why nothing can be exchanged with the peer any more.
    pub lost: Option<String>,
    explained: bool,
    /// The peer has left in order.
    pub left: bool,
    /// Bytes of notes sent, which are no payload.
    pub note_bytes: u64,
}

// SAFETY: `base` points into memory that `notes` keeps; what is behind it is accessed by the holder of the link only,
// and by the fabric between a post and its completion.
unsafe impl Send for Link {}

impl Link {
    /// A link to a prepared queue pair, whose notes lie at `offset` of a registered region: [`LINK_BYTES`] of it.
    /// Posts the receives.
    pub fn new(
        peer: u32,
        notes: (Arc<dyn Registration>, usize),
        queue_depth: usize,
        endpoint: &mut dyn Endpoint,
    ) -> Result<Self, PostError> {
        let (registration, offset) = &notes;
        let region = registration.region();
        assert!(*offset <= region.len() && LINK_BYTES <= region.len() - offset);
        // SAFETY: just checked.
        let base = unsafe { region.base().add(*offset) };
        let nothing = Announced {
            sequence: 0,
            called: Called {
                signature: crate::engine::Signature(0),
                details: crate::engine::details::Details([0; 3]),
            },
            staging: 0,
            factor: 1.0,
        };
        let depth = queue_depth.clamp(8, RECEIVES as usize);
        let link = Self {
            peer,
            notes,
            base,
            receives: depth as u64,
            depth: depth as u32,
            in_flight: 0,
            sent: 0,
            acknowledged: 0,
            received: 0,
            told: 0,
            free: (1 << NOTES) - 1,
            staging: None,
            announced: vec![nothing; DEPTH as usize].into(),
            waits: None,
            lost: None,
            explained: false,
            left: false,
            note_bytes: 0,
        };
        for place in 0..link.receives {
            endpoint.post_receive(peer, link.receive(place as u16))?;
        }
        Ok(link)
    }

    fn receive(&self, place: u16) -> Receive {
        Receive {
            id: Tag::Receive(place).pack(),
            local: Some(self.slice(usize::from(place), NOTE_BYTES)),
        }
    }

    fn slice(&self, place: usize, len: usize) -> Slice {
        Slice {
            registration: self.notes.0.clone(),
            offset: self.notes.1 + place * NOTE_BYTES,
            len,
        }
    }

    /// What the peer announced as operation `sequence`, if it did.
    #[inline]
    pub fn announced(&self, sequence: u64) -> Option<&Announced> {
        let announced = &self.announced[(sequence % DEPTH) as usize];
        (announced.sequence == sequence).then_some(announced)
    }

    /// The full number of the operation that the peer last announced under this number modulo 256.
    #[inline]
    pub fn full_sequence(&self, sequence: u8) -> u64 {
        const { assert!(DEPTH == 256) };
        self.announced[usize::from(sequence)].sequence
    }

    pub fn announce(&mut self, announced: Announced) {
        self.announced[(announced.sequence % DEPTH) as usize] = announced;
    }

    /// Takes note of a used receive; the note in it, if it was a send. Posts it anew.
    pub fn take_receive(
        &mut self,
        place: u16,
        bytes: Option<usize>,
        generation: u32,
        endpoint: &mut dyn Endpoint,
    ) -> Option<Note> {
        let note = bytes.and_then(|bytes| {
            let bytes = bytes.min(NOTE_BYTES);
            // SAFETY: the place is inside the link's memory, and with the completion the fabric has let go of it.
            let held = unsafe {
                std::slice::from_raw_parts(self.base.add(usize::from(place) * NOTE_BYTES).as_ptr(), bytes)
            };
            Note::decode(held, generation)
        });
        // Where that fails the queue pair has, and a completion says or has said so.
        if self.lost.is_none() && endpoint.post_receive(self.peer, self.receive(place)).is_ok() {
            self.received += 1;
        }
        note
    }

    /// The peer has posted so many receives anew.
    pub fn acknowledge(&mut self, receives: u64) {
        self.acknowledged = (self.acknowledged + receives).min(self.sent);
    }

    /// Whether a message of this class may be posted now.
    #[inline]
    pub fn may_send(&self, class: Class) -> bool {
        let under_way = self.sent - self.acknowledged;
        let kept = match class {
            Class::Ordinary => FOR_RECEIVES + FOR_LAST_WORDS,
            Class::AboutReceives => FOR_LAST_WORDS,
            Class::LastWords => 0,
        };
        self.lost.is_none() && under_way + kept < self.receives && self.in_flight + (kept as u32) < self.depth
    }

    fn post(&mut self, endpoint: &mut dyn Endpoint, tag: Tag, operation: Operation) -> bool {
        let request = Request {
            id: tag.pack(),
            operation,
            signaled: true,
        };
        match endpoint.post(self.peer, std::slice::from_ref(&request)) {
            Ok(()) => {
                self.in_flight += 1;
                true
            }
            Err(PostError::QueueFull { .. }) => false,
            Err(error) => {
                // Mostly a completion has said more about it already.
                self.lost.get_or_insert_with(|| error.to_string());
                false
            }
        }
    }

    /// Posts a chunk of a push; `false` if there is no room for it now.
    #[inline]
    pub fn push(&mut self, endpoint: &mut dyn Endpoint, tag: Tag, operation: Operation) -> bool {
        self.may_send(Class::Ordinary) && self.post_message(endpoint, tag, operation)
    }

    /// Posts a write that the peer is told of later; `false` if there is no room for it now.
    pub fn write(&mut self, endpoint: &mut dyn Endpoint, tag: Tag, operation: Operation) -> bool {
        let kept = (FOR_RECEIVES + FOR_LAST_WORDS) as u32;
        self.lost.is_none() && self.in_flight + kept < self.depth && self.post(endpoint, tag, operation)
    }

    /// Posts what uses up a receive of the peer.
    fn post_message(&mut self, endpoint: &mut dyn Endpoint, tag: Tag, operation: Operation) -> bool {
        let posted = self.post(endpoint, tag, operation);
        self.sent += u64::from(posted);
        posted
    }

    /// Posts an immediate without data; `false` if there is no room for it now.
    pub fn say(&mut self, endpoint: &mut dyn Endpoint, class: Class, immediate: u32) -> bool {
        let operation = Operation::Send {
            local: self.slice(0, 0),
            immediate: Some(immediate),
        };
        self.may_send(class) && self.post_message(endpoint, Tag::Bare, operation)
    }

    /// Posts a note; `false` if there is no room for it now.
    pub fn send(&mut self, endpoint: &mut dyn Endpoint, class: Class, note: Note, generation: u32) -> bool {
        let kept = if class == Class::LastWords {
            0
        } else {
            FOR_LAST_WORDS as u32
        };
        if !self.may_send(class) || self.free.count_ones() <= kept {
            return false;
        }
        let slot = self.free.trailing_zeros();
        let place = self.receives as usize + slot as usize;
        // SAFETY: inside the link's memory, aligned as bytes are, and no request under way names it: its bit is set.
        let bytes = unsafe {
            self.base
                .add(place * NOTE_BYTES)
                .cast::<[u8; NOTE_BYTES]>()
                .as_mut()
        };
        let len = note.encode(generation, bytes);
        let operation = Operation::Send {
            local: self.slice(place, len),
            immediate: None,
        };
        if !self.post_message(endpoint, Tag::Note(slot as u16), operation) {
            return false;
        }
        self.free &= !(1 << slot);
        self.note_bytes += len as u64;
        true
    }

    /// A note has left its place.
    pub fn free_note(&mut self, place: u16) {
        self.free |= 1 << place;
    }

    /// Tells the peer of receives posted anew, if it is time.
    pub fn give_back(&mut self, endpoint: &mut dyn Endpoint, generation: u32) -> bool {
        let owed = self.received - self.told;
        if owed < self.receives / 2 {
            return false;
        }
        let count = owed.min(MOST_RECEIVES);
        let word = Immediate::Receives(count as u16).pack(generation);
        let said = self.say(endpoint, Class::AboutReceives, word);
        if said {
            self.told += count;
        }
        said
    }

    /// Whether everything that was posted to the peer is known to have reached it, or never will.
    pub fn is_quiet(&self) -> bool {
        self.lost.is_some() || self.in_flight == 0
    }

    /// The queue pair has failed, as this completion says. The first that was not only flushed knows why.
    pub fn lose(&mut self, why: &Completion, endpoint: &dyn Endpoint) {
        let tells = why.status != Status::Flushed;
        if self.lost.is_none() || tells && !self.explained {
            self.lost = Some(endpoint.explain(why));
            self.explained = tells;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_packing() {
        let tags = [
            Tag::Receive(63),
            Tag::Note(15),
            Tag::Bare,
            Tag::Letter(u32::MAX),
            Tag::Push {
                sequence: 0x0fff_ffff,
                task: 16_382,
                push: u16::MAX,
            },
        ];
        for tag in tags {
            assert_eq!(Tag::unpack(tag.pack()), Some(tag));
        }
        assert_eq!(Tag::unpack(0), None);
    }
}
