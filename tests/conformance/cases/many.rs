//! Many queue pairs at one rank, more ranks than cores.

use sapwood::fabric::{Access, Opcode};

use super::Case;
use crate::line::{at, part, send, write_with};
use crate::member::{Member, Random, peek, poke};

pub const CASES: &[Case] = &[
    Case {
        ranks: 16,
        ..Case::new("sixteen ranks write to each other", all_to_all)
    },
    Case {
        ranks: 4,
        ..Case::new(
            "random traffic between four ranks arrives whole and in order",
            random_traffic,
        )
    },
];

/// Messages of random kinds and sizes from everybody to everybody, with few receives, so that every queue is blocked
/// now and then. Both ends of a pair draw the messages from the same seed.
fn random_traffic(member: &mut Member) {
    const MESSAGES: usize = 400;
    const LONGEST: usize = 40_000;
    const RECEIVES: usize = 4;
    #[derive(Clone, Copy)]
    struct Message {
        len: usize,
        as_send: bool,
        mark: u8,
    }
    let messages = |from: u32, to: u32| {
        let mut random = Random(u64::from(from) << 32 | u64::from(to));
        (0..MESSAGES)
            .map(|_| Message {
                len: [0, 8, 5000, LONGEST][random.below(4)] / (1 + random.below(3)),
                as_send: random.below(2) == 0,
                mark: random.next() as u8,
            })
            .collect::<Vec<_>>()
    };
    let mut line = member.connect();
    let ranks = member.ranks as usize;
    // By peer: a window for its writes, a buffer for each receive of its sends, and what goes to it.
    let window = member.memory(LONGEST * ranks, Access::ALL);
    let receives = member.memory(LONGEST * ranks * RECEIVES, Access::LOCAL);
    let outgoing = member.memory(LONGEST * ranks, Access::LOCAL);
    let place = |peer: u32, number: usize| (peer as usize * RECEIVES + number % RECEIVES) * LONGEST;
    for peer in member.peers() {
        for number in 0..RECEIVES {
            line.expect_send(peer, number as u64, part(&receives, place(peer, number), LONGEST));
        }
        member.offer(peer, &window);
    }
    let mut windows: Vec<_> = (0..ranks).map(|_| None).collect();
    for peer in member.peers() {
        windows[peer as usize] = Some(member.accept(&mut line, peer));
    }
    let incoming: Vec<_> = (0..member.ranks)
        .map(|peer| messages(peer, member.rank))
        .collect();
    let to_send: Vec<_> = (0..member.ranks)
        .map(|peer| messages(member.rank, peer))
        .collect();
    let mut sent = vec![0; ranks];
    let mut received = vec![0; ranks];
    // One message to each peer at a time, as its memory is one; the receives are what blocks.
    let mut in_flight = vec![false; ranks];
    let deadline = member.deadline();
    while member
        .peers()
        .any(|peer| received[peer as usize] < MESSAGES || sent[peer as usize] < MESSAGES)
    {
        assert!(
            std::time::Instant::now() < deadline,
            "sent {sent:?}, received {received:?}"
        );
        for peer in member.peers() {
            let at_peer = peer as usize;
            if in_flight[at_peer] || sent[at_peer] == MESSAGES {
                continue;
            }
            let Message { len, as_send, mark } = to_send[at_peer][sent[at_peer]];
            poke(&outgoing, LONGEST * at_peer, &vec![mark; len]);
            let local = part(&outgoing, LONGEST * at_peer, len);
            let id = sent[at_peer] as u64;
            let request = if as_send {
                send(id, local, Some(u32::from(mark)))
            } else {
                let target = windows[at_peer].as_ref().expect("imported above");
                write_with(
                    id,
                    local,
                    at(target, LONGEST * member.rank as usize),
                    u32::from(mark),
                )
            };
            line.post(peer, request);
            in_flight[at_peer] = true;
        }
        for completion in line.await_successes(1, "random traffic") {
            let (peer, at_peer) = (completion.peer, completion.peer as usize);
            if !matches!(completion.opcode, Opcode::Receive | Opcode::ReceiveWithImmediate) {
                assert_eq!(completion.id, sent[at_peer] as u64);
                sent[at_peer] += 1;
                in_flight[at_peer] = false;
                continue;
            }
            let number = received[at_peer];
            let Message { len, as_send, mark } = incoming[at_peer][number];
            assert_eq!((completion.id, completion.bytes), (number as u64, len));
            assert_eq!(completion.immediate, Some(u32::from(mark)));
            assert_eq!(completion.opcode == Opcode::Receive, as_send);
            if as_send {
                assert!(
                    peek(&receives, place(peer, number), len) == vec![mark; len],
                    "a send from rank {peer}"
                );
            }
            received[at_peer] += 1;
            line.expect_send(
                peer,
                (number + RECEIVES) as u64,
                part(&receives, place(peer, number), LONGEST),
            );
        }
    }
    member.barrier();
}

fn all_to_all(member: &mut Member) {
    const LEN: usize = 5000;
    const ROUNDS: usize = 10;
    let mut line = member.connect();
    let ranks = member.ranks as usize;
    let memory = member.memory(LEN * (ranks + 1), Access::ALL);
    for peer in member.peers() {
        line.expect_immediates(peer, u64::from(peer), ROUNDS as u64);
        member.offer(peer, &memory);
    }
    let others: Vec<_> = member
        .peers()
        .map(|peer| (peer, member.accept(&mut line, peer)))
        .collect();
    for round in 0..ROUNDS {
        poke(&memory, LEN * ranks, &[member.rank as u8 + round as u8; LEN]);
        for (peer, theirs) in &others {
            let offset = LEN * member.rank as usize;
            let local = part(&memory, LEN * ranks, LEN);
            line.post(
                *peer,
                write_with(round as u64, local, at(theirs, offset), round as u32),
            );
        }
        let came = line.await_successes(2 * (ranks - 1), "writes from and to all");
        let arrived: Vec<_> = came
            .iter()
            .filter(|completion| completion.opcode == Opcode::ReceiveWithImmediate)
            .collect();
        assert_eq!(arrived.len(), ranks - 1);
        for completion in arrived {
            assert_eq!(completion.immediate, Some(round as u32));
            let bytes = peek(&memory, LEN * completion.peer as usize, LEN);
            assert_eq!(bytes, [completion.peer as u8 + round as u8; LEN]);
        }
        member.barrier();
    }
}
