//! A fabric whose messages take longer: what arrives is held back for a fixed time. For tests of slow links on one host;
//! the bytes of a write lie there earlier, but nobody who waits for the message looks.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::{
    Access, Capabilities, Completion, Doorbell, Endpoint, Fabric, FabricError, Fence, Opcode, Parcel,
    PostError, Rank, Receive, Registration, RemoteRegion, Request, Sleep,
};
use crate::memory::Region;

/// See the module. It has no load/store reach, whatever the fabric has: stores cannot be held back.
#[derive(Debug)]
pub struct Delayed {
    fabric: Arc<dyn Fabric>,
    delay: Duration,
    capabilities: Capabilities,
}

impl Delayed {
    /// Holds back for `delay` whatever arrives over `fabric`.
    pub fn new(fabric: Arc<dyn Fabric>, delay: Duration) -> Self {
        let capabilities = Capabilities {
            load_store: false,
            ..fabric.capabilities().clone()
        };
        Self {
            fabric,
            delay,
            capabilities,
        }
    }
}

impl Fabric for Delayed {
    fn name(&self) -> &'static str {
        self.fabric.name()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn register(&self, region: &Region, access: Access) -> Result<Arc<dyn Registration>, FabricError> {
        self.fabric.register(region, access)
    }

    fn endpoint(&self, rank: Rank, generation: u32) -> Result<Box<dyn Endpoint>, FabricError> {
        Ok(Box::new(Waiting {
            endpoint: self.fabric.endpoint(rank, generation)?,
            delay: self.delay,
            held: VecDeque::new(),
            taken: Vec::with_capacity(TAKEN),
        }))
    }

    fn by_one_means(&self) -> Option<Arc<dyn Fabric>> {
        let fabric = self.fabric.by_one_means()?;
        Some(Arc::new(Self::new(fabric, self.delay)))
    }
}

/// Completions that are taken from the fabric at a time.
const TAKEN: usize = 64;

struct Waiting {
    endpoint: Box<dyn Endpoint>,
    delay: Duration,
    /// What has arrived, and when it may be seen.
    held: VecDeque<(Instant, Completion)>,
    taken: Vec<Completion>,
}

impl Waiting {
    /// Hands out what has been held back long enough, as far as there is room.
    fn release(&mut self, into: &mut Vec<Completion>) -> usize {
        let (now, before) = (Instant::now(), into.len());
        while into.len() < into.capacity()
            && let Some((due, completion)) = self.held.front()
            && *due <= now
        {
            into.push(*completion);
            self.held.pop_front();
        }
        into.len() - before
    }

    fn due(&self) -> Option<Instant> {
        self.held.front().map(|(due, _)| *due)
    }
}

impl Endpoint for Waiting {
    fn rank(&self) -> Rank {
        self.endpoint.rank()
    }

    fn prepare(&mut self, peer: Rank) -> Result<Parcel, FabricError> {
        self.endpoint.prepare(peer)
    }

    fn connect(&mut self, peer: Rank, remote: Parcel) -> Result<(), FabricError> {
        self.endpoint.connect(peer, remote)
    }

    fn import(&mut self, peer: Rank, remote: Parcel) -> Result<Arc<dyn RemoteRegion>, FabricError> {
        self.endpoint.import(peer, remote)
    }

    fn post(&mut self, peer: Rank, requests: &[Request]) -> Result<(), PostError> {
        self.endpoint.post(peer, requests)
    }

    fn post_receive(&mut self, peer: Rank, receive: Receive) -> Result<(), PostError> {
        self.endpoint.post_receive(peer, receive)
    }

    fn post_receives(&mut self, peer: Rank, receives: &[Receive]) -> Result<(), PostError> {
        self.endpoint.post_receives(peer, receives)
    }

    fn poll(&mut self, into: &mut Vec<Completion>) -> Result<usize, FabricError> {
        let mut appended = self.release(into);
        let room = (into.capacity() - into.len()).min(TAKEN);
        if room == 0 {
            return Ok(appended);
        }
        let mut taken = std::mem::take(&mut self.taken);
        taken.clear();
        // The fabric appends at most what there is room for here.
        let polled = self.endpoint.poll(&mut taken);
        let due = Instant::now() + self.delay;
        for completion in taken.drain(..) {
            let arrives = matches!(completion.opcode, Opcode::Receive | Opcode::ReceiveWithImmediate);
            if arrives || into.len() == into.capacity() {
                self.held.push_back((due, completion));
            } else {
                into.push(completion);
                appended += 1;
            }
        }
        self.taken = taken;
        polled?;
        Ok(appended)
    }

    fn wait(&mut self, deadline: Instant) -> Result<bool, FabricError> {
        let Some(due) = self.due() else {
            return self.endpoint.wait(deadline);
        };
        Ok(due <= Instant::now() || self.endpoint.wait(deadline.min(due))? || due <= Instant::now())
    }

    fn ready(&mut self) -> Result<bool, FabricError> {
        let due = self.due().is_some_and(|due| due <= Instant::now());
        Ok(due || self.endpoint.ready()?)
    }

    fn arm(&mut self, descriptors: &mut Vec<RawFd>) -> Result<Sleep, FabricError> {
        // No descriptor becomes readable when something is due.
        match self.held.is_empty() {
            true => self.endpoint.arm(descriptors),
            false => Ok(Sleep::Impossible),
        }
    }

    fn disarm(&mut self, readable: &[RawFd]) -> Result<(), FabricError> {
        self.endpoint.disarm(readable)
    }

    fn disconnect(&mut self, peer: Rank) {
        self.endpoint.disconnect(peer);
    }

    fn fence(&mut self, peer: Rank, deadline: Instant) -> Result<Fence, FabricError> {
        self.endpoint.fence(peer, deadline)
    }

    fn doorbell(&self, _peer: Rank) -> Option<Doorbell> {
        None
    }

    fn alarm(&self) -> Waker {
        self.endpoint.alarm()
    }

    fn explain(&self, completion: &Completion) -> String {
        self.endpoint.explain(completion)
    }

    fn addresses(&self, peer: Rank) -> Option<[String; 2]> {
        self.endpoint.addresses(peer)
    }

    fn reachable(&self, peer: Rank) -> bool {
        self.endpoint.reachable(peer)
    }

    fn bytes_copied(&self) -> u64 {
        self.endpoint.bytes_copied()
    }
}
