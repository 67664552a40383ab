//! One queue pair of a test: an endpoint of its own, so that it counts by itself. Posts, polls and counts; measures
//! nothing. Nothing here allocates once it is connected.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use sapwood::fabric::{
    Access, Completion, Endpoint, Fabric, Opcode, Operation, Parcel, PostError, Receive, Registration,
    RemoteRegion, RemoteSlice, Request, Slice, Status,
};

use super::memory::Memory;
use super::setup::Setup;
use super::test::{AtomicKind, Verb};
use super::watch::Side;
use crate::output::Failure;

/// The immediate of a test's last message, where its number is not known ahead.
pub(super) const LAST: u32 = u32::MAX;
/// Completions taken at once.
const BATCH: usize = 64;

/// Where a message comes from and goes to: offsets into both sides' regions, which are alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Sends come from here, reads and atomics answer here.
    pub(super) out: usize,
    /// The same at the target: what is written, read, received and added to.
    pub(super) into: usize,
    /// Bytes of each.
    pub(super) area: usize,
}

/// See the module.
pub(super) struct Lane {
    side: Side,
    endpoint: Box<dyn Endpoint>,
    registration: Arc<dyn Registration>,
    remote: Option<Arc<dyn RemoteRegion>>,
    pub(super) place: Place,
    found: Vec<Completion>,
    /// Requests posted, and the next one's number.
    pub(super) posted: u64,
    /// Requests known to be done: all before the latest that was signalled.
    pub(super) done: u64,
    /// Messages received.
    pub(super) arrived: u64,
    /// The last message was among them.
    pub(super) ended: bool,
    receives: u64,
    /// Each that is used is posted again at once.
    replenish: bool,
    /// They take immediates only.
    bare: bool,
}

/// Looks of [`Lane::poll_eagerly`].
pub(super) const EAGER: u32 = 16;

impl Lane {
    /// The local half, and what the other side needs of it.
    pub(super) fn prepare(
        fabric: &dyn Fabric,
        side: Side,
        number: usize,
        memory: &Memory,
        place: Place,
        bare: bool,
    ) -> Result<(Self, [Parcel; 2]), Failure> {
        let registration = fabric
            .register(memory.region(), Access::ALL)
            .map_err(|error| broken(side, error))?;
        let mut endpoint = fabric
            .endpoint(side.rank(), number as u32)
            .map_err(|error| broken(side, error))?;
        let connection = endpoint
            .prepare(side.other().rank())
            .map_err(|error| broken(side, error))?;
        let region = registration.export().map_err(|error| broken(side, error))?;
        let lane = Self {
            side,
            endpoint,
            registration,
            remote: None,
            place,
            found: Vec::with_capacity(BATCH),
            posted: 0,
            done: 0,
            arrived: 0,
            ended: false,
            receives: 0,
            replenish: false,
            bare,
        };
        Ok((lane, [connection, region]))
    }

    pub(super) fn connect(&mut self, [connection, region]: [Parcel; 2]) -> Result<(), Failure> {
        let (side, peer) = (self.side, self.side.other().rank());
        self.endpoint
            .connect(peer, connection)
            .map_err(|error| broken(side, error))?;
        let remote = self
            .endpoint
            .import(peer, region)
            .map_err(|error| broken(side, error))?;
        self.remote = Some(remote);
        Ok(())
    }

    /// A request of the test, to be aimed and numbered before each post.
    pub(super) fn request(&self, setup: &Setup, size: usize) -> Request {
        let immediate = setup.with_immediate.then_some(0);
        let local = self.local(size);
        let operation = match setup.test.verb {
            Verb::Write => self.write(size, immediate),
            Verb::Read => Operation::Read {
                local,
                remote: self.remote(),
            },
            Verb::Send => Operation::Send {
                local,
                immediate: None,
            },
            Verb::Atomic => match setup.atomic {
                AtomicKind::FetchAdd => Operation::FetchAdd {
                    local,
                    remote: self.remote(),
                    add: 1,
                },
                AtomicKind::CompareSwap => Operation::CompareSwap {
                    local,
                    remote: self.remote(),
                    expected: 0,
                    desired: 0,
                },
            },
        };
        Request {
            id: 0,
            operation,
            signaled: true,
        }
    }

    /// A write of `size` bytes, aimed at the beginning.
    pub(super) fn write(&self, size: usize, immediate: Option<u32>) -> Operation {
        Operation::Write {
            local: self.local(size),
            remote: self.remote(),
            immediate,
        }
    }

    pub(super) fn local(&self, len: usize) -> Slice {
        Slice {
            registration: self.registration.clone(),
            offset: self.place.out,
            len,
        }
    }

    pub(super) fn remote(&self) -> RemoteSlice {
        let region = self.remote.clone().expect("connected");
        RemoteSlice {
            region,
            offset: self.place.into,
        }
    }

    /// Begins a new count. Everything of the one before has ended.
    pub(super) fn begin(&mut self, replenish: bool) {
        (self.posted, self.done, self.arrived) = (0, 0, 0);
        (self.ended, self.replenish) = (false, replenish);
    }

    /// Posts receives until there are `depth`.
    pub(super) fn fill(&mut self, depth: usize) -> Result<(), Failure> {
        while self.receives < depth as u64 {
            self.post_receive(self.receives, 0, self.place.area)?;
        }
        Ok(())
    }

    /// This end and the other, for people.
    pub(super) fn addresses(&self) -> Option<[String; 2]> {
        self.endpoint.addresses(self.side.other().rank())
    }

    /// Receives posted that no message has used yet.
    pub(super) fn receives(&self) -> u64 {
        self.receives
    }

    /// Posts one receive for at most `len` bytes, `offset` into the area; for an immediate where that is 0.
    pub(super) fn post_receive(&mut self, id: u64, offset: usize, len: usize) -> Result<(), Failure> {
        let local = (len > 0 && !self.bare).then(|| Slice {
            registration: self.registration.clone(),
            offset: self.place.into + offset,
            len,
        });
        let receive = Receive { id, local };
        self.endpoint
            .post_receive(self.side.other().rank(), receive)
            .map_err(|error| self.refused("posting a receive", &error))?;
        self.receives += 1;
        Ok(())
    }

    /// Posts requests that are numbered from `posted` on. There is room: nobody has more in flight than the queue holds.
    #[inline]
    pub(super) fn post(&mut self, requests: &[Request]) -> Result<(), Failure> {
        match self.endpoint.post(self.side.other().rank(), requests) {
            Ok(()) => {
                self.posted += requests.len() as u64;
                Ok(())
            }
            Err(error) => Err(self.not_posted(&error)),
        }
    }

    /// As [`Lane::poll`], looking some times in a row: for who has nothing else to look at.
    #[inline]
    pub(super) fn poll_eagerly(&mut self) -> Result<usize, Failure> {
        self.found.clear();
        for _ in 0..EAGER {
            match self.endpoint.poll(&mut self.found) {
                Ok(0) => {}
                Ok(count) => return self.take(count),
                Err(error) => return Err(broken(self.side, error)),
            }
        }
        Ok(0)
    }

    /// Takes in what completed; how much. An unsuccessful completion is the end of the test.
    #[inline]
    pub(super) fn poll(&mut self) -> Result<usize, Failure> {
        self.found.clear();
        let count = self
            .endpoint
            .poll(&mut self.found)
            .map_err(|error| broken(self.side, error))?;
        self.take(count)
    }

    #[inline]
    fn take(&mut self, count: usize) -> Result<usize, Failure> {
        for at in 0..count {
            let completion = self.found[at];
            if completion.status != Status::Success {
                return Err(self.explained(&completion));
            }
            match completion.opcode {
                Opcode::Receive | Opcode::ReceiveWithImmediate => self.take_receive(&completion)?,
                _ => self.done = completion.id + 1,
            }
        }
        Ok(count)
    }

    fn take_receive(&mut self, completion: &Completion) -> Result<(), Failure> {
        self.arrived += 1;
        self.receives -= 1;
        self.ended |= completion.immediate == Some(LAST);
        if self.replenish {
            self.post_receive(completion.id, 0, self.place.area)?;
        }
        Ok(())
    }

    /// Does what the other side asks of this one's memory, where the fabric leaves that to this side.
    pub(super) fn drive(&mut self) -> Result<(), Failure> {
        let ready = self.endpoint.ready();
        ready.map(drop).map_err(|error| broken(self.side, error))
    }

    /// Sleeps until there is something to poll, or until then.
    pub(super) fn wait(&mut self, until: Instant) -> Result<bool, Failure> {
        self.endpoint
            .wait(until)
            .map_err(|error| broken(self.side, error))
    }

    #[cold]
    fn not_posted(&mut self, error: &PostError) -> Failure {
        // A queue pair that failed says why in a completion.
        match self.poll() {
            Err(failure) => failure,
            Ok(_) => self.refused("posting", error),
        }
    }

    #[cold]
    fn refused(&self, doing: &str, error: &PostError) -> Failure {
        Failure::Check(format!("{}: {doing}: {error}", self.side.name()))
    }

    #[cold]
    fn explained(&self, completion: &Completion) -> Failure {
        Failure::Check(format!(
            "{}: {}",
            self.side.name(),
            self.endpoint.explain(completion)
        ))
    }
}

#[cold]
fn broken(side: Side, error: impl Display) -> Failure {
    Failure::Check(format!("{}: {error}", side.name()))
}
