//! A provider that is broken in one way at a time: what the suite would have to catch in a new one.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sapwood::fabric::shm::Shm;
use sapwood::fabric::{
    Access, Capabilities, Completion, Doorbell, Endpoint, Fabric, FabricError, Fence, Operation, Parcel,
    PostError, Rank, Receive, Registration, RemoteRegion, RemoteSlice, Request, Slice, Status,
};
use sapwood::memory::Region;

use super::Provider;
use crate::runner::Mode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    OvertakingImmediate,
    WriteAfterFence,
    LostWakeUp,
    IgnoredBound,
    StaleKey,
    TornAtomic,
    DisorderedCompletions,
    SilentDeath,
    LostFlush,
    BusyWait,
}

/// Which case finds which defect, with ranks of which kind.
pub fn expected_failures() -> Vec<(&'static str, &'static str, Mode)> {
    use Mode::{Processes, Threads};
    vec![
        (
            "an immediate that overtakes its data",
            "an immediate comes after its data",
            Threads,
        ),
        (
            "a write that lands after the fence",
            "nothing lands after the fence",
            Threads,
        ),
        ("a lost wake-up", "a sleeper is woken by what arrives", Threads),
        (
            "an ignored bound",
            "nothing outside of a region is reached",
            Threads,
        ),
        (
            "a stale key that is accepted",
            "a key ends with its registration",
            Threads,
        ),
        (
            "an atomic that is not atomic",
            "fetch-and-add loses nothing",
            Threads,
        ),
        (
            "completions out of order",
            "completions come in the order of posting",
            Threads,
        ),
        (
            "a death that is not reported",
            "a peer that dies is reported",
            Processes,
        ),
        (
            "a flush that is not reported",
            "after an error everything is flushed",
            Threads,
        ),
        (
            "a wait that spins",
            "waiting costs next to no processor time",
            Processes,
        ),
    ]
}

/// Opens the provider with this defect.
fn open(defect: Defect) -> Arc<dyn Fabric> {
    let inner = Shm::new().expect("the shared-memory fabric opens anywhere");
    let kept = Mutex::default();
    Arc::new(Defective { inner, defect, kept })
}

pub fn all() -> Vec<Provider> {
    let provider = Provider::new;
    vec![
        provider("an immediate that overtakes its data", |_| {
            open(Defect::OvertakingImmediate)
        }),
        provider("a write that lands after the fence", |_| {
            open(Defect::WriteAfterFence)
        }),
        provider("a lost wake-up", |_| open(Defect::LostWakeUp)),
        provider("an ignored bound", |_| open(Defect::IgnoredBound)),
        provider("a stale key that is accepted", |_| open(Defect::StaleKey)),
        provider("an atomic that is not atomic", |_| open(Defect::TornAtomic)),
        provider("completions out of order", |_| {
            open(Defect::DisorderedCompletions)
        }),
        provider("a death that is not reported", |_| open(Defect::SilentDeath)),
        provider("a flush that is not reported", |_| open(Defect::LostFlush)),
        provider("a wait that spins", |_| open(Defect::BusyWait)),
    ]
}

#[derive(Debug)]
struct Defective {
    inner: Shm,
    defect: Defect,
    /// Registrations that never end.
    kept: Mutex<Vec<Arc<dyn Registration>>>,
}

impl Fabric for Defective {
    fn name(&self) -> &'static str {
        "defective"
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn register(&self, region: &Region, access: Access) -> Result<Arc<dyn Registration>, FabricError> {
        let registration = self.inner.register(region, access)?;
        if self.defect == Defect::StaleKey {
            self.kept
                .lock()
                .expect("no panic in between")
                .push(registration.clone());
        }
        Ok(registration)
    }

    fn endpoint(&self, rank: Rank, generation: u32) -> Result<Box<dyn Endpoint>, FabricError> {
        let inner = self.inner.endpoint(rank, generation)?;
        let defect = self.defect;
        Ok(Box::new(DefectiveEndpoint { inner, defect }))
    }
}

struct DefectiveEndpoint {
    inner: Box<dyn Endpoint>,
    defect: Defect,
}

impl DefectiveEndpoint {
    /// The immediate first, then, much later, what it announces.
    fn overtake(&mut self, peer: Rank, request: &Request) -> Result<(), PostError> {
        let Operation::Write {
            local,
            remote,
            immediate: immediate @ Some(_),
        } = &request.operation
        else {
            return self.inner.post(peer, std::slice::from_ref(request));
        };
        let write = |len, immediate, signaled| Request {
            id: request.id,
            operation: Operation::Write {
                local: Slice { len, ..local.clone() },
                remote: remote.clone(),
                immediate,
            },
            signaled,
        };
        self.inner.post(peer, &[write(0, *immediate, false)])?;
        std::thread::sleep(Duration::from_millis(3));
        self.inner.post(peer, &[write(local.len, None, request.signaled)])
    }

    /// What leaves the region lands at its start.
    fn bend(&mut self, peer: Rank, request: &Request) -> Result<(), PostError> {
        let mut request = request.clone();
        if let Operation::Write { local, remote, .. } = &mut request.operation {
            let end = remote.offset.checked_add(local.len);
            if end.is_none_or(|end| end > remote.region.len()) {
                local.len = local.len.min(remote.region.len());
                remote.offset = 0;
            }
        }
        self.inner.post(peer, &[request])
    }

    /// Reads, adds and writes, one after the other.
    fn tear(&mut self, peer: Rank, request: &Request) -> Result<(), PostError> {
        let Operation::FetchAdd { local, remote, add } = &request.operation else {
            return self.inner.post(peer, std::slice::from_ref(request));
        };
        let base = local.registration.region().base();
        // SAFETY: the case gives eight bytes inside of its registration, which the request holds.
        let word = unsafe { base.add(local.offset) }.cast::<u64>();
        let step = |operation| Request {
            id: request.id,
            operation,
            signaled: false,
        };
        let (local, remote): (Slice, RemoteSlice) = (local.clone(), remote.clone());
        let read = Operation::Read {
            local: local.clone(),
            remote: remote.clone(),
        };
        self.inner.post(peer, &[step(read)])?;
        // SAFETY: as above; a read over shared memory is done when it was posted.
        let earlier = unsafe { word.read_unaligned() };
        std::thread::yield_now();
        // SAFETY: as above.
        unsafe { word.write_unaligned(earlier.wrapping_add(*add)) };
        let write = Operation::Write {
            local: local.clone(),
            remote: remote.clone(),
            immediate: None,
        };
        self.inner.post(peer, &[step(write)])?;
        // SAFETY: as above.
        unsafe { word.write_unaligned(earlier) };
        // For a completion that looks right, an addition that changes nothing.
        let operation = Operation::FetchAdd {
            local,
            remote,
            add: 0,
        };
        let result = self.inner.post(
            peer,
            &[Request {
                operation,
                ..request.clone()
            }],
        );
        // SAFETY: as above.
        unsafe { word.write_unaligned(earlier) };
        result
    }
}

impl Endpoint for DefectiveEndpoint {
    fn rank(&self) -> Rank {
        self.inner.rank()
    }

    fn prepare(&mut self, peer: Rank) -> Result<Parcel, FabricError> {
        self.inner.prepare(peer)
    }

    fn connect(&mut self, peer: Rank, remote: Parcel) -> Result<(), FabricError> {
        self.inner.connect(peer, remote)
    }

    fn import(&mut self, peer: Rank, remote: Parcel) -> Result<Arc<dyn RemoteRegion>, FabricError> {
        self.inner.import(peer, remote)
    }

    fn post(&mut self, peer: Rank, requests: &[Request]) -> Result<(), PostError> {
        let one_by_one = match self.defect {
            Defect::OvertakingImmediate => Self::overtake,
            Defect::IgnoredBound => Self::bend,
            Defect::TornAtomic => Self::tear,
            Defect::SilentDeath => {
                let _ = self.inner.post(peer, requests);
                return Ok(());
            }
            _ => return self.inner.post(peer, requests),
        };
        requests
            .iter()
            .try_for_each(|request| one_by_one(self, peer, request))
    }

    fn post_receive(&mut self, peer: Rank, receive: Receive) -> Result<(), PostError> {
        self.inner.post_receive(peer, receive)
    }

    fn poll(&mut self, into: &mut Vec<Completion>) -> Result<usize, FabricError> {
        let before = into.len();
        self.inner.poll(into)?;
        match self.defect {
            Defect::DisorderedCompletions => into[before..].reverse(),
            Defect::SilentDeath => into.retain(|completion| completion.status != Status::PeerUnreachable),
            Defect::LostFlush => into.retain(|completion| completion.status != Status::Flushed),
            _ => {}
        }
        Ok(into.len() - before)
    }

    fn wait(&mut self, deadline: Instant) -> Result<bool, FabricError> {
        match self.defect {
            Defect::LostWakeUp => {
                let found = self.inner.wait(Instant::now())?;
                if !found {
                    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
                }
                Ok(found)
            }
            Defect::BusyWait => {
                while Instant::now() < deadline {
                    if self.inner.wait(Instant::now())? {
                        return Ok(true);
                    }
                    // The inner wait is polite even when it has no time: it gives up the processor.
                    let until = Instant::now() + Duration::from_millis(1);
                    while Instant::now() < until {
                        std::hint::spin_loop();
                    }
                }
                Ok(false)
            }
            _ => self.inner.wait(deadline),
        }
    }

    fn disconnect(&mut self, peer: Rank) {
        self.inner.disconnect(peer);
    }

    fn fence(&mut self, peer: Rank, deadline: Instant) -> Result<Fence, FabricError> {
        match self.defect {
            Defect::WriteAfterFence => Ok(Fence::Fenced),
            _ => self.inner.fence(peer, deadline),
        }
    }

    fn doorbell(&self, peer: Rank) -> Option<Doorbell> {
        self.inner.doorbell(peer)
    }

    fn alarm(&self) -> std::task::Waker {
        self.inner.alarm()
    }

    fn reachable(&self, peer: Rank) -> bool {
        self.defect == Defect::SilentDeath || self.inner.reachable(peer)
    }
}
