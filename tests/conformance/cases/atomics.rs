//! Atomics: nothing is lost between initiators, and the earlier value comes back.

use std::sync::atomic::{AtomicU64, Ordering};

use sapwood::fabric::{Access, AtomicDomain, Opcode, Status};

use super::Case;
use crate::line::{at, compare_swap, fetch_add, part};
use crate::member::{Member, peek, poke, word};

pub const CASES: &[Case] = &[
    Case {
        ranks: 4,
        needs: super::atomics,
        ..Case::new("fetch-and-add loses nothing", contended_add)
    },
    Case {
        ranks: 3,
        needs: super::atomics,
        ..Case::new("compare-and-swap lets one in", lock)
    },
    Case {
        ranks: 3,
        needs: |fabric| match fabric.capabilities().atomic_domain {
            AtomicDomain::Cpu => Ok(()),
            _ => Err("atomics are not the CPU's"),
        },
        ..Case::new(
            "atomics of the CPU's domain count the owner's own instructions",
            with_the_owner,
        )
    },
    Case {
        ranks: 4,
        needs: |fabric| match fabric.by_one_means() {
            Some(one) => super::atomics(&*one),
            None => super::atomics(fabric),
        },
        ..Case::new(
            "where all are reached by one means a word has one domain",
            one_domain,
        )
    },
    Case {
        needs: super::atomics,
        ..Case::new("a misaligned atomic is refused", misaligned)
    },
];

const ADDS: u64 = 3000;

/// Every rank but 0 adds to a word of rank 0's; between them, all earlier values are different.
fn contended_add(member: &mut Member) {
    let mut line = member.connect();
    if member.rank == 0 {
        let memory = member.memory(64, Access::ALL);
        member.peers().for_each(|peer| member.offer(peer, &memory));
        member.barrier();
        let mut earlier: Vec<u64> = member
            .peers()
            .flat_map(|peer| {
                let told = member.take(peer);
                told.chunks(8)
                    .map(|eight| u64::from_ne_bytes(eight.try_into().expect("eight")))
                    .collect::<Vec<_>>()
            })
            .collect();
        earlier.sort_unstable();
        let all = ADDS * u64::from(member.ranks - 1);
        assert!(
            earlier.into_iter().eq(0..all),
            "two additions saw the same earlier value"
        );
        assert_eq!(word(&memory, 8), all);
        assert_eq!(
            (word(&memory, 0), word(&memory, 16)),
            (0, 0),
            "a neighbouring word changed"
        );
        return;
    }
    let target = member.accept(&mut line, 0);
    let ours = member.memory(8, Access::LOCAL);
    member.barrier();
    let mut earlier = Vec::new();
    for id in 0..ADDS {
        let done = line.perform(0, fetch_add(id, part(&ours, 0, 8), at(&target, 8), 1));
        assert_eq!((done.opcode, done.bytes), (Opcode::FetchAdd, 8));
        earlier.extend(peek(&ours, 0, 8));
    }
    member.give(0, &earlier);
}

/// Every rank adds to a word of rank 0's by what reaches all of them alike: rank 0 itself, those that are near to it, and
/// the others.
fn one_domain(member: &mut Member) {
    if let Some(one) = member.fabric.by_one_means() {
        member.fabric = one;
    }
    assert!(member.fabric.by_one_means().is_none(), "it is that fabric");
    let mut line = member.connect();
    let (memory, earlier) = (member.memory(64, Access::ALL), member.memory(8, Access::LOCAL));
    let target = if member.rank == 0 {
        member.peers().for_each(|peer| member.offer(peer, &memory));
        let own = memory.export().expect("export");
        line.endpoint.import(0, own).expect("import of one's own")
    } else {
        member.accept(&mut line, 0)
    };
    member.barrier();
    for id in 0..ADDS {
        line.perform(0, fetch_add(id, part(&earlier, 0, 8), at(&target, 8), 1));
    }
    member.barrier();
    line.perform(0, fetch_add(ADDS, part(&earlier, 0, 8), at(&target, 8), 0));
    assert_eq!(word(&earlier, 0), ADDS * u64::from(member.ranks));
    member.barrier();
}

/// A lock made of compare-and-swap guards a counter that is read and written in two steps.
fn lock(member: &mut Member) {
    use crate::line::{read, write};
    const ROUNDS: u64 = 300;
    let mut line = member.connect();
    let memory = member.memory(64, Access::ALL);
    if member.rank == 0 {
        member.peers().for_each(|peer| member.offer(peer, &memory));
        member.peers().for_each(|peer| drop(member.take(peer)));
        assert_eq!(word(&memory, 8), ROUNDS * u64::from(member.ranks - 1));
        assert_eq!(word(&memory, 0), 0, "the lock is free again");
        return;
    }
    let target = member.accept(&mut line, 0);
    let me = u64::from(member.rank);
    for _ in 0..ROUNDS {
        let deadline = member.deadline();
        loop {
            line.perform(0, compare_swap(1, part(&memory, 0, 8), at(&target, 0), 0, me));
            if word(&memory, 0) == 0 {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "the lock is never free");
            std::thread::yield_now();
        }
        line.perform(0, read(2, part(&memory, 8, 8), at(&target, 8)));
        let next = word(&memory, 8) + 1;
        poke(&memory, 8, &next.to_ne_bytes());
        line.perform(0, write(3, part(&memory, 8, 8), at(&target, 8)));
        line.perform(0, compare_swap(4, part(&memory, 0, 8), at(&target, 0), me, 0));
        assert_eq!(word(&memory, 0), me, "somebody else had our lock");
    }
    member.give(0, b"done");
}

fn with_the_owner(member: &mut Member) {
    let mut line = member.connect();
    let memory = member.memory(8, Access::ALL);
    if member.rank == 0 {
        member.peers().for_each(|peer| member.offer(peer, &memory));
        member.barrier();
        // SAFETY: eight aligned bytes of a living region; everybody accesses them atomically.
        let own = unsafe { memory.region().base().cast::<AtomicU64>().as_ref() };
        for _ in 0..ADDS {
            own.fetch_add(1, Ordering::Relaxed);
        }
        member.barrier();
        assert_eq!(own.load(Ordering::Relaxed), ADDS * u64::from(member.ranks));
        return;
    }
    let target = member.accept(&mut line, 0);
    member.barrier();
    for id in 0..ADDS {
        line.perform(0, fetch_add(id, part(&memory, 0, 8), at(&target, 0), 1));
    }
    member.barrier();
}

fn misaligned(member: &mut Member) {
    for swap in [false, true] {
        let mut line = member.connect();
        let memory = member.memory(64, Access::ALL);
        if member.rank == 1 {
            member.offer(0, &memory);
            member.take(0);
            assert_eq!(peek(&memory, 0, 64), [0; 64]);
            continue;
        }
        let target = member.accept(&mut line, 1);
        let (local, remote) = (part(&memory, 0, 8), at(&target, 12));
        line.post(
            1,
            if swap {
                compare_swap(1, local, remote, 0, 1)
            } else {
                fetch_add(1, local, remote, 1)
            },
        );
        assert_eq!(line.next("a misaligned atomic").status, Status::RemoteOperation);
        member.give(1, b"done");
    }
}
