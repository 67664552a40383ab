//! Completions: which come, in which order, and what comes after an error.

use sapwood::fabric::{Access, Completion, FabricError, Operation, PostError, Receive, Request, Status};

use super::Case;
use crate::line::{at, fetch_add, part, read, write, write_with};
use crate::member::{Member, peek, poke};

pub const CASES: &[Case] = &[
    Case::new("completions come in the order of posting", in_order),
    Case::new("only what is signaled is reported", unsignaled),
    Case::new("after an error everything is flushed", error_flushes),
    Case::new("disconnecting flushes", disconnect_flushes),
    Case {
        ranks: 1,
        modes: super::THREADS,
        ..Case::new("calls out of order are refused", states)
    },
    Case {
        modes: super::THREADS,
        ..Case::new("a poll takes what there is room for", bounded_poll)
    },
];

fn in_order(member: &mut Member) {
    const COUNT: u64 = 2000;
    let mut line = member.connect();
    let memory = member.memory(1 << 16, Access::ALL);
    if member.rank == 1 {
        member.offer(0, &memory);
        member.take(0);
        return;
    }
    let theirs = member.accept(&mut line, 1);
    let atomics = super::atomics(&*member.fabric).is_ok();
    let requests: Vec<_> = (0..COUNT)
        .map(|id| match id % 3 {
            0 => write(id, part(&memory, 0, (id * 17 % 60_000) as usize), at(&theirs, 0)),
            1 if atomics => fetch_add(id, part(&memory, 0, 8), at(&theirs, 0), 1),
            _ => read(id, part(&memory, 0, 8), at(&theirs, 64)),
        })
        .collect();
    let mut came = Vec::new();
    for batch in requests.chunks(100) {
        line.post_all(1, batch);
        came.extend(line.await_successes(batch.len(), "a batch"));
    }
    let order: Vec<_> = came.iter().map(|completion| completion.id).collect();
    assert!(order.iter().copied().eq(0..COUNT), "out of order: {order:?}");
    member.give(1, b"done");
}

fn unsignaled(member: &mut Member) {
    let mut line = member.connect();
    let memory = member.memory(4096, Access::ALL);
    if member.rank == 1 {
        member.offer(0, &memory);
        member.take(0);
        return;
    }
    let theirs = member.accept(&mut line, 1);
    let requests: Vec<_> = (0..4096u64)
        .map(|id| Request {
            signaled: id % 8 == 7,
            ..write(id, part(&memory, 0, 8), at(&theirs, 0))
        })
        .collect();
    line.post_all(1, &requests);
    let came = line.await_successes(512, "every eighth");
    assert!(
        came.iter()
            .zip(0..)
            .all(|(completion, n)| completion.id == n * 8 + 7)
    );
    let more = line.listen(std::time::Duration::from_millis(20));
    assert_eq!(more, [], "an unsignaled success was reported");
    member.give(1, b"done");
}

fn error_flushes(member: &mut Member) {
    let mut line = member.connect();
    let memory = member.memory(4096, Access::ALL);
    if member.rank == 1 {
        member.offer(0, &memory);
        member.take(0);
        assert_eq!(
            peek(&memory, 8, 8),
            [0; 8],
            "a request behind the failed one was carried out"
        );
        return;
    }
    let theirs = member.accept(&mut line, 1);
    poke(&memory, 0, &[1; 8]);
    // What is queued behind a request that waits for a receive, and the receives, are flushed too.
    line.expect_immediates(1, 100, 3);
    let good = |id, signaled| Request {
        signaled,
        ..write(id, part(&memory, 0, 8), at(&theirs, 0))
    };
    let batch = [
        good(1, true),
        Request {
            signaled: false,
            ..write(2, part(&memory, 0, 8), at(&theirs, 4096))
        },
        Request {
            signaled: false,
            ..write(3, part(&memory, 0, 8), at(&theirs, 8))
        },
        write(4, part(&memory, 0, 8), at(&theirs, 8)),
    ];
    // A provider may notice the error at the post, and then takes less of the batch; or later.
    let taken = match line.endpoint.post(1, &batch) {
        Ok(()) => 4,
        Err(PostError::QueuePairError { posted }) if posted >= 2 => posted,
        Err(other) => panic!("{other}"),
    };
    let came = line.await_completions(taken + 3, "a success, an error and what it flushes");
    let (receives, requests): (Vec<Completion>, Vec<Completion>) =
        came.iter().copied().partition(|completion| completion.id >= 100);
    assert_eq!((requests[0].id, requests[0].status), (1, Status::Success));
    assert_eq!(
        (requests[1].id, requests[1].status),
        (2, Status::RemoteAccess),
        "reported although unsignaled"
    );
    assert!(
        requests[2..]
            .iter()
            .all(|completion| completion.status == Status::Flushed),
        "{requests:?}"
    );
    assert!(
        receives
            .iter()
            .all(|completion| completion.status == Status::Flushed),
        "{receives:?}"
    );
    assert!(receives.iter().map(|completion| completion.id).eq(100..103));
    let error = line
        .endpoint
        .post(1, &[good(5, true)])
        .expect_err("the error state");
    assert_eq!(error, PostError::QueuePairError { posted: 0 });
    let receive = Receive { id: 200, local: None };
    assert!(matches!(
        line.endpoint.post_receive(1, receive),
        Err(PostError::QueuePairError { .. })
    ));
    // The rank's other queue pairs go on.
    let own = line
        .endpoint
        .import(0, memory.export().expect("export"))
        .expect("import");
    line.perform(0, write(6, part(&memory, 0, 8), at(&own, 8)));
    member.give(1, b"done");
}

fn disconnect_flushes(member: &mut Member) {
    let mut line = member.connect();
    let memory = member.memory(4096, Access::ALL);
    let peer = 1 - member.rank;
    member.offer(peer, &memory);
    let theirs = member.accept(&mut line, peer);
    if member.rank == 0 {
        line.expect_immediates(1, 10, 2);
        // The peer posts no receive: these stay queued.
        let with = |id| write_with(id, part(&memory, 0, 8), at(&theirs, 0), 1);
        line.endpoint
            .post(
                1,
                &[with(1), with(2), write(3, part(&memory, 0, 8), at(&theirs, 0))],
            )
            .expect("post");
        line.endpoint.disconnect(1);
        let mut came = line.await_completions(5, "what a disconnect flushes");
        came.sort_by_key(|completion| completion.id);
        assert!(
            came.iter().all(|completion| completion.status == Status::Flushed),
            "{came:?}"
        );
        assert!(came.iter().map(|completion| completion.id).eq([1, 2, 3, 10, 11]));
        assert_eq!(
            line.endpoint.post(1, &[with(4)]),
            Err(PostError::QueuePairError { posted: 0 })
        );
        line.endpoint.disconnect(1);
        member.give(1, b"gone");
        member.take(1);
    } else {
        member.take(0);
        // The other half is gone: the next operation says so.
        line.post(0, write(1, part(&memory, 0, 8), at(&theirs, 0)));
        let ended = line.next("an operation on a queue pair that the peer left");
        assert_ne!(ended.status, Status::Success);
        assert_eq!(peek(&memory, 0, 8), [0; 8]);
        member.give(0, b"seen");
    }
}

fn states(member: &mut Member) {
    let mut endpoint = member.fabric.endpoint(0, 1).expect("an endpoint");
    assert_eq!(endpoint.rank(), 0);
    let memory = member.memory(64, Access::ALL);
    let local = part(&memory, 0, 8);
    let send = Request {
        id: 1,
        operation: Operation::Send {
            local,
            immediate: None,
        },
        signaled: true,
    };
    let not_connected = Err(PostError::NotConnected { peer: 3 });
    assert_eq!(endpoint.post(3, std::slice::from_ref(&send)), not_connected);
    assert!(matches!(
        endpoint.connect(3, Default::default()),
        Err(FabricError::QueuePairState { .. })
    ));
    assert!(matches!(
        endpoint.fence(3, member.deadline()),
        Err(FabricError::QueuePairState { .. })
    ));
    endpoint.prepare(3).expect("prepare");
    let error = endpoint.prepare(3).expect_err("prepared twice").to_string();
    assert!(error.contains("rank 3"), "{error}");
    assert_eq!(endpoint.post(3, &[send]), not_connected);
    endpoint
        .post_receive(3, Receive { id: 1, local: None })
        .expect("receives may be posted from prepare on");
    endpoint.disconnect(9);
}

fn bounded_poll(member: &mut Member) {
    let mut line = member.connect();
    let memory = member.memory(64, Access::ALL);
    if member.rank == 1 {
        member.offer(0, &memory);
        member.take(0);
        return;
    }
    let theirs = member.accept(&mut line, 1);
    let requests: Vec<_> = (0..10)
        .map(|id| write(id, part(&memory, 0, 8), at(&theirs, 0)))
        .collect();
    line.post_all(1, &requests);
    let mut three = Vec::with_capacity(3);
    let deadline = member.deadline();
    let mut seen = 0;
    while seen < 10 {
        assert!(
            std::time::Instant::now() < deadline,
            "{seen} of 10 completions came"
        );
        three.clear();
        let capacity = three.capacity();
        let count = line.endpoint.poll(&mut three).expect("poll");
        assert_eq!(
            (count, three.capacity()),
            (three.len(), capacity),
            "a poll allocated"
        );
        assert!(three.iter().all(|completion: &sapwood::fabric::Completion| {
            seen += 1;
            completion.id == seen - 1
        }));
    }
    assert_eq!(line.endpoint.poll(&mut Vec::new()).expect("poll"), 0);
    member.give(1, b"done");
}
