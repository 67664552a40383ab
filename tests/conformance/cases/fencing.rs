//! Fencing: after `Fenced`, nothing of the peer lands, whatever the peer was doing.

use std::time::{Duration, Instant};

use sapwood::fabric::{Access, Fence, Operation, PostError, Request, Status};

use super::Case;
use crate::line::{Line, at, fetch_add, part, write};
use crate::member::{Member, Random, peek, poke};

pub const CASES: &[Case] = &[
    Case::new("nothing lands after the fence", nothing_lands),
    Case {
        modes: super::PROCESSES,
        victims: &[1],
        ..Case::new("a stopped peer is fenced or quarantined", stopped)
    },
    Case {
        modes: super::PROCESSES,
        victims: &[1],
        ..Case::new("a dead peer is fenced", dead)
    },
];

const LEN: usize = 3 << 20;

/// Writes without end, until the queue pair fails; then says how it failed. What is written stays as it is: a fabric that
/// seals what it sends takes the connection for forged if memory changes under way.
fn hammer(line: &mut Line, member: &Member, peer: u32) -> Status {
    let source = member.memory(LEN, Access::LOCAL);
    poke(&source, 0, &vec![1; LEN]);
    let fetched = member.memory(8, Access::LOCAL);
    let target = member.accept(line, peer);
    let atomics = super::atomics(&*member.fabric).is_ok();
    let mut random = Random(u64::from(member.generation));
    let deadline = Instant::now() + member.patience;
    for round in 1u64.. {
        assert!(Instant::now() < deadline, "the peer's fence never stopped us");
        let len = [8, 4096, LEN][random.below(3)];
        let offset = random.below(LEN - len + 1) / 8 * 8;
        let mut request = write(round, part(&source, 0, len), at(&target, offset));
        if atomics && random.below(4) == 0 {
            request = fetch_add(round, part(&fetched, 0, 8), at(&target, offset), 1);
        }
        if random.below(2) == 0 {
            request.signaled = false;
        }
        let result = line.endpoint.post(peer, &[request]);
        let failed = line
            .poll_all()
            .into_iter()
            .find(|completion| completion.status != Status::Success);
        if let Some(failed) = failed {
            return failed.status;
        }
        if let Err(PostError::QueuePairError { .. }) = result {
            return line.next("why the queue pair failed").status;
        }
    }
    unreachable!()
}

fn nothing_lands(member: &mut Member) {
    for round in 0..15u64 {
        let mut line = member.connect();
        if member.rank == 1 {
            let status = hammer(&mut line, member, 0);
            assert!(
                matches!(status, Status::PeerUnreachable | Status::RemoteAccess),
                "{status:?}"
            );
            member.give(0, b"stopped");
            continue;
        }
        let memory = member.memory(LEN, Access::ALL);
        member.offer(1, &memory);
        let start = Instant::now();
        while peek(&memory, 0, LEN).iter().all(|byte| *byte == 0) {
            assert!(start.elapsed() < member.patience, "the peer never wrote");
        }
        std::thread::sleep(Duration::from_micros(round * 300));
        let answer = line.endpoint.fence(1, member.deadline()).expect("fence");
        assert_eq!(answer, Fence::Fenced, "a running peer can be fenced");
        let mark = vec![0xabu8; LEN];
        poke(&memory, 0, &mark);
        std::thread::sleep(Duration::from_millis(10));
        assert!(
            peek(&memory, 0, LEN) == mark,
            "round {round}: a write landed after the fence"
        );
        // Ours is in the error state, too.
        let request = Operation::Send {
            local: part(&memory, 0, 0),
            immediate: None,
        };
        let request = Request {
            id: 1,
            operation: request,
            signaled: true,
        };
        let refused = line.endpoint.post(1, &[request]);
        assert_eq!(refused, Err(PostError::QueuePairError { posted: 0 }));
        member.take(1);
        assert!(
            peek(&memory, 0, LEN) == mark,
            "round {round}: a write landed late after the fence"
        );
        assert_eq!(
            line.endpoint.fence(1, member.deadline()).expect("fence again"),
            Fence::Fenced
        );
    }
}

fn tell_pid(member: &Member) {
    member.give(0, &std::process::id().to_ne_bytes());
}

fn take_pid(member: &Member) -> i32 {
    i32::from_ne_bytes(member.take(1).try_into().expect("a process number"))
}

fn stopped(member: &mut Member) {
    for round in 0..20u64 {
        let mut line = member.connect();
        if member.rank == 1 {
            tell_pid(member);
            hammer(&mut line, member, 0);
            member.give(0, b"stopped");
            continue;
        }
        let peer = super::loss::Stopped::new(take_pid(member));
        let memory = member.memory(LEN, Access::ALL);
        member.offer(1, &memory);
        let start = Instant::now();
        while peek(&memory, 0, LEN).iter().all(|byte| *byte == 0) {
            assert!(start.elapsed() < member.patience, "the peer never wrote");
        }
        std::thread::sleep(Duration::from_micros(round * 270));
        peer.stop();
        let soon = Instant::now() + Duration::from_millis(20);
        let mut answer = line.endpoint.fence(1, soon).expect("fence");
        if answer == Fence::Quarantined {
            peer.resume();
            answer = line.endpoint.fence(1, member.deadline()).expect("fence");
            assert_eq!(answer, Fence::Fenced, "a peer that goes on can be fenced");
        }
        let mark = vec![0xabu8; LEN];
        poke(&memory, 0, &mark);
        peer.resume();
        member.take(1);
        assert!(
            peek(&memory, 0, LEN) == mark,
            "round {round}: a write landed after the fence"
        );
    }
}

fn dead(member: &mut Member) {
    let mut line = member.connect();
    if member.rank == 1 {
        tell_pid(member);
        hammer(&mut line, member, 0);
        panic!("the peer fences us only when we are dead");
    }
    let peer = take_pid(member);
    let memory = member.memory(LEN, Access::ALL);
    member.offer(1, &memory);
    while peek(&memory, 0, LEN).iter().all(|byte| *byte == 0) {
        std::thread::yield_now();
    }
    super::loss::kill(peer);
    let answer = line.endpoint.fence(1, member.deadline()).expect("fence");
    assert_eq!(answer, Fence::Fenced, "the dead do not write");
    let mark = vec![0xabu8; LEN];
    poke(&memory, 0, &mark);
    std::thread::sleep(Duration::from_millis(50));
    assert!(peek(&memory, 0, LEN) == mark, "a dead peer wrote");
}
