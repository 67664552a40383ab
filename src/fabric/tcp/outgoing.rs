//! The sending half of a connection: headers are gathered, bodies go from where they are straight to the kernel, and
//! whatever the socket does not take now waits. At most one body waits, so nothing here grows.
//!
//! The kernel and the hash of a body's tag read its bytes one after the other, not at once. Memory that anybody changes
//! while it is sent, the owner or a peer, may so have a tag that does not fit, and the other end takes the connection for
//! forged and ends it. What peers read is copied first ([`Outgoing::push_copied`]), so that their stores to it do no harm.

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;

use rustix::io::Errno;

use super::frame::{FRAGMENT, Frame, HEADER, TAG};
use super::region;
use super::seal::{STRIDE, Seal};
use crate::fabric::Slice;

/// Bytes of headers that are gathered before they are sent.
const STAGED: usize = 4096;
/// A body of at most so many bytes is sent together with its tag.
const WITH_TAG: usize = STRIDE;

/// Where a body's bytes are.
#[derive(Debug)]
pub(super) enum Source {
    /// In registered memory, which the slice keeps.
    Local(Slice),
    /// In [`Outgoing::bounce`].
    Bounce(usize),
}

/// How far sending came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Nothing is left.
    All,
    /// Nothing but the tag of a body, perhaps: another frame can be taken.
    Body,
    /// The kernel takes no more for now.
    Full,
    /// Others have their turn.
    Budget,
}

struct Waiting {
    source: Source,
    sent: usize,
    /// How much of it the seal has seen.
    hashed: usize,
    /// Of a short one, and how much of that was sent. The tag of a long one goes with the next header.
    tag: Option<[u8; TAG]>,
    tag_sent: usize,
}

impl Waiting {
    fn len(&self) -> usize {
        match &self.source {
            Source::Local(slice) => slice.len,
            Source::Bounce(len) => *len,
        }
    }
}

/// See the module.
pub(super) struct Outgoing {
    seal: Seal,
    staged: Vec<u8>,
    staged_sent: usize,
    waiting: Option<Waiting>,
    /// For what must be sent as it is now: memory of ours that peers read may change at any time.
    bounce: Box<[u8]>,
}

fn piece(base: *const u8, len: usize) -> libc::iovec {
    libc::iovec {
        iov_base: base.cast_mut().cast(),
        iov_len: len,
    }
}

impl Outgoing {
    /// Begins with these words.
    pub fn new(seal: Seal, words: &[u8]) -> Self {
        let mut staged = Vec::with_capacity(STAGED);
        staged.extend_from_slice(words);
        Self {
            seal,
            staged,
            staged_sent: 0,
            waiting: None,
            bounce: Box::default(),
        }
    }

    /// Whether another frame can be taken.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.waiting.is_none() && self.staged.len() + HEADER <= STAGED
    }

    /// Whether something has not been given to the kernel yet.
    pub fn is_behind(&self) -> bool {
        !self.staged.is_empty() || self.waiting.is_some()
    }

    /// Takes a frame without a body.
    #[inline]
    pub fn push(&mut self, frame: &Frame) {
        debug_assert!(self.has_room() && frame.body == 0);
        self.stage(frame);
    }

    /// Takes a frame with a body in registered memory.
    pub fn push_local(&mut self, frame: &Frame, body: Slice) {
        debug_assert!(self.has_room() && frame.body == body.len);
        self.stage(frame);
        self.wait(Source::Local(body));
    }

    /// Takes a frame whose body `fill` copies to where it is sent from.
    ///
    /// # Errors
    /// That of `fill`; nothing was taken then.
    pub fn push_copied<E>(
        &mut self,
        frame: &Frame,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        debug_assert!(self.has_room() && frame.body <= FRAGMENT);
        if self.bounce.is_empty() {
            self.bounce = vec![0; FRAGMENT].into();
        }
        fill(&mut self.bounce[..frame.body])?;
        self.stage(frame);
        self.wait(Source::Bounce(frame.body));
        Ok(())
    }

    #[inline]
    fn stage(&mut self, frame: &Frame) {
        let plain = frame.encode();
        let tag = self.seal.header(&plain);
        self.staged.extend_from_slice(&plain);
        self.staged.extend_from_slice(&tag);
    }

    fn wait(&mut self, source: Source) {
        self.seal.begin_body();
        self.waiting = Some(Waiting {
            source,
            sent: 0,
            hashed: 0,
            tag: None,
            tag_sent: 0,
        });
    }

    /// The memory of a body that waits may be changed from here on: what is left is sent from a copy. How many bytes
    /// that were.
    pub fn let_go(&mut self) -> usize {
        let Some(waiting) = &mut self.waiting else {
            return 0;
        };
        let Source::Local(slice) = &waiting.source else {
            return 0;
        };
        let Ok(place) = region::local(slice) else {
            return 0;
        };
        if self.bounce.is_empty() {
            self.bounce = vec![0; FRAGMENT].into();
        }
        // What was sent is perhaps still to be hashed.
        let (from, len) = (waiting.hashed, slice.len);
        let left = &mut self.bounce[from..len];
        // SAFETY: the slice, which was just checked, has `len` bytes; the buffer is this connection's own.
        unsafe {
            place
                .add(from)
                .copy_to_nonoverlapping(NonNull::from(&mut *left).cast(), left.len())
        };
        waiting.source = Source::Bounce(len);
        len - from
    }

    /// Gives the kernel what it takes, in whole system calls, until about `budget` bytes are used up, or the last byte of
    /// a long body is sent: its tag goes with the next frame, if there is one.
    ///
    /// # Errors
    /// The connection's end.
    pub fn flush(&mut self, socket: &OwnedFd, budget: &mut usize) -> Result<Flushed, Errno> {
        let with_body = self.waiting.is_some();
        while self.is_behind() {
            if *budget == 0 {
                return Ok(Flushed::Budget);
            }
            match self.send(socket) {
                Ok(count) => {
                    *budget = budget.saturating_sub(count);
                    if with_body && self.waiting.is_none() {
                        return Ok(Flushed::Body);
                    }
                }
                Err(Errno::INTR) => {}
                // No memory for the moment, on some systems.
                Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(Flushed::Full),
                Err(error) => return Err(error),
            }
        }
        Ok(Flushed::All)
    }

    /// One system call; how many bytes the kernel took.
    fn send(&mut self, socket: &OwnedFd) -> Result<usize, Errno> {
        let staged = &self.staged[self.staged_sent..];
        let mut pieces = [
            piece(staged.as_ptr(), staged.len()),
            piece([].as_ptr(), 0),
            piece([].as_ptr(), 0),
        ];
        let mut base = std::ptr::null();
        if let Some(waiting) = &mut self.waiting {
            base = match &waiting.source {
                Source::Local(slice) => region::local(slice)
                    .map_err(|_| Errno::FAULT)?
                    .as_ptr()
                    .cast_const(),
                Source::Bounce(_) => self.bounce.as_ptr(),
            };
            let len = waiting.len();
            if len <= WITH_TAG && waiting.tag.is_none() {
                // SAFETY: inside of the slice, which was checked, or of the bounce buffer.
                unsafe { self.seal.add(base, len) };
                waiting.tag = Some(self.seal.body_tag());
            }
            pieces[1] = piece(base.wrapping_add(waiting.sent), len - waiting.sent);
            if let Some(tag) = &waiting.tag {
                let unsent = &tag[waiting.tag_sent..];
                pieces[2] = piece(unsent.as_ptr(), unsent.len());
            }
        }
        let count = gather(socket, &pieces)?;
        self.account(count, base);
        Ok(count)
    }

    /// `count` bytes were taken; the body's first is at `base`.
    fn account(&mut self, mut count: usize, base: *const u8) {
        let headers = count.min(self.staged.len() - self.staged_sent);
        self.staged_sent += headers;
        count -= headers;
        if self.staged_sent == self.staged.len() {
            self.staged.clear();
            self.staged_sent = 0;
        }
        let Some(waiting) = &mut self.waiting else {
            return;
        };
        let len = waiting.len();
        let body = count.min(len - waiting.sent);
        waiting.sent += body;
        if waiting.tag.is_some() {
            waiting.tag_sent += count - body;
            if waiting.tag_sent == TAG {
                self.waiting = None;
            }
            return;
        }
        let whole = waiting.sent == len;
        let ready = if whole {
            len
        } else {
            waiting.sent - waiting.sent % STRIDE
        };
        if ready > waiting.hashed {
            // SAFETY: as in `send`, whose bytes these are.
            unsafe { self.seal.add(base.add(waiting.hashed), ready - waiting.hashed) };
            waiting.hashed = ready;
        }
        if whole {
            let tag = self.seal.body_tag();
            // What was gathered before went before the body, so there is room.
            self.staged.extend_from_slice(&tag);
            self.waiting = None;
        }
    }
}

/// Sends the pieces as one.
fn gather(socket: &OwnedFd, pieces: &[libc::iovec; 3]) -> Result<usize, Errno> {
    // SAFETY: the structure is made of integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.as_ptr().cast_mut();
    message.msg_iovlen = pieces.len() as _;
    // SAFETY: the kernel reads the pieces, all of which are valid for this call: gathered headers, a body whose
    // slice or buffer the caller holds, and its tag.
    let sent = unsafe {
        libc::sendmsg(
            socket.as_raw_fd(),
            &message,
            libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(sent).map_err(|_| last_error())
}

/// What the last system call of this thread said.
pub(super) fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::super::seal::{NONCE, Nonces, Pact, SECRET};
    use super::*;

    #[test]
    fn whoever_has_had_a_turn_goes_on_in_the_next() {
        let (socket, other) = std::os::unix::net::UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = OwnedFd::from(socket);
        let pact = Pact::new((1, &[1; SECRET]), (0, &[2; SECRET]), 0);
        let (listener, dialer) = ([0; NONCE], [0; NONCE]);
        let session = pact.session(&Nonces { listener, dialer });
        let mut out = Outgoing::new(session.dialer_to_listener, &[]);
        let frame = |body| Frame {
            body,
            ..Frame::counts(0, 0)
        };
        // More than the kernel takes at once of one message of this socket.
        let pushed = out.push_copied::<()>(&frame(FRAGMENT), |bytes| {
            bytes.fill(1);
            Ok(())
        });
        pushed.unwrap();
        assert_eq!(out.flush(&socket, &mut 1), Ok(Flushed::Budget));
        assert!(out.is_behind());
        assert_eq!(out.flush(&socket, &mut 0), Ok(Flushed::Budget));
        let mut plenty = usize::MAX;
        assert_eq!(out.flush(&socket, &mut plenty), Ok(Flushed::Full));
        drop(other);
        assert_eq!(out.flush(&socket, &mut plenty), Err(Errno::PIPE));
    }
}
