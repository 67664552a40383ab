//! The ways in which a connection ends: a failure that the device reports, an event of the device, the caller's wish.
//! All lead to the error state, where everything in flight comes back; [`Connection::close`] then destroys the queue
//! pairs, after which nothing can land any more and all memory is released (invariant 1).
//!
//! A failure is always told by a completion. Where the request that failed is one of this module's own, or none at
//! all (an event), the next completion that it flushes carries the status instead ([`Owed`]).

use sapwood_sys::verbs::bindings::*;

use super::connection::{Connection, Sink};
use super::error::VerbsError;
use super::explain;
use super::in_flight::Outgoing;
use crate::fabric::state::State;
use crate::fabric::{Opcode, Request, Status};

/// What ended a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The device reported it.
    Report {
        /// `ibv_wc_status`.
        status: ibv_wc_status,
        /// The vendor's number.
        vendor: u32,
        /// The queue pair's number.
        number: u32,
        /// Of what.
        opcode: Opcode,
        /// Of a request that asked only whether the peer is there.
        probe: bool,
    },
    /// Found out at the post, and ended by this when it was its turn.
    Refused,
    /// An asynchronous event, in words.
    Event(String),
    /// A verb failed, in words.
    Verb(String),
    /// The caller disconnected or fenced.
    Asked,
}

/// The first thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub cause: Cause,
    pub status: Status,
}

impl Failure {
    /// Something was flushed, and by what is not known yet.
    fn is_vague(&self) -> bool {
        self.status == Status::Flushed && matches!(self.cause, Cause::Report { .. })
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owed {
    request: Option<Status>,
    receive: Option<Status>,
    /// Nobody was told yet.
    untold: bool,
}

impl Owed {
    fn owe(&mut self, status: Status) {
        *self = Self {
            request: Some(status),
            // Nothing else that can happen to a request says anything about receives.
            receive: Some(status).filter(|status| *status == Status::PeerUnreachable),
            untold: true,
        };
    }

    /// The status to report for a request that ended with `status`.
    pub fn request(&mut self, status: Status) -> Status {
        let owed = if status == Status::Flushed {
            self.request.take()
        } else {
            None
        };
        self.untold &= status == Status::Flushed && owed.is_none();
        owed.unwrap_or(status)
    }

    /// As [`Owed::request`], for a receive.
    pub fn receive(&mut self, status: Status) -> Status {
        let owed = if status == Status::Flushed {
            self.receive.take()
        } else {
            None
        };
        self.untold &= status == Status::Flushed && owed.is_none();
        owed.unwrap_or(status)
    }
}

impl Connection {
    /// A completion that is not a success ends the connection, if it has not ended yet.
    #[cold]
    pub fn failed_by_report(&mut self, report: &ibv_wc, status: Status, opcode: Opcode, internal: bool) {
        if self.failure.as_ref().is_none_or(Failure::is_vague) {
            // With several queue pairs, what was posted earlier may come back from another one, and first.
            let early = self.lanes.len() > 1 && status == Status::PeerUnreachable;
            if (internal && status != Status::Flushed) || early {
                self.owed.owe(status);
            }
            let cause = Cause::Report {
                status: report.status,
                vendor: report.vendor_err,
                number: report.qp_num,
                opcode,
                probe: internal,
            };
            self.failure = Some(Failure { cause, status });
        }
        self.enter_error();
    }

    /// It is the turn of a request that was found to be impossible when it was posted, and nothing else has failed.
    #[cold]
    pub fn failed_by_refusal(&mut self, status: Status) {
        self.failure = Some(Failure {
            cause: Cause::Refused,
            status,
        });
        self.enter_error();
    }

    /// An event of the device that this connection does not survive.
    #[cold]
    pub fn failed_by_event(&mut self, what: String) {
        if self.failure.as_ref().is_some_and(|failure| !failure.is_vague()) || self.state == State::Closed {
            return;
        }
        self.owed.owe(Status::PeerUnreachable);
        self.failure = Some(Failure {
            cause: Cause::Event(what),
            status: Status::PeerUnreachable,
        });
        self.enter_error();
    }

    /// A verb failed in the middle of something.
    #[cold]
    pub fn failed_by_verb(&mut self, error: &VerbsError) {
        if matches!(self.state, State::Error | State::Closed) {
            return;
        }
        self.owed.owe(Status::PeerUnreachable);
        self.failure = Some(Failure {
            cause: Cause::Verb(error.to_string()),
            status: Status::PeerUnreachable,
        });
        self.enter_error();
    }

    /// The caller's wish.
    pub fn disconnect(&mut self) {
        if matches!(self.state, State::Error | State::Closed) {
            return;
        }
        self.failure = Some(Failure {
            cause: Cause::Asked,
            status: Status::Flushed,
        });
        self.enter_error();
    }

    /// All queue pairs to the error state, and behind everything in flight a last request: when that comes back,
    /// requests that are not reported on success are known to be over, too.
    fn enter_error(&mut self) {
        if matches!(self.state, State::Error | State::Closed) {
            return;
        }
        let was_connected = self.state == State::Connected;
        self.state = State::Error;
        self.lone.forbid();
        for lane in &mut self.lanes {
            if let Err(error) = lane.enter_error() {
                tracing::error!(%error, peer = self.peer, "a queue pair did not take the error state");
            }
        }
        if was_connected {
            // Comes back behind everything that is flushed.
            self.post_empty(IBV_SEND_SIGNALED, Outgoing::internal(Opcode::Write));
        }
    }

    /// Whether everything that was in flight has come back.
    pub fn is_drained(&self) -> bool {
        self.requests.is_empty() && self.receives.is_empty()
    }

    /// Destroys the queue pairs. What had not come back by then is flushed: nothing can land any more. If the device
    /// refuses, its memory is kept for good, and the error says so.
    ///
    /// # Errors
    /// The device's refusal.
    pub fn close(&mut self, sink: &mut Sink<'_>) -> Result<(), VerbsError> {
        if self.state == State::Closed {
            return Ok(());
        }
        self.disconnect();
        for lane in &mut self.lanes {
            if let Err(error) = lane.destroy() {
                self.requests.abandon();
                self.receives.abandon();
                return Err(error);
            }
        }
        self.state = State::Closed;
        self.lone.forbid();
        while let Some(mut entry) = self.requests.pop() {
            entry.status.get_or_insert(Status::Flushed);
            self.hand_out_request(entry, sink);
        }
        while let Some(mut entry) = self.receives.pop() {
            entry.status.get_or_insert(Status::Flushed);
            self.hand_out_receive(entry, sink);
        }
        Ok(())
    }

    /// Takes a request that is posted after a failure which nobody has been told of, to tell it: the request comes
    /// back behind everything that is flushed. `false` if it is not taken: all was told, or will be by others.
    #[cold]
    pub fn tell_by(&mut self, request: &Request) -> bool {
        if self.state != State::Error || !self.owed.untold || self.has_tellers() {
            return false;
        }
        let entry = Outgoing {
            id: request.id,
            internal: false,
            lone: false,
            ..Outgoing::internal(explain::opcode(&request.operation))
        };
        let taken = self.remote.is_some() && self.post_empty(IBV_SEND_SIGNALED, entry);
        // Once: what is posted next is refused.
        self.owed.untold &= !taken;
        taken
    }

    /// Whether something of the caller's is in flight whose return tells what happened.
    fn has_tellers(&self) -> bool {
        let heard = |entry: &Outgoing| !entry.internal && entry.signaled;
        (self.owed.receive.is_some() && !self.receives.is_empty()) || self.requests.iter().any(heard)
    }

    /// Whether the peer is there, as far as is known.
    pub fn is_reachable(&self) -> bool {
        let gone = |failure: &Failure| failure.status == Status::PeerUnreachable;
        !self.failure.as_ref().is_some_and(gone)
    }
}

impl Outgoing {
    /// A request of this module's own.
    pub fn internal(opcode: Opcode) -> Self {
        Self {
            id: 0,
            registration: None,
            bytes: 0,
            weight: 0,
            unreported_lanes: 0,
            opcode,
            status: None,
            signaled: false,
            internal: true,
            lone: false,
            refused: None,
        }
    }
}
