//! What a rank does for its peers, seen from a peer that keeps to the protocol.

use super::*;

/// Ranks 0 and 1 of one process, each with memory that the other may use.
pub(super) struct Pair {
    pub endpoints: [Box<dyn Endpoint>; 2],
    pub memory: [Arc<dyn Registration>; 2],
}

impl Pair {
    pub fn new(len: usize) -> Self {
        let fabrics = [(); 2].map(|()| Tcp::open(Settings::default()).unwrap());
        let mut endpoints = [0, 1].map(|rank: usize| fabrics[rank].endpoint(rank as Rank, 1).unwrap());
        let [first, second] = [0, 1].map(|rank: usize| endpoints[rank].prepare(1 - rank as Rank).unwrap());
        endpoints[0].connect(1, second).unwrap();
        endpoints[1].connect(0, first).unwrap();
        let memory = [0, 1].map(|rank: usize| {
            let region = Region::host(len, HugePages::Never).unwrap();
            fabrics[rank].register(&region, Access::ALL).unwrap()
        });
        Self { endpoints, memory }
    }

    pub fn local(&self, rank: usize, offset: usize, len: usize) -> Slice {
        let registration = self.memory[rank].clone();
        Slice {
            registration,
            offset,
            len,
        }
    }

    /// The peer's memory, for `rank`.
    pub fn remote(&mut self, rank: usize, offset: usize) -> RemoteSlice {
        let parcel = self.memory[1 - rank].export().unwrap();
        let region = self.endpoints[rank].import(1 - rank as Rank, parcel).unwrap();
        RemoteSlice { region, offset }
    }

    /// Drives both until `rank` has so many completions.
    pub fn until(&mut self, rank: usize, count: usize) -> Vec<Completion> {
        let mut came = [Vec::with_capacity(64), Vec::with_capacity(64)];
        let deadline = soon();
        while came[rank].len() < count {
            assert!(Instant::now() < deadline, "only {came:?}");
            for (endpoint, came) in self.endpoints.iter_mut().zip(&mut came) {
                endpoint.poll(came).unwrap();
            }
        }
        std::mem::take(&mut came[rank])
    }
}

/// The end of a write may not be said before that of the read in front of it; it must be said then.
#[test]
fn a_write_behind_a_long_read_ends() {
    let len = 4 * FRAGMENT;
    let mut pair = Pair::new(len);
    let signaled = true;
    let read = Operation::Read {
        local: pair.local(1, 0, len),
        remote: pair.remote(1, 0),
    };
    let write = Operation::Write {
        local: pair.local(1, 0, 8),
        remote: pair.remote(1, 0),
        immediate: None,
    };
    let requests: Vec<_> = [read, write]
        .into_iter()
        .enumerate()
        .map(|(id, operation)| Request {
            id: id as u64,
            operation,
            signaled,
        })
        .collect();
    pair.endpoints[1].post(0, &requests).unwrap();
    let came = pair.until(1, 2);
    assert!(came.iter().all(|one| one.status == Status::Success), "{came:?}");
    assert_eq!([came[0].id, came[1].id], [0, 1]);
}

/// A rank that leaves says what it has taken, though nobody waited for it.
#[test]
fn the_farewell_acknowledges_what_arrived() {
    let mut victim = Victim::new();
    let mut rogue = victim.with_rogue(|_| ());
    let mut frame = write_of(&victim, 0);
    frame.set_payload([7; INLINE], INLINE);
    rogue.say(&frame, &[]);
    let deadline = soon();
    while victim.is_unharmed() {
        assert!(Instant::now() < deadline, "the write did not arrive");
        victim.endpoint.ready().unwrap();
    }
    drop(victim.endpoint);
    let mut said = Vec::new();
    rogue.socket.read_to_end(&mut said).unwrap();
    let plain: &[u8; PLAIN] = said[said.len() - HEADER..].first_chunk().unwrap();
    assert_eq!(Frame::decode(plain).unwrap().acknowledged, 1);
}

/// Once a request has ended its memory is the user's, though a part of it is still to be sent before the refusal.
#[test]
fn what_is_sent_of_requests_that_have_ended_is_what_they_were() {
    const LONG: usize = 16 << 20;
    let mut victim = Victim::new();
    let region = Region::host(LONG, HugePages::Never).unwrap();
    let bytes = region.base();
    // SAFETY: a region of this test's own that nobody else knows yet.
    unsafe { bytes.write_bytes(7, LONG) };
    let registration = victim.fabric.register(&region, Access::LOCAL).unwrap();
    let mut rogue = victim.with_rogue(|_| ());
    let told = RegionParcel {
        domain: 77,
        len: LONG as u64,
        access: Access::ALL,
        key: 5,
    };
    let (parcel, descriptors) = (told.encode(), Vec::new());
    let theirs = Parcel {
        bytes: parcel,
        descriptors,
    };
    let operation = Operation::Write {
        local: Slice {
            registration,
            offset: 0,
            len: LONG,
        },
        remote: RemoteSlice {
            region: victim.endpoint.import(1, theirs).unwrap(),
            offset: 0,
        },
        immediate: None,
    };
    rogue.say(&Frame::counts(0, 0), &[]);
    victim.post(99, operation);
    let mut bad = write_of(&victim, 0);
    bad.key += 1;
    bad.set_payload([7; INLINE], INLINE);
    // Until the kernel takes no more.
    for _ in 0..100 {
        victim.endpoint.ready().unwrap();
    }
    rogue.say(&bad, &[]);
    let came = victim.until(5);
    assert!(came.iter().all(|one| one.status == Status::Flushed), "{came:?}");
    // SAFETY: the request has ended, so its memory is this test's again.
    unsafe { bytes.write_bytes(9, LONG) };
    rogue.socket.set_nonblocking(true).unwrap();
    let (mut said, mut piece) = (Vec::new(), vec![0; 1 << 20]);
    let deadline = soon();
    loop {
        assert!(Instant::now() < deadline, "the connection does not end");
        victim.endpoint.poll(&mut Vec::new()).unwrap();
        match rogue.socket.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => said.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let mut left = &said[..];
    let mut bodies = 0;
    while let Some(plain) = left.first_chunk::<PLAIN>() {
        let frame = Frame::decode(plain).unwrap();
        if left.len() < HEADER + frame.body {
            break;
        }
        assert!(
            left[HEADER..][..frame.body].iter().all(|byte| *byte == 7),
            "body {bodies}"
        );
        let with_tag = if frame.body == 0 { 0 } else { frame.body + TAG };
        left = &left[(HEADER + with_tag).min(left.len())..];
        bodies += 1;
    }
    assert!(bodies > 1, "only {} bytes came", said.len());
}
