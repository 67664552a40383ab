//! When an operation cannot end well: deadlines, ranks that are gone, mismatches, what other ranks say of theirs; whom
//! the error names, and who is told.

use std::time::{Duration, Instant};

use super::execution::{Blocked, On};
use super::inner::{Active, Inner};
use super::link::Class;
use super::note::{Called, Note};
use crate::engine::group::AFTER_A_DEATH;
use crate::engine::mismatch::disagreement;
use crate::engine::{EngineError, Liveness, Observers, Trouble, Waited};
use crate::observe::OpenWait;
use crate::plan::lowered::Action;

/// How often a waiting rank looks after the others.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a rank that seems gone may still be heard of, by what it sent last.
const LAST_WORDS: Duration = Duration::from_millis(4);
/// How long a rank waits before it tells its neighbours for whom.
const BEFORE_BLAMING: Duration = Duration::from_millis(100);

/// What another rank has said of its giving up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    Trouble {
        origin: u32,
        trouble: Trouble,
    },
    Mismatch {
        origin: u32,
        sequence: u64,
        ranks: [(u32, Called); 2],
    },
}

/// A rank that cannot be waited for any more, as it seems.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion {
    /// Because of whom: the rank itself, or a dead one that it may be waiting for.
    culprit: u32,
    since: Instant,
    patience: Duration,
}

impl Suspicion {
    /// Whether it may come to nothing yet.
    fn is_open(&self, now: Instant) -> bool {
        now - self.since < self.patience
    }
}

/// Rare, so that it may be large.
pub(super) type Failure = Box<Verdict>;

/// Why everything in progress ends, and what the others are told.
#[derive(Debug)]
pub(super) struct Verdict {
    pub error: EngineError,
    /// `None`: that this rank was aborted.
    pub note: Option<Note>,
}

impl Verdict {
    /// A failure of this rank's own.
    pub fn own(error: EngineError) -> Failure {
        Box::new(Self { error, note: None })
    }
}

impl Inner {
    /// Tells every neighbour that this rank gives up, unless they know.
    pub fn flood(&mut self, note: Note, except: Option<u32>) {
        if std::mem::replace(&mut self.flooded, true) {
            return;
        }
        for index in 0..self.connected.len() {
            let peer = self.connected[index];
            if Some(peer) != except {
                self.last_words(peer, note);
            }
        }
    }

    /// Sends a peer what it must know before this rank falls silent. Where there is no room for it, the peer's own
    /// look at this rank will have to do.
    pub fn last_words(&mut self, peer: u32, note: Note) {
        let generation = self.generation;
        if let Some((link, endpoint)) = self.link(peer) {
            let _ = link.send(endpoint, Class::LastWords, note, generation);
        }
    }

    /// Another rank gives up: it is remembered until something here stands still, and passed on at once.
    pub fn hear_trouble(&mut self, from: u32, told: Told) {
        let note = match told {
            Told::Trouble { origin, trouble } => Note::Trouble { origin, trouble },
            Told::Mismatch {
                origin,
                sequence,
                ranks,
            } => Note::Mismatch {
                origin,
                sequence,
                ranks,
            },
        };
        self.told.get_or_insert(told);
        self.flood(note, Some(from));
    }

    /// The error of an operation that was in progress when other ranks gave up.
    pub fn judge(&mut self, sequence: u64, told: Told) -> Failure {
        let rank = self.rank;
        let gave_up = |peer, culprit, why| EngineError::PeerGaveUp {
            rank,
            peer,
            culprit,
            why,
        };
        let error = match told {
            Told::Mismatch {
                origin,
                sequence: at,
                ranks,
            } if at == sequence => return self.mismatch(sequence, &ranks, Some(origin)),
            Told::Mismatch {
                origin,
                sequence: at,
                ranks,
            } => {
                let found = ranks
                    .into_iter()
                    .map(|(rank, called)| (rank, Some((called.signature, called.details))));
                gave_up(origin, None, disagreement(origin, at, found).to_string())
            }
            Told::Trouble {
                origin,
                trouble: Trouble::Aborted,
            } => EngineError::Aborted { rank, by: origin },
            Told::Trouble { origin, trouble } => {
                let (culprit, why) = match trouble {
                    Trouble::Gone(gone) => (Some(gone), format!("rank {gone} is gone")),
                    Trouble::Deadline(late) => (
                        Some(late),
                        format!("it had waited for rank {late} until its deadline"),
                    ),
                    Trouble::Mismatch(at) => (None, format!("the ranks disagree about operation {at}")),
                    Trouble::Aborted => (None, format!("rank {origin} aborted")),
                };
                gave_up(origin, culprit, why)
            }
        };
        Verdict::own(error)
    }

    /// Looks after deadlines and other ranks, for operations that stand still. Asked before each sleep.
    pub fn look(&mut self, liveness: &dyn Liveness, observers: &Observers) -> Result<(), Failure> {
        let Some(&oldest) = self.order.first() else {
            return Ok(());
        };
        if let Some(told) = self.told.take() {
            return Err(self.judge(oldest, told));
        }
        let now = Instant::now();
        if !self.suspects_any(now) && now - self.looked < LOOK_EVERY {
            return Ok(());
        }
        self.looked = now;
        let mut asked = false;
        for index in 0..self.order.len() {
            let sequence = self.order[index];
            let active = self.running_mut(sequence).expect("its number is in the list");
            let Some(blocked) = active.execution.blocked else {
                continue;
            };
            active.stuck.get_or_insert(now);
            // One look at the system's witnesses is enough for all.
            if !std::mem::replace(&mut asked, true)
                && let Some((peer, how)) = self.departed(&blocked, liveness, now)
            {
                let active = self.running(sequence).expect("as above");
                let on = self.describe(active, &blocked, observers).to_string();
                return Err(Box::new(Verdict {
                    error: EngineError::Gone {
                        rank: self.rank,
                        peer,
                        how,
                        on,
                    },
                    note: Some(Note::Trouble {
                        origin: self.rank,
                        trouble: Trouble::Gone(peer),
                    }),
                }));
            }
            let active = self.running(sequence).expect("as above");
            let waited = active.queued.started.elapsed();
            if waited >= active.queued.call.timeout {
                let on = self.describe(active, &blocked, observers);
                let trouble = Trouble::Deadline(on.last);
                return Err(Box::new(Verdict {
                    error: EngineError::Deadline {
                        rank: self.rank,
                        waited,
                        on,
                    },
                    note: Some(Note::Trouble {
                        origin: self.rank,
                        trouble,
                    }),
                }));
            }
            self.say_who(sequence, &blocked, now);
        }
        Ok(())
    }

    /// The earliest deadline of what is in progress.
    pub fn deadline(&self) -> Option<Instant> {
        let running = self.order.iter().filter_map(|sequence| self.running(*sequence));
        let running = running.map(|active| active.queued.started + active.queued.call.timeout);
        running.chain(self.letters_deadline()).min()
    }

    /// Who is gone that the operation cannot do without, and how: not before what it may have sent last has had time
    /// to be taken in.
    pub(super) fn departed(
        &mut self,
        blocked: &Blocked,
        liveness: &dyn Liveness,
        now: Instant,
    ) -> Option<(u32, String)> {
        let peer = blocked.peer;
        let link = self.links[peer as usize].as_deref();
        let dead = liveness.dead();
        let how = liveness.gone(peer).or_else(|| {
            let link = link?;
            let left = link.left.then(|| "has left the communicator".to_owned());
            left.or_else(|| {
                let why = link.lost.as_ref()?;
                Some(format!("cannot be reached any more ({why})"))
            })
        });
        // Others give up because of the dead: it is the dead who are named.
        let (culprit, how, patience) = match (dead, how) {
            (Some((culprit, how)), None) => (culprit, how, AFTER_A_DEATH),
            (Some((culprit, how)), Some(_)) => (culprit, how, LAST_WORDS),
            (None, Some(how)) => (peer, how, LAST_WORDS),
            (None, None) => {
                self.trust(peer);
                return None;
            }
        };
        // Each link has its own: who waits for several that are gone suspects them in turn.
        let suspicion = Suspicion {
            culprit,
            since: now,
            patience,
        };
        let known = self.suspects.entry(peer).or_insert(suspicion);
        if known.culprit != culprit {
            *known = suspicion;
        }
        known.patience = patience;
        (!known.is_open(now)).then_some((culprit, how))
    }

    /// Whether it is about to show that a rank is gone.
    pub(super) fn suspects_any(&self, now: Instant) -> bool {
        self.suspects.values().any(|suspicion| suspicion.is_open(now))
    }

    /// Something has come from a rank: so long it is not gone.
    pub(super) fn trust(&mut self, peer: u32) {
        self.suspects.remove(&peer);
    }

    /// Something has moved: what the dead have done may be enough.
    pub(super) fn trust_the_living(&mut self) {
        self.suspects
            .retain(|peer, suspicion| *peer == suspicion.culprit || suspicion.patience != AFTER_A_DEATH);
    }

    /// Whom this rank holds responsible, as far as it can see.
    fn blame(&self, active: &Active, blocked: &Blocked) -> u32 {
        let call = &active.queued.call;
        if blocked.on == On::Begin || !active.execution.has_begun(call, blocked.peer) {
            return blocked.peer;
        }
        if let Some(absent) = active.execution.absent(call) {
            return absent;
        }
        let told = self.links[blocked.peer as usize]
            .as_deref()
            .and_then(|link| link.waits);
        match told {
            Some((sequence, culprit)) if sequence == call.sequence && culprit != self.rank => culprit,
            _ => blocked.peer,
        }
    }

    /// Tells the neighbours for whom this rank has been waiting: they may be waiting for this one.
    fn say_who(&mut self, sequence: u64, blocked: &Blocked, now: Instant) {
        let active = self.running(sequence).expect("it is in progress");
        let culprit = self.blame(active, blocked);
        let call = &active.queued.call;
        let patience = BEFORE_BLAMING.min(call.timeout / 4);
        let long = active.stuck.is_some_and(|since| now - since >= patience);
        if !long || active.blamed == Some(culprit) {
            return;
        }
        let prepared = call.prepared.clone();
        let generation = self.generation;
        for peer in prepared.neighbours().iter().filter(|peer| **peer != culprit) {
            if let Some((link, endpoint)) = self.link(*peer) {
                let _ = link.send(
                    endpoint,
                    Class::Ordinary,
                    Note::Waits { sequence, culprit },
                    generation,
                );
            }
        }
        self.running_mut(sequence).expect("as above").blamed = Some(culprit);
    }

    fn describe(&self, active: &Active, blocked: &Blocked, observers: &Observers) -> Waited {
        let Active {
            queued, execution, ..
        } = active;
        let call = &queued.call;
        let Blocked {
            task: index,
            chunk,
            peer,
            on,
        } = *blocked;
        let task = &call.prepared.program.tasks[usize::from(index)];
        let what = match task.action {
            Action::Signal => "sync",
            Action::Reduce { .. } => "reduce",
            Action::Copy { .. } => "push",
        };
        let reached = match on {
            _ if !execution.has_begun(call, peer) => "it has not called this operation yet".to_owned(),
            On::Begin => "it has called the operation".to_owned(),
            On::Inlet(inlet) => {
                let route = call.prepared.route.as_ref().expect("it runs");
                let task = route.inlets[usize::from(inlet)].task;
                format!("its task {task} has done {} chunks", execution.inlet(inlet))
            }
            On::Room => "the queue pair to it has no room: it has not taken in what was sent".to_owned(),
            On::Completion => "writes on the queue pair to it have not completed".to_owned(),
        };
        let last = self.blame(active, blocked);
        let chain = match last {
            _ if last == peer => String::new(),
            _ if Some(last) == execution.absent(call) => {
                format!("; rank {last} has not called this operation yet")
            }
            _ => format!("; it is held up by rank {last}, it says"),
        };
        // The recorder knows since when it is this very chunk that is waited for.
        let recorder = &observers.recorder;
        let here = |wait: &OpenWait| (wait.operation, wait.task) == (call.sequence as u32, index);
        let since = recorder.last_waits().into_iter().find(here);
        let since = since.map_or(String::new(), |wait| {
            format!(" for {:.1?}", recorder.clock().elapsed(wait.since))
        });
        Waited {
            operation: call.signature.to_string(),
            sequence: call.sequence,
            plan: call.prepared.plan.clone(),
            peer,
            last,
            step: format!(
                "at task {index} ({what}), block {}, chunk {} of {}{since}; {reached}{chain}",
                task.block,
                chunk + 1,
                execution.chunks(index)
            ),
        }
    }
}
