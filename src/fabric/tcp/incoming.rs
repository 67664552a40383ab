//! The receiving half of a connection: cuts what comes into frames, and lets nothing through whose tag is not right.
//! Bodies are received straight into where they belong. Nothing here allocates, whatever comes.
//!
//! No more than one header is read ahead, together with the end of the body before it: of what follows nobody knows
//! yet where it belongs.

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;

use rustix::io::Errno;

use super::frame::{Frame, HEADER, PLAIN, TAG};
use super::outgoing::last_error;
use super::seal::{STRIDE, Seal, same};

/// What frames do. Whatever it is given has been proved to be the peer's.
pub(super) trait Taker {
    /// A header came. If it has a body, [`Taker::place`] says where that goes, and [`Taker::body`] ends it.
    ///
    /// # Errors
    /// In words: no peer that keeps the protocol sends such a thing now.
    fn header(&mut self, frame: &Frame) -> Result<(), &'static str>;

    /// Calls `receive` with the place of the byte number `done` of the frame's body, as many bytes as are missing, behind
    /// those that came before; with `None` if nobody wants them, and then nobody gets the body.
    fn place<R>(&mut self, frame: &Frame, done: usize, receive: impl FnOnce(Option<NonNull<u8>>) -> R) -> R;

    /// The frame's body is all there and was proved.
    ///
    /// # Errors
    /// As [`Taker::header`].
    fn body(&mut self, frame: &Frame) -> Result<(), &'static str>;
}

/// Why nothing more can be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The other side closed the connection.
    Closed,
    /// The system says so.
    Failed(Errno),
    /// A tag was wrong: somebody between the two ranks changed, inserted or repeated something.
    Forged,
    /// The peer does not keep the protocol.
    Broken(&'static str),
}

/// How far receiving came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// Nothing more is there for now.
    Drained,
    /// Others have their turn.
    Budget,
}

enum Stage {
    Header,
    Body {
        frame: Frame,
        done: usize,
        /// How much of it the seal has seen.
        hashed: usize,
        tag: usize,
        /// Nobody wanted a part of it. What is thrown away need not be proved.
        unwanted: bool,
    },
}

/// See the module.
pub(super) struct Incoming {
    seal: Seal,
    /// The tag of a body, and the header behind it.
    front: [u8; TAG + HEADER],
    /// Bytes of that header.
    filled: usize,
    stage: Stage,
}

fn piece(base: *mut u8, len: usize) -> libc::iovec {
    libc::iovec {
        iov_base: base.cast(),
        iov_len: len,
    }
}

impl Incoming {
    pub fn new(seal: Seal) -> Self {
        Self {
            seal,
            front: [0; TAG + HEADER],
            filled: 0,
            stage: Stage::Header,
        }
    }

    /// Whether nothing was received so far.
    pub fn is_untouched(&self) -> bool {
        self.filled == 0 && self.seal.is_fresh()
    }

    /// Receives until there is nothing more or about `budget` bytes came. `closing`: the other side is known to have
    /// closed, so that a system call that gets less than it could says nothing.
    ///
    /// # Errors
    /// Why this was the last time.
    pub fn receive(
        &mut self,
        socket: &OwnedFd,
        mut budget: usize,
        closing: bool,
        taker: &mut impl Taker,
    ) -> Result<Pause, End> {
        loop {
            if self.filled == HEADER && matches!(self.stage, Stage::Header) {
                self.take_header(taker)?;
                continue;
            }
            if budget == 0 {
                return Ok(Pause::Budget);
            }
            match self.system_call(socket, taker) {
                Ok((0, _)) => return Err(End::Closed),
                Ok((count, asked)) => {
                    self.end_body(taker)?;
                    budget = budget.saturating_sub(count.max(HEADER));
                    // A stream that gives less than was asked for has no more, unless its end was told already.
                    if count < asked && !closing {
                        return Ok(Pause::Drained);
                    }
                }
                Err(Errno::AGAIN) => return Ok(Pause::Drained),
                Err(Errno::INTR) => {}
                Err(error) => return Err(End::Failed(error)),
            }
        }
    }

    fn take_header(&mut self, taker: &mut impl Taker) -> Result<(), End> {
        let plain: &[u8; PLAIN] = self.front[TAG..].first_chunk().expect("longer than a header");
        let tag: &[u8; TAG] = self.front.last_chunk().expect("longer than a tag");
        if !same(&self.seal.header(plain), tag) {
            return Err(End::Forged);
        }
        let frame = Frame::decode(plain).map_err(End::Broken)?;
        self.filled = 0;
        taker.header(&frame).map_err(End::Broken)?;
        if frame.body != 0 {
            self.seal.begin_body();
            self.stage = Stage::Body {
                frame,
                done: 0,
                hashed: 0,
                tag: 0,
                unwanted: false,
            };
        }
        Ok(())
    }

    /// How many bytes came, of how many that were asked for.
    fn system_call(&mut self, socket: &OwnedFd, taker: &mut impl Taker) -> Result<(usize, usize), Errno> {
        let Self {
            seal,
            front,
            filled,
            stage,
        } = self;
        let Stage::Body {
            frame,
            done,
            hashed,
            tag,
            unwanted,
        } = stage
        else {
            let asked = HEADER - *filled;
            let count = scatter(socket, &mut [piece(front[TAG + *filled..].as_mut_ptr(), asked)])?;
            *filled += count;
            return Ok((count, asked));
        };
        let left = frame.body - *done;
        if left == 0 {
            let asked = TAG - *tag + HEADER;
            let count = scatter(socket, &mut [piece(front[*tag..].as_mut_ptr(), asked)])?;
            let of_tag = count.min(TAG - *tag);
            *tag += of_tag;
            *filled = count - of_tag;
            return Ok((count, asked));
        }
        taker.place(frame, *done, |place| {
            let Some(place) = place else {
                let mut scratch = [0; SCRATCH];
                let asked = left.min(SCRATCH);
                let count = scatter(socket, &mut [piece(scratch.as_mut_ptr(), asked)])?;
                *done += count;
                *unwanted = true;
                return Ok((count, asked));
            };
            let mut pieces = [
                piece(place.as_ptr(), left),
                piece(front.as_mut_ptr(), TAG + HEADER),
            ];
            let count = scatter(socket, &mut pieces)?;
            let of_body = count.min(left);
            let before = *done - *hashed;
            *done += of_body;
            let whole = *done == frame.body;
            let ready = if whole { *done } else { *done - *done % STRIDE };
            if ready > *hashed && !*unwanted {
                // SAFETY: the body lies in one piece, by the taker's word, and up to `done` was received.
                unsafe { seal.add(place.as_ptr().sub(before), ready - *hashed) };
                *hashed = ready;
            }
            *tag = (count - of_body).min(TAG);
            *filled = count - of_body - *tag;
            Ok((count, left + TAG + HEADER))
        })
    }

    /// If the body and its tag are there, proves and ends it.
    fn end_body(&mut self, taker: &mut impl Taker) -> Result<(), End> {
        match &self.stage {
            Stage::Body { frame, done, tag, .. } if *done == frame.body && *tag == TAG => {}
            _ => return Ok(()),
        }
        let Stage::Body { frame, unwanted, .. } = std::mem::replace(&mut self.stage, Stage::Header) else {
            return Ok(());
        };
        if unwanted {
            return Ok(());
        }
        let tag: &[u8; TAG] = self.front.first_chunk().expect("longer than a tag");
        if !same(&self.seal.body_tag(), tag) {
            return Err(End::Forged);
        }
        taker.body(&frame).map_err(End::Broken)
    }
}

/// Bytes that are thrown away at a time.
const SCRATCH: usize = 16 << 10;

/// Receives into the pieces, one behind the other.
fn scatter(socket: &OwnedFd, pieces: &mut [libc::iovec]) -> Result<usize, Errno> {
    // SAFETY: each piece is memory that may be written: buffers of the caller's, and the place of a body, which its
    // taker keeps registered for the time of this call. The socket does not block.
    let count = unsafe { libc::readv(socket.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int) };
    usize::try_from(count).map_err(|_| last_error())
}
