//! One side of a connection between two devices (or one with itself), both in this process.

use std::sync::Arc;
use std::time::Instant;

use sapwood::fabric::verbs::{Settings, Verbs};
use sapwood::fabric::{
    Access, Completion, Endpoint, Fabric, Operation, Rank, Registration, RemoteRegion, RemoteSlice, Request,
    Slice,
};
use sapwood::memory::{HugePages, Region};

use crate::PATIENCE;

pub struct End {
    pub rank: Rank,
    pub fabric: Arc<Verbs>,
    pub endpoint: Box<dyn Endpoint>,
}

impl End {
    pub fn open(rank: Rank, settings: &Settings) -> (Box<dyn Endpoint>, Arc<Verbs>) {
        let mut settings = settings.clone();
        settings.local_rank = rank as usize;
        let fabric = Arc::new(Verbs::open(&settings).unwrap_or_else(|error| panic!("{error}")));
        (fabric.endpoint(rank, 1).expect("an endpoint"), fabric)
    }

    /// Ranks 0 and 1, connected.
    pub fn pair(settings: &Settings) -> (Self, Self) {
        let [mut one, mut other] = [0, 1].map(|rank| {
            let (endpoint, fabric) = Self::open(rank, settings);
            Self {
                rank,
                fabric,
                endpoint,
            }
        });
        let to_other = one.endpoint.prepare(1).expect("prepare");
        let to_one = other.endpoint.prepare(0).expect("prepare");
        one.endpoint.connect(1, to_one).expect("connect");
        other.endpoint.connect(0, to_other).expect("connect");
        (one, other)
    }

    /// Takes in a registration of the other side's.
    pub fn accept(&mut self, theirs: &Arc<dyn Registration>) -> Arc<dyn RemoteRegion> {
        let parcel = theirs.export().expect("export");
        self.endpoint.import(1 - self.rank, parcel).expect("import")
    }

    pub fn poll(&mut self) -> Vec<Completion> {
        let mut came = Vec::with_capacity(64);
        self.endpoint.poll(&mut came).expect("poll");
        came
    }

    /// The next completion.
    pub fn next(&mut self) -> Completion {
        let deadline = Instant::now() + PATIENCE;
        let mut one = Vec::with_capacity(1);
        loop {
            self.endpoint.poll(&mut one).expect("poll");
            if let Some(completion) = one.pop() {
                return completion;
            }
            assert!(self.endpoint.wait(deadline).expect("wait"), "nothing completed");
        }
    }
}

pub fn memory(end: &End, len: usize, access: Access) -> Arc<dyn Registration> {
    let region = Region::host(len, HugePages::Never).expect("memory");
    end.fabric.register(&region, access).expect("registration")
}

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

pub fn write(id: u64, local: Slice, remote: RemoteSlice) -> Request {
    let operation = Operation::Write {
        local,
        remote,
        immediate: None,
    };
    Request {
        id,
        operation,
        signaled: true,
    }
}
