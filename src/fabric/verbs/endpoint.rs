//! A rank's queue pairs on one device: finds connections, drives the completion queue, and acts upon what the device
//! says of its own accord. Sleeping is in `waiting`, making connections in `opening`.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use sapwood_sys::verbs::bindings::IBV_WC_WR_FLUSH_ERR;

use super::batch::Batch;
use super::bell::Bell;
use super::budget::Budget;
use super::completion_queue::{BATCH, CompletionQueue};
use super::connection::{Connection, Sink, State};
use super::device::Device;
use super::events::Listener;
use super::explain;
use super::in_flight::{Side, Ticket};
use super::remote::VerbsRemote;
use crate::fabric::fork::Birthplace;
use crate::fabric::{
    Completion, Doorbell, Endpoint, FabricError, Fence, Parcel, Patience, PostError, Rank, Receive,
    RemoteRegion, Request, Sleep,
};

/// How often polls look at the device's events and at silent peers.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How many polls pass between two looks at the clock.
const POLLS_PER_LOOK: i32 = 128;
/// How long a fence waits for the device to give back what is in flight before it destroys the queue pairs.
const DRAIN: Duration = Duration::from_millis(200);
/// How long dropping an endpoint waits for requests that are on their way.
const LINGER: Duration = Duration::from_millis(100);

/// In the place of a connection's number.
pub(super) const NO_CONNECTION: u32 = u32::MAX;

/// See the module. The order of the fields is the order of the teardown.
pub(super) struct VerbsEndpoint {
    pub(super) rank: Rank,
    pub(super) generation: u32,
    birthplace: Birthplace,
    /// By number, which is part of every `wr_id`.
    #[allow(
        clippy::vec_box,
        reason = "found by number with one multiplication less: counted, see interop/instructions"
    )]
    pub(super) connections: Vec<Box<Connection>>,
    /// By rank: the connection's number, or [`NO_CONNECTION`].
    pub(super) by_rank: Vec<u32>,
    pub(super) queue: CompletionQueue,
    batch: Batch,
    pub(super) budget: Budget,
    /// Completions that were taken from the device when the caller had no room for them.
    pub(super) backlog: VecDeque<Completion>,
    pub(super) bell: Arc<Bell>,
    pub(super) listener: Listener,
    pub(super) patience: Patience,
    pub(super) largest_message: usize,
    /// Polls before one that looks at everything, the clock included; 0 where there is something to see.
    polls_left: i32,
    looked: Instant,
    /// A connection failed since the last poll.
    news: bool,
    /// Why the endpoint as a whole is of no use any more.
    broken: Option<String>,
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
            looked: Instant::now(),
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
        self.find(peer).ok_or(FabricError::QueuePairState {
            rank: self.rank,
            peer,
            call,
            state: "not prepared",
            needed: "prepared",
        })
    }

    /// Takes at most `limit` completions from the device; those for the caller go `into`, and to the backlog where
    /// there is no room. How many there were.
    #[inline]
    fn take_in(&mut self, limit: usize, into: &mut Vec<Completion>) -> Result<usize, FabricError> {
        let count = self.queue.take(limit);
        self.hand_out(count, into)
    }

    /// See [`Endpoint::poll`]: everything that there can be.
    #[cold]
    #[inline(never)]
    fn poll_all(&mut self, into: &mut Vec<Completion>) -> Result<usize, FabricError> {
        self.birthplace.check(FabricError::Forked)?;
        self.bell.lower();
        self.news = false;
        self.act_on_events();
        let before = into.len();
        if !self.backlog.is_empty() {
            let count = self.backlog.len().min(into.capacity() - before);
            into.extend(self.backlog.drain(..count));
        }
        let room = into.capacity() - into.len();
        if room > 0 {
            self.take_in(room, into)?;
        }
        if self.looked.elapsed() >= LOOK_EVERY {
            self.look()?;
        }
        self.polls_left = if self.news || !self.backlog.is_empty() {
            0
        } else {
            POLLS_PER_LOOK
        };
        Ok(into.len() - before)
    }

    /// See [`Endpoint::poll`]: the device gave something else than one small write's end.
    #[cold]
    #[inline(never)]
    fn poll_other(&mut self, count: i32, into: &mut Vec<Completion>) -> Result<usize, FabricError> {
        self.poll_taken(count, into)
    }

    /// Goes on where something was taken from the device: takes back the alarm, and hands out what it is.
    #[inline(never)]
    fn poll_taken(&mut self, count: i32, into: &mut Vec<Completion>) -> Result<usize, FabricError> {
        self.bell.lower();
        self.act_on_events();
        let before = into.len();
        if count != 0 {
            self.hand_out(count, into)?;
        }
        Ok(into.len() - before)
    }

    /// The next poll is to look at the backlog, if there is any.
    #[inline]
    fn mind_backlog(&mut self) {
        if !self.backlog.is_empty() {
            self.polls_left = 0;
        }
    }

    /// See [`Endpoint::post`]: something else than one small write.
    #[cold]
    #[inline(never)]
    fn post_other(&mut self, peer: Rank, requests: &[Request]) -> Result<(), PostError> {
        self.post_any(peer, requests)
    }

    /// See [`Endpoint::post`]: any requests.
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
        // A failure that nobody was told of yet is told by the first request that comes after it.
        match requests.first().is_some_and(|first| connection.tell_by(first)) {
            false => connection.post(requests, &mut self.batch, &mut self.budget),
            true if requests.len() == 1 => Ok(()),
            true => Err(PostError::QueuePairError { posted: 1 }),
        }
    }

    #[inline]
    fn hand_out(&mut self, count: i32, into: &mut Vec<Completion>) -> Result<usize, FabricError> {
        if self
            .queue
            .taken(count)?
            .iter()
            .any(|report| report.status == IBV_WC_WR_FLUSH_ERR)
        {
            self.ask_why(count)?;
        }
        let mut sink = Sink {
            into,
            backlog: &mut self.backlog,
            budget: &mut self.budget,
        };
        let reports = self.queue.taken(count)?;
        for report in reports {
            let ticket = Ticket::from_number(report.wr_id);
            let Some(connection) = self.connections.get_mut(usize::from(ticket.connection)) else {
                continue;
            };
            match ticket.side {
                Side::Request => connection.request_completed(ticket, report, &mut sink),
                Side::Receive => connection.receive_completed(ticket, report, &mut sink),
            }
        }
        let count = reports.len();
        self.mind_backlog();
        Ok(count)
    }

    /// Whether `poll` has something to do. Takes completions from the device, for the backlog.
    pub(super) fn has_work(&mut self) -> Result<bool, FabricError> {
        if self.news || self.bell.is_raised() || !self.backlog.is_empty() {
            return Ok(true);
        }
        self.act_on_events();
        Ok(self.news || self.take_in(BATCH, &mut Vec::new())? > 0)
    }

    /// Reads the device's events, acts upon them, and asks for silent peers.
    pub(super) fn look(&mut self) -> Result<(), FabricError> {
        self.listener.read()?;
        self.act_on_events();
        self.looked = Instant::now();
        for connection in &mut self.connections {
            connection.ask_for_peer(self.looked);
        }
        match &self.broken {
            None => Ok(()),
            Some(what) => Err(FabricError::System {
                fabric: super::NAME,
                what: format!("the endpoint of rank {} on {}", self.rank, self.device.place()),
                source: std::io::Error::other(what.clone()),
            }),
        }
    }

    /// One atomic load where there is nothing.
    #[inline]
    pub(super) fn act_on_events(&mut self) {
        while let Some(event) = self.listener.take() {
            self.act_on(event);
        }
    }

    /// Sends everything of a connection back and destroys its queue pairs.
    fn close(&mut self, at: usize, deadline: Instant) -> Fence {
        self.connections[at].disconnect();
        let until = deadline.min(Instant::now() + DRAIN);
        while !self.connections[at].is_drained() && Instant::now() < until {
            match self.take_in(BATCH, &mut Vec::new()) {
                Ok(0) => std::thread::yield_now(),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        let mut sink = Sink {
            into: &mut Vec::new(),
            backlog: &mut self.backlog,
            budget: &mut self.budget,
        };
        let closed = self.connections[at].close(&mut sink);
        self.mind_backlog();
        match closed {
            Ok(()) => Fence::Fenced,
            Err(error) => {
                tracing::error!(%error, "nothing is known about what the peer can still reach");
                Fence::Quarantined
            }
        }
    }

    /// Something happened that `poll` is to be called for.
    pub(super) fn tell(&mut self) {
        self.news = true;
        self.polls_left = 0;
    }

    pub(super) fn break_down(&mut self, why: String) {
        self.broken = Some(why);
        self.tell();
    }

    /// Waits until requests that are on their way have arrived, or for [`LINGER`].
    fn linger(&mut self) {
        for connection in &mut self.connections {
            connection.ask_for_the_end();
        }
        let until = Instant::now() + LINGER;
        let waiting =
            |connection: &Connection| connection.state == State::Connected && !connection.requests.is_empty();
        while self.connections.iter().any(|one| waiting(one)) && Instant::now() < until {
            match self.take_in(BATCH, &mut Vec::new()) {
                Ok(0) => std::thread::yield_now(),
                Ok(_) => {}
                Err(_) => return,
            }
        }
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
        self.post_other(peer, requests)
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
        for connection in &mut self.connections {
            connection.disconnect();
        }
        let until = Instant::now() + DRAIN;
        for at in 0..self.connections.len() {
            self.close(at, until);
        }
    }
}
