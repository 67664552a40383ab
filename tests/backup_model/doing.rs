//! What a worker wants, done in the model's world.

use sapwood::backup::protocol::{Access, Did, Reach, Slot, Tag, Want, Way, Word, Worker, scan};

use super::state::{Flight, Life, RING, STEPS, Seat, State, Sum, gradient, step_of};
use super::straight;
use super::world::{Seeded, World};

impl World {
    /// Where in its windows a worker has the gradient of a step.
    fn window(&self, step: u64) -> usize {
        match self.way {
            Way::Flat => step as usize % RING,
            Way::Tree { .. } => 1,
        }
    }

    fn gradient(&self, state: &State, worker: usize, step: u64) -> Sum {
        Sum::gradient(worker, state.seats[worker].memory.gradients[self.window(step)])
    }

    /// What a worker does on its own at once, so that the model need not stop between: what no other worker can see or
    /// disturb (a copy of what is final, handing it out), and with `eager` what it does after it has decided to.
    fn follows(&self, want: Want) -> bool {
        let act = match want {
            Want::Word(Access::Swap { word, desired, .. }) => match word {
                Word::Slot(step, _) => desired == Slot::void(step).0,
                Word::Seal(_) | Word::Exclusion(..) | Word::Tickets(_) => true,
                Word::Opening => false,
            },
            _ => false,
        };
        match want {
            Want::Apply { .. } | Want::Sum { .. } => true,
            Want::Pull { .. } => self.stays(),
            Want::Publish { .. } | Want::Hold { .. } | Want::Ready { .. } => self.eager,
            _ => act && (self.eager || self.way == Way::Flat),
        }
    }

    pub fn followed(&self, mut state: State, index: usize) -> State {
        loop {
            let seat = &state.seats[index];
            if !self.follows(seat.worker.want()) {
                return state;
            }
            match self.done(&state, index, false) {
                Some(next) => state = next,
                None => return state,
            }
        }
    }

    /// `oldest`: the newest state cannot be copied just now, since its owner changes it.
    pub fn done(&self, before: &State, index: usize, oldest: bool) -> Option<State> {
        let want = before.seats[index].worker.want();
        if matches!(want, Want::Look | Want::Crowded) || !self.possible(before, index, want) {
            return None;
        }
        let mut state = before.clone();
        let mut want = want;
        if want == Want::Compute {
            let seat = &mut state.seats[index];
            let step = seat.worker.step();
            seat.memory.gradients[self.window(step)] = gradient(step, seat.lives);
            seat.worker.arrive();
            want = state.seats[index].worker.want();
        }
        let did = self.carry_out(&mut state, index, want, oldest)?;
        let seat = &mut state.seats[index];
        let applied = seat.worker.applied();
        if matches!(want, Want::CatchUp { .. }) {
            seat.caught_up = true;
        }
        let asked = seat.worker.clone();
        seat.worker.did(did);
        straight::answered(&asked, want, did, &seat.worker);
        if seat.worker.applied() > applied && !matches!(want, Want::Apply { .. }) {
            seat.history = seat.copied;
        }
        if !matches!(want, Want::CatchUp { .. }) || seat.worker.has_state() {
            seat.copied = Default::default();
        }
        self.computes(seat, &before.seats[index].worker);
        (state != *before).then_some(state)
    }

    /// The backward pass of a step begins to write, where it is the step that has begun. (Where a gradient of an earlier life
    /// may stand it writes elsewhere, where nobody looks.)
    pub fn computes(&self, seat: &mut Seat, before: &Worker) {
        let step = seat.worker.step();
        let begins = |worker: &Worker| worker.want() == Want::Compute;
        let seeded = self.seeded == Seeded::WritesOverEarlierLife && seat.lives > 1 && step > before.step();
        let begun = begins(&seat.worker) && !(begins(before) && before.step() == step);
        if (begun || seeded) && step <= STEPS as u64 {
            seat.memory.gradients[self.window(step)] = gradient(step, seat.lives);
        }
    }

    /// Whether something that waits for others can be done now.
    fn possible(&self, state: &State, index: usize, want: Want) -> bool {
        let seats = &state.seats;
        match want {
            Want::Take { tag, from, child } => match self.reach {
                Reach::LoadStore => seats[from as usize].memory.shown.0 == tag,
                Reach::Reads => {
                    let child = &seats[from as usize];
                    child.life != Life::Dead && child.memory.shown.0 == tag
                }
                Reach::Messages => seats[index].memory.staging[child as usize].0 == tag,
            },
            Want::Publish { tag, to, .. } if !self.pulls() => {
                let parent = &seats[to as usize];
                parent.life != Life::Dead && parent.memory.ready == tag
            }
            Want::Gather { tag } => {
                let worker = &seats[index].worker;
                let page = self.page(state, worker);
                let attempt = scan(&page, &self.shape, tag.step(), tag.attempt(), |_, _, _| {});
                attempt.is_some_and(|scanned| {
                    let mut members = scanned.members.iter();
                    members.all(|member| {
                        let seat = &seats[member as usize];
                        seat.life != Life::Dead && seat.worker.held() == tag && seat.result(tag).is_some()
                    })
                })
            }
            _ => true,
        }
    }

    fn carry_out(&self, state: &mut State, index: usize, want: Want, oldest: bool) -> Option<Did> {
        let me = index as u16;
        match want {
            Want::Word(access) => {
                let home = self.home(&state.seats[index].worker);
                let home = &mut state.homes[home];
                Some(match home.lost {
                    true => Did::Lost,
                    false => Did::Found(home.access(&self.layout, access)),
                })
            }
            Want::Fence { peer } => {
                if self.seeded != Seeded::NoFenceBeforeReuse {
                    let between =
                        |flight: &Flight| (u16::from(flight.from), u16::from(flight.to)) == (peer, me);
                    state.flights.retain(|flight| !between(flight));
                    state.seats[index].broken |= 1 << peer;
                }
                Some(Did::Done)
            }
            Want::Ready { tag } => {
                if tag == Tag::default() && self.seeded == Seeded::ReadyWhileFencing {
                    return Some(Did::Done);
                }
                state.seats[index].memory.ready = tag;
                Some(Did::Done)
            }
            Want::Take { tag, from, child } => {
                let theirs = match self.reach {
                    Reach::Messages => state.seats[index].memory.staging[child as usize].1,
                    Reach::LoadStore | Reach::Reads if state.seats[from as usize].memory.shown.1 => {
                        self.gradient(state, from as usize, tag.step())
                    }
                    Reach::LoadStore | Reach::Reads => state.seats[from as usize].memory.sum.1,
                };
                let mine = match child {
                    0 => self.gradient(state, index, tag.step()),
                    _ => state.seats[index].memory.sum.1,
                };
                let sum = mine.plus(theirs);
                state.seats[index].memory.sum = (tag, sum);
                if child == 0 && !self.stays() && state.seats[index].worker.is_root() {
                    self.writes_over(&mut state.seats[index], tag, sum);
                }
                Some(Did::Done)
            }
            Want::Publish { tag, to, child, leaf } => {
                if self.pulls() {
                    state.seats[index].memory.shown = (tag, leaf);
                    return Some(Did::Done);
                }
                let parent = &mut state.seats[to as usize];
                if parent.broken >> me & 1 != 0 {
                    parent.broken &= !(1 << me);
                    return Some(Did::Gone);
                }
                let sum = self.own(state, index, tag, leaf);
                state.flights.insert(Flight {
                    from: index as u8,
                    to: to as u8,
                    child: child as u8,
                    tag,
                    sum,
                });
                Some(Did::Done)
            }
            Want::Hold { tag, leaf } => {
                let sum = self.own(state, index, tag, leaf);
                state.seats[index].memory.results[tag.step() as usize % RING] = (tag, sum);
                Some(Did::Done)
            }
            Want::Pull { tag } => {
                let Some(sum) = self.found(state, tag) else {
                    // Before the commit it is only not there yet.
                    let committed = state.seats[index].worker.held() < tag && self.is_over(state, tag);
                    let unkept = self.is_unkept(state, index, tag).then_some(Did::Unkept);
                    return committed.then_some(Did::Gone).or(unkept);
                };
                state.seats[index].memory.results[tag.step() as usize % RING] = (tag, sum);
                Some(Did::Done)
            }
            Want::Adopt { tag, .. } => {
                let Some(sum) = self.found(state, tag) else {
                    return Some(match self.is_unkept(state, index, tag) {
                        true => Did::Unkept,
                        false => Did::Gone,
                    });
                };
                state.seats[index].memory.results[tag.step() as usize % RING] = (tag, sum);
                Some(Did::Done)
            }
            Want::Sum { tag } => Some(self.summed(state, index, tag)),
            Want::Apply { tag } => {
                let (held, sum) = state.seats[index].memory.results[tag.step() as usize % RING];
                assert_eq!(held, tag, "what is applied is held");
                state.seats[index].history[tag.step() as usize - 1] = sum;
                Some(Did::Done)
            }
            Want::CatchUp { step } => {
                let candidates = state.seats.iter().enumerate().filter(|(other, seat)| {
                    *other != index
                        && seat.life != Life::Dead
                        && seat.worker.has_state()
                        && seat.worker.applied() >= step
                        && !(seat.worker.want() == Want::CatchUp { step: 0 })
                });
                let (_, source) = match oldest {
                    true => candidates.min_by_key(|(_, seat)| seat.worker.applied())?,
                    false => candidates.max_by_key(|(_, seat)| seat.worker.applied())?,
                };
                let (copied, past) = (source.history, source.worker.past());
                state.seats[index].copied = copied;
                Some(Did::Caught(past))
            }
            Want::Survey => {
                let alive = (0..)
                    .zip(&state.seats)
                    .filter(|(_, seat)| seat.life != Life::Dead);
                let marks = alive.map(|(worker, seat)| (seat.worker.held(), worker));
                let (tag, from) = marks.max()?;
                Some(Did::Marks(tag, from))
            }
            Want::Compute | Want::Look | Want::Gather { .. } | Want::Crowded => Some(Did::Done),
        }
    }

    /// The root adds up where its result goes, and an earlier attempt's may lie.
    fn writes_over(&self, seat: &mut Seat, tag: Tag, sum: Sum) {
        let held = seat.worker.held();
        let seeded =
            self.seeded == Seeded::MarksWhatIsWrittenOver && held.step() == tag.step() && held != tag;
        seat.memory.results[tag.step() as usize % RING] = match seeded {
            true => (held, sum),
            false => {
                seat.worker.writes_over(tag);
                Default::default()
            }
        };
    }

    /// The sum of the own gradient and what was taken.
    fn own(&self, state: &State, index: usize, tag: Tag, leaf: bool) -> Sum {
        match leaf {
            true => self.gradient(state, index, tag.step()),
            false => state.seats[index].memory.sum.1,
        }
    }

    fn found(&self, state: &State, tag: Tag) -> Option<Sum> {
        let mut seats = state.seats.iter();
        seats.find_map(|seat| seat.result(tag))
    }

    /// Whether somebody has the state that a result has led to, which nobody has. (Members look for it before it is decided.)
    fn is_unkept(&self, state: &State, index: usize, tag: Tag) -> bool {
        let mut others = (0..).zip(&state.seats).filter(|(other, _)| *other != index);
        let has = |seat: &Seat| {
            let shows = seat.life != Life::Dead && seat.worker.has_state();
            shows && seat.worker.applied() >= tag.step() && seat.worker.want() != Want::CatchUp { step: 0 }
        };
        let follows = state.seats[index].worker.root_of(tag).is_some();
        let seeded = self.seeded == Seeded::WaitsForWhatNobodyHas;
        !seeded && !self.stays() && !follows && others.any(|(_, seat)| has(seat))
    }

    /// Who waits for others that are further finds out that they have died: what it would find, should that be something else.
    pub fn surveyed(&self, before: &State, index: usize) -> Option<State> {
        let mut state = before.clone();
        state.seats[index].worker.look_again();
        while !state.seats[index].worker.hears() {
            let want = state.seats[index].worker.want();
            if !matches!(want, Want::Survey | Want::Adopt { .. }) {
                return Some(state);
            }
            let did = self.carry_out(&mut state, index, want, false)?;
            state.seats[index].worker.did(did);
        }
        None
    }

    /// Whether somebody's ring has come round to a later result.
    fn is_over(&self, state: &State, tag: Tag) -> bool {
        let place = tag.step() as usize % RING;
        let mut seats = state.seats.iter();
        seats.any(|seat| seat.memory.results[place].0.step() > tag.step())
    }

    /// Every worker for itself: the gradients of those whose tickets are the first.
    fn summed(&self, state: &mut State, index: usize, tag: Tag) -> Did {
        let mut sum = Sum::default();
        let mut whole = true;
        let page = self.page(state, &state.seats[index].worker);
        let place = self.window(tag.step());
        let each = |_, slot: Slot, member: bool| {
            let worker = slot.worker().unwrap_or_default() as usize;
            if member {
                let gradient = state.seats[worker].memory.gradients[place];
                whole &= step_of(gradient) == tag.step();
                sum = sum.plus(Sum::gradient(worker, gradient));
            }
        };
        match scan(&page, &self.shape, tag.step(), tag.attempt(), each) {
            Some(scanned) if scanned.complete && whole => {
                state.seats[index].memory.results[tag.step() as usize % RING] = (tag, sum);
                Did::Done
            }
            _ => Did::Gone,
        }
    }
}
