//! What the holder of the token has in hand: the endpoint, the links, the operations in progress. Takes in what came
//! and moves on what can move; decides nothing about who drives or who sleeps.

mod incoming;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Instant;

use super::execution::{Execution, Outside, Round, called};
use super::letters::Letters;
use super::link::Link;
use super::note::Called;
use super::staging::Staging;
use super::trouble::{Failure, Suspicion, Told};
use crate::engine::board::DEPTH;
use crate::engine::{Call, EngineError, Letter, Observers, Ticket};
use crate::fabric::{Completion, Endpoint, Parcel};
use crate::observe::CopySite;

/// Chunks that one operation runs before the next one gets its turn.
const BUDGET: u32 = 16;
/// Completions taken at a time.
const BATCH: usize = 128;

/// An operation that was started.
#[derive(Debug)]
pub(super) struct Queued {
    pub call: Call,
    pub ticket: Ticket,
    pub started: Instant,
}

/// What was started, before whoever has the token has seen it.
#[derive(Debug)]
pub(super) enum Boxed {
    Call(Queued),
    Letter(Letter, Ticket, Instant),
}

/// An operation in progress.
pub(super) struct Active {
    pub queued: Queued,
    pub execution: Execution,
    /// Since when nothing moved, as far as was looked.
    pub stuck: Option<Instant>,
    /// Whom the others were told that this rank waits for.
    pub blamed: Option<u32>,
}

/// Progress of a peer's task in an operation that has not begun here.
#[derive(Clone, Copy, Debug)]
struct Early {
    sequence: u64,
    peer: u32,
    task: u16,
    chunks: u8,
}

/// See the module.
pub(super) struct Inner {
    pub rank: u32,
    pub generation: u32,
    /// `None` once this rank has left.
    pub endpoint: Option<Box<dyn Endpoint>>,
    pub links: Box<[Option<Box<Link>>]>,
    /// What was made for ranks that are not connected yet: it is handed out anew where connecting came to nothing.
    pub prepared: BTreeMap<u32, Parcel>,
    /// The ranks that there are links to, ascending.
    pub connected: Vec<u32>,
    pub staging: Staging,
    /// Begun, by number modulo [`DEPTH`].
    running: Box<[Option<Active>]>,
    /// The numbers of those, in the order of their begins.
    pub order: Vec<u64>,
    /// Started, and not begun for want of staging slots.
    pub waiting: VecDeque<Queued>,
    /// What this rank called as its latest operations, by number modulo [`DEPTH`].
    history: Box<[(u64, Option<Called>)]>,
    /// Which of the numbers from the floor on have ended, modulo [`DEPTH`].
    ended: Box<[bool]>,
    early: Vec<Early>,
    pub letters: Letters,
    idle: Vec<Execution>,
    completions: Vec<Completion>,
    /// To be woken when the token is given back: what wakers do is not known here.
    pub woken: Vec<Waker>,
    /// Operations that ended since this was last asked.
    pub finished: usize,
    /// Those of them that were messages between two ranks.
    pub finished_letters: usize,
    /// A call of a peer that is not this rank's, in an operation that has begun here.
    odd: Option<(u64, u32, Called)>,
    /// What other ranks have said about their giving up, until an operation here comes to stand still.
    pub told: Option<Told>,
    /// Whether the others know that this rank gives up.
    pub flooded: bool,
    /// By rank that something here waits for.
    pub suspects: BTreeMap<u32, Suspicion>,
    pub looked: Instant,
    /// Of the fabric's copies, those that were counted.
    copied: u64,
}

impl Inner {
    pub fn new(rank: u32, ranks: u32, generation: u32, endpoint: Box<dyn Endpoint>) -> Self {
        Self {
            rank,
            generation,
            endpoint: Some(endpoint),
            links: (0..ranks).map(|_| None).collect(),
            prepared: BTreeMap::new(),
            connected: Vec::new(),
            staging: Staging::default(),
            running: (0..DEPTH).map(|_| None).collect(),
            order: Vec::with_capacity(DEPTH as usize),
            waiting: VecDeque::with_capacity(DEPTH as usize),
            history: vec![(0, None); DEPTH as usize].into(),
            ended: vec![false; DEPTH as usize].into(),
            early: Vec::with_capacity(64),
            letters: Letters::default(),
            idle: Vec::new(),
            completions: Vec::with_capacity(BATCH),
            woken: Vec::new(),
            finished: 0,
            finished_letters: 0,
            odd: None,
            told: None,
            flooded: false,
            suspects: BTreeMap::new(),
            looked: Instant::now(),
            copied: 0,
        }
    }

    pub fn endpoint(&mut self) -> &mut dyn Endpoint {
        &mut **self.endpoint.as_mut().expect(LEFT)
    }

    /// The operation with this number, if it has begun and not ended.
    #[inline]
    pub fn running(&self, sequence: u64) -> Option<&Active> {
        let active = self.running[(sequence % DEPTH) as usize].as_ref()?;
        (active.queued.call.sequence == sequence).then_some(active)
    }

    #[inline]
    pub fn running_mut(&mut self, sequence: u64) -> Option<&mut Active> {
        let active = self.running[(sequence % DEPTH) as usize].as_mut()?;
        (active.queued.call.sequence == sequence).then_some(active)
    }

    /// What this rank called as operation `sequence`, if it has begun it.
    pub fn own_call(&self, sequence: u64) -> Option<Called> {
        let (number, called) = self.history[(sequence % DEPTH) as usize];
        called.filter(|_| number == sequence)
    }

    /// A link and the endpoint, together.
    pub fn link(&mut self, peer: u32) -> Option<(&mut Link, &mut dyn Endpoint)> {
        let link = self.links[peer as usize].as_deref_mut()?;
        Some((link, &mut **self.endpoint.as_mut().expect(LEFT)))
    }

    /// Whether nothing is on its way to anybody that was not taken in.
    pub fn is_quiet(&self) -> bool {
        self.links.iter().flatten().all(|link| link.is_quiet())
    }

    /// Payload that the fabric moved more often than asked: all but the notes, which it may carry as it likes.
    fn fabric_copies(&self) -> u64 {
        let copied = self
            .endpoint
            .as_ref()
            .map_or(0, |endpoint| endpoint.bytes_copied());
        copied.saturating_sub(self.links.iter().flatten().map(|link| link.note_bytes).sum())
    }

    /// One round: takes in what came, begins what can begin, runs what is ready. Says whether anything moved.
    pub fn round(&mut self, floor: &AtomicU64, observers: &Observers) -> Result<bool, Failure> {
        let mut progressed = self.take_in(floor, observers)?;
        progressed |= self.begin(floor, observers)?;
        progressed |= !self.letters.is_empty() && self.move_letters(observers);
        let mut index = 0;
        while index < self.order.len() {
            let sequence = self.order[index];
            match self.run(sequence, observers) {
                Round::Blocked => index += 1,
                Round::Progressed => {
                    progressed = true;
                    index += 1;
                }
                Round::Done => {
                    progressed = true;
                    self.order.remove(index);
                    self.end(sequence, floor);
                }
            }
        }
        for &peer in &self.connected {
            let link = self.links[peer as usize].as_deref_mut().expect("it is connected");
            progressed |= link.give_back(&mut **self.endpoint.as_mut().expect(LEFT), self.generation);
        }
        if progressed {
            self.trust_the_living();
            let copied = self.fabric_copies();
            let more = copied.saturating_sub(std::mem::replace(&mut self.copied, copied));
            if more != 0 {
                observers.counters.copied(CopySite::Fabric, more);
            }
        }
        Ok(progressed)
    }

    fn run(&mut self, sequence: u64, observers: &Observers) -> Round {
        let Some(active) = self.running[(sequence % DEPTH) as usize].as_mut() else {
            return Round::Done;
        };
        if !active.execution.dirty {
            return Round::Blocked;
        }
        let mut outside = Outside {
            generation: self.generation,
            endpoint: &mut **self.endpoint.as_mut().expect(LEFT),
            links: &mut self.links,
            staging: &self.staging,
            observers,
        };
        let round = active.execution.round(&active.queued.call, &mut outside, BUDGET);
        if round != Round::Blocked {
            active.stuck = None;
        }
        round
    }

    /// An operation has ended well.
    fn end(&mut self, sequence: u64, floor: &AtomicU64) {
        let active = self.running[(sequence % DEPTH) as usize].take();
        let Active {
            queued, execution, ..
        } = active.expect("it has just run");
        if let Some(first) = execution.staging {
            self.staging.give_back(first);
        }
        let Queued { call, ticket, .. } = queued;
        // The call's memory is let go of before anybody hears of the end.
        drop(call);
        self.idle.push(execution);
        self.ended[(sequence % DEPTH) as usize] = true;
        let mut lowest = floor.load(Ordering::Relaxed);
        while std::mem::take(&mut self.ended[(lowest % DEPTH) as usize]) {
            lowest += 1;
        }
        floor.store(lowest, Ordering::Release);
        self.woken.extend(ticket.end(None));
        self.finished += 1;
    }

    /// Begins what was started, as far as there are staging slots.
    fn begin(&mut self, floor: &AtomicU64, observers: &Observers) -> Result<bool, Failure> {
        let mut begun = false;
        let mut index = 0;
        while index < self.waiting.len() {
            let call = &self.waiting[index].call;
            let mut staging = None;
            if call.prepared.staging_slots() != 0 {
                let lowest = floor.load(Ordering::Relaxed);
                staging = self.staging.take(call.sequence == lowest);
                if staging.is_none() {
                    index += 1;
                    continue;
                }
            }
            let queued = self.waiting.remove(index).expect("it is there");
            let (sequence, own) = (queued.call.sequence, called(&queued.call));
            let mut execution = self.idle.pop().unwrap_or_default();
            execution.begin(&queued.call, staging, observers);
            self.history[(sequence % DEPTH) as usize] = (sequence, Some(own));
            let place = &mut self.running[(sequence % DEPTH) as usize];
            debug_assert!(place.is_none());
            *place = Some(Active {
                queued,
                execution,
                stuck: None,
                blamed: None,
            });
            self.order.push(sequence);
            begun = true;
            // The others hear of it, whatever else is known of it here.
            if self.run(sequence, observers) == Round::Done {
                self.order.pop();
                self.end(sequence, floor);
                continue;
            }
            self.absorb(sequence, observers)?;
            if let Some(told) = self.told.take() {
                return Err(self.judge(sequence, told));
            }
        }
        Ok(begun)
    }

    /// Takes up what was started.
    pub fn take_up(&mut self, boxed: Boxed) {
        match boxed {
            Boxed::Call(queued) => self.waiting.push_back(queued),
            Boxed::Letter(letter, ticket, began) => self.letters.take_up(letter, ticket, began),
        }
    }

    /// Ends everything that was taken up with `error`.
    pub fn end_all(&mut self, error: &EngineError) {
        let running = self
            .running
            .iter_mut()
            .filter_map(Option::take)
            .map(|active| active.queued);
        for Queued { call, ticket, .. } in running.chain(self.waiting.drain(..)) {
            drop(call);
            self.woken.extend(ticket.end(Some(error.clone())));
            self.finished += 1;
        }
        self.order.clear();
        self.early.clear();
        let letters = self.letters.end_all(error, &mut self.woken);
        self.finished += letters;
        self.finished_letters += letters;
    }
}

pub(super) const LEFT: &str = "rounds are run only until this rank has left";
