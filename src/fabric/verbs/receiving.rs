//! From receives to work requests, in lists: as one call of the device for each queue pair.

use sapwood_sys::verbs::bindings::*;

use super::budget::Budget;
use super::connection::Connection;
use super::error::VerbError;
use super::in_flight::Incoming;
use super::queue_pair::NotTaken;
use super::ticket::Ticket;
use super::work::{self, Local};
use crate::fabric::state::State;
use crate::fabric::{Opcode, PostError, Receive, Slice};

/// Receives that are handed to the device at a time.
const RECEIVES: usize = 16;

const NO_MEMORY: ibv_sge = ibv_sge {
    addr: 0,
    length: 0,
    lkey: 0,
};

const NO_RECEIVE: ibv_recv_wr = ibv_recv_wr {
    wr_id: 0,
    next: std::ptr::null_mut(),
    sg_list: std::ptr::null_mut(),
    num_sge: 0,
};

/// What leaves its registration gets a key that the device refuses when a message arrives for it.
fn receive_memory(slice: &Slice, scope: u64) -> ibv_sge {
    let length = slice.len.min(LONGEST_RECEIVE) as u32;
    match work::local(slice, scope) {
        Some(Local { address, key, .. }) => ibv_sge {
            addr: address,
            length,
            lkey: key,
        },
        None => ibv_sge {
            addr: 0,
            length: length.max(1),
            lkey: 0,
        },
    }
}

/// No message is longer (InfiniBand specification, 9.2).
const LONGEST_RECEIVE: usize = 1 << 31;

impl Connection {
    /// Posts receives in order, as one list for each queue pair.
    pub fn post_receives(&mut self, receives: &[Receive], budget: &mut Budget) -> Result<(), PostError> {
        if !matches!(self.state, State::Prepared | State::Connected) {
            return Err(PostError::QueuePairError { posted: 0 });
        }
        let room = self.depth.saturating_sub(self.receives.len());
        let lanes = self.lanes.len();
        let count = budget.take_receives(receives.len().min(room), lanes);
        for (chunk, start) in receives[..count].chunks(RECEIVES).zip((0..).step_by(RECEIVES)) {
            if let Err(taken) = self.post_some_receives(chunk) {
                let posted = start + taken;
                (posted..count).for_each(|_| budget.give_receive(lanes));
                return Err(PostError::QueuePairError { posted });
            }
        }
        if count < receives.len() {
            return Err(PostError::QueueFull { posted: count });
        }
        Ok(())
    }

    /// Posts up to [`RECEIVES`]; how many were taken if not all were.
    fn post_some_receives(&mut self, receives: &[Receive]) -> Result<(), usize> {
        let number_of_first = self.receives.next();
        let lanes = self.lanes.len();
        let mut memory = [NO_MEMORY; RECEIVES];
        for (receive, memory) in receives.iter().zip(&mut memory) {
            let mut entry = Incoming {
                id: receive.id,
                registration: None,
                unreported_lanes: lanes as u8,
                opcode: Opcode::Receive,
                status: None,
                bytes: 0,
                immediate: None,
            };
            if let Some(slice) = &receive.local {
                *memory = receive_memory(slice, self.scope);
                entry.registration = Some(slice.registration.clone());
            }
            self.receives.push(entry);
        }
        for lane in 0..lanes {
            let base = self.receive_bases[lane];
            let number = |at: usize| Ticket::number(base, number_of_first + at as u64);
            let mut list = [NO_RECEIVE; RECEIVES];
            for at in 0..receives.len() {
                list[at].wr_id = number(at);
                if lane == 0 && memory[at].length > 0 {
                    list[at].sg_list = &raw mut memory[at];
                    list[at].num_sge = 1;
                }
                if at > 0 {
                    list[at - 1].next = &raw mut list[at];
                }
            }
            // SAFETY: the list and its memory entries live until the call returns, which copies them; the memory
            // itself belongs to registrations in the table.
            let answer = unsafe { self.lanes[lane].post_receives(list.as_mut_ptr()) };
            if let Err(NotTaken { first, errno }) = answer {
                let start = list.as_ptr() as usize;
                let taken = (first as usize).wrapping_sub(start) / size_of::<ibv_recv_wr>();
                let taken = if lane == 0 {
                    taken.min(receives.len())
                } else {
                    receives.len()
                };
                // What no queue pair knows leaves the table; what only some know ends with the queue pairs.
                if lane == 0 {
                    (taken..receives.len()).for_each(|_| drop(self.receives.take_back()));
                }
                let error = self.lanes[lane].refusal(VerbError::PostReceive, errno);
                self.failed_by_verb(&error);
                return Err(taken);
            }
        }
        Ok(())
    }
}
