//! What the verbs fabric does on the path of a message, with a driver that does nothing worth mentioning: it allocates
//! nothing and makes no system call. (The device's own driver may; a system call to wake a sleeping peer is a wait's.)

mod counting;
mod stub_driver;

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;

use sapwood::fabric::{Completion, Operation, PostError, Receive, Request, Status};
use stub_driver::Pair;
use stub_driver::pair::LENGTH;

/// Rounds of every operation.
const ROUNDS: usize = 1000;

/// Everything that the path of messages is measured with, made before it is.
struct Traffic {
    pair: Pair,
    /// Posted one at a time, each waited for.
    alone: Vec<Request>,
    /// Posted together; only the last is reported.
    batch: Vec<Request>,
    completions: Vec<Completion>,
}

impl Traffic {
    fn new(queue_pairs: usize) -> Self {
        let pair = Pair::connected(queue_pairs);
        let (small, large) = (|| pair.slice(0, 8), || pair.slice(4096, 65_536));
        let operations = [
            Operation::Write {
                local: small(),
                remote: pair.there(64),
                immediate: None,
            },
            Operation::Write {
                local: large(),
                remote: pair.there(4096),
                immediate: None,
            },
            Operation::Write {
                local: large(),
                remote: pair.there(4096),
                immediate: Some(7),
            },
            Operation::Read {
                local: large(),
                remote: pair.there(4096),
            },
            Operation::FetchAdd {
                local: small(),
                remote: pair.there(64),
                add: 1,
            },
            Operation::CompareSwap {
                local: small(),
                remote: pair.there(64),
                expected: 0,
                desired: 1,
            },
            Operation::Send {
                local: small(),
                immediate: Some(7),
            },
            Operation::Send {
                local: large(),
                immediate: None,
            },
        ];
        let alone = operations.into_iter().zip(0..);
        let alone = alone
            .map(|(operation, id)| Request {
                id,
                operation,
                signaled: true,
            })
            .collect();
        let batch = (0..64)
            .map(|id| Request {
                id,
                operation: Operation::Write {
                    local: small(),
                    remote: pair.there(8 * id as usize),
                    immediate: None,
                },
                signaled: id == 63,
            })
            .collect();
        Self {
            alone,
            batch,
            completions: Vec::with_capacity(64),
            pair,
        }
    }

    /// How many completions came; nothing here allocates or calls the system.
    fn run(&mut self) -> usize {
        let mut successes = 0;
        for round in 0..ROUNDS {
            let endpoint = &mut self.pair.endpoint;
            for request in self
                .alone
                .iter()
                .map(std::slice::from_ref)
                .chain([&self.batch[..]])
            {
                if endpoint.post(1, request).is_err() {
                    return successes;
                }
                self.completions.clear();
                // The stub has completed everything at the post: one poll with room finds it.
                while matches!(endpoint.poll(&mut self.completions), Ok(taken) if taken > 0) {}
                successes += self
                    .completions
                    .iter()
                    .filter(|one| one.status == Status::Success)
                    .count();
            }
            // Receives pile up in the stub; so few stay below every depth.
            if round < 100 {
                let local = (round % 2 == 0).then(|| self.pair.slice(0, 4096));
                let receive = Receive {
                    id: round as u64,
                    local,
                };
                if self.pair.endpoint.post_receive(1, receive).is_err() {
                    return successes;
                }
            }
        }
        successes
    }

    /// One for each request alone, one for the batch.
    fn expected(&self) -> usize {
        ROUNDS * (self.alone.len() + 1)
    }
}

#[test]
fn posting_and_polling_allocate_nothing() {
    for queue_pairs in [1, 4] {
        let mut traffic = Traffic::new(queue_pairs);
        let mut successes = 0;
        let during = counting::allocations(|| successes = traffic.run());
        assert_eq!(successes, traffic.expected(), "{queue_pairs} queue pairs");
        assert_eq!(during, 0, "{queue_pairs} queue pairs");
    }
}

#[test]
fn writes_arrive() {
    let mut traffic = Traffic::new(1);
    let base = traffic.pair.local.region().base().cast::<u64>();
    // SAFETY: the first word of the region, which nothing else touches.
    unsafe { base.write_volatile(0x0123_4567_89AB_CDEF) };
    traffic
        .pair
        .endpoint
        .post(1, &traffic.alone[..1])
        .expect("posted");
    while traffic.completions.is_empty() {
        traffic
            .pair
            .endpoint
            .poll(&mut traffic.completions)
            .expect("polled");
    }
    let there = traffic.pair.owned.region().base().cast::<u64>();
    // SAFETY: as above; the write has completed.
    assert_eq!(unsafe { there.add(8).read_volatile() }, 0x0123_4567_89AB_CDEF);
}

/// Small writes posted alone take a path of their own, which recognises the handles of the write before.
#[test]
fn small_writes_go_where_their_own_handles_say() {
    let mut pair = Pair::connected(1);
    let mut completions = Vec::with_capacity(8);
    let base = pair.local.region().base().cast::<u64>();
    let there = pair.owned.region().base().cast::<u64>();
    let last = LENGTH / 8 - 1;
    // Runs of the same handles, and other places of them, to the last word of the region.
    for (round, (from, to)) in
        (0..).zip([(0, 1), (0, 1), (0, 1), (7, 9), (last, last), (3, 0), (0, 1)].repeat(9))
    {
        // SAFETY: words of the regions, with no operation on them in flight.
        unsafe { base.add(from).write_volatile(1000 + round) };
        let operation = Operation::Write {
            local: pair.slice(from * 8, 8),
            remote: pair.there(to * 8),
            immediate: None,
        };
        let request = Request {
            id: round,
            operation,
            signaled: true,
        };
        pair.endpoint.post(1, &[request]).expect("posted");
        assert_eq!(pair.endpoint.poll(&mut completions).expect("polled"), 1);
        let done = completions.remove(0);
        assert_eq!(
            (done.id, done.status, done.bytes, done.peer),
            (round, Status::Success, 8, 1)
        );
        // SAFETY: as above: the write has completed.
        assert_eq!(unsafe { there.add(to).read_volatile() }, 1000 + round);
    }
}

#[test]
fn as_many_small_writes_as_the_depth_says_are_taken() {
    let mut pair = Pair::connected(1);
    let mut completions = Vec::with_capacity(4096);
    let operation = Operation::Write {
        local: pair.slice(0, 8),
        remote: pair.there(0),
        immediate: None,
    };
    let request = |id| Request {
        id,
        operation: operation.clone(),
        signaled: true,
    };
    for _ in 0..3 {
        let depth = (0u64..)
            .find(|id| pair.endpoint.post(1, &[request(*id)]).is_err())
            .expect("an end");
        assert_eq!(depth as usize, pair.depth);
        let full = pair.endpoint.post(1, &[request(depth)]);
        assert_eq!(full, Err(PostError::QueueFull { posted: 0 }));
        completions.clear();
        while pair.endpoint.poll(&mut completions).expect("polled") > 0 {}
        assert!(completions.iter().map(|one| one.id).eq(0..depth));
    }
}

#[test]
fn small_writes_keep_no_registration_alive() {
    let mut pair = Pair::connected(1);
    let mut completions = Vec::with_capacity(8);
    for id in 0..10 {
        let operation = Operation::Write {
            local: pair.slice(0, 8),
            remote: pair.there(0),
            immediate: None,
        };
        let request = Request {
            id,
            operation,
            signaled: true,
        };
        pair.endpoint.post(1, &[request]).expect("posted");
        pair.endpoint.poll(&mut completions).expect("polled");
    }
    assert_eq!(completions.len(), 8);
    let Pair {
        endpoint,
        local,
        remote,
        ..
    } = pair;
    let (local, remote) = (Arc::downgrade(&{ local }), Arc::downgrade(&{ remote }));
    assert!(local.upgrade().is_none() && remote.upgrade().is_none());
    drop(endpoint);
}

/// The role of a child of the test below, in its environment.
const CONFINED: &str = "SAPWOOD_TEST_CONFINED";

#[test]
#[cfg(target_arch = "x86_64")]
#[cfg_attr(sanitized, ignore = "the address sanitizer makes system calls of its own")]
fn posting_and_polling_make_no_system_call() {
    if let Ok(role) = std::env::var(CONFINED) {
        confined(&role);
    }
    let child = |role: &str| counting::again("posting_and_polling_make_no_system_call", CONFINED, role);
    for queue_pairs in ["1", "4"] {
        let output = child(queue_pairs);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{} with {queue_pairs} queue pairs (signal {} is a forbidden system call): {said}",
            output.status,
            libc::SIGSYS
        );
    }
    // That the confinement works at all.
    let output = child("disobedient");
    assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{}", output.status);
}

/// Gives up every system call but ending, then posts and polls.
#[cfg(target_arch = "x86_64")]
fn confined(role: &str) -> ! {
    let mut traffic = Traffic::new(role.parse().unwrap_or(1));
    let expected = traffic.expected();
    counting::forbid_system_calls();
    if role == "disobedient" {
        counting::disobey();
    }
    counting::leave(traffic.run() == expected)
}
