//! Writes, immediates and reads: the right bytes, and in order.

use sapwood::fabric::{Access, Opcode, Operation, Request, Status};

use super::Case;
use crate::line::{at, part, read, write, write_with};
use crate::member::{Member, Random, peek, poke};

pub const CASES: &[Case] = &[
    Case::new("an immediate comes after its data", immediate_after_data),
    Case::new(
        "an immediate comes after all earlier writes",
        immediate_after_writes,
    ),
    Case::new(
        "what is longer than any message of a device arrives whole",
        very_long,
    ),
    Case::new("reads fetch the right bytes", reads),
    Case::new("a read sees the writes before it", read_after_write),
    Case::new("a rank reaches itself", to_oneself),
];

/// Bytes of one operation: nothing, less than a word, around a page, more than a cache, more than a stride of any fabric.
const SIZES: &[usize] = &[
    0,
    1,
    7,
    8,
    64,
    1000,
    4095,
    4096,
    4097,
    65_536,
    (1 << 20) + 3,
    5 << 20,
];

/// What a round fills memory with: never 0, and not what the round before it had.
fn mark(round: usize) -> u8 {
    (round % 255) as u8 + 1
}

fn immediate_after_data(member: &mut Member) {
    let mut line = member.connect();
    let largest = *SIZES.last().expect("not empty");
    let rounds = SIZES.iter().chain(SIZES).chain([&64; 300]).copied().enumerate();
    if member.rank == 0 {
        let source = member.memory(largest, Access::LOCAL);
        let target = member.accept(&mut line, 1);
        for (round, len) in rounds {
            // The same byte all over, another in each round: whatever the receiver sees too early is an older one.
            poke(&source, 0, &vec![mark(round); len]);
            let request = write_with(round as u64, part(&source, 0, len), at(&target, 0), round as u32);
            let done = line.perform(1, request);
            assert_eq!(
                (done.id, done.opcode, done.bytes),
                (round as u64, Opcode::Write, len)
            );
            member.take(1);
        }
    } else {
        let target = member.memory(largest, Access::ALL);
        line.expect_immediates(0, 0, 1);
        member.offer(0, &target);
        for (round, len) in rounds {
            let arrived = line.await_successes(1, "a write with immediate").remove(0);
            let bytes = peek(&target, 0, len);
            let wrong = bytes.iter().position(|byte| *byte != mark(round));
            assert_eq!(
                wrong, None,
                "round {round}: the immediate came before byte {wrong:?} of {len}"
            );
            assert_eq!(arrived.opcode, Opcode::ReceiveWithImmediate);
            assert_eq!((arrived.id, arrived.peer, arrived.bytes), (round as u64, 0, len));
            assert_eq!(arrived.immediate, Some(round as u32));
            line.expect_immediates(0, round as u64 + 1, 1);
            member.give(0, b"next");
        }
    }
    member.barrier();
}

/// Pieces of a region in a random order, as the same seed gives them on both sides.
fn pieces(random: &mut Random, len: usize) -> Vec<(usize, usize)> {
    (0..100)
        .map(|_| {
            let longest = [16, 5000, len / 4][random.below(3)];
            let piece = random.below(longest);
            (random.below(len - piece), piece)
        })
        .collect()
}

fn immediate_after_writes(member: &mut Member) {
    const LEN: usize = 1 << 20;
    let mut line = member.connect();
    let mut random = Random(7);
    let mut expected = vec![0; LEN];
    let mut bytes = vec![0; LEN];
    let memory = member.memory(LEN, Access::ALL);
    if member.rank == 1 {
        line.expect_immediates(0, 0, 20);
        member.offer(0, &memory);
    }
    let target = (member.rank == 0).then(|| member.accept(&mut line, 1));
    for round in 0..20 {
        random.fill(&mut bytes);
        let pieces = pieces(&mut random, LEN);
        for (offset, len) in &pieces {
            expected[*offset..offset + len].copy_from_slice(&bytes[*offset..offset + len]);
        }
        if let Some(target) = &target {
            poke(&memory, 0, &bytes);
            let mut requests: Vec<_> = pieces
                .iter()
                .map(|(offset, len)| Request {
                    signaled: false,
                    ..write(0, part(&memory, *offset, *len), at(target, *offset))
                })
                .collect();
            requests.push(write_with(
                round,
                part(&memory, 0, 0),
                at(target, 0),
                round as u32,
            ));
            line.post_all(1, &requests);
            let done = line
                .await_successes(1, "the signaled one of many writes")
                .remove(0);
            assert_eq!(done.id, round);
            member.take(1);
        } else {
            let arrived = line.await_successes(1, "an immediate after writes").remove(0);
            assert_eq!(arrived.immediate, Some(round as u32));
            assert!(
                peek(&memory, 0, LEN) == expected,
                "round {round}: an immediate overtook a write"
            );
            member.give(0, b"next");
        }
    }
    member.barrier();
}

/// There and back. Soft-RoCE's longest message has 8 MiB.
fn very_long(member: &mut Member) {
    const LEN: usize = (20 << 20) + 5;
    let mut line = member.connect();
    let memory = member.memory(LEN, Access::ALL);
    let mut bytes = vec![0; LEN];
    Random(8).fill(&mut bytes);
    if member.rank == 0 {
        poke(&memory, 0, &bytes);
        let target = member.accept(&mut line, 1);
        let done = line.perform(1, write_with(1, part(&memory, 0, LEN), at(&target, 0), 9));
        assert_eq!(done.bytes, LEN);
        poke(&memory, 0, &vec![0; LEN]);
        let done = line.perform(1, read(2, part(&memory, 0, LEN), at(&target, 0)));
        assert_eq!(done.bytes, LEN);
        assert!(peek(&memory, 0, LEN) == bytes, "the bytes that were read back");
        member.give(1, b"done");
    } else {
        line.expect_immediates(0, 0, 1);
        member.offer(0, &memory);
        let arrived = line.await_successes(1, "a very long write").remove(0);
        assert_eq!(arrived.immediate, Some(9));
        assert!(peek(&memory, 0, LEN) == bytes, "the bytes that were written");
        member.take(0);
    }
}

fn reads(member: &mut Member) {
    const LEN: usize = 6 << 20;
    let mut line = member.connect();
    let mut bytes = vec![0; LEN];
    Random(3).fill(&mut bytes);
    if member.rank == 1 {
        let source = member.memory(LEN, Access::READ);
        poke(&source, 0, &bytes);
        member.offer(0, &source);
        // The owner does nothing more: reads are one-sided.
        member.take(0);
    } else {
        let target = member.memory(LEN, Access::LOCAL);
        let source = member.accept(&mut line, 1);
        let mut random = Random(11);
        for len in SIZES
            .iter()
            .copied()
            .chain((0..200).map(|_| random.below(20_000)))
        {
            let (from, to) = (
                Random(len as u64).below(LEN - len + 1),
                Random(9).below(LEN - len + 1),
            );
            let done = line.perform(1, read(len as u64, part(&target, to, len), at(&source, from)));
            assert_eq!((done.opcode, done.bytes), (Opcode::Read, len));
            assert!(
                peek(&target, to, len) == bytes[from..from + len],
                "{len} bytes at {from}"
            );
        }
        member.give(1, b"done");
    }
}

fn read_after_write(member: &mut Member) {
    let mut line = member.connect();
    if member.rank == 1 {
        let memory = member.memory(4096, Access::ALL);
        member.offer(0, &memory);
        member.take(0);
        return;
    }
    let ours = member.memory(8192, Access::LOCAL);
    let theirs = member.accept(&mut line, 1);
    for round in 0..200u8 {
        poke(&ours, 0, &[round; 4096]);
        let pair = [
            Request {
                signaled: false,
                ..write(1, part(&ours, 0, 4096), at(&theirs, 0))
            },
            read(2, part(&ours, 4096, 4096), at(&theirs, 0)),
        ];
        line.post_all(1, &pair);
        line.await_successes(1, "a read behind a write");
        assert_eq!(peek(&ours, 4096, 4096), [round; 4096]);
    }
    member.give(1, b"done");
}

fn to_oneself(member: &mut Member) {
    let mut line = member.connect();
    let own = member.rank;
    let memory = member.memory(300, Access::ALL);
    let remote = line
        .endpoint
        .import(own, memory.export().expect("export"))
        .expect("import");
    poke(&memory, 0, &[5; 100]);
    line.expect_immediates(own, 10, 1);
    line.expect_send(own, 11, part(&memory, 200, 100));
    line.post(own, write_with(1, part(&memory, 0, 100), at(&remote, 100), 77));
    // What is sent next must be there before: its bytes may be taken at the post.
    let mut all = line.await_successes(2, "a write to oneself");
    let send = Operation::Send {
        local: part(&memory, 100, 100),
        immediate: None,
    };
    line.post(own, crate::line::request(2, send));
    all.extend(line.await_successes(2, "a send to oneself"));
    all.sort_by_key(|completion| completion.id);
    assert_eq!(
        all.iter().map(|completion| completion.id).collect::<Vec<_>>(),
        [1, 2, 10, 11]
    );
    assert_eq!(all[2].immediate, Some(77));
    assert!(all.iter().all(|completion| completion.status == Status::Success));
    assert_eq!(peek(&memory, 0, 300), [5; 300]);
    member.barrier();
}
