//! Back-pressure: full queues, missing receives, a receiver that is slow.

use std::time::Duration;

use sapwood::fabric::{Access, PostError, Receive, Status};

use super::Case;
use crate::line::{at, part, send, write, write_with};
use crate::member::{Member, peek, poke};

pub const CASES: &[Case] = &[
    Case::new("what finds no receive waits for one", waits_for_a_receive),
    Case {
        receiver_patience: Some(Duration::from_millis(200)),
        ..Case::new("what never finds a receive fails", never_a_receive)
    },
    Case::new("a full queue says how much it took", full_queue),
    Case::new("a slow receiver loses nothing", slow_receiver),
];

fn waits_for_a_receive(member: &mut Member) {
    let mut line = member.connect();
    let memory = member.memory(4096, Access::ALL);
    if member.rank == 0 {
        let theirs = member.accept(&mut line, 1);
        poke(&memory, 0, &[3; 64]);
        let batch = [
            write_with(1, part(&memory, 0, 8), at(&theirs, 0), 11),
            send(2, part(&memory, 0, 64), Some(12)),
            write(3, part(&memory, 0, 8), at(&theirs, 100)),
        ];
        line.endpoint.post(1, &batch).expect("post");
        assert_eq!(
            line.listen(Duration::from_millis(50)),
            [],
            "done without a receive"
        );
        member.give(1, b"posted");
        let done = line.await_successes(3, "what waited for receives");
        assert!(done.iter().map(|completion| completion.id).eq([1, 2, 3]));
        member.give(1, b"done");
    } else {
        member.offer(0, &memory);
        member.take(0);
        line.expect_immediates(0, 1, 1);
        let first = line.await_successes(1, "the write that waited").remove(0);
        assert_eq!((first.immediate, peek(&memory, 0, 8)), (Some(11), vec![3; 8]));
        line.expect_send(0, 2, part(&memory, 200, 64));
        let second = line.await_successes(1, "the send that waited").remove(0);
        assert_eq!(
            (second.immediate, peek(&memory, 200, 64)),
            (Some(12), vec![3; 64])
        );
        member.take(0);
        assert_eq!(peek(&memory, 100, 8), [3; 8]);
    }
}

fn never_a_receive(member: &mut Member) {
    for as_send in [false, true] {
        let mut line = member.connect();
        let memory = member.memory(64, Access::ALL);
        if member.rank == 1 {
            member.offer(0, &memory);
            member.take(0);
            continue;
        }
        let theirs = member.accept(&mut line, 1);
        let hopeless = if as_send {
            send(1, part(&memory, 0, 8), None)
        } else {
            write_with(1, part(&memory, 0, 8), at(&theirs, 0), 1)
        };
        line.endpoint
            .post(1, &[hopeless, write(2, part(&memory, 0, 8), at(&theirs, 0))])
            .expect("post");
        let ended = line.await_completions(2, "what finds no receive");
        assert_eq!((ended[0].id, ended[0].status), (1, Status::ReceiverNotReady));
        assert_eq!((ended[1].id, ended[1].status), (2, Status::Flushed));
        member.give(1, b"done");
    }
}

fn full_queue(member: &mut Member) {
    let depth = member.fabric.capabilities().queue_depth;
    let mut line = member.connect();
    let memory = member.memory(64, Access::ALL);
    if member.rank == 1 {
        member.offer(0, &memory);
        member.take(0);
        let post =
            |line: &mut crate::line::Line, id| line.endpoint.post_receive(0, Receive { id, local: None });
        (0..depth as u64).for_each(|id| post(&mut line, id).expect("as many receives as the queue holds"));
        assert!(matches!(post(&mut line, 9), Err(PostError::QueueFull { .. })));
        for id in 0..2 * depth as u64 {
            let came = line.await_successes(1, "immediates in a flood").remove(0);
            assert_eq!((came.id, came.immediate), (id, Some(id as u32)));
            post(&mut line, id + depth as u64).expect("one was taken");
        }
        member.barrier();
        return;
    }
    let theirs = member.accept(&mut line, 1);
    let requests: Vec<_> = (0..2 * depth as u64)
        .map(|id| write_with(id, part(&memory, 0, 8), at(&theirs, 0), id as u32))
        .collect();
    // There is no receive yet, so nothing leaves the queue.
    let error = line
        .endpoint
        .post(1, &requests)
        .expect_err("more than the queue holds");
    let PostError::QueueFull { posted } = error else {
        panic!("{error}");
    };
    assert!(posted > 0 && posted <= depth, "{posted} of {depth}");
    assert_eq!(
        line.endpoint.post(1, &requests[posted..posted + 1]),
        Err(PostError::QueueFull { posted: 0 })
    );
    member.give(1, b"full");
    line.post_all(1, &requests[posted..]);
    let done = line.await_successes(requests.len(), "a flood of immediates");
    assert!(
        done.iter()
            .map(|completion| completion.id)
            .eq(0..requests.len() as u64)
    );
    member.barrier();
}

fn slow_receiver(member: &mut Member) {
    const COUNT: u64 = 1000;
    const LEN: usize = 3000;
    let mut line = member.connect();
    let memory = member.memory(LEN, Access::ALL);
    if member.rank == 0 {
        member.take(1);
        for id in 0..COUNT {
            // The send has taken the bytes once it completed.
            poke(&memory, 0, &[id as u8; LEN]);
            line.perform(1, send(id, part(&memory, 0, LEN), None));
        }
    } else {
        line.expect_send(0, 0, part(&memory, 0, LEN));
        member.give(0, b"ready");
        for id in 0..COUNT {
            let came = line.await_successes(1, "a send to a slow receiver").remove(0);
            assert_eq!((came.id, came.bytes), (id, LEN));
            assert_eq!(peek(&memory, 0, LEN), [id as u8; LEN]);
            if id % 100 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            line.expect_send(0, id + 1, part(&memory, 0, LEN));
        }
    }
    member.barrier();
}
