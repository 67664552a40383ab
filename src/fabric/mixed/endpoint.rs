//! A rank's queue pairs over both fabrics: each call goes to the endpoint of that peer's fabric. Waiting is in
//! [`super::waiting`].

use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::parcel::{Kind, Part, compose, take};
use super::registration::{self, MixedRemote};
use super::{NAME, Side};
use crate::fabric::{
    Completion, Doorbell, Endpoint, FabricError, Fence, Opcode, Parcel, Patience, PostError, Rank, Receive,
    RemoteRegion, Request, Sleep, Status,
};

/// Requests that are handed on together. They are rewritten in memory that is kept for it, so posting allocates nothing.
const BATCH: usize = 64;

/// See the module.
pub(super) struct MixedEndpoint {
    rank: Rank,
    near_ranks: Arc<[Rank]>,
    pub(super) near: Box<dyn Endpoint>,
    pub(super) far: Box<dyn Endpoint>,
    without_atomics: bool,
    /// How many queue pairs there are to ranks of this host.
    near_pairs: usize,
    pub(super) patience: Patience,
    /// Whose turn it is to be polled first: with little room, one must not keep the other from reporting.
    far_first: bool,
    batch: Vec<Request>,
    receives: Vec<Receive>,
    pub(super) descriptors: Vec<RawFd>,
    pub(super) polled: Vec<libc::pollfd>,
}

impl MixedEndpoint {
    pub fn new(
        rank: Rank,
        near_ranks: Arc<[Rank]>,
        near: Box<dyn Endpoint>,
        far: Box<dyn Endpoint>,
        without_atomics: bool,
    ) -> Self {
        Self {
            rank,
            near_ranks,
            near,
            far,
            without_atomics,
            near_pairs: 0,
            patience: Patience::for_ranks(1),
            far_first: false,
            batch: Vec::with_capacity(BATCH),
            receives: Vec::with_capacity(BATCH),
            descriptors: Vec::new(),
            polled: Vec::new(),
        }
    }

    #[inline]
    fn side(&self, peer: Rank) -> Side {
        if peer == self.rank || self.near_ranks.binary_search(&peer).is_ok() {
            Side::Near
        } else {
            Side::Far
        }
    }

    #[inline]
    fn to(&mut self, side: Side) -> &mut dyn Endpoint {
        match side {
            Side::Near => &mut *self.near,
            Side::Far => &mut *self.far,
        }
    }

    fn of(&self, peer: Rank) -> &dyn Endpoint {
        match self.side(peer) {
            Side::Near => &*self.near,
            Side::Far => &*self.far,
        }
    }

    fn open(&self, peer: Rank, parcel: Parcel, kind: Kind, side: Side) -> Result<Parcel, FabricError> {
        take(parcel, kind, side).map_err(|why| FabricError::Parcel {
            rank: self.rank,
            peer,
            what: match kind {
                Kind::Connection => "a connection",
                Kind::Region => "a region",
            },
            why,
        })
    }
}

/// An error that counts from the start of a batch, counted from the start of all.
fn behind(before: usize, error: PostError) -> PostError {
    match error {
        PostError::QueueFull { posted } => PostError::QueueFull {
            posted: before + posted,
        },
        PostError::QueuePairError { posted } => PostError::QueuePairError {
            posted: before + posted,
        },
        other => other,
    }
}

impl Endpoint for MixedEndpoint {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn prepare(&mut self, peer: Rank) -> Result<Parcel, FabricError> {
        let side = self.side(peer);
        let own = Part::Own(self.to(side).prepare(peer)?);
        if side == Side::Near {
            self.near_pairs += 1;
            self.patience = Patience::for_ranks(self.near_pairs + 1);
        }
        Ok(match side {
            Side::Near => compose(Kind::Connection, own, Part::None),
            Side::Far => compose(Kind::Connection, Part::None, own),
        })
    }

    fn connect(&mut self, peer: Rank, remote: Parcel) -> Result<(), FabricError> {
        let side = self.side(peer);
        match self.open(peer, remote, Kind::Connection, side) {
            Ok(own) => self.to(side).connect(peer, own),
            Err(error) => {
                // A queue pair that is not there, or not in the right state, is the greater mistake.
                match self.to(side).connect(peer, Parcel::default()) {
                    Err(state @ (FabricError::QueuePairState { .. } | FabricError::Forked)) => Err(state),
                    _ => Err(error),
                }
            }
        }
    }

    fn import(&mut self, peer: Rank, remote: Parcel) -> Result<Arc<dyn RemoteRegion>, FabricError> {
        let side = self.side(peer);
        let own = self.open(peer, remote, Kind::Region, side)?;
        let inner = self.to(side).import(peer, own)?;
        Ok(Arc::new(MixedRemote { side, inner }))
    }

    fn post(&mut self, peer: Rank, requests: &[Request]) -> Result<(), PostError> {
        let side = self.side(peer);
        let mut batch = std::mem::take(&mut self.batch);
        let mut outcome = Ok(());
        let mut before = 0;
        loop {
            let end = requests.len().min(before + BATCH);
            batch.extend(
                requests[before..end]
                    .iter()
                    .map(|request| registration::request(request, side)),
            );
            outcome = outcome.and_then(|()| self.to(side).post(peer, &batch));
            // What was posted is held by the fabric; nothing else may be.
            batch.clear();
            if outcome.is_err() || end == requests.len() {
                break;
            }
            before = end;
        }
        self.batch = batch;
        outcome.map_err(|error| behind(before, error))
    }

    fn post_receive(&mut self, peer: Rank, receive: Receive) -> Result<(), PostError> {
        let side = self.side(peer);
        let receive = registration::receive(&receive, side);
        self.to(side).post_receive(peer, receive)
    }

    fn post_receives(&mut self, peer: Rank, receives: &[Receive]) -> Result<(), PostError> {
        let side = self.side(peer);
        let mut batch = std::mem::take(&mut self.receives);
        let mut outcome = Ok(());
        let mut before = 0;
        loop {
            let end = receives.len().min(before + BATCH);
            batch.extend(
                receives[before..end]
                    .iter()
                    .map(|one| registration::receive(one, side)),
            );
            outcome = outcome.and_then(|()| self.to(side).post_receives(peer, &batch));
            batch.clear();
            if outcome.is_err() || end == receives.len() {
                break;
            }
            before = end;
        }
        self.receives = batch;
        outcome.map_err(|error| behind(before, error))
    }

    fn poll(&mut self, into: &mut Vec<Completion>) -> Result<usize, FabricError> {
        self.far_first = !self.far_first;
        let (first, second) = if self.far_first {
            (&mut self.far, &mut self.near)
        } else {
            (&mut self.near, &mut self.far)
        };
        let count = first.poll(into)?;
        match second.poll(into) {
            Ok(more) => Ok(count + more),
            // What the first has delivered is to be seen; the second fails again at the next poll, as the first then.
            Err(_) if count > 0 => Ok(count),
            Err(error) => Err(error),
        }
    }

    fn wait(&mut self, deadline: Instant) -> Result<bool, FabricError> {
        self.sleep_until(deadline)
    }

    fn ready(&mut self) -> Result<bool, FabricError> {
        Ok(self.near.ready()? || self.far.ready()?)
    }

    fn arm(&mut self, descriptors: &mut Vec<RawFd>) -> Result<Sleep, FabricError> {
        self.arm_both(descriptors)
    }

    fn disarm(&mut self, readable: &[RawFd]) -> Result<(), FabricError> {
        self.disarm_both(readable)
    }

    fn disconnect(&mut self, peer: Rank) {
        let side = self.side(peer);
        self.to(side).disconnect(peer);
    }

    fn fence(&mut self, peer: Rank, deadline: Instant) -> Result<Fence, FabricError> {
        let side = self.side(peer);
        self.to(side).fence(peer, deadline)
    }

    fn doorbell(&self, _peer: Rank) -> Option<Doorbell> {
        None
    }

    /// The near fabric's: whoever waits sleeps on both, and a poll polls both.
    fn alarm(&self) -> Waker {
        self.near.alarm()
    }

    fn explain(&self, completion: &Completion) -> String {
        let said = self.of(completion.peer).explain(completion);
        let atomic = matches!(completion.opcode, Opcode::FetchAdd | Opcode::CompareSwap);
        if self.without_atomics && atomic && completion.status == Status::RemoteAccess {
            format!(
                "{said}. This job has no atomics: fabric {NAME} reaches some ranks over shared memory and others over \
                 devices, and the atomics of the one are not atomic to those of the other"
            )
        } else {
            said
        }
    }

    fn addresses(&self, peer: Rank) -> Option<[String; 2]> {
        self.of(peer).addresses(peer)
    }

    fn reachable(&self, peer: Rank) -> bool {
        self.of(peer).reachable(peer)
    }

    fn bytes_copied(&self) -> u64 {
        self.near.bytes_copied() + self.far.bytes_copied()
    }
}
