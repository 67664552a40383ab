//! How the world moves: every action is one thing that one worker does, one write that lands, or one fault. The workers
//! are the library's own; the world does what they want and answers.

use sapwood::backup::protocol::{Access, Did, Layout, Reach, Shape, Slot, Tickets, Want, Way, Word, Worker};

use super::shared::Shared;
use super::state::{Home, Life, Memory, Page, RING, STEPS, Seat, State, Suspicions};
use super::straight;

/// Errors that the model must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeded {
    Nothing,
    /// Staging is handed out again although an earlier child could still write into it.
    NoFenceBeforeReuse,
    /// A parent fences its children while it still shows that they may write.
    ReadyWhileFencing,
    /// A result is applied as soon as it is held.
    ApplyBeforeCommit,
    /// After a broken queue pair another ticket is taken, without a look at what became of the first.
    RepeatedFetchAdd,
    /// A worker that has come back writes its gradient where an earlier life of it has shown one.
    WritesOverEarlierLife,
    /// A root goes on counting on a result while it adds up the next attempt in its place.
    MarksWhatIsWrittenOver,
    /// Who waits for a result goes on doing so though all who had it have died and come back without it.
    WaitsForWhatNobodyHas,
}

#[derive(Clone, Debug)]
pub struct World {
    pub shape: Shape,
    pub reach: Reach,
    pub way: Way,
    pub layout: Layout,
    pub faults: u8,
    pub kinds: Kinds,
    pub seeded: Seeded,
    /// A worker that has decided to do something does it at once.
    pub eager: bool,
    /// How many steps workers that run may be apart. Those that are stopped may be further behind.
    pub lag: u64,
    /// Of states that differ in nothing but the workers' numbers only one is looked at.
    pub alike: bool,
}

/// Which faults may happen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kinds {
    /// A worker stops, and may go on at any later time, or never.
    pub stop: bool,
    pub crash: bool,
    /// A dead worker is started again.
    pub restart: bool,
    /// A queue pair breaks under an operation on a word.
    pub broken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Do(u8),
    /// Copies state that is not the newest.
    CatchUpWithOldest(u8),
    /// Reopens the tickets for those who will arrive.
    Reopen(u8),
    Look(u8),
    Survey(u8),
    Land(u8),
    LandLate,
    Stop(u8),
    Resume(u8),
    Crash(u8),
    Restart(u8),
    Break(u8),
}

impl World {
    pub fn new(workers: u32, backups: u32, reach: Reach, way: Way, faults: u8, kinds: Kinds) -> Self {
        let shape = Shape::new(workers, backups, RING as u16, reach, way).unwrap();
        Self {
            shape,
            reach,
            way,
            layout: Layout::new(shape),
            faults,
            kinds,
            seeded: Seeded::Nothing,
            eager: false,
            lag: STEPS as u64,
            alike: false,
        }
    }

    pub fn beginning(&self) -> State {
        let homes = match self.reach {
            Reach::LoadStore => 1,
            Reach::Messages | Reach::Reads => self.shape.workers() as usize,
        };
        let mut state = State {
            homes: vec![Shared::new(Home::default()); homes],
            seats: (0..self.shape.workers())
                .map(|worker| Shared::new(Seat::new(self.shape, worker)))
                .collect(),
            flights: Default::default(),
            late: None,
            faults: self.faults,
            stale: false,
            disagree: false,
        };
        state.settle();
        state
    }

    pub fn stays(&self) -> bool {
        self.reach == Reach::LoadStore
    }

    /// Whether parts are read from where they lie.
    pub fn pulls(&self) -> bool {
        self.reach != Reach::Messages
    }

    pub fn home(&self, worker: &Worker) -> usize {
        match self.reach {
            Reach::LoadStore => 0,
            Reach::Messages | Reach::Reads => self.shape.home(worker.view()) as usize,
        }
    }

    pub fn page<'a>(&'a self, state: &'a State, worker: &Worker) -> Page<'a> {
        Page {
            home: &state.homes[self.home(worker)],
            layout: &self.layout,
            step: worker.step(),
            hasty: (self.seeded == Seeded::ApplyBeforeCommit).then(|| worker.held()),
        }
    }

    /// What happens without anybody's fault.
    pub fn moves(&self, state: &State, actions: &mut Vec<Action>) {
        let running = || state.seats.iter().filter(|seat| seat.life == Life::Running);
        let last = running().map(|seat| seat.worker.applied()).min().unwrap_or(0);
        for (index, seat) in (0..).zip(&state.seats) {
            if seat.life != Life::Running {
                continue;
            }
            let computes = seat.worker.want() == Want::Compute;
            // Who is done, or far ahead, begins no step, but is there for those who lose the words.
            if !computes || !(seat.is_done() || seat.worker.applied() > last + self.lag) {
                actions.push(Action::Do(index));
            }
            if matches!(seat.worker.want(), Want::CatchUp { .. }) && self.stays() {
                actions.push(Action::CatchUpWithOldest(index));
            }
            if !seat.is_done() && self.reopening(state, &seat.worker).is_some() {
                actions.push(Action::Reopen(index));
            }
            if seat.worker.hears() {
                actions.push(Action::Survey(index));
            }
            let lost = state.homes[self.home(&seat.worker)].lost;
            if seat.worker.attentive() && (lost || !(computes && seat.is_done())) {
                actions.push(Action::Look(index));
            }
        }
        actions.extend((0..state.flights.len() as u8).map(Action::Land));
    }

    /// What a worker may do ahead of its arrival.
    fn reopening(&self, state: &State, worker: &Worker) -> Option<Access> {
        let home = &state.homes[self.home(worker)];
        worker.reopen(Tickets(home.get(&self.layout, Word::Tickets(worker.step()))))
    }

    pub fn misfortunes(&self, state: &State, actions: &mut Vec<Action>) {
        if state.late.is_some() {
            actions.push(Action::LandLate);
        }
        for (index, seat) in (0..).zip(&state.seats) {
            match seat.life {
                Life::Stopped => actions.push(Action::Resume(index)),
                Life::Dead if self.kinds.restart && seat.lives < 2 => actions.push(Action::Restart(index)),
                _ => {}
            }
            if state.faults == 0 || seat.life == Life::Dead {
                continue;
            }
            if self.kinds.crash && self.can_spare(state, index) {
                actions.push(Action::Crash(index));
            }
            if self.kinds.stop && seat.life == Life::Running && !seat.is_done() {
                actions.push(Action::Stop(index));
            }
            let running = seat.life == Life::Running && !seat.is_done();
            if self.kinds.broken && running && state.late.is_none() {
                actions.push(Action::Break(index));
            }
        }
    }

    /// Where memory goes with its owner, and the dead come back, no more than b are dead or on their way back at a time: those
    /// who are have none of what others have to keep. Who has arrived in a step is back.
    fn can_spare(&self, state: &State, index: u8) -> bool {
        let others = (0..).zip(&state.seats).filter(|(other, _)| *other != index);
        let away = |seat: &Seat| {
            let returns = seat.worker.is_fresh() && !(seat.is_done() && seat.worker.has_state());
            seat.life == Life::Dead || returns
        };
        let spent = others.filter(|(_, seat)| away(seat)).count();
        self.stays()
            || !self.kinds.restart
            || spent < usize::from(self.shape.workers() - self.shape.members())
    }

    /// What comes of an action; `None` if it changes nothing now.
    pub fn after(&self, before: &State, action: Action) -> Option<State> {
        let mut state = self.acted(before, action)?;
        self.judge(before, &mut state);
        self.forget(&mut state);
        if self.alike {
            return Some(self.representative(state));
        }
        state.settle();
        Some(state)
    }

    pub fn acted(&self, before: &State, action: Action) -> Option<State> {
        match action {
            Action::Do(index) => {
                let index = index as usize;
                Some(self.followed(self.done(before, index, false)?, index))
            }
            Action::CatchUpWithOldest(index) => {
                let index = index as usize;
                Some(self.followed(self.done(before, index, true)?, index))
            }
            Action::Reopen(index) => {
                let worker = &before.seats[index as usize].worker;
                let access = self.reopening(before, worker)?;
                let mut state = before.clone();
                let home = self.home(worker);
                state.homes[home].access(&self.layout, access);
                Some(state)
            }
            Action::Look(index) => {
                let index = index as usize;
                Some(self.followed(self.looked(before, index)?, index))
            }
            Action::Survey(index) => self.surveyed(before, index as usize),
            Action::Land(index) => {
                let mut state = before.clone();
                let flight = before.flights.iter().nth(index as usize)?.clone();
                state.flights.remove(&flight);
                let place = &mut state.seats[flight.to as usize].memory.staging[flight.child as usize];
                *place = (place.0.max(flight.tag), flight.sum);
                Some(state)
            }
            Action::LandLate => {
                let mut state = before.clone();
                let (home, access) = state.late.take()?;
                let home = &mut state.homes[home as usize];
                if !home.lost {
                    home.access(&self.layout, access);
                }
                Some(state)
            }
            Action::Stop(index) => Some(self.fault(before, index, |seat| seat.life = Life::Stopped)),
            Action::Resume(index) => {
                let mut state = before.clone();
                state.seats[index as usize].life = Life::Running;
                Some(state)
            }
            Action::Crash(index) => Some(self.crashed(before, index)),
            Action::Restart(index) => Some(self.restarted(before, index)),
            Action::Break(index) => self.broke(before, index as usize),
        }
    }

    fn fault(&self, before: &State, index: u8, what: impl FnOnce(&mut Seat)) -> State {
        let mut state = before.clone();
        state.faults -= 1;
        let seat = &mut state.seats[index as usize];
        seat.doubted = true;
        what(seat);
        state
    }

    fn crashed(&self, before: &State, index: u8) -> State {
        let shape = self.shape;
        let mut state = self.fault(before, index, |seat| {
            let memory = std::mem::take(&mut seat.memory);
            *seat = Seat {
                life: Life::Dead,
                doubted: true,
                lives: seat.lives,
                memory: Memory::default(),
                ..Seat::new(shape, index.into())
            };
            if self.stays() {
                seat.memory = memory;
            }
        });
        if !self.stays() {
            state.homes[index as usize].lose();
            // What it has posted may land; what others have posted to it does not.
            state.flights.retain(|flight| flight.to != index);
        }
        state
    }

    fn restarted(&self, before: &State, index: u8) -> State {
        let mut state = before.clone();
        let seat = &mut state.seats[index as usize];
        let mut memory = Memory::default();
        if self.stays() {
            memory = std::mem::take(&mut seat.memory);
            // Its part is shown no more before anything is written there.
            memory.shown = Default::default();
        }
        **seat = Seat {
            worker: Worker::restarted(self.shape, index.into(), 1),
            doubted: true,
            lives: 2,
            memory,
            ..Seat::new(self.shape, index.into())
        };
        state
    }

    /// The queue pair to the home breaks under an operation on a word, which may still be carried out.
    fn broke(&self, before: &State, index: usize) -> Option<State> {
        let Want::Word(access) = before.seats[index].worker.want() else {
            return None;
        };
        let home = self.home(&before.seats[index].worker);
        if matches!(access, Access::Load(_)) || before.homes[home].lost {
            return None;
        }
        let mut state = before.clone();
        state.faults -= 1;
        state.late = Some((home as u8, access));
        let worker = &mut state.seats[index].worker;
        match access {
            Access::Swap {
                word: Word::Slot(step, _),
                desired,
                ..
            } if self.seeded == Seeded::RepeatedFetchAdd && desired != Slot::void(step).0 => {
                // As if the ticket were void.
                worker.did(Did::Found(Slot::void(step).0));
            }
            _ => worker.did(Did::Unknown),
        }
        Some(state)
    }

    fn looked(&self, before: &State, index: usize) -> Option<State> {
        let old = &before.seats[index].worker;
        let mut worker = old.clone();
        if before.homes[self.home(old)].lost {
            worker.did(Did::Lost);
        } else {
            let doubts = Suspicions {
                state: before,
                step: old.step(),
            };
            let page = self.page(before, old);
            worker.look(&page, &doubts);
            straight::looked(&self.shape, old, &page, &worker);
        }
        if worker == *old {
            return None;
        }
        let mut state = before.clone();
        state.seats[index].worker = worker;
        self.computes(&mut state.seats[index], old);
        Some(state)
    }
}
