//! Their end: a queue pair and two registrations of the `ibverbs` crate, which do what ours asks for, line by line.

use std::io::{stdin, stdout};
use std::time::Instant;

use ibverbs::{
    CompletionQueue, Context, Gid, MemoryRegion, ProtectionDomain, QueuePair, QueuePairEndpoint, devices,
    ibv_access_flags, ibv_qp_type, ibv_wc, ibv_wc_opcode,
};
use ibverbs_sys::ibv_gid;

use crate::words::{byte, gid, gid_text, hear, number, numbers, say};
use crate::{Outcome, PATIENCE};

/// Words of 8 bytes that ours writes, reads and updates.
const WORDS: usize = 1 << 17;
/// Bytes that sends come from and receives go to.
const STAGING: usize = 8 << 20;
/// Requests and receives that the queue pair holds.
const DEPTH: u32 = 64;

struct Theirs<'a> {
    queue: &'a CompletionQueue<'a>,
    pair: QueuePair<'a>,
    memory: MemoryRegion<u64>,
    staging: MemoryRegion<u8>,
    /// The last immediate that came.
    immediate: Option<u32>,
}

pub fn run(device: &str, index: &str) -> Outcome<()> {
    let list = devices().map_err(|error| format!("listing devices: {error}"))?;
    let found = list
        .iter()
        .find(|one| {
            one.name()
                .is_some_and(|name| name.to_bytes() == device.as_bytes())
        })
        .ok_or_else(|| format!("there is no device {device}"))?;
    let context = found
        .open()
        .map_err(|error| format!("opening {device}: {error}"))?;
    let queue = context
        .create_cq(2 * DEPTH as i32, 0)
        .map_err(|error| format!("creating a completion queue: {error}"))?;
    let domain = context
        .alloc_pd()
        .map_err(|error| format!("allocating a protection domain: {error}"))?;
    serve(&context, &queue, &domain, number(index)?)
}

fn serve(
    context: &Context,
    queue: &CompletionQueue<'_>,
    domain: &ProtectionDomain<'_>,
    index: u32,
) -> Outcome<()> {
    assert!(
        context.gid_table().len() > index as usize,
        "the port has no GID {index}"
    );
    let (mut input, mut output) = (stdin().lock(), stdout().lock());
    let registering = |error| format!("registering memory: {error}");
    let memory = domain.allocate::<u64>(WORDS).map_err(registering)?;
    let staging = domain.allocate::<u8>(STAGING).map_err(registering)?;
    let mut builder = domain.create_qp(queue, queue, ibv_qp_type::IBV_QPT_RC);
    builder
        .set_gid_index(index)
        .set_access(
            ibv_access_flags::IBV_ACCESS_LOCAL_WRITE
                | ibv_access_flags::IBV_ACCESS_REMOTE_WRITE
                | ibv_access_flags::IBV_ACCESS_REMOTE_READ
                | ibv_access_flags::IBV_ACCESS_REMOTE_ATOMIC,
        )
        .set_max_send_wr(DEPTH)
        .set_max_recv_wr(DEPTH)
        // Its own default of 65 µs is too short for an emulated machine.
        .set_timeout(16)
        .set_min_rnr_timer(12);

    // Its first packet always has the number 0; ours draws one, which it must be told.
    let Some(line) = hear(&mut input)? else {
        return Ok(());
    };
    let words: Vec<_> = line.split(' ').collect();
    let ["pair", number_of_pair, packet, lid, address] = words[..] else {
        return Err(format!("expected a queue pair, heard: {line}"));
    };
    builder.set_rq_psn(number(packet)?);
    let prepared = builder
        .build()
        .map_err(|error| format!("creating a queue pair: {error}"))?;
    let own = prepared.endpoint();
    let address_of_own: Gid = own.gid.ok_or("its own GID is unknown")?;
    let own_bytes = (u128::from(address_of_own.subnet_prefix()) << 64
        | u128::from(address_of_own.interface_id()))
    .to_be_bytes();
    let remote = QueuePairEndpoint {
        num: number(number_of_pair)?,
        lid: number(lid)?,
        gid: Some(Gid::from(ibv_gid { raw: gid(address)? })),
    };
    let pair = prepared
        .handshake(remote)
        .map_err(|error| format!("connecting the queue pair: {error}"))?;
    say(
        &mut output,
        format!("pair {} {} {}", own.num, own.lid, gid_text(own_bytes)),
    )?;
    let key = memory.rkey().key;
    say(
        &mut output,
        format!("memory {} {} {key}", memory.as_ptr() as u64, WORDS * 8),
    )?;

    let mut theirs = Theirs {
        queue,
        pair,
        memory,
        staging,
        immediate: None,
    };
    while let Some(line) = hear(&mut input)? {
        let words: Vec<_> = line.split(' ').collect();
        let answer = theirs
            .obey(words[0], &words[1..])
            .map_err(|why| format!("{line}: {why}"))?;
        say(&mut output, answer)?;
    }
    Ok(())
}

impl Theirs<'_> {
    fn obey(&mut self, what: &str, words: &[&str]) -> Outcome<String> {
        match what {
            "receive" => {
                let [count, size] = numbers(words)?;
                for at in 0..count {
                    let start = (at * size) as usize;
                    // SAFETY: the registration outlives the queue pair (both are fields of one struct, never replaced),
                    // and nothing reads these bytes until the completion.
                    unsafe {
                        self.pair
                            .post_receive(&mut self.staging, start..start + size as usize, at)
                    }
                    .map_err(|error| format!("posting a receive: {error}"))?;
                }
                Ok("posted".into())
            }
            "arrived" => {
                let [count, size, seed] = numbers(words)?;
                for expected in 0..count {
                    let arrival = self.completion()?;
                    let what = (arrival.opcode(), arrival.wr_id(), arrival.len() as u64);
                    if what != (ibv_wc_opcode::IBV_WC_RECV, expected, size) {
                        return Err(format!(
                            "receive {expected} of {size} bytes was to come, {what:?} came"
                        ));
                    }
                }
                let base = self.staging.as_ptr();
                compare(base, (count * size) as usize, seed)?;
                Ok("right".into())
            }
            "immediate" => {
                let arrival = self.completion()?;
                if arrival.opcode() != ibv_wc_opcode::IBV_WC_RECV_RDMA_WITH_IMM {
                    return Err(format!(
                        "a write's immediate was to come, {} came",
                        arrival.opcode()
                    ));
                }
                // The crate hands it out as it came, most significant byte first.
                self.immediate = arrival.imm_data().map(u32::from_be);
                Ok(format!(
                    "immediate {}",
                    self.immediate.ok_or("there was no immediate")?
                ))
            }
            "send" => {
                let [count, size, seed] = numbers(words)?;
                for (at, to) in self.staging[..(count * size) as usize].iter_mut().enumerate() {
                    *to = byte(seed, at);
                }
                for at in 0..count {
                    let start = (at * size) as usize;
                    // SAFETY: as above, and the bytes are not written until the completion.
                    unsafe {
                        self.pair
                            .post_send(&mut self.staging, start..start + size as usize, at)
                    }
                    .map_err(|error| format!("posting a send: {error}"))?;
                }
                for expected in 0..count {
                    let done = self.completion()?;
                    if (done.opcode(), done.wr_id()) != (ibv_wc_opcode::IBV_WC_SEND, expected) {
                        return Err(format!(
                            "send {expected} was to complete, {} of {} did",
                            done.opcode(),
                            done.wr_id()
                        ));
                    }
                }
                Ok("sent".into())
            }
            "fill" => {
                let [offset, len, seed] = numbers(words)?;
                let base = self.memory.as_mut_ptr().cast::<u8>();
                assert!((offset + len) as usize <= WORDS * 8);
                for at in 0..len as usize {
                    // SAFETY: inside the registration, which nobody writes to while ours waits for the answer.
                    unsafe { base.add(offset as usize + at).write_volatile(byte(seed, at)) };
                }
                Ok("filled".into())
            }
            "compare" => {
                let [offset, len, seed] = numbers(words)?;
                assert!((offset + len) as usize <= WORDS * 8);
                // SAFETY: inside the registration.
                let base = unsafe { self.memory.as_ptr().cast::<u8>().add(offset as usize) };
                compare(base, len as usize, seed)?;
                Ok("right".into())
            }
            "word" => {
                let [index] = numbers(words)?;
                assert!((index as usize) < WORDS);
                // SAFETY: inside the registration.
                let value = unsafe { self.memory.as_ptr().add(index as usize).read_volatile() };
                Ok(format!("word {value}"))
            }
            other => Err(format!("'{other}' is not known")),
        }
    }

    /// The next completion, which must be a success.
    fn completion(&mut self) -> Outcome<ibv_wc> {
        let deadline = Instant::now() + PATIENCE;
        let mut completions = [ibv_wc::default(); 1];
        loop {
            let got = self
                .queue
                .poll(&mut completions)
                .map_err(|error| format!("polling: {error}"))?;
            if let [one] = got {
                return match one.error() {
                    None => Ok(*one),
                    Some((status, vendor)) => Err(format!(
                        "a completion has status {status} (vendor's: {vendor:#x})"
                    )),
                };
            }
            if Instant::now() > deadline {
                return Err(format!("no completion came in {} s", PATIENCE.as_secs()));
            }
            std::thread::yield_now();
        }
    }
}

/// Whether the bytes are those of the seed.
fn compare(base: *const u8, len: usize, seed: u64) -> Outcome<()> {
    for at in 0..len {
        // SAFETY: both callers name bytes of a registration; what the device wrote is seen after its completion.
        let is = unsafe { base.add(at).read_volatile() };
        if is != byte(seed, at) {
            return Err(format!("byte {at} of {len} is {is}, not {}", byte(seed, at)));
        }
    }
    Ok(())
}
