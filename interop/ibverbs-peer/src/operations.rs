//! What ours and theirs do with each other.

use sapwood::fabric::{Opcode, Operation, Receive, RemoteSlice, Request, Status};

use crate::Outcome;
use crate::ours::{LENGTH, Ours, PEER};
use crate::words::{byte, numbers};

/// Below, at and above the inline size, a packet, and what needs many packets.
const SIZES: [usize; 9] = [1, 8, 64, 220, 221, 4096, 4097, 65_536, 400_000];
const COUNT: usize = 16;

fn request(id: u64, operation: Operation) -> Request {
    Request {
        id,
        operation,
        signaled: true,
    }
}

fn post(ours: &mut Ours, requests: &[Request]) -> Outcome<()> {
    ours.endpoint
        .post(PEER, requests)
        .map_err(|error| error.to_string())
}

/// Sends of every size, both ways, in order.
pub fn sends(ours: &mut Ours) -> Outcome<()> {
    for (seed, size) in SIZES.into_iter().enumerate() {
        ours.ask(&format!("receive {COUNT} {size}"), "posted")?;
        ours.fill(0, COUNT * size, |at| byte(seed as u64, at));
        let requests: Vec<_> = (0..COUNT)
            .map(|at| {
                let local = ours.slice(at * size, size);
                request(
                    at as u64,
                    Operation::Send {
                        local,
                        immediate: None,
                    },
                )
            })
            .collect();
        post(ours, &requests)?;
        let done = ours.completions(COUNT, "our sends")?;
        if !done.iter().map(|one| one.id).eq(0..COUNT as u64) {
            return Err(format!("our sends completed out of order: {done:?}"));
        }
        ours.ask(&format!("arrived {COUNT} {size} {seed}"), "right")?;

        let seed = 1000 + seed as u64;
        ours.fill(0, COUNT * size, |_| 0);
        for at in 0..COUNT {
            let receive = Receive {
                id: at as u64,
                local: Some(ours.slice(at * size, size)),
            };
            ours.endpoint
                .post_receive(PEER, receive)
                .map_err(|error| error.to_string())?;
        }
        ours.begin(&format!("send {COUNT} {size} {seed}"))?;
        let came = ours.completions(COUNT, "their sends")?;
        for (at, one) in came.iter().enumerate() {
            if (one.id, one.opcode, one.bytes) != (at as u64, Opcode::Receive, size) {
                return Err(format!("receive {at} of {size} bytes was to come, {one:?} came"));
            }
        }
        ours.answer("sent")?;
        ours.compare(0, COUNT * size, |at| byte(seed, at))?;
    }
    println!("sends both ways: {COUNT} of each of {SIZES:?} bytes");
    Ok(())
}

/// Writes into their memory; an immediate says that all of it is there.
pub fn writes(ours: &mut Ours) -> Outcome<()> {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let (seed, offset) = (2000 + seed as u64, 24 + seed * 3);
        ours.ask("receive 1 8", "posted")?;
        ours.fill(0, size, |at| byte(seed, at));
        let operation = Operation::Write {
            local: ours.slice(0, size),
            remote: remote(ours, offset),
            immediate: Some(0xA1B2_C3D4 ^ size as u32),
        };
        post(ours, &[request(size as u64, operation)])?;
        ours.completions(1, "our write")?;
        let words = ours.ask("immediate", "immediate")?;
        let told: Vec<_> = words.iter().map(String::as_str).collect();
        if numbers(&told)? != [u64::from(0xA1B2_C3D4 ^ size as u32)] {
            return Err(format!(
                "the immediate of a write of {size} bytes came as {words:?}"
            ));
        }
        ours.ask(&format!("compare {offset} {size} {seed}"), "right")?;
    }
    println!("writes with an immediate: one of each of {SIZES:?} bytes");
    Ok(())
}

fn remote(ours: &Ours, offset: usize) -> RemoteSlice {
    RemoteSlice {
        region: ours.remote.clone(),
        offset,
    }
}

/// Reads of their memory, several at a time although theirs answers one at a time.
pub fn reads(ours: &mut Ours) -> Outcome<()> {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let (seed, offset) = (3000 + seed as u64, 40 + seed * 5);
        ours.ask(&format!("fill {offset} {size} {seed}"), "filled")?;
        ours.fill(0, COUNT * size, |_| 0);
        let requests: Vec<_> = (0..COUNT)
            .map(|at| {
                let (local, remote) = (ours.slice(at * size, size), remote(ours, offset));
                request(at as u64, Operation::Read { local, remote })
            })
            .collect();
        post(ours, &requests)?;
        ours.completions(COUNT, "our reads")?;
        for at in 0..COUNT {
            ours.compare(at * size, size, |at| byte(seed, at))?;
        }
    }
    println!("reads: {COUNT} of each of {SIZES:?} bytes");
    Ok(())
}

/// Fetch-and-adds and compare-and-swaps of a word of theirs.
pub fn atomics(ours: &mut Ours) -> Outcome<()> {
    const ADDS: u64 = 100;
    let word = |ours: &mut Ours| -> Outcome<u64> {
        let words = ours.ask("word 3", "word")?;
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        Ok(numbers::<1>(&words)?[0])
    };
    let earlier = |ours: &mut Ours, operation| -> Outcome<u64> {
        post(ours, &[request(1, operation)])?;
        ours.completions(1, "our atomic")?;
        let base = ours.registration.region().base().cast::<u64>();
        // SAFETY: the region's first eight bytes, aligned, with no operation on them in flight.
        Ok(unsafe { base.read_volatile() })
    };
    let mut expected = word(ours)?;
    for _ in 0..ADDS {
        let add = 0x1_0000_0003;
        let operation = Operation::FetchAdd {
            local: ours.slice(0, 8),
            remote: remote(ours, 24),
            add,
        };
        let was = earlier(ours, operation)?;
        if was != expected {
            return Err(format!("a fetch-and-add found {was:#x} where {expected:#x} was"));
        }
        expected = expected.wrapping_add(add);
    }
    // One that finds what it expects, and one that does not.
    for (guess, desired) in [(expected, 77), (expected, 78)] {
        let is = word(ours)?;
        let operation = Operation::CompareSwap {
            local: ours.slice(0, 8),
            remote: remote(ours, 24),
            expected: guess,
            desired,
        };
        let was = earlier(ours, operation)?;
        if was != is {
            return Err(format!("a compare-and-swap found {was:#x} where {is:#x} was"));
        }
    }
    let is = word(ours)?;
    if is != 77 {
        return Err(format!("after two compare-and-swaps the word is {is:#x}, not 77"));
    }
    println!("atomics: {ADDS} fetch-and-adds and two compare-and-swaps");
    Ok(())
}

/// A write past the end of their memory is refused by their device, and harms nothing.
pub fn forbidden(ours: &mut Ours) -> Outcome<()> {
    let end = ours.remote.len();
    ours.ask(&format!("fill {} 4096 5000", end - 4096), "filled")?;
    let operation = Operation::Write {
        local: ours.slice(LENGTH - 16, 16),
        remote: remote(ours, end - 8),
        immediate: None,
    };
    post(ours, &[request(9, operation)])?;
    let done = ours.any_completions(1, "a write past the end")?;
    if done[0].status != Status::RemoteAccess {
        return Err(format!(
            "a write past the end of their memory ended as {:?}",
            done[0]
        ));
    }
    println!("refused: {}", ours.endpoint.explain(&done[0]));
    ours.ask(&format!("compare {} 4096 5000", end - 4096), "right")?;
    Ok(())
}
