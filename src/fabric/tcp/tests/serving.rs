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
