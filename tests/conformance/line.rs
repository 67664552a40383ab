//! An endpoint with what cases need again and again: making requests and waiting for completions, with a deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sapwood::fabric::{
    Completion, Endpoint, Operation, PostError, Rank, Receive, Registration, RemoteRegion, RemoteSlice,
    Request, Slice, Status,
};

pub struct Line {
    pub endpoint: Box<dyn Endpoint>,
    patience: Duration,
    /// Completions that came while others were waited for.
    inbox: Vec<Completion>,
}

/// All of a registration, or a part of it.
pub fn part(registration: &Arc<dyn Registration>, offset: usize, len: usize) -> Slice {
    Slice {
        registration: registration.clone(),
        offset,
        len,
    }
}

pub fn at(region: &Arc<dyn RemoteRegion>, offset: usize) -> RemoteSlice {
    RemoteSlice {
        region: region.clone(),
        offset,
    }
}

pub fn request(id: u64, operation: Operation) -> Request {
    Request {
        id,
        operation,
        signaled: true,
    }
}

pub fn write(id: u64, local: Slice, remote: RemoteSlice) -> Request {
    any_write(id, local, remote, None)
}

pub fn write_with(id: u64, local: Slice, remote: RemoteSlice, immediate: u32) -> Request {
    any_write(id, local, remote, Some(immediate))
}

fn any_write(id: u64, local: Slice, remote: RemoteSlice, immediate: Option<u32>) -> Request {
    let operation = Operation::Write {
        local,
        remote,
        immediate,
    };
    request(id, operation)
}

pub fn read(id: u64, local: Slice, remote: RemoteSlice) -> Request {
    request(id, Operation::Read { local, remote })
}

pub fn fetch_add(id: u64, local: Slice, remote: RemoteSlice, add: u64) -> Request {
    request(id, Operation::FetchAdd { local, remote, add })
}

pub fn compare_swap(id: u64, local: Slice, remote: RemoteSlice, expected: u64, desired: u64) -> Request {
    request(
        id,
        Operation::CompareSwap {
            local,
            remote,
            expected,
            desired,
        },
    )
}

pub fn send(id: u64, local: Slice, immediate: Option<u32>) -> Request {
    request(id, Operation::Send { local, immediate })
}

impl Line {
    pub fn new(endpoint: Box<dyn Endpoint>, patience: Duration) -> Self {
        let inbox = Vec::with_capacity(1024);
        Self {
            endpoint,
            patience,
            inbox,
        }
    }

    pub fn post(&mut self, peer: Rank, request: Request) {
        self.endpoint.post(peer, &[request]).expect("post");
    }

    /// Posts however full the queue is, polling meanwhile.
    pub fn post_all(&mut self, peer: Rank, requests: &[Request]) {
        let deadline = Instant::now() + self.patience;
        let mut left = requests;
        while let Err(error) = self.endpoint.post(peer, left) {
            let PostError::QueueFull { posted } = error else {
                panic!("posting to rank {peer}: {error}");
            };
            assert!(Instant::now() < deadline, "the queue to rank {peer} stays full");
            left = &left[posted..];
            self.poll();
        }
    }

    /// Posts receives for immediates, numbered from `first`.
    pub fn expect_immediates(&mut self, peer: Rank, first: u64, count: u64) {
        for id in first..first + count {
            let receive = Receive { id, local: None };
            self.endpoint.post_receive(peer, receive).expect("post a receive");
        }
    }

    pub fn expect_send(&mut self, peer: Rank, id: u64, local: Slice) {
        let local = Some(local);
        self.endpoint
            .post_receive(peer, Receive { id, local })
            .expect("post a receive");
    }

    /// Polls once; what came stays in the inbox.
    pub fn poll(&mut self) {
        if self.inbox.len() == self.inbox.capacity() {
            self.inbox.reserve(1024);
        }
        self.endpoint.poll(&mut self.inbox).expect("poll");
    }

    /// What has come by now.
    pub fn poll_all(&mut self) -> Vec<Completion> {
        self.poll();
        std::mem::take(&mut self.inbox)
    }

    /// Everything that completes within a while.
    pub fn listen(&mut self, time: Duration) -> Vec<Completion> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.poll();
            std::thread::yield_now();
        }
        std::mem::take(&mut self.inbox)
    }

    /// The next `count` completions, whatever their status.
    pub fn await_completions(&mut self, count: usize, what: &str) -> Vec<Completion> {
        let deadline = Instant::now() + self.patience;
        loop {
            self.poll();
            if self.inbox.len() >= count {
                return self.inbox.drain(..count).collect();
            }
            let got = self.inbox.len();
            assert!(
                Instant::now() < deadline,
                "{what}: {got} of {count} completions came: {:?}",
                self.inbox
            );
            self.endpoint
                .wait(deadline.min(Instant::now() + Duration::from_millis(100)))
                .expect("wait");
        }
    }

    /// The next completion.
    pub fn next(&mut self, what: &str) -> Completion {
        self.await_completions(1, what).remove(0)
    }

    /// The next completions, all of which must be successes.
    pub fn await_successes(&mut self, count: usize, what: &str) -> Vec<Completion> {
        let completions = self.await_completions(count, what);
        for completion in &completions {
            assert_eq!(completion.status, Status::Success, "{what}: {completion:?}");
        }
        completions
    }

    /// Posts one request and waits until it succeeded.
    pub fn perform(&mut self, peer: Rank, request: Request) -> Completion {
        self.post(peer, request);
        self.await_successes(1, "a single request").remove(0)
    }
}
