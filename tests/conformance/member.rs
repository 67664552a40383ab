//! One rank of a case: its fabric, its channels beside the fabric, and how long it waits for anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sapwood::fabric::{Access, Fabric, Parcel, Rank, Registration, RemoteRegion, Status};
use sapwood::memory::{HugePages, Region};

use crate::line::Line;
use crate::link::Link;

pub struct Member {
    pub rank: Rank,
    pub ranks: Rank,
    pub fabric: Arc<dyn Fabric>,
    /// Guards against hangs; no case is judged by its speed.
    pub patience: Duration,
    /// How a request to a process that is being killed may end, on this fabric.
    pub last_words: &'static [Status],
    pub links: Vec<Option<Link>>,
    pub generation: u32,
}

impl Member {
    fn link(&self, peer: Rank) -> &Link {
        self.links[peer as usize].as_ref().expect("no channel to oneself")
    }

    pub fn give(&self, peer: Rank, bytes: &[u8]) {
        let bytes = bytes.to_vec();
        let descriptors = Vec::new();
        self.give_parcel(peer, &Parcel { bytes, descriptors });
    }

    pub fn take(&self, peer: Rank) -> Vec<u8> {
        self.take_parcel(peer).bytes
    }

    pub fn give_parcel(&self, peer: Rank, parcel: &Parcel) {
        if let Err(error) = self.link(peer).give(parcel) {
            panic!("rank {} to rank {peer}: {error}", self.rank);
        }
    }

    pub fn take_parcel(&self, peer: Rank) -> Parcel {
        match self.link(peer).take() {
            Ok(parcel) => parcel,
            Err(error) => panic!("rank {} from rank {peer}: {error}", self.rank),
        }
    }

    pub fn peers(&self) -> impl Iterator<Item = Rank> + use<> {
        let own = self.rank;
        (0..self.ranks).filter(move |peer| *peer != own)
    }

    pub fn barrier(&self) {
        if self.rank == 0 {
            self.peers().for_each(|peer| drop(self.take(peer)));
            self.peers().for_each(|peer| self.give(peer, b"go"));
        } else {
            self.give(0, b"here");
            self.take(0);
        }
    }

    pub fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// Connects this rank to all others and to itself by a new endpoint. Collective.
    pub fn connect(&mut self) -> Line {
        self.generation += 1;
        let mut endpoint = self
            .fabric
            .endpoint(self.rank, self.generation)
            .expect("an endpoint");
        let own = endpoint.prepare(self.rank).expect("prepare to oneself");
        endpoint.connect(self.rank, own).expect("connect to oneself");
        for peer in self.peers() {
            self.give_parcel(peer, &endpoint.prepare(peer).expect("prepare"));
        }
        for peer in self.peers() {
            let parcel = self.take_parcel(peer);
            endpoint.connect(peer, parcel).expect("connect");
        }
        self.barrier();
        Line::new(endpoint, self.patience)
    }

    /// Zeroed memory of the library's own, registered.
    pub fn memory(&self, len: usize, access: Access) -> Arc<dyn Registration> {
        let region = Region::host(len, HugePages::Never).expect("memory");
        self.fabric.register(&region, access).expect("registration")
    }

    /// Gives a registration to a peer.
    pub fn offer(&self, peer: Rank, registration: &Arc<dyn Registration>) {
        self.give_parcel(peer, &registration.export().expect("export"));
    }

    /// Takes what a peer offers.
    pub fn accept(&self, line: &mut Line, peer: Rank) -> Arc<dyn RemoteRegion> {
        let parcel = self.take_parcel(peer);
        line.endpoint.import(peer, parcel).expect("import")
    }
}

/// A small generator: the same numbers on every rank that starts with the same seed.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Bytes of a registration, copied out. Cases agree over the fabric, or beside it, on when nobody writes them.
pub fn peek(registration: &Arc<dyn Registration>, offset: usize, len: usize) -> Vec<u8> {
    assert!(offset + len <= registration.region().len());
    let mut copy = vec![0; len];
    // SAFETY: inside of the region, which the registration keeps alive. Where a case lets a peer write at the same time
    // (to see whether it does), torn bytes are what it looks for.
    unsafe {
        let source = registration.region().base().add(offset).as_ptr();
        std::ptr::copy_nonoverlapping(source, copy.as_mut_ptr(), len);
    }
    copy
}

/// Stores bytes into a registration.
pub fn poke(registration: &Arc<dyn Registration>, offset: usize, bytes: &[u8]) {
    assert!(offset + bytes.len() <= registration.region().len());
    // SAFETY: as in `peek`.
    unsafe {
        let target = registration.region().base().add(offset).as_ptr();
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
    }
}

/// The word at an offset, for cases about atomics.
pub fn word(registration: &Arc<dyn Registration>, offset: usize) -> u64 {
    u64::from_ne_bytes(peek(registration, offset, 8).try_into().expect("eight bytes"))
}
