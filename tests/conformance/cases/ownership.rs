//! Invariant 1: whatever is dropped, in whatever order, an operation in flight keeps what it works on.

use sapwood::fabric::Access;
use sapwood::memory::{HugePages, Region};

use super::Case;
use crate::line::{at, part, read, send, write_with};
use crate::member::{Member, peek, poke};

pub const CASES: &[Case] = &[
    Case::new("a request in flight keeps its memory", in_flight),
    Case::new("a posted receive keeps its memory", receive),
    Case::new("handles may be dropped in any order", any_order),
];

/// Takes addresses that were just freed, so that a use after free reads something else.
fn churn() -> Vec<Region> {
    let fill = |_| {
        let region = Region::host(1 << 16, HugePages::Never).expect("memory");
        // SAFETY: fresh, and nobody else's.
        unsafe { region.base().write_bytes(0xcc, 1 << 16) };
        region
    };
    (0..32).map(fill).collect()
}

fn in_flight(member: &mut Member) {
    const LEN: usize = 1 << 16;
    let mut line = member.connect();
    if member.rank == 0 {
        let theirs = {
            let memory = member.memory(LEN, Access::LOCAL);
            poke(&memory, 0, &[6; LEN]);
            let theirs = member.accept(&mut line, 1);
            // No receive is posted: both stay in flight, and hold the only handles of the memory.
            line.post(1, write_with(1, part(&memory, 0, LEN), at(&theirs, 0), 1));
            line.post(1, send(2, part(&memory, 0, LEN), None));
            theirs
        };
        drop(theirs);
        let other = churn();
        member.give(1, b"dropped");
        line.await_successes(2, "requests whose handles are gone");
        drop(other);
        member.take(1);
    } else {
        let target = member.memory(2 * LEN, Access::ALL);
        member.offer(0, &target);
        member.take(0);
        line.expect_immediates(0, 1, 1);
        line.expect_send(0, 2, part(&target, LEN, LEN));
        line.await_successes(2, "what was in flight");
        assert!(peek(&target, 0, 2 * LEN).iter().all(|byte| *byte == 6));
        member.give(0, b"done");
    }
}

fn receive(member: &mut Member) {
    const LEN: usize = 1 << 16;
    let mut line = member.connect();
    if member.rank == 0 {
        {
            let memory = member.memory(LEN, Access::LOCAL);
            line.expect_send(1, 1, part(&memory, 0, LEN));
        }
        let other = churn();
        member.give(1, b"dropped");
        let came = line
            .await_successes(1, "a send into memory that only the receive holds")
            .remove(0);
        assert_eq!(came.bytes, LEN);
        for region in &other {
            // SAFETY: nobody else's.
            let bytes = unsafe { std::slice::from_raw_parts(region.base().as_ptr(), LEN) };
            assert!(
                bytes.iter().all(|byte| *byte == 0xcc),
                "a receive wrote to memory that is not its own"
            );
        }
    } else {
        let memory = member.memory(LEN, Access::LOCAL);
        member.take(0);
        line.perform(0, send(1, part(&memory, 0, LEN), None));
    }
    member.barrier();
}

fn any_order(member: &mut Member) {
    for order in 0..6 {
        let mut line = member.connect();
        let peer = 1 - member.rank;
        let memory = member.memory(4096, Access::ALL);
        member.offer(peer, &memory);
        let theirs = member.accept(&mut line, peer);
        line.post(peer, read(1, part(&memory, 0, 8), at(&theirs, 0)));
        if member.rank == 0 {
            // Nobody sends for these, and nobody receives that.
            line.expect_immediates(1, 0, 4);
            line.post(1, send(2, part(&memory, 0, 8), None));
        }
        member.barrier();
        let mut line = Some(line);
        let mut memory = Some(memory);
        let mut theirs = Some(theirs);
        for step in 0..3 {
            match (order + step * (1 + order / 3)) % 3 {
                0 => drop(line.take()),
                1 => drop(memory.take()),
                _ => drop(theirs.take()),
            }
        }
        member.barrier();
    }
}
