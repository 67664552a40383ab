//! Queue pairs to the other workers: made when one is first needed, kept, and made anew when one has broken or when its other
//! end has died and come back.
//!
//! The other half of a pair is asked for by a call, which is answered beside the other's training thread (see
//! [`super::answering`]) and waited for in turns: nothing here waits for it. Each direction has pairs of its own: this worker's
//! requests go over those that it has asked for.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::answering::Answer;
use crate::bootstrap::{CallError, Caller, Said};
use crate::communicator::CommunicatorError;
use crate::fabric::{
    Completion, Endpoint, Fabric, FabricError, Operation, Parcel, Registration, RemoteRegion, Request, Status,
};

/// How long one call may take: who has not answered by then may be stopped, and is called again.
const PATIENCE: Duration = Duration::from_secs(2);
/// From a call in vain to the next.
const PAUSE: Duration = Duration::from_millis(5);
/// Where nobody was there, who may come yet.
const PAUSE_IF_NOBODY: Duration = Duration::from_millis(20);
/// Calls at a time.
const CALLS: usize = 8;

/// How long what is flushed may take to say so.
const FLUSH: Duration = Duration::from_secs(5);

/// How often it is asked whether the owner of the memory that is operated on is dead.
const LIVENESS: Duration = Duration::from_millis(5);

/// See the module.
pub(super) struct Lines {
    me: u16,
    fabric: Arc<dyn Fabric>,
    generation: u32,
    caller: Caller,
    /// At most one pair to each worker on each; the first has the pair to this worker itself.
    endpoints: Vec<Option<Box<dyn Endpoint>>>,
    lines: Vec<Line>,
    calls: usize,
    next: u64,
    completions: Vec<Completion>,
    /// Until when an operation must have ended.
    timeout: Duration,
    /// An endpoint itself has failed.
    failed: bool,
}

/// A way to a worker.
#[derive(Default)]
struct Line {
    state: State,
    /// How many pairs there have been, and so the endpoint of the next.
    made: usize,
    /// In which life of the worker nobody answered for it.
    nobody: Option<u64>,
    /// Not to be tried again before.
    again: Option<Instant>,
}

#[derive(Default)]
enum State {
    #[default]
    None,
    /// The half of it that is here.
    Prepared(Parcel),
    Calling {
        life: u64,
        half: Parcel,
        call: JoinHandle<Result<Said, CallError>>,
    },
    Up(Way),
}

/// Where a worker's memory is.
#[derive(Clone)]
pub(super) struct Way {
    /// In which of its lives the worker has it.
    life: u64,
    pub words: Arc<dyn RemoteRegion>,
    pub data: Arc<dyn RemoteRegion>,
}

impl Lines {
    /// With the pair to this worker itself.
    pub fn new(
        (me, life, workers): (u16, u64, u16),
        (fabric, generation): (Arc<dyn Fabric>, u32),
        caller: Caller,
        (words, data): (&dyn Registration, &dyn Registration),
        timeout: Duration,
    ) -> Result<Self, CommunicatorError> {
        let mut endpoint = fabric.endpoint(me.into(), generation)?;
        let half = endpoint.prepare(me.into())?;
        endpoint.connect(me.into(), half)?;
        let own = Way {
            life,
            words: endpoint.import(me.into(), words.export()?)?,
            data: endpoint.import(me.into(), data.export()?)?,
        };
        let mut lines = Vec::new();
        lines.resize_with(workers.into(), Line::default);
        lines[usize::from(me)] = Line {
            state: State::Up(own),
            made: 0,
            ..Line::default()
        };
        Ok(Self {
            me,
            fabric,
            generation,
            caller,
            endpoints: vec![Some(endpoint)],
            lines,
            calls: 0,
            next: 0,
            completions: Vec::with_capacity(8),
            timeout,
            failed: false,
        })
    }

    /// The workers that this one has queue pairs to, ascending.
    pub fn connected(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.lines.len() as u16).filter(|worker| self.has(*worker))
    }

    /// Whether there is a pair to a worker.
    pub fn has(&self, peer: u16) -> bool {
        matches!(self.lines[usize::from(peer)].state, State::Up(_))
    }

    /// Whether nobody answers for a worker in that life: it has left the barrier, or is not there yet.
    pub fn is_deserted(&self, peer: u16, life: u64) -> bool {
        self.lines[usize::from(peer)].nobody == Some(life)
    }

    /// The way to a worker in that life. If there is none it is begun, or moved on with.
    pub fn to(&mut self, peer: u16, life: u64) -> Option<Way> {
        match &self.lines[usize::from(peer)].state {
            State::Up(way) if way.life == life => return Some(way.clone()),
            State::Up(_) => self.drop_pair(peer),
            State::Calling { call, .. } if !call.is_finished() => return None,
            _ => {}
        }
        if self.failed || peer == self.me {
            return None;
        }
        let line = &mut self.lines[usize::from(peer)];
        match std::mem::take(&mut line.state) {
            State::Calling {
                life: called,
                half,
                call,
            } => {
                self.calls -= 1;
                let said = call.join().unwrap_or_else(|_| Err(CallError::Silent));
                line.nobody = matches!(said, Err(CallError::NobodyThere)).then_some(called);
                line.again = said.as_ref().err().map(|error| {
                    tracing::debug!(error = error.of(peer.into()), "no queue pair yet");
                    Instant::now()
                        + match error {
                            CallError::NobodyThere => PAUSE_IF_NOBODY,
                            _ => PAUSE,
                        }
                });
                match said {
                    Ok(said) if called == life => return self.take_in(peer, life, said),
                    // Nobody has seen this half.
                    Err(CallError::NobodyThere) => line.state = State::Prepared(half),
                    // It was another life's, or may be connected to by who does not answer in time.
                    Ok(_) | Err(_) => self.drop_pair(peer),
                }
                None
            }
            state => {
                let wait = line.again.is_some_and(|again| Instant::now() < again);
                if wait || self.calls == CALLS {
                    line.state = state;
                    return None;
                }
                let half = match state {
                    State::Prepared(half) => Ok(half),
                    _ => self.prepare(peer),
                };
                if let Err(error) = half.and_then(|half| self.call(peer, life, half)) {
                    tracing::warn!(peer, %error, "a queue pair cannot be made");
                    self.lines[usize::from(peer)].again = Some(Instant::now() + PATIENCE);
                }
                None
            }
        }
    }

    /// This worker's half of a new pair.
    fn prepare(&mut self, peer: u16) -> Result<Parcel, FabricError> {
        let line = &mut self.lines[usize::from(peer)];
        if self.endpoints.len() <= line.made {
            self.endpoints.resize_with(line.made + 1, || None);
        }
        let endpoint = match &mut self.endpoints[line.made] {
            Some(endpoint) => endpoint,
            none => none.insert(self.fabric.endpoint(self.me.into(), self.generation)?),
        };
        endpoint.prepare(peer.into())
    }

    fn call(&mut self, peer: u16, life: u64, half: Parcel) -> Result<(), FabricError> {
        let failed = |what: &'static str| {
            move |source| FabricError::System {
                fabric: "one-sided",
                what: what.into(),
                source,
            }
        };
        let line = &mut self.lines[usize::from(peer)];
        let told = match half.try_clone() {
            Ok(told) => told,
            Err(error) => {
                line.state = State::Prepared(half);
                return Err(failed("duplicating descriptors for a queue pair")(error));
            }
        };
        let (caller, until) = (self.caller.clone(), Instant::now() + PATIENCE);
        let said = Said {
            bytes: told.bytes,
            descriptors: told.descriptors,
        };
        let thread = std::thread::Builder::new().name("sapwood-call".into());
        match thread.spawn(move || caller.call(peer.into(), life, said, until)) {
            Ok(call) => {
                line.state = State::Calling { life, half, call };
                self.calls += 1;
                Ok(())
            }
            Err(error) => {
                line.state = State::Prepared(half);
                Err(failed("starting a thread that asks for a queue pair")(error))
            }
        }
    }

    /// The other half is there.
    fn take_in(&mut self, peer: u16, life: u64, said: Said) -> Option<Way> {
        let made = self.lines[usize::from(peer)].made;
        let endpoint = self.endpoints[made]
            .as_mut()
            .expect("the pair was prepared there");
        let rank = peer.into();
        let taken = Answer::decode(said).map_err(|why| FabricError::Parcel {
            rank: self.me.into(),
            peer: rank,
            what: "the other half of a queue pair",
            why,
        });
        let way = taken.and_then(|Answer { pair, words, data }| {
            endpoint.connect(rank, pair)?;
            Ok(Way {
                life,
                words: endpoint.import(rank, words)?,
                data: endpoint.import(rank, data)?,
            })
        });
        match way {
            Ok(way) => {
                self.lines[usize::from(peer)].state = State::Up(way.clone());
                Some(way)
            }
            Err(error) => {
                tracing::warn!(peer, %error, "a queue pair could not be connected");
                self.drop_pair(peer);
                None
            }
        }
    }

    /// The pair is of no use any more; what was posted on it has ended.
    fn drop_pair(&mut self, peer: u16) {
        let line = &mut self.lines[usize::from(peer)];
        line.state = State::None;
        let at = line.made;
        line.made += 1;
        if let Some(endpoint) = &mut self.endpoints[at] {
            endpoint.disconnect(peer.into());
        }
        // An endpoint is kept as long as somebody is reached over it, or may be next.
        let used = self.lines.iter().any(|line| line.made == at);
        if !used {
            self.endpoints[at] = None;
        }
    }

    /// Carries an operation out on a way that [`Self::to`] gave. `false` if that cannot be said, or never will be: then
    /// the way is no more.
    pub fn run(&mut self, peer: u16, operation: Operation, is_gone: impl Fn() -> bool) -> bool {
        self.next += 1;
        let id = self.next;
        let request = Request {
            id,
            operation,
            signaled: true,
        };
        let at = self.lines[usize::from(peer)].made;
        let Some(endpoint) = &mut self.endpoints[at] else {
            return false;
        };
        let posted = endpoint.post(peer.into(), std::slice::from_ref(&request));
        let done = posted.is_ok() && self.await_completion(peer, id, is_gone);
        if !done {
            self.drop_pair(peer);
        }
        done
    }

    fn await_completion(&mut self, peer: u16, id: u64, is_gone: impl Fn() -> bool) -> bool {
        let at = self.lines[usize::from(peer)].made;
        let endpoint = self.endpoints[at].as_mut().expect("it was posted there");
        let mut until = Instant::now() + self.timeout;
        let mut flushing = false;
        loop {
            self.completions.clear();
            if endpoint.poll(&mut self.completions).is_err() {
                self.failed = true;
                return false;
            }
            if let Some(completion) = self.completions.iter().find(|one| one.id == id) {
                return completion.status == Status::Success;
            }
            let now = Instant::now();
            if flushing && now >= until {
                // It could still land where another's answer is to land.
                self.failed = true;
                return false;
            }
            if !flushing && (now >= until || is_gone()) {
                endpoint.disconnect(peer.into());
                (flushing, until) = (true, now + FLUSH);
            }
            if endpoint.wait(now + LIVENESS).is_err() {
                self.failed = true;
                return false;
            }
        }
    }

    /// For tests: breaks the pair to a worker.
    #[cfg(test)]
    pub fn break_pair(&mut self, peer: u16) -> bool {
        let up = self.has(peer) && peer != self.me;
        if up && let Some(endpoint) = &mut self.endpoints[self.lines[usize::from(peer)].made] {
            endpoint.disconnect(peer.into());
        }
        up
    }
}
