//! One connection: its queue pairs, what is in flight on them, and how completions of the device become completions
//! for the caller. Posting is in `posting`, the ways in which a connection ends are in `ending`.
//!
//! With one queue pair a completion of the device is one for the caller. With several, an entry that all of them carry
//! is over when all have reported it, and the tables hand entries out in the order of posting.

use std::collections::VecDeque;

use sapwood_sys::verbs::bindings::*;

use super::budget::Budget;
use super::ending::{Failure, Owed};
use super::explain;
use super::in_flight::{InFlight, Incoming, Outgoing};
use super::liveness::Liveness;
use super::lone::Lone;
use super::parcel::ConnectionParcel;
use super::queue_pair::QueuePair;
use super::ticket::Ticket;
use crate::fabric::state::State;
use crate::fabric::{Completion, Opcode, Rank, Status};

/// See the module.
pub(super) struct Connection {
    pub peer: Rank,
    pub state: State,
    /// Destroyed before the tables below give memory back; see [`Connection::close`].
    pub lanes: Box<[QueuePair]>,
    pub requests: InFlight<Outgoing>,
    pub receives: InFlight<Incoming>,
    /// Requests, and receives, that the caller may have in flight.
    pub depth: usize,
    /// Of the `wr_id`s of requests on queue pair 0.
    pub request_base: u64,
    /// Of its requests' `wr_id`s, by queue pair.
    pub request_bases: Box<[u64]>,
    /// Of its receives' `wr_id`s, by queue pair.
    pub receive_bases: Box<[u64]>,
    /// The largest message of one work request.
    pub largest_message: usize,
    /// Bytes that all its queue pairs take at the post.
    pub inline_size: usize,
    /// All requests before this number that queue pair 0 alone carries are over.
    pub over_before: u64,
    /// The last write that several queue pairs carry is before this number.
    pub striped_before: u64,
    /// Requests since the last one whose completion was asked for.
    pub silent: usize,
    /// After so many, one is asked for although the caller does not want it: else the queue would never empty.
    pub longest_silence: usize,
    /// Of the registrations that it takes.
    pub scope: u64,
    /// Of the peer's regions that it takes.
    pub remote_scope: u64,
    /// Whether it has one queue pair only.
    pub single: bool,
    /// What the peer told about itself.
    pub remote: Option<ConnectionParcel>,
    /// Why it is in the error state, if it is.
    pub failure: Option<Failure>,
    /// A status that the caller has not been told yet.
    pub owed: Owed,
    /// Whether something completed since it was last asked whether the peer is there.
    pub fresh: bool,
    pub liveness: Liveness,
    /// For small writes.
    pub lone: Lone,
}

/// Where completions go: to the caller as far as there is room, the rest is kept.
pub(super) struct Sink<'a> {
    pub into: &'a mut Vec<Completion>,
    pub backlog: &'a mut VecDeque<Completion>,
    pub budget: &'a mut Budget,
}

impl Sink<'_> {
    #[inline(always)]
    pub fn push(&mut self, completion: Completion) {
        if self.into.len() < self.into.capacity() {
            self.into.push(completion);
        } else {
            self.backlog.push_back(completion);
        }
    }
}

impl Connection {
    /// Takes in what the device says of a request.
    #[inline(always)]
    pub fn request_completed(&mut self, ticket: Ticket, report: &ibv_wc, sink: &mut Sink<'_>) {
        // An older generation: whatever it worked on is released already, or belongs to somebody else.
        let Some(number) = self.requests.find(ticket.sequence) else {
            return;
        };
        self.fresh = true;
        if report.status != IBV_WC_SUCCESS {
            self.request_failed(number, report);
        }
        if !self.single {
            return self.lane_reported(ticket, number, sink);
        }
        // A queue pair reports in order: what went before is over, whether it was to be reported or not.
        while self.requests.oldest() <= number {
            let Some(entry) = self.requests.pop() else { return };
            self.hand_out_request(entry, sink);
        }
    }

    /// Takes in the report of the oldest request, and tells the caller, where there is nothing else to it; whether it
    /// was so. For a request at a time: there is room `into` for one more.
    #[inline(never)]
    pub fn oldest_completed(
        &mut self,
        report: &ibv_wc,
        into: &mut Vec<Completion>,
        budget: &mut Budget,
    ) -> bool {
        if report.status != IBV_WC_SUCCESS || !self.single || !self.requests.has_oldest_number(report.wr_id) {
            return false;
        }
        let told = |entry: &Outgoing| entry.signaled && entry.status.is_none();
        let Some(entry) = self.requests.front().filter(|entry| told(entry)) else {
            return false;
        };
        into.push(Completion {
            id: entry.id,
            peer: self.peer,
            opcode: entry.opcode,
            status: Status::Success,
            bytes: entry.bytes,
            immediate: None,
        });
        budget.give_request(usize::from(entry.weight));
        self.fresh = true;
        self.requests.drop_oldest();
        true
    }

    /// One of several queue pairs has reported its part of an entry.
    fn lane_reported(&mut self, ticket: Ticket, number: u64, sink: &mut Sink<'_>) {
        if let Some(entry) = self.requests.get_mut(number) {
            entry.unreported_lanes = entry.unreported_lanes.saturating_sub(1);
        }
        if ticket.lane == 0 {
            self.over_before = self.over_before.max(number + 1);
        }
        while let Some(entry) = self.requests.front() {
            if entry.unreported_lanes != 0 || self.requests.oldest() >= self.over_before {
                return;
            }
            if let Some(entry) = self.requests.pop() {
                self.hand_out_request(entry, sink);
            }
        }
    }

    /// Tells the caller, if there is something to tell. The entry's memory is released here.
    #[inline(always)]
    pub fn hand_out_request(&mut self, entry: Outgoing, sink: &mut Sink<'_>) {
        sink.budget.give_request(usize::from(entry.weight));
        if entry.status.is_some() {
            return self.hand_out_failure(&entry, sink);
        }
        if entry.signaled {
            sink.push(Completion {
                id: entry.id,
                peer: self.peer,
                opcode: entry.opcode,
                status: Status::Success,
                bytes: entry.bytes,
                immediate: None,
            });
        }
    }

    /// Failures are told whether the caller wanted to hear of a success or not.
    #[cold]
    fn hand_out_failure(&mut self, entry: &Outgoing, sink: &mut Sink<'_>) {
        if entry.internal {
            return;
        }
        let status = self.owed.request(entry.status.unwrap_or(Status::Flushed));
        sink.push(Completion {
            id: entry.id,
            peer: self.peer,
            opcode: entry.opcode,
            status,
            bytes: 0,
            immediate: None,
        });
    }

    #[cold]
    fn request_failed(&mut self, number: u64, report: &ibv_wc) {
        let first = self.failure.is_none();
        let Some(entry) = self.requests.get_mut(number) else {
            return;
        };
        // Some devices flush what they refuse, too. In the order of posting, the first to come back is the one.
        if let Some(status) = entry.refused.filter(|_| first) {
            entry.status = Some(status);
            return self.failed_by_refusal(status);
        }
        let status = explain::status(report.status);
        if entry.status.is_none_or(|known| known == Status::Flushed) {
            entry.status = Some(status);
        }
        let (opcode, internal) = (entry.opcode, entry.internal);
        self.failed_by_report(report, status, opcode, internal);
    }

    /// Takes in what the device says of a receive.
    #[inline]
    pub fn receive_completed(&mut self, ticket: Ticket, report: &ibv_wc, sink: &mut Sink<'_>) {
        let Some(number) = self.receives.find(ticket.sequence) else {
            return;
        };
        self.fresh = true;
        if report.status != IBV_WC_SUCCESS {
            self.receive_failed(number, report);
        }
        if let Some(entry) = self.receives.get_mut(number) {
            entry.unreported_lanes = entry.unreported_lanes.saturating_sub(1);
            if report.status == IBV_WC_SUCCESS {
                entry.bytes += report.byte_len as usize;
                if ticket.lane == 0 && report.opcode == IBV_WC_RECV_RDMA_WITH_IMM {
                    entry.opcode = Opcode::ReceiveWithImmediate;
                }
                if ticket.lane == 0 && report.wc_flags & IBV_WC_WITH_IMM != 0 {
                    // SAFETY: this arm of the union holds the immediate where the flag says so; both are numbers.
                    let value = unsafe { report.__bindgen_anon_1.imm_data };
                    entry.immediate = Some(u32::from_be(value));
                }
            }
        }
        while self
            .receives
            .front()
            .is_some_and(|entry| entry.unreported_lanes == 0)
        {
            if let Some(entry) = self.receives.pop() {
                self.hand_out_receive(entry, sink);
            }
        }
    }

    /// As [`Connection::hand_out_request`].
    #[inline]
    pub fn hand_out_receive(&mut self, entry: Incoming, sink: &mut Sink<'_>) {
        sink.budget.give_receive(self.lanes.len());
        let status = match entry.status {
            None => Status::Success,
            Some(status) => self.owed.receive(status),
        };
        let arrived = status == Status::Success;
        sink.push(Completion {
            id: entry.id,
            peer: self.peer,
            opcode: entry.opcode,
            status,
            bytes: if arrived { entry.bytes } else { 0 },
            immediate: entry.immediate.filter(|_| arrived),
        });
    }

    #[cold]
    fn receive_failed(&mut self, number: u64, report: &ibv_wc) {
        let Some(entry) = self.receives.get_mut(number) else {
            return;
        };
        let status = explain::status_of_receive(report.status);
        if entry.status.is_none_or(|known| known == Status::Flushed) {
            entry.status = Some(status);
        }
        let opcode = entry.opcode;
        self.failed_by_report(report, status, opcode, false);
    }
}
