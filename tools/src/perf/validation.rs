//! `--data_validation`: random data, checked where it arrives, with as many messages in flight as fit. A pass of its own
//! beside the timed one: the same queue pairs, operations and memory, and nothing that is timed pays for the check.

use sapwood::fabric::{Operation, Request};

use super::figures::Checked;
use super::lane::LAST;
use super::session::Session;
use super::test::{AtomicKind, Verb};
use super::watch::{Side, Watch};
use crate::output::Failure;

/// Passes over all slots, each with other data.
const ROUNDS: u64 = 4;
/// What lies around a message; never a byte of it by chance alone, as the data is random.
const GUARD: u8 = 0xa5;

/// Checks one size in every direction of the test; what was found on either side.
pub(super) fn check(session: &mut Session, size: usize) -> Result<Checked, Failure> {
    let mut found = (0, 0);
    let directions = if session.setup.bidirectional {
        &[Side::Client, Side::Server][..]
    } else {
        &[Side::Client]
    };
    for initiator in directions {
        use_up(session, *initiator)?;
        for round in 0..ROUNDS {
            let (bytes, wrong) = match session.setup.test.verb {
                Verb::Write | Verb::Send => delivered(session, *initiator, size, round)?,
                Verb::Read => read(session, *initiator, size, round)?,
                Verb::Atomic => counted(session, *initiator, round)?,
            };
            found = (found.0 + bytes, found.1 + wrong);
        }
    }
    let patience = session.patience(size);
    let theirs = session.exchange("comparing what was checked", &found, patience)?;
    Ok(Checked {
        validated_bytes: Some(found.0 + theirs.0),
        wrong_bytes: Some(found.1 + theirs.1),
    })
}

/// Empty messages for the receives that a timed pass left behind: those of the check lie at places of their own.
fn use_up(session: &mut Session, initiator: Side) -> Result<(), Failure> {
    const AT_ONCE: u64 = 16;
    let initiates = session.side() == initiator;
    let ours: Vec<u64> = session
        .lanes
        .iter()
        .map(|lane| if initiates { 0 } else { lane.receives() })
        .collect();
    session.lanes.iter_mut().for_each(|lane| lane.begin(false));
    let timeout = session.setup.timeout;
    let theirs = session.exchange("receives left behind", &ours, timeout)?;
    for (number, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        while session.lanes[number].posted < theirs {
            let lane = &session.lanes[number];
            let list = (lane.posted..theirs.min(lane.posted + AT_ONCE)).map(|id| {
                let operation = match session.setup.test.verb {
                    Verb::Send => Operation::Send {
                        local: lane.local(0),
                        immediate: None,
                    },
                    _ => lane.write(0, Some(0)),
                };
                Request {
                    id,
                    operation,
                    signaled: true,
                }
            });
            let list: Vec<Request> = list.collect();
            post_all(session, number, &list)?;
        }
        await_lane(session, number, |lane| lane.arrived >= *ours, "empty messages")?;
    }
    session.together("receives used up")
}

/// Bytes that any side can make again: of a slot of a queue pair in a round.
fn pattern(initiator: Side, round: u64, lane: usize, slot: usize, into: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(
        1 + u64::from(initiator.rank()) + 2 * round + 64 * lane as u64 + (slot as u64) * (1 << 40),
    );
    for chunk in into.chunks_mut(8) {
        // xorshift64*: enough that no two slots look alike.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let word = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// Writes or sends every slot; the target compares them, and the bytes between them.
fn delivered(session: &mut Session, initiator: Side, size: usize, round: u64) -> Result<(u64, u64), Failure> {
    let (slots, stride) = session.setup.checked(size);
    let initiates = session.side() == initiator;
    let sends = session.setup.test.verb == Verb::Send;
    let mut data = vec![GUARD; stride];
    // A write is announced by one immediate after all of them, unless each has one.
    let each = sends || session.setup.with_immediate;
    for number in 0..session.lanes.len() {
        let place = session.lanes[number].place;
        session.lanes[number].begin(false);
        for slot in 0..slots {
            if initiates {
                pattern(initiator, round, number, slot, &mut data[..size]);
                session.memory.put(place.out + slot * stride, &data);
            } else {
                session
                    .memory
                    .put(place.into + slot * stride, &vec![GUARD; stride]);
                if each {
                    session.lanes[number].post_receive(slot as u64, slot * stride, size)?;
                }
            }
        }
        if !initiates && !each {
            session.lanes[number].post_receive(0, 0, 0)?;
        }
    }
    session.together("checking data")?;
    if initiates {
        for number in 0..session.lanes.len() {
            let lane = &session.lanes[number];
            let mut requests: Vec<Request> = (0..slots)
                .map(|slot| {
                    aimed(
                        lane.request(&session.setup, size),
                        slot,
                        slot * stride,
                        slot + 1 == slots,
                    )
                })
                .collect();
            if !each {
                let operation = lane.write(0, Some(LAST));
                requests.push(Request {
                    id: slots as u64,
                    operation,
                    signaled: true,
                });
            }
            post_all(session, number, &requests)?;
        }
        session.together("data checked")?;
        return Ok((0, 0));
    }
    let mut wrong = 0;
    for number in 0..session.lanes.len() {
        let awaited = if each { slots as u64 } else { 1 };
        await_lane(
            session,
            number,
            |lane| lane.arrived >= awaited,
            "messages to check",
        )?;
        let place = session.lanes[number].place;
        let mut found = vec![0; stride];
        for slot in 0..slots {
            data.fill(GUARD);
            pattern(initiator, round, number, slot, &mut data[..size]);
            session.memory.get(place.into + slot * stride, &mut found);
            wrong += found
                .iter()
                .zip(&data)
                .filter(|(found, right)| found != right)
                .count() as u64;
        }
    }
    session.together("data checked")?;
    Ok(((slots * size * session.lanes.len()) as u64, wrong))
}

/// Reads every slot; the initiator compares.
fn read(session: &mut Session, initiator: Side, size: usize, round: u64) -> Result<(u64, u64), Failure> {
    let (slots, stride) = session.setup.checked(size);
    let initiates = session.side() == initiator;
    let mut data = vec![GUARD; stride];
    for number in 0..session.lanes.len() {
        let place = session.lanes[number].place;
        session.lanes[number].begin(false);
        for slot in 0..slots {
            if initiates {
                session
                    .memory
                    .put(place.out + slot * stride, &vec![GUARD; stride]);
            } else {
                pattern(initiator, round, number, slot, &mut data[..size]);
                session.memory.put(place.into + slot * stride, &data);
            }
        }
    }
    session.together("checking data")?;
    let mut wrong = 0;
    if initiates {
        for number in 0..session.lanes.len() {
            let lane = &session.lanes[number];
            let requests: Vec<Request> = (0..slots)
                .map(|slot| {
                    aimed(
                        lane.request(&session.setup, size),
                        slot,
                        slot * stride,
                        slot + 1 == slots,
                    )
                })
                .collect();
            post_all(session, number, &requests)?;
            let place = session.lanes[number].place;
            let mut found = vec![0; stride];
            for slot in 0..slots {
                data.fill(GUARD);
                pattern(initiator, round, number, slot, &mut data[..size]);
                session.memory.get(place.out + slot * stride, &mut found);
                wrong += found
                    .iter()
                    .zip(&data)
                    .filter(|(found, right)| found != right)
                    .count() as u64;
            }
        }
    }
    session.together("data checked")?;
    let bytes = if initiates {
        (slots * size * session.lanes.len()) as u64
    } else {
        0
    };
    Ok((bytes, wrong))
}

/// Operations on one word for each queue pair; the initiator knows what each must answer.
fn counted(session: &mut Session, initiator: Side, round: u64) -> Result<(u64, u64), Failure> {
    const OPERATIONS: u64 = 64;
    let start = round.wrapping_sub(2);
    let initiates = session.side() == initiator;
    for lane in &mut session.lanes {
        lane.begin(false);
        if !initiates {
            session.memory.put(lane.place.into, &start.to_ne_bytes());
        }
    }
    session.together("checking data")?;
    let mut wrong = 0;
    if initiates {
        for number in 0..session.lanes.len() {
            let out = session.lanes[number].place.out;
            for turn in 0..OPERATIONS {
                let add = turn * 7 + 1;
                let expected = start.wrapping_add((0..turn).map(|turn| turn * 7 + 1).sum());
                let mut request = session.lanes[number].request(&session.setup, 8);
                // Every eighth comparison is with what the word is not, and must change nothing; then the right one.
                let misses = session.setup.atomic == AtomicKind::CompareSwap && turn % 8 == 7;
                let attempts = if misses { &[true, false][..] } else { &[false] };
                for miss in attempts {
                    match &mut request.operation {
                        Operation::FetchAdd { add: by, .. } => *by = add,
                        Operation::CompareSwap {
                            expected: old,
                            desired,
                            ..
                        } => {
                            *old = expected.wrapping_add(u64::from(*miss));
                            *desired = expected.wrapping_add(add);
                        }
                        _ => {}
                    }
                    request.id = session.lanes[number].posted;
                    post_all(session, number, std::slice::from_ref(&request))?;
                    wrong += 8 * u64::from(session.memory.word(out) != expected);
                }
            }
        }
    }
    session.together("data checked")?;
    let bytes = if initiates {
        8 * OPERATIONS * session.lanes.len() as u64
    } else {
        0
    };
    Ok((bytes, wrong))
}

fn aimed(mut request: Request, number: usize, step: usize, last: bool) -> Request {
    request.id = number as u64;
    request.signaled = last;
    match &mut request.operation {
        Operation::Write { local, remote, .. } | Operation::Read { local, remote } => {
            (local.offset, remote.offset) = (local.offset + step, remote.offset + step);
        }
        Operation::Send { local, .. } => local.offset += step,
        Operation::FetchAdd { .. } | Operation::CompareSwap { .. } => {}
    }
    request
}

/// Posts, as many at a time as the queue takes, and waits until all are done.
fn post_all(session: &mut Session, number: usize, requests: &[Request]) -> Result<(), Failure> {
    session.lanes[number].post(requests)?;
    await_lane(
        session,
        number,
        |lane| lane.done == lane.posted,
        "completions of a check",
    )
}

fn await_lane(
    session: &mut Session,
    number: usize,
    ready: impl Fn(&super::lane::Lane) -> bool,
    what: &str,
) -> Result<(), Failure> {
    let mut watch = Watch::new(
        session.meeting.membership(),
        session.meeting.side(),
        session.setup.timeout,
    );
    let lane = &mut session.lanes[number];
    while !ready(lane) {
        if lane.poll()? == 0 {
            watch.nothing(&|| what.to_owned())?;
        } else {
            watch.came();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_rounds_and_queue_pairs_differ() {
        let of = |initiator, round, lane, slot| {
            let mut bytes = [0; 17];
            pattern(initiator, round, lane, slot, &mut bytes);
            bytes
        };
        let first = of(Side::Client, 0, 0, 0);
        assert_eq!(first, of(Side::Client, 0, 0, 0));
        for other in [
            of(Side::Server, 0, 0, 0),
            of(Side::Client, 1, 0, 0),
            of(Side::Client, 0, 1, 0),
            of(Side::Client, 0, 0, 1),
        ] {
            assert_ne!(first, other);
        }
    }
}
