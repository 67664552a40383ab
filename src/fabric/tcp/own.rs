//! The queue pair of a rank to itself: no socket, no frames; requests are carried out where they are posted.

use super::frame::{Frame, Kind};
use super::receives::Receives;
use super::region::{self, Right};
use super::requests::{Requests, check, local_of, needs_receive};
use super::sink::Sink;
use super::target::{Memory, atomic};
use crate::fabric::{Opcode, Operation, Status};

/// Carries out requests until there are none, or the first must wait for a receive.
///
/// # Errors
/// How the first one ends, and with it the queue pair.
pub(super) fn carry_out(
    requests: &mut Requests,
    receives: &mut Receives,
    memory: &mut Memory<'_>,
    sink: &mut Sink,
) -> Result<(), Status> {
    while let Some(request) = requests.first() {
        let operation = request.operation.clone();
        if needs_receive(&operation) && receives.is_empty() {
            check(&operation, requests.target)?;
            requests.wait_for_receive();
            return Ok(());
        }
        let arrived = perform(&operation, requests.target, receives, memory);
        let len = local_of(&operation).len;
        if let Err(Status::RemoteOperation) = arrived
            && matches!(operation, Operation::Send { .. })
        {
            receives.fail_first(Status::LocalLength, sink);
        }
        arrived?;
        requests.end_own(sink);
        match operation {
            Operation::Send { immediate, .. } => {
                receives.end_first(Opcode::Receive, immediate, Status::Success, len, sink);
            }
            Operation::Write {
                immediate: Some(_), ..
            } => {
                let immediate = match operation {
                    Operation::Write { immediate, .. } => immediate,
                    _ => None,
                };
                receives.end_first(
                    Opcode::ReceiveWithImmediate,
                    immediate,
                    Status::Success,
                    len,
                    sink,
                );
            }
            _ => {}
        }
    }
    Ok(())
}

fn perform(
    operation: &Operation,
    target: (crate::fabric::Rank, u64),
    receives: &Receives,
    memory: &mut Memory<'_>,
) -> Result<(), Status> {
    let (place, key, offset) = check(operation, target)?;
    let len = local_of(operation).len;
    let right = match operation {
        Operation::Write { .. } => Right::Write,
        Operation::Read { .. } => Right::Read,
        Operation::FetchAdd { .. } | Operation::CompareSwap { .. } => {
            let mut frame = Frame::counts(0, 0);
            (frame.key, frame.offset) = (key, offset);
            match operation {
                Operation::FetchAdd { add, .. } => (frame.kind, frame.words[0]) = (Kind::FetchAdd, *add),
                Operation::CompareSwap {
                    expected, desired, ..
                } => {
                    (frame.kind, frame.words) = (Kind::CompareSwap, [*expected, *desired]);
                }
                _ => {}
            }
            let earlier = atomic(&frame, memory)?;
            // SAFETY: eight bytes of a slice that was checked.
            unsafe { place.cast::<u64>().write_unaligned(earlier) };
            return Ok(());
        }
        Operation::Send { .. } => {
            let receive = receives.first().ok_or(Status::ReceiverNotReady)?;
            if receives.capacity().is_none_or(|capacity| capacity < len) {
                return Err(Status::RemoteOperation);
            }
            if let Some(local) = &receive.local {
                let to = region::local(local)?;
                // SAFETY: `len` bytes are at either place, which the request and the receive keep. They may overlap.
                unsafe { place.copy_to(to, len) };
            }
            return Ok(());
        }
    };
    let entry = memory
        .find(right, key, offset, len as u64)
        .ok_or(Status::RemoteAccess)?;
    let guard = entry.enter().ok_or(Status::RemoteAccess)?;
    let remote = guard.at(offset, len);
    let (from, to) = if right == Right::Write {
        (place, remote)
    } else {
        (remote, place)
    };
    // SAFETY: `len` bytes are at either place, kept by the request and the guard. They may overlap.
    unsafe { from.copy_to(to, len) };
    Ok(())
}
