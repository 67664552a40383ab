//! What a peer asks of this rank, carried out in the order of asking: its writes and sends as they come, its atomics at
//! once, its reads as fast as the answers can be sent. Whatever the peer's library has checked is checked here again.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::frame::{FRAGMENT, Frame, INLINE, Kind};
use super::outgoing::Outgoing;
use super::receives::Receives;
use super::region::{Domain, Entry, KnownKeys, Right};
use super::sink::Sink;
use crate::fabric::{Opcode, Status};

/// Registered memory, by key.
pub(super) struct Memory<'a> {
    pub domain: &'a Domain,
    pub keys: &'a mut KnownKeys,
}

impl Memory<'_> {
    /// The region, if the peer may do that with it.
    pub fn find(&mut self, right: Right, key: u64, offset: u64, len: u64) -> Option<Arc<Entry>> {
        let entry = self.keys.find(key, self.domain)?;
        entry.allows(right, offset, len).then_some(entry)
    }
}

/// A message that is coming in pieces.
#[derive(Clone, Copy, Debug)]
struct Message {
    kind: Kind,
    key: u64,
    /// Where its next byte goes: in the region, or in the receive's memory.
    offset: u64,
    len: u64,
    left: u64,
}

/// What the peer is to be told, in its turn.
#[derive(Clone, Copy, Debug)]
enum Owed {
    Bytes {
        key: u64,
        offset: u64,
        len: u64,
        left: u64,
    },
    Word(u64),
    Refusal(Status),
}

/// See the module.
pub(super) struct Target {
    depth: usize,
    message: Option<Message>,
    /// Requests of the peer that were carried out, or are owed an answer; modulo 2^32, like all such counts.
    taken: u32,
    /// With the number of the request.
    owed: VecDeque<(u32, Owed)>,
    /// What the peer was told.
    told: u32,
    /// The peer waits for an end that it was not told of.
    awaited: bool,
    /// A request could not be carried out: nothing more is.
    pub refused: bool,
}

/// Something about the peer's last frame.
type Judged = Result<(), &'static str>;

impl Target {
    pub fn new(depth: usize) -> Self {
        Self {
            depth,
            message: None,
            taken: 0,
            owed: VecDeque::with_capacity(depth + 1),
            told: 0,
            awaited: false,
            refused: false,
        }
    }

    /// How many requests the peer may know to have ended.
    pub fn acknowledged(&self) -> u32 {
        self.owed.front().map_or(self.taken, |(number, _)| *number)
    }

    pub fn told(&mut self, count: u32) {
        self.told = count;
        // While an answer is owed, what may be said stands still, and later requests are still to be acknowledged.
        self.awaited &= self.taken != count;
    }

    /// Whether there is something that the peer was not told.
    pub fn has_news(&self) -> bool {
        self.acknowledged() != self.told
    }

    /// Whether the peer may be waiting to be told.
    pub fn is_urgent(&self) -> bool {
        let news = self.acknowledged().wrapping_sub(self.told) as usize;
        news != 0 && (self.awaited || news >= self.depth / 4)
    }

    fn refuse(&mut self, status: Status) {
        self.refused = true;
        self.message = None;
        self.owed.push_back((self.taken, Owed::Refusal(status)));
    }

    fn owe(&mut self, owed: Owed) -> Judged {
        if self.owed.len() >= self.depth {
            return Err("it asks for more at a time than a queue holds");
        }
        self.owed.push_back((self.taken, owed));
        self.taken = self.taken.wrapping_add(1);
        Ok(())
    }

    /// A header of a request came.
    pub fn header(
        &mut self,
        frame: &Frame,
        memory: &mut Memory<'_>,
        receives: &mut Receives,
        sink: &mut Sink,
    ) -> Judged {
        match frame.kind {
            Kind::Write | Kind::Send => self.piece(frame, memory, receives, sink),
            _ if self.message.is_some() => Err("it begins a request in the middle of another"),
            Kind::Read => {
                let (key, offset, len) = (frame.key, frame.offset, frame.words[0]);
                match memory.find(Right::Read, key, offset, len) {
                    Some(_) => self.owe(Owed::Bytes {
                        key,
                        offset,
                        len,
                        left: len,
                    }),
                    None => {
                        self.refuse(Status::RemoteAccess);
                        Ok(())
                    }
                }
            }
            _ => match atomic(frame, memory) {
                Ok(earlier) => self.owe(Owed::Word(earlier)),
                Err(status) => {
                    self.refuse(status);
                    Ok(())
                }
            },
        }
    }

    fn piece(
        &mut self,
        frame: &Frame,
        memory: &mut Memory<'_>,
        receives: &mut Receives,
        sink: &mut Sink,
    ) -> Judged {
        let bytes = (frame.inline + frame.body) as u64;
        let mut message = match (self.message, frame.first) {
            (None, true) => {
                let len = match frame.kind {
                    Kind::Send => frame.key,
                    _ if frame.body == 0 => bytes,
                    _ => frame.words[0],
                };
                let (key, offset) = if frame.kind == Kind::Send {
                    (0, 0)
                } else {
                    (frame.key, frame.offset)
                };
                Message {
                    kind: frame.kind,
                    key,
                    offset,
                    len,
                    left: len,
                }
            }
            (Some(message), false) => message,
            _ => return Err("its messages are mixed up"),
        };
        let is_send = frame.kind == Kind::Send;
        let fits = message.kind == frame.kind
            && bytes <= message.left
            && frame.last == (bytes == message.left)
            && (is_send || (frame.key, frame.offset) == (message.key, message.offset));
        if !fits {
            return Err("the pieces of its message do not fit");
        }
        let takes_receive = is_send || frame.immediate.is_some();
        if takes_receive && receives.is_empty() {
            return Err("it uses a receive that was not posted");
        }
        if frame.first
            && is_send
            && receives
                .capacity()
                .is_some_and(|capacity| message.len > capacity as u64)
        {
            receives.fail_first(Status::LocalLength, sink);
            self.refuse(Status::RemoteOperation);
            return Ok(());
        }
        if frame.first
            && !is_send
            && memory
                .find(Right::Write, message.key, message.offset, message.len)
                .is_none()
        {
            self.refuse(Status::RemoteAccess);
            return Ok(());
        }
        if frame.body != 0 {
            self.message = Some(message);
            return Ok(());
        }
        let placed = self.with_place(&message, 0, memory, receives, |place| match place {
            Some(place) => {
                let payload = frame.payload();
                // SAFETY: the message's bytes fit there, and the place is kept for the time of this call.
                unsafe { place.copy_from_nonoverlapping(NonNull::from(&payload).cast(), frame.inline) };
                true
            }
            None => false,
        });
        if placed {
            sink.copied += frame.inline as u64;
            message.left = 0;
            self.end_message(&message, frame, receives, sink);
        }
        Ok(())
    }

    /// Calls `receive` with the place of the byte number `done` of the piece that is coming. `None`: nobody wants it.
    pub fn place<R>(
        &mut self,
        done: usize,
        memory: &mut Memory<'_>,
        receives: &Receives,
        receive: impl FnOnce(Option<NonNull<u8>>) -> R,
    ) -> R {
        match self.message {
            Some(message) => self.with_place(&message, done, memory, receives, receive),
            None => receive(None),
        }
    }

    fn with_place<R>(
        &mut self,
        message: &Message,
        done: usize,
        memory: &mut Memory<'_>,
        receives: &Receives,
        receive: impl FnOnce(Option<NonNull<u8>>) -> R,
    ) -> R {
        let (offset, left) = (message.offset + done as u64, message.left as usize - done);
        if message.kind == Kind::Send {
            let local = receives.first().and_then(|first| first.local.as_ref());
            let base = local.and_then(|local| super::region::local(local).ok());
            // SAFETY: the message was found to fit the receive, which holds its memory.
            let place = base.map(|base| unsafe { base.add(offset as usize) });
            // A receive without memory takes empty sends only, for which any place will do.
            return receive(place.or(Some(NonNull::dangling())));
        }
        let entry = memory.find(Right::Write, message.key, offset, left as u64);
        let guard = entry.as_ref().and_then(|entry| entry.enter());
        match &guard {
            Some(guard) => receive(Some(guard.at(offset, left))),
            None => {
                // It was registered when the message began.
                self.refuse(Status::RemoteAccess);
                receive(None)
            }
        }
    }

    /// The body of a piece is there and was proved.
    pub fn body(&mut self, frame: &Frame, receives: &mut Receives, sink: &mut Sink) {
        let Some(mut message) = self.message.take() else {
            return;
        };
        message.offset += frame.body as u64;
        message.left -= frame.body as u64;
        if frame.last {
            self.end_message(&message, frame, receives, sink);
        } else {
            self.message = Some(message);
        }
    }

    fn end_message(&mut self, message: &Message, frame: &Frame, receives: &mut Receives, sink: &mut Sink) {
        self.message = None;
        self.taken = self.taken.wrapping_add(1);
        self.awaited |= frame.signaled;
        let opcode = match message.kind {
            Kind::Send => Opcode::Receive,
            _ if frame.immediate.is_some() => Opcode::ReceiveWithImmediate,
            _ => return,
        };
        receives.end_first(
            opcode,
            frame.immediate,
            Status::Success,
            message.len as usize,
            sink,
        );
    }

    /// Hands on the next piece of what is owed; whether there was one.
    pub fn stage(
        &mut self,
        out: &mut Outgoing,
        receives: u32,
        memory: &mut Memory<'_>,
        copied: &mut u64,
    ) -> bool {
        let Some((number, owed)) = self.owed.front_mut() else {
            return false;
        };
        let mut frame = Frame::counts(*number, receives);
        frame.kind = Kind::Answer;
        match owed {
            Owed::Refusal(status) => {
                frame.kind = Kind::Refusal(*status);
                out.push(&frame);
            }
            Owed::Word(word) => {
                (frame.first, frame.last, frame.key) = (true, true, 8);
                frame.words[0] = *word;
                frame.inline = 8;
                out.push(&frame);
            }
            Owed::Bytes {
                key,
                offset,
                len,
                left,
            } => {
                let bytes = (*left as usize).min(FRAGMENT);
                (frame.first, frame.last, frame.key) = (left == len, bytes as u64 == *left, *len);
                let entry = memory.find(Right::Read, *key, *offset, *left);
                let guard = entry.as_ref().and_then(|entry| entry.enter());
                let Some(guard) = &guard else {
                    *owed = Owed::Refusal(Status::RemoteAccess);
                    return true;
                };
                let place = guard.at(*offset, bytes);
                let copy = |to: &mut [u8]| {
                    // SAFETY: so many bytes are there, kept by the guard; `to` is a buffer of this connection's own.
                    unsafe { place.copy_to_nonoverlapping(NonNull::from(to).cast(), bytes) };
                    Ok::<(), ()>(())
                };
                if *len <= INLINE as u64 {
                    let mut payload = [0; INLINE];
                    let _ = copy(&mut payload);
                    frame.set_payload(payload, bytes);
                    out.push(&frame);
                } else {
                    frame.body = bytes;
                    let _ = out.push_copied(&frame, copy);
                }
                *copied += bytes as u64;
                *offset += bytes as u64;
                *left -= bytes as u64;
            }
        }
        if frame.last || matches!(frame.kind, Kind::Refusal(_)) {
            self.owed.pop_front();
        }
        true
    }
}

/// Carries out an atomic operation; what was there before.
pub(super) fn atomic(frame: &Frame, memory: &mut Memory<'_>) -> Result<u64, Status> {
    let len = size_of::<u64>();
    let entry = memory.find(Right::Atomic, frame.key, frame.offset, len as u64);
    let guard = entry.as_ref().and_then(|entry| entry.enter());
    let place = guard.as_ref().ok_or(Status::RemoteAccess)?.at(frame.offset, len);
    let word = place.cast::<AtomicU64>();
    if !word.is_aligned() {
        return Err(Status::RemoteOperation);
    }
    // SAFETY: eight aligned bytes, kept by the guard; whoever else uses them as a word for atomics does so atomically.
    let word = unsafe { word.as_ref() };
    Ok(match frame.kind {
        Kind::FetchAdd => word.fetch_add(frame.words[0], Ordering::AcqRel),
        _ => word
            .compare_exchange(
                frame.words[0],
                frame.words[1],
                Ordering::AcqRel,
                Ordering::Acquire,
            )
            .unwrap_or_else(|found| found),
    })
}
