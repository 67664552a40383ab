//! A rank's queue pairs on one device: what it consists of and what it answers to. How completions are taken in is in
//! `driving`, sleeping in `waiting`, making connections in `opening`.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::batch::Batch;
use super::bell::Bell;
use super::budget::Budget;
use super::completion_queue::CompletionQueue;
use super::connection::Connection;
use super::device::Device;
use super::events::Listener;
use super::explain;
use super::lone::cold_path;
use super::remote::VerbsRemote;
use super::ticket::Ticket;
use crate::fabric::fork::Birthplace;
use crate::fabric::state::{State, not_there};
use crate::fabric::{
    Completion, Doorbell, Endpoint, FabricError, Fence, Parcel, Patience, PostError, Rank, Receive,
    RemoteRegion, Request, Sleep,
};

/// In the place of a connection's number.
pub(super) const NO_CONNECTION: u32 = u32::MAX;

/// See the module. The order of the fields is the order of the teardown.
pub(super) struct VerbsEndpoint {
    pub(super) rank: Rank,
    pub(super) generation: u32,
    pub(super) birthplace: Birthplace,
    /// By number, which is part of every `wr_id`.
    #[allow(
        clippy::vec_box,
        reason = "found by number with one multiplication less: counted, see interop/instructions"
    )]
    pub(super) connections: Vec<Box<Connection>>,
    /// By rank: the connection's number, or [`NO_CONNECTION`].
    pub(super) by_rank: Vec<u32>,
    pub(super) queue: CompletionQueue,
    pub(super) batch: Batch,
    pub(super) budget: Budget,
    /// Completions that were taken from the device when the caller had no room for them.
    pub(super) backlog: VecDeque<Completion>,
    pub(super) bell: Arc<Bell>,
    pub(super) listener: Listener,
    pub(super) patience: Patience,
    pub(super) largest_message: usize,
    /// Polls before one that looks at everything, the clock included; 0 where there is something to see.
    pub(super) polls_left: i32,
    /// From then on such a poll does so.
    pub(super) look_from: Instant,
    /// A connection failed since the last poll.
    pub(super) news: bool,
    /// Why the endpoint as a whole is of no use any more.
    pub(super) broken: Option<String>,
    pub(super) device: Arc<Device>,
}

impl VerbsEndpoint {
    pub fn new(device: Arc<Device>, rank: Rank, generation: u32) -> Result<Self, FabricError> {
        let birthplace = device.birthplace();
        birthplace.check(FabricError::Forked)?;
        let bell = Arc::new(Bell::new()?);
        let waker: Waker = bell.clone().into();
        Ok(Self {
            rank,
            generation,
            birthplace,
            connections: Vec::new(),
            by_rank: Vec::new(),
            queue: CompletionQueue::create(device.clone(), rank)?,
            batch: Batch::new(),
            budget: Budget::default(),
            backlog: VecDeque::new(),
            listener: Listener::new(&device, waker),
            bell,
            patience: Patience::for_ranks(1),
            largest_message: super::opening::largest_message(&device)?,
            polls_left: 0,
            look_from: Instant::now() + super::driving::LOOK_EVERY,
            news: false,
            broken: None,
            device,
        })
    }

    /// The number of the connection to a peer.
    #[inline]
    pub(super) fn find(&self, peer: Rank) -> Option<usize> {
        match self.by_rank.get(peer as usize) {
            Some(&NO_CONNECTION) | None => None,
            Some(number) => Some(*number as usize),
        }
    }

    pub(super) fn need(&self, peer: Rank, call: &'static str) -> Result<usize, FabricError> {
        self.find(peer)
            .ok_or_else(|| not_there(self.rank, peer, call, "prepared"))
    }

    /// See [`Endpoint::post`]: any requests.
    #[cold]
    #[inline(never)]
    fn post_any(&mut self, peer: Rank, requests: &[Request]) -> Result<(), PostError> {
        self.birthplace.check(PostError::Forked)?;
        let at = self.find(peer).ok_or(PostError::NotConnected { peer })?;
        let connection = &mut self.connections[at];
        if connection.state == State::Connected {
            let result = connection.post(requests, &mut self.batch, &mut self.budget);
            connection.renew(requests);
            return result;
        }
        connection.post_unconnected(requests)
    }
}

impl Endpoint for VerbsEndpoint {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn prepare(&mut self, peer: Rank) -> Result<Parcel, FabricError> {
        self.birthplace.check(FabricError::Forked)?;
        self.open(peer)
    }

    fn connect(&mut self, peer: Rank, remote: Parcel) -> Result<(), FabricError> {
        self.birthplace.check(FabricError::Forked)?;
        self.join(peer, &remote)
    }

    fn import(&mut self, peer: Rank, remote: Parcel) -> Result<Arc<dyn RemoteRegion>, FabricError> {
        self.birthplace.check(FabricError::Forked)?;
        Ok(Arc::new(VerbsRemote::import(self.rank, peer, &remote)?))
    }

    #[inline]
    fn post(&mut self, peer: Rank, requests: &[Request]) -> Result<(), PostError> {
        if let [request] = requests
            && self.birthplace.is_here()
            && let Some(at) = self.by_rank.get(peer as usize)
            && let Some(connection) = self.connections.get_mut(*at as usize)
        {
            let connection = &mut **connection;
            match connection.post_lone(request) {
                Some(0) => return Ok(()),
                Some(errno) => return connection.lone_refused(errno),
                None => {}
            }
        }
        self.post_any(peer, requests)
    }

    fn post_receive(&mut self, peer: Rank, receive: Receive) -> Result<(), PostError> {
        self.post_receives(peer, std::slice::from_ref(&receive))
    }

    fn post_receives(&mut self, peer: Rank, receives: &[Receive]) -> Result<(), PostError> {
        self.birthplace.check(PostError::Forked)?;
        let at = self.find(peer).ok_or(PostError::NotConnected { peer })?;
        self.connections[at].post_receives(receives, &mut self.budget)
    }

    #[inline]
    fn poll(&mut self, into: &mut Vec<Completion>) -> Result<usize, FabricError> {
        self.polls_left = self.polls_left.wrapping_sub(1);
        if self.polls_left < 0 || !self.birthplace.is_here() {
            return self.poll_all(into);
        }
        let count = self.queue.take(into.capacity() - into.len());
        if count == 1 {
            let report = self.queue.first();
            let at = Ticket::connection_of(report.wr_id);
            if let Some(connection) = self.connections.get_mut(at)
                // SAFETY: the device was asked for no more than there is room for, and gave one.
                && unsafe { connection.lone_completed(report, into) }
            {
                return Ok(1);
            }
        }
        // Nothing came: the alarm and the device's events can wait for the next look.
        if count == 0 {
            // Not rare, but nobody waits for it: what came shall go straight on.
            cold_path();
            return Ok(0);
        }
        self.poll_other(count, into)
    }

    fn wait(&mut self, deadline: Instant) -> Result<bool, FabricError> {
        self.birthplace.check(FabricError::Forked)?;
        self.sleep_until(deadline)
    }

    fn ready(&mut self) -> Result<bool, FabricError> {
        self.birthplace.check(FabricError::Forked)?;
        self.has_work()
    }

    fn arm(&mut self, descriptors: &mut Vec<RawFd>) -> Result<Sleep, FabricError> {
        self.birthplace.check(FabricError::Forked)?;
        let ours = self.arm_itself()?;
        descriptors.extend(ours.into_iter().flatten());
        Ok(if ours.is_some() {
            Sleep::Armed
        } else {
            Sleep::Needless
        })
    }

    fn disarm(&mut self, readable: &[RawFd]) -> Result<(), FabricError> {
        self.birthplace.check(FabricError::Forked)?;
        self.woken_by(readable)
    }

    fn disconnect(&mut self, peer: Rank) {
        if !self.birthplace.is_here() {
            return;
        }
        if let Some(at) = self.find(peer) {
            self.connections[at].disconnect();
        }
    }

    fn fence(&mut self, peer: Rank, deadline: Instant) -> Result<Fence, FabricError> {
        self.birthplace.check(FabricError::Forked)?;
        let at = self.need(peer, "fence")?;
        Ok(self.close(at, deadline))
    }

    fn doorbell(&self, _peer: Rank) -> Option<Doorbell> {
        None
    }

    fn alarm(&self) -> Waker {
        self.bell.clone().into()
    }

    fn explain(&self, completion: &Completion) -> String {
        match self.find(completion.peer) {
            Some(at) => {
                let connection = &self.connections[at];
                let said =
                    explain::explanation(completion, &self.path(connection), connection.failure.as_ref());
                said + &self.port_now()
            }
            None => format!(
                "rank {}: {} with rank {}: {}; there is no queue pair to it",
                self.rank, completion.opcode, completion.peer, completion.status
            ),
        }
    }

    fn addresses(&self, peer: Rank) -> Option<[String; 2]> {
        let connection = &self.connections[self.find(peer)?];
        let remote = connection.remote.as_ref()?;
        Some([self.describe(connection).to_string(), remote.to_string()])
    }

    fn reachable(&self, peer: Rank) -> bool {
        self.find(peer)
            .is_none_or(|at| self.connections[at].is_reachable())
    }
}

impl Drop for VerbsEndpoint {
    fn drop(&mut self) {
        // A forked child has only copies: the queue pairs are its parent's.
        if !self.birthplace.is_here() {
            return;
        }
        self.linger();
        self.close_all();
    }
}
