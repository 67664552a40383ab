//! A rank's queue pairs over shared memory. The CPU of whoever posts does the work; `poll` takes in what came and goes
//! on with what had to wait.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::alarm::Alarm;
use super::control::{DEPTH, Front, Inbound, Shared};
use super::keys::{Domain, Incoming, system};
use super::life::{Life, Process};
use super::outbound::Outbound;
use super::parcel::ConnectionParcel;
use super::queue_pair::{QueuePair, Sink};
use super::region::ShmRemote;
use super::ringing;
use crate::fabric::parcel::Ends;
use crate::fabric::state::{State, already_there, not_there};
use crate::fabric::{
    Completion, Doorbell, Endpoint, FabricError, Fence, Opcode, Parcel, Patience, PostError, Rank, Receive,
    RemoteRegion, Request, Sleep,
};

/// How often polls look at the peers' processes.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How many polls pass between two looks at the clock.
const POLLS_PER_LOOK: u32 = 16;

pub(super) struct ShmEndpoint {
    rank: Rank,
    generation: u32,
    domain: Arc<Domain>,
    front: Shared<Front>,
    front_file: OwnedFd,
    bell: Doorbell,
    /// Of the bell, for the peers.
    descriptor: Option<Arc<OwnedFd>>,
    /// Sorted by peer.
    pairs: Vec<QueuePair>,
    completions: VecDeque<Completion>,
    copied: u64,
    /// What poll(2) waits on, and whose it is.
    watched: Vec<(libc::pollfd, Rank)>,
    /// Only for poll(2), so that a look does not allocate.
    watched_scratch: Vec<libc::pollfd>,
    patience: Patience,
    polls: u32,
    looked: Instant,
    /// A peer was lost since the last poll.
    news: bool,
    alarm: Arc<Alarm>,
}

impl ShmEndpoint {
    pub fn new(rank: Rank, generation: u32, domain: Arc<Domain>) -> Result<Self, FabricError> {
        domain.birthplace.check(FabricError::Forked)?;
        let (front, front_file) = Shared::<Front>::create()?;
        let descriptor = domain
            .pollable
            .then(ringing::descriptor)
            .transpose()?
            .map(Arc::new);
        let bell = front.doorbell(descriptor.clone());
        let alarm = Arc::new(Alarm::new(bell.clone()));
        Ok(Self {
            rank,
            generation,
            domain,
            front,
            front_file,
            bell,
            descriptor,
            pairs: Vec::new(),
            completions: VecDeque::new(),
            copied: 0,
            watched: Vec::new(),
            watched_scratch: Vec::new(),
            patience: Patience::for_ranks(1),
            polls: 0,
            looked: Instant::now(),
            news: false,
            alarm,
        })
    }

    #[inline]
    fn find(&self, peer: Rank) -> Option<usize> {
        self.pairs.binary_search_by_key(&peer, |pair| pair.peer).ok()
    }

    fn need(&self, peer: Rank, call: &'static str, needed: &'static str) -> Result<usize, FabricError> {
        self.find(peer)
            .ok_or_else(|| not_there(self.rank, peer, call, needed))
    }

    /// Looks whether peers' processes or endpoints are gone.
    fn look_at_peers(&mut self) {
        self.looked = Instant::now();
        self.watched_scratch.clear();
        self.watched_scratch
            .extend(self.watched.iter().map(|(entry, _)| *entry));
        if !self.watched_scratch.is_empty() {
            let count = self.watched_scratch.len() as libc::nfds_t;
            // SAFETY: `count` valid entries, and no waiting.
            unsafe { libc::poll(self.watched_scratch.as_mut_ptr(), count, 0) };
        }
        let mut sink = Sink {
            completions: &mut self.completions,
            copied: &mut self.copied,
        };
        for index in (0..self.watched_scratch.len()).rev() {
            if self.watched_scratch[index].revents == 0 {
                continue;
            }
            let (_, peer) = self.watched.swap_remove(index);
            if let Ok(at) = self.pairs.binary_search_by_key(&peer, |pair| pair.peer) {
                self.pairs[at].lose_peer(&mut sink);
                self.news = true;
            }
        }
        for pair in &mut self.pairs {
            if !pair.gone && pair.outbound.as_ref().is_some_and(Outbound::closed) {
                pair.lose_peer(&mut sink);
                self.news = true;
            }
        }
    }

    /// Looks at the peers, and whether anything is there that `poll` would act upon.
    fn look_around(&mut self) -> bool {
        self.look_at_peers();
        let waited = self.domain.receiver_patience;
        self.has_work() || self.pairs.iter().any(|pair| pair.out_of_patience(waited))
    }

    fn has_work(&self) -> bool {
        self.news
            || self.alarm.is_raised()
            || !self.completions.is_empty()
            || self.pairs.iter().any(QueuePair::has_work)
    }

    fn deliver(&mut self, into: &mut Vec<Completion>) -> usize {
        let count = self.completions.len().min(into.capacity() - into.len());
        for completion in self.completions.drain(..count) {
            if let Ok(at) = self
                .pairs
                .binary_search_by_key(&completion.peer, |pair| pair.peer)
            {
                match completion.opcode {
                    Opcode::Receive | Opcode::ReceiveWithImmediate => {
                        self.pairs[at].undelivered_receives -= 1
                    }
                    _ => self.pairs[at].undelivered -= 1,
                }
            }
            into.push(completion);
        }
        count
    }
}

impl Endpoint for ShmEndpoint {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn prepare(&mut self, peer: Rank) -> Result<Parcel, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        let Err(at) = self.pairs.binary_search_by_key(&peer, |pair| pair.peer) else {
            return Err(already_there(self.rank, peer));
        };
        let duplicate = |descriptor: &OwnedFd| {
            let copy = descriptor.try_clone();
            copy.map_err(|error| system("duplicating a descriptor for a peer", error))
        };
        let front = duplicate(&self.front_file)?;
        let ring = self.descriptor.as_deref().map(duplicate).transpose()?;
        let (control, file) = Shared::<Inbound>::create()?;
        let incoming = Arc::new(Incoming {
            control,
            life: OnceLock::new(),
        });
        self.domain.watch(incoming.clone());
        self.pairs.insert(at, QueuePair::new(peer, incoming));
        // Not at each wait: counting the cores reads files.
        self.patience = Patience::for_ranks(self.pairs.len() + 1);
        // Each queue pair has at most this many completions that were not taken yet.
        self.completions.reserve(self.pairs.len() * 2 * DEPTH);
        let bytes = ConnectionParcel {
            ends: Ends {
                from: self.rank,
                to: peer,
                generation: self.generation,
            },
            domain: self.domain.id,
            process: Process::own(),
        }
        .encode();
        Ok(Parcel {
            bytes,
            descriptors: [front, file].into_iter().chain(ring).collect(),
        })
    }

    fn connect(&mut self, peer: Rank, remote: Parcel) -> Result<(), FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        let at = self.need(peer, "connect", "prepared")?;
        let rank = self.rank;
        self.pairs[at].state.may_connect(rank, peer)?;
        let refuse = |why: String| FabricError::Parcel {
            rank,
            peer,
            what: "a connection",
            why,
        };
        let told = ConnectionParcel::decode(&remote.bytes).map_err(refuse)?;
        told.ends.expect(peer, rank, self.generation).map_err(refuse)?;
        let count = remote.descriptors.len();
        let mut descriptors = remote.descriptors.into_iter();
        let (Some(front), Some(control), ring, None) = (
            descriptors.next(),
            descriptors.next(),
            descriptors.next(),
            descriptors.next(),
        ) else {
            return Err(refuse(format!(
                "it came with {count} descriptors instead of 2 or 3"
            )));
        };
        if let Some(ring) = &ring {
            ringing::check(ring).map_err(refuse)?;
        }
        let life = Life::watch(told.process).map_err(refuse)?;
        let front = Shared::map(&front, true).map_err(|error| refuse(error.to_string()))?;
        let control = Shared::map(&control, true).map_err(|error| refuse(error.to_string()))?;
        if let Some(fd) = life.descriptor() {
            let entry = libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            };
            self.watched.push((entry, peer));
            self.watched_scratch.reserve(self.watched.len());
        }
        let pair = &mut self.pairs[at];
        // Set once: this queue pair was not connected before.
        let _ = pair.incoming.life.set(life);
        pair.outbound = Some(Outbound::new(peer, control, front, ring, told.domain));
        pair.state = State::Connected;
        Ok(())
    }

    fn import(&mut self, peer: Rank, remote: Parcel) -> Result<Arc<dyn RemoteRegion>, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        ShmRemote::import(self.rank, peer, self.domain.reach, remote)
            .map(|region| Arc::new(region) as Arc<dyn RemoteRegion>)
    }

    fn post(&mut self, peer: Rank, requests: &[Request]) -> Result<(), PostError> {
        self.domain.birthplace.check(PostError::Forked)?;
        let at = self.find(peer).ok_or(PostError::NotConnected { peer })?;
        let mut sink = Sink {
            completions: &mut self.completions,
            copied: &mut self.copied,
        };
        let pair = &mut self.pairs[at];
        let before = pair.state;
        let result = pair.post(requests, &mut sink);
        if pair.state != before {
            pair.fail(&mut sink);
        }
        result
    }

    fn post_receive(&mut self, peer: Rank, receive: Receive) -> Result<(), PostError> {
        self.domain.birthplace.check(PostError::Forked)?;
        let at = self.find(peer).ok_or(PostError::NotConnected { peer })?;
        let mut sink = Sink {
            completions: &mut self.completions,
            copied: &mut self.copied,
        };
        self.pairs[at].post_receive(receive, &mut sink)
    }

    fn poll(&mut self, into: &mut Vec<Completion>) -> Result<usize, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        let mut sink = Sink {
            completions: &mut self.completions,
            copied: &mut self.copied,
        };
        for pair in &mut self.pairs {
            pair.progress(self.domain.receiver_patience, &mut sink);
        }
        self.polls = self.polls.wrapping_add(1);
        if self.polls.is_multiple_of(POLLS_PER_LOOK) && self.looked.elapsed() >= LOOK_EVERY {
            self.look_at_peers();
        }
        self.news = false;
        self.alarm.lower();
        Ok(self.deliver(into))
    }

    fn wait(&mut self, deadline: Instant) -> Result<bool, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        let patience = self.patience;
        let bell = self.bell.clone();
        let endpoint = std::cell::RefCell::new(self);
        let found = patience.wait(
            &bell,
            deadline,
            || endpoint.borrow().has_work().then_some(()),
            || endpoint.borrow_mut().look_around().then_some(()),
        );
        Ok(found.is_some())
    }

    fn ready(&mut self) -> Result<bool, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        Ok(self.has_work())
    }

    fn arm(&mut self, descriptors: &mut Vec<RawFd>) -> Result<Sleep, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        let Some(descriptor) = self.bell.arm() else {
            return Ok(Sleep::Impossible);
        };
        if self.look_around() {
            self.bell.disarm();
            return Ok(Sleep::Needless);
        }
        descriptors.push(descriptor);
        descriptors.extend(self.watched.iter().map(|(entry, _)| entry.fd));
        Ok(Sleep::Armed)
    }

    fn disarm(&mut self, readable: &[RawFd]) -> Result<(), FabricError> {
        self.bell.disarm();
        if self
            .descriptor
            .as_ref()
            .is_some_and(|own| readable.contains(&own.as_raw_fd()))
        {
            self.bell.hush();
        }
        if self.watched.iter().any(|(entry, _)| readable.contains(&entry.fd)) {
            self.look_at_peers();
        }
        Ok(())
    }

    fn disconnect(&mut self, peer: Rank) {
        if !self.domain.birthplace.is_here() {
            return;
        }
        if let Some(at) = self.find(peer) {
            let mut sink = Sink {
                completions: &mut self.completions,
                copied: &mut self.copied,
            };
            // Whoever gives the peer up need not be told that it is gone.
            self.pairs[at].unreported = false;
            self.pairs[at].fail(&mut sink);
        }
    }

    fn fence(&mut self, peer: Rank, deadline: Instant) -> Result<Fence, FabricError> {
        self.domain.birthplace.check(FabricError::Forked)?;
        let at = self.need(peer, "fence", "prepared")?;
        self.disconnect(peer);
        let pair = &self.pairs[at];
        let mut looks = 0u32;
        while pair.peer_is_busy() {
            if pair.incoming.life.get().is_some_and(|life| life.ended()) {
                break;
            }
            if Instant::now() >= deadline {
                return Ok(Fence::Quarantined);
            }
            looks += 1;
            match looks {
                0..100 => std::hint::spin_loop(),
                100..200 => std::thread::yield_now(),
                _ => std::thread::sleep(Duration::from_micros(200)),
            }
        }
        Ok(Fence::Fenced)
    }

    fn doorbell(&self, peer: Rank) -> Option<Doorbell> {
        if !self.domain.reach {
            return None;
        }
        if peer == self.rank {
            return Some(self.bell.clone());
        }
        let outbound = self.pairs[self.find(peer)?].outbound.as_ref()?;
        Some(outbound.bell.clone())
    }

    fn alarm(&self) -> Waker {
        self.alarm.clone().into()
    }

    fn reachable(&self, peer: Rank) -> bool {
        self.find(peer).is_none_or(|at| !self.pairs[at].gone)
    }

    fn bytes_copied(&self) -> u64 {
        self.copied
    }
}

impl Drop for ShmEndpoint {
    fn drop(&mut self) {
        // A forked child shares this memory with its parent, whose endpoint goes on.
        if !self.domain.birthplace.is_here() {
            return;
        }
        self.front.closed.store(1, Ordering::Release);
        for pair in &self.pairs {
            pair.revoke();
            if let Some(outbound) = &pair.outbound {
                outbound.bell.ring();
            }
        }
        self.domain.forget_idle();
        self.domain.clean_up();
    }
}
