//! Keys, bounds and rights: what is not allowed ends with an error at the initiator, and the target is unharmed.

use std::sync::Arc;

use sapwood::fabric::{Access, Registration, RemoteRegion, Request, Status};

use super::Case;
use crate::line::{Line, at, compare_swap, fetch_add, part, read, send, write, write_with};
use crate::member::{Member, peek, poke};

pub const CASES: &[Case] = &[
    Case::new("nothing outside of a region is reached", bounds),
    Case::new("rights that were not given are refused", rights),
    Case::new("a key ends with its registration", stale_key),
    Case::new(
        "a new registration of the same memory does not revive an old key",
        revived_key,
    ),
    Case::new(
        "a local slice outside of its registration is refused",
        local_bounds,
    ),
];

const LEN: usize = 10_000;

type Attempt = fn(&Arc<dyn Registration>, &Arc<dyn RemoteRegion>) -> Request;

/// Rank 0 attempts something on rank 1's memory by queue pairs of its own; it must end so, and change nothing.
fn attempts(member: &mut Member, access: Access, attempts: &[Attempt], expected: Status) {
    for (number, attempt) in attempts.iter().enumerate() {
        let mut line = member.connect();
        if member.rank == 1 {
            let memory = member.memory(LEN, access);
            poke(&memory, 0, &[0x55; LEN]);
            member.offer(0, &memory);
            line.expect_immediates(0, 0, 1);
            member.barrier();
            member.barrier();
            assert!(
                peek(&memory, 0, LEN) == [0x55; LEN],
                "attempt {number} changed memory of the target"
            );
            let came = line.poll_all();
            let came = came
                .iter()
                .find(|completion| completion.status == Status::Success);
            assert_eq!(came, None, "attempt {number} was announced at the target");
        } else {
            let ours = member.memory(2 * LEN, Access::LOCAL);
            let theirs = member.accept(&mut line, 1);
            member.barrier();
            must_end(&mut line, attempt(&ours, &theirs), expected, number);
            assert!(
                peek(&ours, 0, 2 * LEN) == [0; 2 * LEN],
                "attempt {number} brought something back"
            );
            member.barrier();
        }
    }
}

fn must_end(line: &mut Line, request: Request, expected: Status, number: usize) {
    let id = request.id;
    line.post(1, request);
    let ended = line.next("a request that is not allowed");
    assert_eq!(
        (ended.id, ended.status),
        (id, expected),
        "attempt {number}: {ended:?}"
    );
}

fn bounds(member: &mut Member) {
    let all: &[Attempt] = &[
        |ours, theirs| write(1, part(ours, 0, 1), at(theirs, LEN)),
        |ours, theirs| write(2, part(ours, 0, 16), at(theirs, LEN - 15)),
        |ours, theirs| write(3, part(ours, 0, LEN + 1), at(theirs, 0)),
        |ours, theirs| write(4, part(ours, 0, 8), at(theirs, usize::MAX)),
        |ours, theirs| write(5, part(ours, 0, 8), at(theirs, usize::MAX - 7)),
        |ours, theirs| write_with(6, part(ours, 0, 8), at(theirs, LEN - 7), 1),
        |ours, theirs| read(7, part(ours, 0, 16), at(theirs, LEN - 15)),
        |ours, theirs| read(8, part(ours, 0, 2 * LEN), at(theirs, 0)),
        |ours, theirs| read(9, part(ours, 0, 8), at(theirs, usize::MAX - 3)),
        // The region's last page goes on behind its last byte; it is still not part of it.
        |ours, theirs| write(10, part(ours, 0, 64), at(theirs, LEN + 64)),
    ];
    attempts(member, Access::ALL, all, Status::RemoteAccess);
    if super::atomics(&*member.fabric).is_ok() {
        let atomics: &[Attempt] = &[
            |ours, theirs| fetch_add(1, part(ours, 0, 8), at(theirs, LEN), 1),
            |ours, theirs| compare_swap(2, part(ours, 0, 8), at(theirs, usize::MAX - 7), 0, 1),
        ];
        attempts(member, Access::ALL, atomics, Status::RemoteAccess);
    }
}

fn rights(member: &mut Member) {
    let writes: &[Attempt] = &[
        |ours, theirs| write(1, part(ours, 0, 8), at(theirs, 0)),
        |ours, theirs| write_with(2, part(ours, 0, 8), at(theirs, 0), 7),
    ];
    attempts(member, Access::READ, writes, Status::RemoteAccess);
    let reads: &[Attempt] = &[|ours, theirs| read(1, part(ours, 0, 8), at(theirs, 0))];
    let only_write = Access {
        remote_write: true,
        ..Access::LOCAL
    };
    attempts(member, only_write, reads, Status::RemoteAccess);
    if super::atomics(&*member.fabric).is_ok() {
        let atomics: &[Attempt] = &[
            |ours, theirs| fetch_add(1, part(ours, 0, 8), at(theirs, 0), 1),
            |ours, theirs| compare_swap(2, part(ours, 0, 8), at(theirs, 0), 0x5555_5555_5555_5555, 1),
        ];
        attempts(member, Access::READ, atomics, Status::RemoteAccess);
        let no_atomics = Access {
            remote_atomic: false,
            ..Access::ALL
        };
        attempts(member, no_atomics, atomics, Status::RemoteAccess);
    }
}

fn stale_key(member: &mut Member) {
    let attempts: &[Attempt] = &[
        |ours, theirs| write(2, part(ours, 0, 64), at(theirs, 0)),
        |ours, theirs| read(2, part(ours, 64, 64), at(theirs, 0)),
        |ours, theirs| write_with(2, part(ours, 0, 64), at(theirs, 0), 3),
    ];
    for (number, attempt) in attempts.iter().enumerate() {
        let mut line = member.connect();
        let memory = member.memory(4096, Access::ALL);
        if member.rank == 1 {
            let region = memory.region().clone();
            member.offer(0, &memory);
            line.expect_immediates(0, 0, 1);
            member.barrier();
            drop(memory);
            member.barrier();
            member.barrier();
            let again = member
                .fabric
                .register(&region, Access::ALL)
                .expect("register again");
            assert_eq!(
                peek(&again, 0, 64),
                [1; 64],
                "attempt {number} wrote with a stale key"
            );
        } else {
            let theirs = member.accept(&mut line, 1);
            poke(&memory, 0, &[1; 64]);
            line.perform(1, write(1, part(&memory, 0, 64), at(&theirs, 0)));
            member.barrier();
            member.barrier();
            poke(&memory, 0, &[2; 64]);
            must_end(&mut line, attempt(&memory, &theirs), Status::RemoteAccess, number);
            assert_eq!(
                peek(&memory, 64, 64),
                [0; 64],
                "a stale key brought something back"
            );
            member.barrier();
        }
    }
}

fn revived_key(member: &mut Member) {
    let mut line = member.connect();
    let memory = member.memory(4096, Access::ALL);
    if member.rank == 1 {
        let region = memory.region().clone();
        member.offer(0, &memory);
        member.take(0);
        drop(memory);
        // Many, so that whatever a key is made of is given out again.
        let again: Vec<_> = (0..50)
            .map(|_| {
                member
                    .fabric
                    .register(&region, Access::ALL)
                    .expect("register again")
            })
            .collect();
        member.give(0, b"registered");
        member.take(0);
        assert_eq!(peek(&again[0], 0, 64), [0; 64]);
    } else {
        let theirs = member.accept(&mut line, 1);
        member.give(1, b"imported");
        member.take(1);
        poke(&memory, 0, &[2; 64]);
        must_end(
            &mut line,
            write(1, part(&memory, 0, 64), at(&theirs, 0)),
            Status::RemoteAccess,
            0,
        );
        member.give(1, b"done");
    }
}

fn local_bounds(member: &mut Member) {
    let all: &[Attempt] = &[
        |ours, theirs| write(1, part(ours, 2 * LEN, 1), at(theirs, 0)),
        |ours, theirs| write(2, part(ours, usize::MAX, 2), at(theirs, 0)),
        |ours, theirs| read(3, part(ours, 2 * LEN - 7, 8), at(theirs, 0)),
        |ours, _| send(4, part(ours, 2 * LEN - 7, 8), None),
    ];
    attempts(member, Access::ALL, all, Status::LocalProtection);
}
