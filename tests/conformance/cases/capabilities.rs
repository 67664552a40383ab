//! What a fabric says that it can do, it does.

use sapwood::fabric::Access;
use sapwood::memory::Buffer;

use super::Case;
use crate::line::{at, part, read, write};
use crate::member::{Member, peek, poke};

pub const CASES: &[Case] = &[
    Case::new(
        "mappings and doorbells are there if and only if there is reach",
        reach,
    ),
    Case {
        needs: |fabric| {
            if fabric.capabilities().foreign_memory {
                Ok(())
            } else {
                Err("no foreign memory")
            }
        },
        ..Case::new("a caller's own memory is written and read", foreign)
    },
    Case {
        ranks: 1,
        modes: super::THREADS,
        ..Case::new("capabilities make sense", sense)
    },
];

fn reach(member: &mut Member) {
    let reach = member.fabric.capabilities().load_store;
    let mut line = member.connect();
    let peer = 1 - member.rank;
    let memory = member.memory(4096, Access::READ);
    member.offer(peer, &memory);
    let theirs = member.accept(&mut line, peer);
    assert_eq!((theirs.peer(), theirs.len()), (peer, 4096));
    assert_eq!(line.endpoint.rank(), member.rank);
    assert_eq!(theirs.mapped().is_some(), reach);
    assert_eq!(line.endpoint.doorbell(peer).is_some(), reach);
    assert_eq!(line.endpoint.doorbell(member.rank).is_some(), reach);
    assert!(line.endpoint.doorbell(9).is_none());
    poke(&memory, 0, &[member.rank as u8 + 1; 4096]);
    member.barrier();
    if let Some(mapped) = theirs.mapped() {
        // SAFETY: the mapping is as long as the region and lives as long as `theirs`; nobody writes now.
        let bytes = unsafe { std::slice::from_raw_parts(mapped.as_ptr(), 4096) };
        assert!(bytes.iter().all(|byte| *byte == peer as u8 + 1));
    }
    member.barrier();
}

fn foreign(member: &mut Member) {
    const LEN: usize = 100_000;
    let mut line = member.connect();
    let theirs_then_ours = Buffer::from_vec(vec![member.rank as u8; LEN]).expect("a vector");
    let memory = member
        .fabric
        .register(theirs_then_ours.region(), Access::ALL)
        .expect("registration");
    if member.rank == 1 {
        member.offer(0, &memory);
        member.take(0);
        assert!(peek(&memory, 100, 1000).iter().all(|byte| *byte == 0));
        assert_eq!((peek(&memory, 99, 1), peek(&memory, 1100, 1)), (vec![1], vec![1]));
    } else {
        let parcel = member.take_parcel(1);
        let theirs = match line.endpoint.import(1, parcel) {
            Ok(theirs) => theirs,
            Err(error) => panic!("this system does not let processes reach each other's memory: {error}"),
        };
        line.perform(1, write(1, part(&memory, 0, 1000), at(&theirs, 100)));
        line.perform(1, read(2, part(&memory, 5000, 2000), at(&theirs, 50)));
        let bytes = peek(&memory, 5000, 2000);
        let expected: Vec<_> = (50..2050)
            .map(|at| u8::from(!(100..1100).contains(&at)))
            .collect();
        assert!(bytes == expected);
        member.give(1, b"done");
    }
}

fn sense(member: &mut Member) {
    let capabilities = member.fabric.capabilities();
    assert!(capabilities.queue_depth >= 16, "{capabilities:?}");
    assert!(!member.fabric.name().is_empty());
}
