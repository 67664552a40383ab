//! A rank's queue pairs over TCP: their sockets, one poller for all of them, and what completed.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::address;
use super::bell::Bell;
use super::caller::Caller;
use super::dial::Dial;
use super::parcel::ConnectionParcel;
use super::queue_pair::{DEPTH, Link, QueuePair, Shared};
use super::region::{Domain, KnownKeys, TcpRemote};
use super::seal::{Pact, random};
use super::settings::Settings;
use super::sink::Sink;
use super::visitor::{Announced, Listener};
use crate::fabric::parcel::Ends;
use crate::fabric::state::{State, already_there, not_there};
use crate::fabric::{
    Completion, Doorbell, Endpoint, FabricError, Fence, Opcode, Parcel, Patience, PostError, Rank, Receive,
    RemoteRegion, Request, Sleep, Status,
};

/// How often polls look at clocks.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How many polls pass between two looks at the clock.
const POLLS_PER_LOOK: u32 = 16;
/// Sockets of which the kernel tells at a time; of the others it tells the next time.
const EVENTS: usize = 256;

/// Names of what is watched beside peers, which go by their ranks, and visitors.
pub(super) const LISTENER: Token = Token(usize::MAX - 1);
const BELL: Token = Token(usize::MAX);

pub(super) struct TcpEndpoint {
    pub(super) rank: Rank,
    pub(super) generation: u32,
    pub(super) settings: Arc<Settings>,
    domain: Arc<Domain>,
    network: [u8; 16],
    keys: KnownKeys,
    pub(super) poller: Poll,
    pub(super) events: Events,
    pub(super) listener: Option<Listener>,
    /// Kept for its memory.
    pub(super) announced: Vec<Announced>,
    /// Sorted by peer.
    pub(super) pairs: Vec<QueuePair>,
    sink: Sink,
    pub(super) patience: Patience,
    polls: u32,
    pub(super) looked: Instant,
    pub(super) silences_looked: Instant,
    bell: Arc<Bell>,
}

impl TcpEndpoint {
    pub fn new(
        rank: Rank,
        generation: u32,
        settings: Arc<Settings>,
        domain: Arc<Domain>,
    ) -> Result<Self, FabricError> {
        let poller = Poll::new().map_err(|error| super::system("making an event poller", error))?;
        let bell = Arc::new(Bell::new(poller.registry(), BELL)?);
        let now = Instant::now();
        Ok(Self {
            rank,
            generation,
            settings,
            domain,
            network: address::network(),
            keys: KnownKeys::default(),
            poller,
            events: Events::with_capacity(EVENTS),
            listener: None,
            announced: Vec::new(),
            pairs: Vec::new(),
            sink: Sink::default(),
            patience: Patience::for_ranks(1),
            polls: 0,
            looked: now,
            silences_looked: now,
            bell,
        })
    }

    /// The queue pairs, and what they share.
    #[inline]
    pub(super) fn split(&mut self) -> (&mut [QueuePair], Shared<'_>) {
        let shared = Shared {
            domain: &self.domain,
            keys: &mut self.keys,
            sink: &mut self.sink,
            settings: &self.settings,
            registry: self.poller.registry(),
        };
        (&mut self.pairs, shared)
    }

    #[inline]
    fn find(&self, peer: Rank) -> Option<usize> {
        self.pairs.binary_search_by_key(&peer, |pair| pair.peer).ok()
    }

    fn need(&self, peer: Rank, call: &'static str, needed: &'static str) -> Result<usize, FabricError> {
        self.find(peer)
            .ok_or_else(|| not_there(self.rank, peer, call, needed))
    }

    /// Whether `poll` has something to deliver.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        self.sink.news || self.bell.is_raised() || !self.sink.completions.is_empty()
    }

    fn deliver(&mut self, into: &mut Vec<Completion>) -> usize {
        let count = self.sink.completions.len().min(into.capacity() - into.len());
        for completion in self.sink.completions.drain(..count) {
            if let Ok(at) = self
                .pairs
                .binary_search_by_key(&completion.peer, |pair| pair.peer)
            {
                let pair = &mut self.pairs[at];
                match completion.opcode {
                    Opcode::Receive | Opcode::ReceiveWithImmediate => pair.receives.undelivered -= 1,
                    _ => pair.requests.undelivered -= 1,
                }
            }
            into.push(completion);
        }
        count
    }

    fn listen(&mut self) -> Result<&Listener, FabricError> {
        if self.listener.is_none() {
            let callable = address::to_be_called_at(&address::of_this_host()?, &self.settings)?;
            let registry = self.poller.registry();
            self.listener = Some(Listener::open(&callable, &self.settings, LISTENER, registry)?);
        }
        Ok(self.listener.as_ref().expect("just opened"))
    }
}

impl Endpoint for TcpEndpoint {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn prepare(&mut self, peer: Rank) -> Result<Parcel, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        let Err(at) = self.pairs.binary_search_by_key(&peer, |pair| pair.peer) else {
            return Err(already_there(self.rank, peer));
        };
        let own = peer == self.rank;
        let mut addresses = Vec::new();
        let mut by_loopback = false;
        if !own {
            let listener = self.listen()?;
            addresses.clone_from(&listener.addresses);
            by_loopback = listener.by_loopback;
        }
        let told = ConnectionParcel {
            ends: Ends {
                from: self.rank,
                to: peer,
                generation: self.generation,
            },
            domain: self.domain.id,
            network: self.network,
            secret: random()?,
            token: random()?,
            by_loopback,
            addresses,
        };
        self.pairs
            .insert(at, QueuePair::new(peer, own, told.secret, told.token));
        // Not at each wait: counting the cores reads files.
        self.patience = Patience::for_ranks(self.pairs.len() + 1);
        // Each queue pair has at most this many completions that were not taken yet.
        self.sink.completions.reserve(self.pairs.len() * 2 * DEPTH);
        Ok(Parcel {
            bytes: told.encode(),
            descriptors: Vec::new(),
        })
    }

    fn connect(&mut self, peer: Rank, remote: Parcel) -> Result<(), FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        let at = self.need(peer, "connect", "prepared")?;
        let (rank, generation) = (self.rank, self.generation);
        self.pairs[at].state.may_connect(rank, peer)?;
        let refuse = |why: String| FabricError::Parcel {
            rank,
            peer,
            what: "a connection",
            why,
        };
        let told = ConnectionParcel::decode(&remote.bytes).map_err(refuse)?;
        told.ends.expect(peer, rank, generation).map_err(refuse)?;
        let own_addresses = address::of_this_host()?;
        let network = self.network;
        let callable = self.listener.iter().flat_map(|listener| &listener.addresses);
        let callable_at = callable.map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (pairs, mut shared) = self.split();
        let pair = &mut pairs[at];
        pair.requests.target = (peer, told.domain);
        pair.state = State::Connected;
        if rank > peer {
            let same_network = told.network == network;
            let order = address::order(&told.addresses, &own_addresses, same_network, told.by_loopback);
            pair.caller = Some(Caller::new(rank, told, Dial::new(order)));
            pair.call(&mut shared);
        } else if rank < peer {
            pair.pact = Some(Pact::new((peer, &told.secret), (rank, &pair.secret), generation));
            pair.callable_at = callable_at;
            let before = std::mem::replace(&mut pair.link, Link::Expecting);
            if let Link::Unknown(Some(announced)) = before {
                pair.take_call(announced, &mut shared);
            }
        }
        Ok(())
    }

    fn import(&mut self, peer: Rank, remote: Parcel) -> Result<Arc<dyn RemoteRegion>, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        Ok(Arc::new(TcpRemote::import(self.rank, peer, &remote)?))
    }

    fn post(&mut self, peer: Rank, requests: &[Request]) -> Result<(), PostError> {
        self.domain.birthplace.check(PostError::Forked)?;
        let at = self.find(peer).ok_or(PostError::NotConnected { peer })?;
        let (pairs, mut shared) = self.split();
        pairs[at].post(requests, &mut shared)
    }

    fn post_receive(&mut self, peer: Rank, receive: Receive) -> Result<(), PostError> {
        self.domain.birthplace.check(PostError::Forked)?;
        let at = self.find(peer).ok_or(PostError::NotConnected { peer })?;
        let (pairs, mut shared) = self.split();
        pairs[at].post_receive(receive, &mut shared)?;
        pairs[at].send(&mut shared);
        Ok(())
    }

    fn post_receives(&mut self, peer: Rank, receives: &[Receive]) -> Result<(), PostError> {
        self.domain.birthplace.check(PostError::Forked)?;
        let at = self.find(peer).ok_or(PostError::NotConnected { peer })?;
        let (pairs, mut shared) = self.split();
        let pair = &mut pairs[at];
        let mut outcome = Ok(());
        for (posted, receive) in receives.iter().enumerate() {
            match pair.post_receive(receive.clone(), &mut shared) {
                Ok(()) => continue,
                Err(PostError::QueueFull { .. }) => outcome = Err(PostError::QueueFull { posted }),
                Err(PostError::QueuePairError { .. }) => outcome = Err(PostError::QueuePairError { posted }),
                Err(other) => outcome = Err(other),
            }
            break;
        }
        // Once for all of them.
        pair.send(&mut shared);
        outcome
    }

    fn poll(&mut self, into: &mut Vec<Completion>) -> Result<usize, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        self.drive(Duration::ZERO)?;
        self.polls = self.polls.wrapping_add(1);
        if self.polls.is_multiple_of(POLLS_PER_LOOK) && self.looked.elapsed() >= LOOK_EVERY {
            self.look_at_clocks();
        }
        self.sink.news = false;
        self.bell.lower();
        Ok(self.deliver(into))
    }

    fn wait(&mut self, deadline: Instant) -> Result<bool, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        self.sleep_until(deadline)
    }

    fn ready(&mut self) -> Result<bool, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        self.drive(Duration::ZERO)?;
        Ok(self.has_work())
    }

    fn arm(&mut self, descriptors: &mut Vec<RawFd>) -> Result<Sleep, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        let more = self.drive(Duration::ZERO)?;
        self.look_at_clocks();
        if more || self.has_work() {
            return Ok(Sleep::Needless);
        }
        // Readable as long as the kernel has told of something that nobody has asked for.
        descriptors.push(self.poller.as_raw_fd());
        Ok(Sleep::Armed)
    }

    fn disarm(&mut self, _readable: &[RawFd]) -> Result<(), FabricError> {
        // Whoever looks afterwards asks the kernel.
        Ok(())
    }

    fn disconnect(&mut self, peer: Rank) {
        if !self.domain.birthplace.is_here() {
            return;
        }
        if let Some(at) = self.find(peer) {
            let (pairs, mut shared) = self.split();
            // Whoever gives the peer up need not be told that it is gone.
            pairs[at].unreported = false;
            pairs[at].fail(&mut shared);
        }
    }

    fn fence(&mut self, peer: Rank, _deadline: Instant) -> Result<Fence, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        self.need(peer, "fence", "prepared")?;
        // Nobody but this endpoint moves the peer's bytes into memory, and without a connection it does not.
        self.disconnect(peer);
        Ok(Fence::Fenced)
    }

    fn doorbell(&self, _peer: Rank) -> Option<Doorbell> {
        None
    }

    fn alarm(&self) -> Waker {
        self.bell.clone().into()
    }

    fn explain(&self, completion: &Completion) -> String {
        let (rank, peer) = (self.rank, completion.peer);
        let pair = self.find(peer).map(|at| &self.pairs[at]);
        let between = pair
            .and_then(|pair| pair.addresses)
            .map_or(String::new(), |[ours, theirs]| {
                format!(" over tcp ({ours} to {theirs})")
            });
        let (opcode, status) = (completion.opcode, completion.status);
        let mut said = format!("rank {rank}: {opcode} with rank {peer}{between} failed: {status}");
        if let Some(trouble) = pair.and_then(|pair| pair.trouble.as_ref()) {
            said = format!("{said}; {trouble}");
        }
        if status == Status::PeerUnreachable && between.is_empty() {
            said.push_str(
                ". Is there a firewall between the hosts? SAPWOOD_TCP_SUBNET or SAPWOOD_TCP_INTERFACE chooses the network",
            );
        }
        said
    }

    fn addresses(&self, peer: Rank) -> Option<[String; 2]> {
        let addresses = self.pairs[self.find(peer)?].addresses?;
        Some(addresses.map(|address| address.to_string()))
    }

    fn reachable(&self, peer: Rank) -> bool {
        self.find(peer).is_none_or(|at| !self.pairs[at].gone)
    }

    fn bytes_copied(&self) -> u64 {
        self.sink.copied
    }
}

impl Drop for TcpEndpoint {
    fn drop(&mut self) {
        // A forked child has copies of its parent's sockets, and of its parent's poller, which both go on.
        if !self.domain.birthplace.is_here() {
            return;
        }
        let (pairs, mut shared) = self.split();
        for pair in pairs {
            pair.say_farewell(&mut shared);
            pair.fail(&mut shared);
        }
    }
}
