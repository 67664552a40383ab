//! Many queue pairs at one rank, more ranks than cores.

use sapwood::fabric::{Access, Opcode};

use super::Case;
use crate::line::{at, part, write_with};
use crate::member::{Member, peek, poke};

pub const CASES: &[Case] = &[Case {
    ranks: 16,
    ..Case::new("sixteen ranks write to each other", all_to_all)
}];

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
