//! Invariant 1 under load: two ranks write, send and read as fast as they can from and into memory whose handles are
//! dropped by a third thread at any moment, and endpoints are dropped in the middle. Freed memory is allocated again at
//! once, filled with a mark and looked at: what a device wrote to it late would show.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use sapwood::fabric::verbs::{Settings, Verbs};
use sapwood::fabric::{
    Access, Endpoint, Fabric, Operation, Parcel, PostError, Rank, Receive, Registration, Request, Status,
};
use sapwood::memory::Buffer;

use crate::end::{at, part};
use crate::{Outcome, PATIENCE, quick};

const TIME: Duration = Duration::from_secs(20);
const LEN: usize = 40_000;
const MARK: u8 = 0xc7;

/// A small generator.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What one rank hands to the other for each generation.
struct Letter {
    connection: Parcel,
    window: Parcel,
}

/// Memory from the allocator, so that what is freed is soon somebody else's.
fn fresh(fabric: &Verbs, fill: u8) -> Arc<dyn Registration> {
    let buffer = Buffer::from_vec(vec![fill; LEN]).expect("memory");
    fabric
        .register(buffer.region(), Access::ALL)
        .expect("registration")
}

pub fn drops() -> Outcome {
    for queue_pairs in [1, 4] {
        let mut settings = quick();
        settings.queue_pairs = queue_pairs;
        let end = Instant::now() + TIME;
        let (to_one, from_other) = channel();
        let (to_other, from_one) = channel();
        let (throw, thrown) = channel();
        let mut posted = [0; 2];
        std::thread::scope(|scope| {
            let thrower = throw.clone();
            let settings = &settings;
            let one = scope.spawn(move || rank(0, settings, &to_other, &from_other, &throw, end));
            let other = scope.spawn(move || rank(1, settings, &to_one, &from_one, &thrower, end));
            scope.spawn(move || drop_and_look(&thrown));
            posted = [one, other].map(|rank| rank.join().expect("no rank panics"));
        });
        println!("{queue_pairs} queue pairs: {posted:?} requests posted");
        assert!(
            posted.iter().all(|count| *count > 100),
            "hardly anything was posted: {posted:?}"
        );
    }
    Ok(())
}

/// Drops handles as they come, and looks whether what was freed stays as it is.
fn drop_and_look(thrown: &Receiver<Arc<dyn Registration>>) {
    let mut random = Random(77);
    let mut marked: Vec<Vec<u8>> = Vec::new();
    while let Ok(handle) = thrown.recv() {
        if random.below(3) == 0 {
            std::thread::sleep(Duration::from_micros(random.below(300)));
        }
        drop(handle);
        marked.push(vec![MARK; LEN]);
        if marked.len() > 64 {
            let oldest = marked.swap_remove(random.below(64) as usize);
            let wrong = oldest.iter().position(|byte| *byte != MARK);
            assert_eq!(wrong, None, "memory was written to after it was freed");
        }
    }
    assert!(
        marked.iter().flatten().all(|byte| *byte == MARK),
        "memory was written to after it was freed"
    );
}

/// One rank: generation after generation, until the time is over. How many requests it posted.
fn rank(
    rank: Rank,
    settings: &Settings,
    to_peer: &Sender<Option<Letter>>,
    from_peer: &Receiver<Option<Letter>>,
    throw: &Sender<Arc<dyn Registration>>,
    end: Instant,
) -> u64 {
    let mut settings = settings.clone();
    settings.local_rank = rank as usize;
    let fabric = Verbs::open(&settings).unwrap_or_else(|error| panic!("{error}"));
    let mut random = Random(u64::from(rank) + 3);
    let mut posted = 0;
    for generation in 1.. {
        // Both go on as long as rank 0 does.
        let over = rank == 0 && Instant::now() >= end;
        let mut endpoint = fabric.endpoint(rank, generation).expect("an endpoint");
        let window = fresh(&fabric, 1);
        let letter = Letter {
            connection: endpoint.prepare(1 - rank).expect("prepare"),
            window: window.export().expect("export"),
        };
        to_peer
            .send((!over).then_some(letter))
            .expect("the peer is there");
        let Some(letter) = from_peer.recv_timeout(PATIENCE).expect("the peer is there") else {
            break;
        };
        if over {
            break;
        }
        endpoint.connect(1 - rank, letter.connection).expect("connect");
        let mut window = Some(window);
        posted += load(
            &fabric,
            &mut *endpoint,
            letter.window,
            &mut window,
            throw,
            &mut random,
        );
        // In either order, with everything in flight.
        if random.below(2) == 0 {
            window.take().map(|window| throw.send(window));
        }
        match random.below(4) {
            0 => drop(endpoint.fence(1 - rank, Instant::now() + PATIENCE)),
            1 => endpoint.disconnect(1 - rank),
            _ => {}
        }
        drop(endpoint);
    }
    posted
}

/// Posts whatever comes to mind, until the connection fails or it has been enough.
fn load(
    fabric: &Verbs,
    endpoint: &mut dyn Endpoint,
    theirs: Parcel,
    window: &mut Option<Arc<dyn Registration>>,
    throw: &Sender<Arc<dyn Registration>>,
    random: &mut Random,
) -> u64 {
    let peer = 1 - endpoint.rank();
    let theirs = endpoint.import(peer, theirs).expect("import");
    let mut completions = Vec::with_capacity(64);
    let mut posted = 0;
    let until = Instant::now() + Duration::from_millis(random.below(1500));
    while Instant::now() < until {
        let local = fresh(fabric, 2);
        let len = [0, 8, 200, 5000, LEN][random.below(5) as usize];
        let slice = part(&local, 0, len);
        let remote = at(&theirs, 0);
        let operation = match random.below(5) {
            0 => Operation::Send {
                local: slice,
                immediate: None,
            },
            1 => Operation::Read { local: slice, remote },
            2 => Operation::Write {
                local: slice,
                remote,
                immediate: Some(3),
            },
            3 => Operation::FetchAdd {
                local: part(&local, 0, 8),
                remote,
                add: 1,
            },
            _ => Operation::Write {
                local: slice,
                remote,
                immediate: None,
            },
        };
        let request = Request {
            id: posted,
            operation,
            signaled: random.below(3) == 0,
        };
        let receive = Receive {
            id: posted,
            local: Some(part(&local, 0, LEN)),
        };
        let _ = endpoint.post_receive(peer, receive);
        match endpoint.post(peer, &[request]) {
            Ok(()) => posted += 1,
            Err(PostError::QueueFull { .. }) => {}
            Err(_) => break,
        }
        // The handle goes; what is in flight keeps the memory.
        throw.send(local).expect("the thrower is there");
        if random.below(200) == 0 {
            window.take().map(|window| throw.send(window));
        }
        completions.clear();
        endpoint.poll(&mut completions).expect("poll");
        if completions
            .iter()
            .any(|completion| completion.status == Status::PeerUnreachable)
        {
            break;
        }
    }
    posted
}
