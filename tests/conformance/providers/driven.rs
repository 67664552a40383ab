//! For a fabric on which what peers ask of a rank is done by the rank's own endpoint: an endpoint that is driven while
//! its case is busy with something else, as a progress thread does it for a program. Cases know nothing of that.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sapwood::fabric::{
    Access, Capabilities, Completion, Doorbell, Endpoint, Fabric, FabricError, Fence, Parcel, PostError,
    Rank, Receive, Registration, RemoteRegion, Request, Sleep,
};
use sapwood::memory::Region;

/// A case that has called within this time drives its endpoint itself.
const BUSY: Duration = Duration::from_millis(1);
/// The longest sleep of who drives.
const NAP: Duration = Duration::from_millis(5);

/// A fabric with such endpoints.
#[derive(Debug)]
pub struct Driven(pub Arc<dyn Fabric>);

impl Fabric for Driven {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    fn register(&self, region: &Region, access: Access) -> Result<Arc<dyn Registration>, FabricError> {
        self.0.register(region, access)
    }

    fn endpoint(&self, rank: Rank, generation: u32) -> Result<Box<dyn Endpoint>, FabricError> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                endpoint: self.0.endpoint(rank, generation)?,
                called: Instant::now(),
                armed: false,
                inbox: VecDeque::new(),
                news: false,
            }),
            over: AtomicBool::new(false),
        });
        let driver = shared.clone();
        let driver = std::thread::spawn(move || driver.drive());
        Ok(Box::new(DrivenEndpoint {
            shared,
            driver: Some(driver),
        }))
    }

    fn by_one_means(&self) -> Option<Arc<dyn Fabric>> {
        Some(Arc::new(Self(self.0.by_one_means()?)))
    }
}

struct State {
    endpoint: Box<dyn Endpoint>,
    called: Instant,
    /// The case sleeps, or is about to, and must be woken by what comes.
    armed: bool,
    /// What completed while the case was busy.
    inbox: VecDeque<Completion>,
    /// There was something to do meanwhile.
    news: bool,
}

impl State {
    fn take_in(&mut self) {
        let mut came = Vec::with_capacity(64);
        let _ = self.endpoint.poll(&mut came);
        self.inbox.extend(came);
        self.news = true;
    }
}

struct Shared {
    state: Mutex<State>,
    over: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drive(&self) {
        let mut descriptors: Vec<RawFd> = Vec::new();
        while !self.over.load(Ordering::Acquire) {
            descriptors.clear();
            let mut state = self.state();
            let busy = state.armed || state.called.elapsed() < BUSY;
            let armed = !busy && matches!(state.endpoint.arm(&mut descriptors), Ok(Sleep::Armed));
            if !busy && !armed {
                state.take_in();
            }
            drop(state);
            if !armed {
                std::thread::sleep(BUSY / 2);
                continue;
            }
            let entry = |fd: &RawFd| libc::pollfd {
                fd: *fd,
                events: libc::POLLIN,
                revents: 0,
            };
            let mut entries: Vec<_> = descriptors.iter().map(entry).collect();
            // SAFETY: as many valid entries, whose descriptors stay open while the endpoint is armed.
            unsafe {
                libc::poll(
                    entries.as_mut_ptr(),
                    entries.len() as libc::nfds_t,
                    NAP.as_millis() as libc::c_int,
                )
            };
            let _ = self.state().endpoint.disarm(&[]);
        }
    }
}

struct DrivenEndpoint {
    shared: Arc<Shared>,
    driver: Option<JoinHandle<()>>,
}

impl DrivenEndpoint {
    /// The endpoint, for a call of the case.
    fn on<T>(&self, call: impl FnOnce(&mut dyn Endpoint) -> T) -> T {
        let mut state = self.shared.state();
        let outcome = call(&mut *state.endpoint);
        state.called = Instant::now();
        outcome
    }
}

impl Drop for DrivenEndpoint {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        if let Some(driver) = self.driver.take() {
            driver.join().expect("the driver");
        }
    }
}

impl Endpoint for DrivenEndpoint {
    fn rank(&self) -> Rank {
        self.on(|endpoint| endpoint.rank())
    }

    fn prepare(&mut self, peer: Rank) -> Result<Parcel, FabricError> {
        self.on(|endpoint| endpoint.prepare(peer))
    }

    fn connect(&mut self, peer: Rank, remote: Parcel) -> Result<(), FabricError> {
        self.on(|endpoint| endpoint.connect(peer, remote))
    }

    fn import(&mut self, peer: Rank, remote: Parcel) -> Result<Arc<dyn RemoteRegion>, FabricError> {
        self.on(|endpoint| endpoint.import(peer, remote))
    }

    fn post(&mut self, peer: Rank, requests: &[Request]) -> Result<(), PostError> {
        self.on(|endpoint| endpoint.post(peer, requests))
    }

    fn post_receive(&mut self, peer: Rank, receive: Receive) -> Result<(), PostError> {
        self.on(|endpoint| endpoint.post_receive(peer, receive))
    }

    fn post_receives(&mut self, peer: Rank, receives: &[Receive]) -> Result<(), PostError> {
        self.on(|endpoint| endpoint.post_receives(peer, receives))
    }

    fn poll(&mut self, into: &mut Vec<Completion>) -> Result<usize, FabricError> {
        let mut state = self.shared.state();
        let room = into.capacity() - into.len();
        let count = room.min(state.inbox.len());
        into.extend(state.inbox.drain(..count));
        state.news = !state.inbox.is_empty();
        state.called = Instant::now();
        Ok(count + state.endpoint.poll(into)?)
    }

    fn wait(&mut self, deadline: Instant) -> Result<bool, FabricError> {
        let mut state = self.shared.state();
        let found = state.news || state.endpoint.wait(deadline)?;
        state.called = Instant::now();
        Ok(found)
    }

    fn ready(&mut self) -> Result<bool, FabricError> {
        self.on(|endpoint| endpoint.ready())
            .map(|ready| ready || self.shared.state().news)
    }

    fn arm(&mut self, descriptors: &mut Vec<RawFd>) -> Result<Sleep, FabricError> {
        let mut state = self.shared.state();
        if state.news {
            return Ok(Sleep::Needless);
        }
        let outcome = state.endpoint.arm(descriptors)?;
        state.armed = outcome == Sleep::Armed;
        Ok(outcome)
    }

    fn disarm(&mut self, readable: &[RawFd]) -> Result<(), FabricError> {
        self.shared.state().armed = false;
        self.on(|endpoint| endpoint.disarm(readable))
    }

    fn disconnect(&mut self, peer: Rank) {
        self.on(|endpoint| endpoint.disconnect(peer));
    }

    fn fence(&mut self, peer: Rank, deadline: Instant) -> Result<Fence, FabricError> {
        self.on(|endpoint| endpoint.fence(peer, deadline))
    }

    fn doorbell(&self, peer: Rank) -> Option<Doorbell> {
        self.on(|endpoint| endpoint.doorbell(peer))
    }

    fn alarm(&self) -> Waker {
        self.on(|endpoint| endpoint.alarm())
    }

    fn explain(&self, completion: &Completion) -> String {
        self.on(|endpoint| endpoint.explain(completion))
    }

    fn addresses(&self, peer: Rank) -> Option<[String; 2]> {
        self.on(|endpoint| endpoint.addresses(peer))
    }

    fn reachable(&self, peer: Rank) -> bool {
        self.on(|endpoint| endpoint.reachable(peer))
    }

    fn bytes_copied(&self) -> u64 {
        self.on(|endpoint| endpoint.bytes_copied())
    }
}
