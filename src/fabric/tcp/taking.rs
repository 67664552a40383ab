//! Hands what a peer's frames say to whom it concerns: to the requests of this side, to its receives, or to what carries
//! out the peer's own requests.

use super::caller::Caller;
use super::frame::{Frame, Kind};
use super::incoming::Taker;
use super::queue_pair::Shared;
use super::receives::Receives;
use super::requests::Requests;
use super::target::{Memory, Target};
use crate::fabric::Status;

/// Takes frames on behalf of a queue pair.
pub(super) struct Taking<'a, 'b> {
    pub requests: &'a mut Requests,
    pub receives: &'a mut Receives,
    pub target: &'a mut Target,
    pub shared: &'a mut Shared<'b>,
    /// It has been silent so far.
    pub caller: &'a mut Option<Caller>,
    /// It has said something on this connection.
    pub proved: &'a mut bool,
    /// The peer refused the first request.
    pub refusal: Option<Status>,
}

impl Taker for Taking<'_, '_> {
    fn header(&mut self, frame: &Frame) -> Result<(), &'static str> {
        // Whoever sends a header with a good tag is the peer.
        *self.caller = None;
        *self.proved = true;
        if self.target.refused || self.refusal.is_some() {
            return Ok(());
        }
        self.requests.told_of_receives(frame.receives)?;
        self.requests.acknowledge(frame.acknowledged, self.shared.sink)?;
        match frame.kind {
            Kind::Counts => Ok(()),
            Kind::Answer => self.requests.answer(frame, self.shared.sink),
            Kind::Refusal(_) if !self.requests.first_is_known() => Err("it refuses what nobody asked"),
            Kind::Refusal(status) => {
                self.refusal = Some(status);
                Ok(())
            }
            _ => {
                let mut memory = Memory {
                    domain: self.shared.domain,
                    keys: self.shared.keys,
                };
                self.target
                    .header(frame, &mut memory, self.receives, self.shared.sink)
            }
        }
    }

    fn place<R>(
        &mut self,
        frame: &Frame,
        done: usize,
        receive: impl FnOnce(Option<std::ptr::NonNull<u8>>) -> R,
    ) -> R {
        if self.target.refused || self.refusal.is_some() {
            return receive(None);
        }
        if frame.kind == Kind::Answer {
            return receive(self.requests.answer_place(done));
        }
        let mut memory = Memory {
            domain: self.shared.domain,
            keys: self.shared.keys,
        };
        self.target.place(done, &mut memory, self.receives, receive)
    }

    fn body(&mut self, frame: &Frame) -> Result<(), &'static str> {
        if self.target.refused || self.refusal.is_some() {
            return Ok(());
        }
        if frame.kind == Kind::Answer {
            self.requests.answer_body(frame, self.shared.sink);
        } else {
            self.target.body(frame, self.receives, self.shared.sink);
        }
        Ok(())
    }
}
