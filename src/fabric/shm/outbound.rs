//! The sending half of a queue pair: this rank's CPU performs its requests on memory of the peer.
//!
//! Every operation is bracketed by the `busy` word, so that the peer can tell when nothing more can land (`fence`,
//! deregistration): busy, fence, look whether it is still allowed, operate, no longer busy. Stores that users make
//! through `RemoteRegion::mapped` are not bracketed: who wants to be fenced uses requests, or pulls.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::control::{Arrival, BOUNCE, DEPTH, FRAGMENT, Front, Inbound, SLOTS, Shared};
use super::copy::{self, Direction};
use super::region::{self, Place, Right, ShmRemote};
use crate::fabric::{Doorbell, Operation, Rank, RemoteSlice, Slice, Status};

/// How far a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All done; bytes moved.
    Done(usize),
    /// It ends so, and the queue pair with it.
    Failed(Status),
    /// The peer has posted no receive for it.
    NoReceive,
    /// The peer has not yet taken what was sent earlier.
    NoRoom,
}

/// See the module.
pub(super) struct Outbound {
    peer: Rank,
    control: Shared<Inbound>,
    pub front: Shared<Front>,
    pub bell: Doorbell,
    domain: u64,
    /// Of operations, as `Activity` counts them.
    ends: u32,
    /// Slots filled.
    produced: u64,
    /// Bytes put into the bounce ring.
    bounced: u64,
    /// Receives of the peer used up.
    used: u64,
    /// Bytes of the send at the head of the queue that were handed over, once it has begun.
    begun: Option<usize>,
}

impl Outbound {
    /// `descriptor`: what the peer sleeps on beside its bell, if it told.
    pub fn new(
        peer: Rank,
        control: Shared<Inbound>,
        front: Shared<Front>,
        descriptor: Option<OwnedFd>,
        domain: u64,
    ) -> Self {
        let bell = front.doorbell(descriptor.map(Arc::new));
        Self {
            peer,
            control,
            front,
            bell,
            domain,
            ends: 0,
            produced: 0,
            bounced: 0,
            used: 0,
            begun: None,
        }
    }

    /// Whether the peer's endpoint was dropped.
    pub fn closed(&self) -> bool {
        self.front.closed.load(Ordering::Acquire) != 0
    }

    /// Performs a request, or as much of it as is possible now. Adds to `copied` what took a detour.
    pub fn perform(&mut self, operation: &Operation, copied: &mut u64) -> Outcome {
        let result = match operation {
            Operation::Write {
                local,
                remote,
                immediate: None,
            } => self.write(local, remote),
            Operation::Write {
                local,
                remote,
                immediate: Some(immediate),
            } => match self.receive_and_room() {
                Ok(_) => self.write(local, remote).inspect(|bytes| {
                    self.used += 1;
                    self.push(Arrival::Immediate(*immediate), *bytes);
                }),
                Err(outcome) => return outcome,
            },
            Operation::Read { local, remote } => self.read(local, remote),
            Operation::FetchAdd { local, remote, add } => {
                self.atomic(local, remote, |word| word.fetch_add(*add, Ordering::AcqRel))
            }
            Operation::CompareSwap {
                local,
                remote,
                expected,
                desired,
            } => self.atomic(local, remote, |word| {
                word.compare_exchange(*expected, *desired, Ordering::AcqRel, Ordering::Acquire)
                    .unwrap_or_else(|found| found)
            }),
            Operation::Send { local, immediate } => return self.send(local, *immediate, copied),
        };
        match result {
            Ok(bytes) => Outcome::Done(bytes),
            Err(status) => Outcome::Failed(status),
        }
    }

    /// Whether a request that was refused for want of a receive or of room could go on now.
    pub fn unblocked(&self) -> bool {
        match self.begun {
            Some(_) => !matches!(self.room(), Err(Outcome::NoRoom)),
            None => !matches!(self.receive_and_room(), Err(Outcome::NoReceive | Outcome::NoRoom)),
        }
    }

    fn bracketed<T>(&mut self, operate: impl FnOnce(&Inbound) -> Result<T, Status>) -> Result<T, Status> {
        let Inbound {
            activity, revocation, ..
        } = &*self.control;
        activity
            .operate(&mut self.ends, revocation, || operate(&self.control))
            .unwrap_or(Err(Status::PeerUnreachable))
    }

    fn write(&mut self, local: &Slice, remote: &RemoteSlice) -> Result<usize, Status> {
        let source = region::local(local)?.as_ptr();
        let len = local.len;
        let (region, range) = region::remote(remote, len, self.peer, self.domain, Right::Write)?;
        self.bracketed(|control| transfer(control, region, range.start, source, len, Direction::Push))
    }

    fn read(&mut self, local: &Slice, remote: &RemoteSlice) -> Result<usize, Status> {
        let target = region::local(local)?.as_ptr();
        let len = local.len;
        let (region, range) = region::remote(remote, len, self.peer, self.domain, Right::Read)?;
        self.bracketed(|control| transfer(control, region, range.start, target, len, Direction::Pull))
    }

    fn atomic(
        &mut self,
        local: &Slice,
        remote: &RemoteSlice,
        update: impl FnOnce(&AtomicU64) -> u64,
    ) -> Result<usize, Status> {
        let target = region::local(local)?.as_ptr().cast::<u64>();
        if local.len != size_of::<u64>() {
            return Err(Status::LocalLength);
        }
        let (region, range) = region::remote(remote, local.len, self.peer, self.domain, Right::Atomic)?;
        if !range.start.is_multiple_of(size_of::<u64>()) {
            return Err(Status::RemoteOperation);
        }
        // The kernel has no atomics on another process's memory.
        let Place::Mapped(mapping) = region.place() else {
            return Err(Status::RemoteOperation);
        };
        // SAFETY: in bounds, as `region::remote` checked.
        let word = unsafe { mapping.base().add(range.start) }.cast::<AtomicU64>();
        let earlier = self.bracketed(|_| {
            if !region.valid() {
                return Err(Status::RemoteAccess);
            }
            // SAFETY: aligned (a mapping starts on a page, the offset was checked), writable because the parcel
            // gave the right to atomics, mapped as long as `region`.
            Ok(update(unsafe { word.as_ref() }))
        })?;
        // SAFETY: eight bytes of a local registration, checked by `region::local`; they need not be aligned.
        unsafe { target.write_unaligned(earlier) };
        Ok(local.len)
    }

    /// How much the peer's next receive holds, if it has posted one and there is a slot to announce its use.
    fn receive_and_room(&self) -> Result<u64, Outcome> {
        if self.control.revocation.is_revoked() {
            return Err(Outcome::Failed(Status::PeerUnreachable));
        }
        let posted = self.control.owner.posted.load(Ordering::Acquire);
        match posted.wrapping_sub(self.used) {
            0 => Err(Outcome::NoReceive),
            waiting if waiting <= DEPTH as u64 => {
                self.room()?;
                Ok(self.control.capacities[self.used as usize % DEPTH].load(Ordering::Relaxed))
            }
            // More than the contract allows: the peer's memory was scribbled on.
            _ => Err(Outcome::Failed(Status::RemoteOperation)),
        }
    }

    /// Whether there is a slot, and how many bytes of the bounce ring are free in one piece.
    fn room(&self) -> Result<usize, Outcome> {
        if self.control.revocation.is_revoked() {
            return Err(Outcome::Failed(Status::PeerUnreachable));
        }
        let consumed = self.control.owner.consumed.load(Ordering::Acquire);
        let taken = self.control.owner.taken.load(Ordering::Acquire);
        let waiting = self.produced.wrapping_sub(consumed);
        let bytes = self.bounced.wrapping_sub(taken);
        if waiting > SLOTS as u64 || bytes > BOUNCE as u64 {
            return Err(Outcome::Failed(Status::RemoteOperation));
        }
        if waiting == SLOTS as u64 || bytes == BOUNCE as u64 {
            return Err(Outcome::NoRoom);
        }
        let at = self.bounced as usize % BOUNCE;
        Ok((BOUNCE - bytes as usize).min(BOUNCE - at))
    }

    fn send(&mut self, local: &Slice, immediate: Option<u32>, copied: &mut u64) -> Outcome {
        let source = match region::local(local) {
            Ok(source) => source.as_ptr(),
            Err(status) => return Outcome::Failed(status),
        };
        let mut done = match self.begun {
            Some(done) => done,
            None => match self.receive_and_room() {
                Ok(capacity) if local.len as u64 > capacity => {
                    self.push(Arrival::TooLong, local.len);
                    return Outcome::Failed(Status::RemoteOperation);
                }
                Ok(_) => *self.begun.insert(0),
                Err(outcome) => return outcome,
            },
        };
        loop {
            let room = match self.room() {
                Ok(room) => room,
                Err(outcome) => return outcome,
            };
            let piece = room.min(local.len - done).min(FRAGMENT);
            // SAFETY: the source is in bounds; the piece of the ring is free (`room`), inside it, and ours to fill
            // until the slot says otherwise.
            unsafe {
                let target = self.control.bounce.base().add(self.bounced as usize % BOUNCE);
                std::ptr::copy_nonoverlapping(source.add(done), target, piece);
            }
            *copied += piece as u64;
            self.bounced += piece as u64;
            done += piece;
            let last = done == local.len;
            self.begun = (!last).then_some(done);
            self.used += u64::from(last);
            let arrival = match immediate {
                _ if !last => Arrival::Piece,
                None => Arrival::Last,
                Some(immediate) => Arrival::LastWithImmediate(immediate),
            };
            self.push(arrival, piece);
            if last {
                return Outcome::Done(local.len);
            }
        }
    }

    /// Fills the next slot, which `room` said is free, and wakes the peer.
    fn push(&mut self, arrival: Arrival, len: usize) {
        let slot = &self.control.slots[self.produced as usize % SLOTS];
        slot.what.store(arrival.encode(), Ordering::Relaxed);
        slot.len.store(len as u64, Ordering::Relaxed);
        self.produced += 1;
        // Whoever sees the slot sees the data that was copied before it.
        self.control.peer.produced.store(self.produced, Ordering::Release);
        self.bell.ring();
    }
}

/// Moves bytes between local memory and a peer's region, whose bounds and rights were checked.
fn transfer(
    control: &Inbound,
    region: &ShmRemote,
    offset: usize,
    local: *mut u8,
    len: usize,
    direction: Direction,
) -> Result<usize, Status> {
    if !region.valid() {
        return Err(Status::RemoteAccess);
    }
    let whole = match region.place() {
        Place::Mapped(mapping) => {
            // SAFETY: the offset was checked against the mapping's length.
            let there = unsafe { mapping.base().add(offset) }.as_ptr();
            let (from, to) = match direction {
                Direction::Pull => (there, local),
                Direction::Push => (local, there),
            };
            // SAFETY: both ranges were checked, and a push only gets here with the right to write, with which the
            // mapping is writable. The request holds both registrations.
            unsafe { copy::mapped(from, to, len, || !control.revocation.is_revoked()) }
        }
        Place::Attached { address, pid, life } => {
            if life.ended() {
                return Err(Status::PeerUnreachable);
            }
            // SAFETY: the local range was checked, the other is the kernel's to check. The owner keeps the memory as
            // long as we are busy, also when it deregisters it now (`Domain::bury`).
            let moved = unsafe { copy::attach(*pid, address + offset, local, len, direction) };
            moved.map_err(|error| match error {
                rustix::io::Errno::SRCH => Status::PeerUnreachable,
                _ => Status::RemoteAccess,
            })?;
            true
        }
    };
    if whole {
        Ok(len)
    } else {
        Err(Status::PeerUnreachable)
    }
}
