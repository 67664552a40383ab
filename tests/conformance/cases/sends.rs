//! Sends: whole messages into posted receives, in order, in both directions at once.

use sapwood::fabric::{Access, Opcode, PostError, Receive, Status};

use super::Case;
use crate::line::{part, send, write_with};
use crate::member::{Member, Random, peek, poke};

pub const CASES: &[Case] = &[
    Case::new("sends of every size arrive whole", every_size),
    Case::new("sends and immediates keep their order", mixed_order),
    Case::new("long sends cross without a deadlock", crossing),
    Case::new("receives posted together are filled in their order", together),
    Case {
        needs: |fabric| match fabric.capabilities().inline_size {
            0 => Err("no bytes are taken at the post"),
            _ => Ok(()),
        },
        ..Case::new(
            "bytes that are taken at the post may be changed after it",
            taken_at_the_post,
        )
    },
    Case::new(
        "a send that is longer than the receive fails on both sides",
        too_long,
    ),
];

const SIZES: &[usize] = &[
    0,
    1,
    8,
    63,
    4096,
    16_384,
    16_385,
    65_535,
    65_536,
    65_537,
    1_000_003,
    3 << 20,
];

fn every_size(member: &mut Member) {
    let mut line = member.connect();
    let largest = *SIZES.last().expect("not empty");
    let memory = member.memory(largest + 8, Access::LOCAL);
    let mut random = Random(5);
    for (round, len) in SIZES.iter().chain(SIZES).copied().enumerate() {
        let mut bytes = vec![0; len];
        random.fill(&mut bytes);
        let immediate = (round % 2 == 0).then_some(round as u32 | 0xf000_0000);
        if member.rank == 0 {
            poke(&memory, 0, &bytes);
            member.take(1);
            let done = line.perform(1, send(round as u64, part(&memory, 0, len), immediate));
            assert_eq!((done.opcode, done.bytes), (Opcode::Send, len));
            // The memory is ours again: what we do to it does not reach the peer.
            poke(&memory, 0, &vec![0xee; len]);
        } else {
            poke(&memory, 0, &vec![0xdd; len + 8]);
            line.expect_send(0, round as u64, part(&memory, 0, len + round % 3));
            member.give(0, b"ready");
            let arrived = line.await_successes(1, "a send").remove(0);
            assert_eq!((arrived.id, arrived.opcode), (round as u64, Opcode::Receive));
            assert_eq!((arrived.bytes, arrived.immediate), (len, immediate));
            assert!(
                peek(&memory, 0, len) == bytes,
                "the bytes of a send of {len} bytes"
            );
            assert_eq!(
                peek(&memory, len, 8),
                [0xdd; 8],
                "bytes behind a send of {len} bytes"
            );
        }
    }
    member.barrier();
}

fn mixed_order(member: &mut Member) {
    const COUNT: usize = 1000;
    let mut line = member.connect();
    let memory = member.memory(4096, Access::ALL);
    let is_send = |id: usize| !id.is_multiple_of(3);
    if member.rank == 0 {
        let target = member.accept(&mut line, 1);
        let requests: Vec<_> = (0..COUNT)
            .map(|id| {
                let mut request = if is_send(id) {
                    send(id as u64, part(&memory, 0, id % 64), Some(id as u32))
                } else {
                    write_with(
                        id as u64,
                        part(&memory, 0, 8),
                        crate::line::at(&target, 0),
                        id as u32,
                    )
                };
                request.signaled = false;
                request
            })
            .collect();
        line.post_all(1, &requests);
        line.post_all(1, &[send(0, part(&memory, 0, 0), None)]);
        line.await_successes(1, "the last send");
    } else {
        let depth = 32;
        (0..depth).for_each(|id| line.expect_send(0, id, part(&memory, 0, 64)));
        member.offer(0, &memory);
        for id in 0..COUNT {
            let arrived = line.await_successes(1, "sends and immediates").remove(0);
            assert_eq!((arrived.id, arrived.immediate), (id as u64, Some(id as u32)));
            let opcode = if is_send(id) {
                Opcode::Receive
            } else {
                Opcode::ReceiveWithImmediate
            };
            assert_eq!(arrived.opcode, opcode);
            line.expect_send(0, id as u64 + depth, part(&memory, 0, 64));
        }
        line.await_successes(1, "the last send");
    }
    member.barrier();
}

fn crossing(member: &mut Member) {
    const LEN: usize = 4 << 20;
    let mut line = member.connect();
    let peer = 1 - member.rank;
    let (outgoing, incoming) = (
        member.memory(LEN, Access::LOCAL),
        member.memory(LEN, Access::LOCAL),
    );
    for round in 0..4u8 {
        poke(&outgoing, 0, &vec![10 * round + member.rank as u8; LEN]);
        line.expect_send(peer, 1, part(&incoming, 0, LEN));
        member.barrier();
        line.post(peer, send(2, part(&outgoing, 0, LEN), None));
        line.await_successes(2, "a send and a receive that cross");
        assert!(
            peek(&incoming, 0, LEN)
                .iter()
                .all(|byte| *byte == 10 * round + peer as u8)
        );
    }
}

fn together(member: &mut Member) {
    const COUNT: usize = 100;
    let mut line = member.connect();
    let memory = member.memory(COUNT, Access::LOCAL);
    if member.rank == 1 {
        let receive = |id: usize| Receive {
            id: id as u64,
            local: Some(part(&memory, id, 1)),
        };
        let receives: Vec<_> = (0..COUNT).map(receive).collect();
        line.endpoint.post_receives(0, &receives).expect("receives");
        member.give(0, b"posted");
        let came = line.await_successes(COUNT, "sends into receives posted together");
        assert!(came.iter().map(|completion| completion.id).eq(0..COUNT as u64));
        assert!(peek(&memory, 0, COUNT).iter().copied().eq(0..COUNT as u8));
        // No more than the queue holds, and the error says how many.
        let depth = member.fabric.capabilities().queue_depth;
        let many: Vec<_> = (0..depth + 7).map(|_| Receive { id: 0, local: None }).collect();
        let error = line
            .endpoint
            .post_receives(0, &many)
            .expect_err("too many receives");
        assert_eq!(error, PostError::QueueFull { posted: depth });
    } else {
        member.take(1);
        for id in 0..COUNT {
            poke(&memory, id, &[id as u8]);
            line.perform(1, send(id as u64, part(&memory, id, 1), None));
        }
    }
    member.barrier();
}

/// The largest message of which that is said; it waits for a receive while its memory is filled with something else.
fn taken_at_the_post(member: &mut Member) {
    let len = member.fabric.capabilities().inline_size;
    let mut line = member.connect();
    let memory = member.memory(2 * len, Access::ALL);
    if member.rank == 0 {
        let theirs = member.accept(&mut line, 1);
        poke(&memory, 0, &vec![1; len]);
        line.post(
            1,
            write_with(1, part(&memory, 0, len), crate::line::at(&theirs, 0), 5),
        );
        poke(&memory, 0, &vec![2; len]);
        line.post(1, send(2, part(&memory, 0, len), None));
        poke(&memory, 0, &vec![3; len]);
        member.give(1, b"posted");
        line.await_successes(2, "what was taken at the post");
    } else {
        member.offer(0, &memory);
        member.take(0);
        line.expect_immediates(0, 1, 1);
        line.expect_send(0, 2, part(&memory, len, len));
        line.await_successes(2, "what was taken at the post");
        assert!(
            peek(&memory, 0, len) == vec![1; len],
            "the write's bytes were taken late"
        );
        assert!(
            peek(&memory, len, len) == vec![2; len],
            "the send's bytes were taken late"
        );
    }
    member.barrier();
}

fn too_long(member: &mut Member) {
    let mut line = member.connect();
    let memory = member.memory(100, Access::LOCAL);
    if member.rank == 0 {
        member.take(1);
        line.post(1, send(1, part(&memory, 0, 51), None));
        let failed = line.next("a send that is too long");
        assert_eq!((failed.id, failed.status), (1, Status::RemoteOperation));
        member.barrier();
    } else {
        poke(&memory, 0, &[9; 100]);
        line.expect_send(0, 5, part(&memory, 0, 50));
        member.give(0, b"ready");
        let failed = line.next("a receive that is too short");
        assert_eq!((failed.id, failed.status), (5, Status::LocalLength));
        assert_eq!(peek(&memory, 50, 50), [9; 50]);
        member.barrier();
    }
}
