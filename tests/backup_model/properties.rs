//! The world as `stateright` sees it, and what must hold in it.

use sapwood::backup::protocol::Way;
use stateright::{Model, Property};

use super::state::{Life, RING, State};
use super::world::{Action, World};

pub const STALE: &str = "a stale gradient is never summed";
pub const AGREE: &str = "all replicas agree";
pub const COMPLETES: &str = "a step with N live workers completes";

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.beginning()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.moves(state, actions);
        self.misfortunes(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.after(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(STALE, |_, state: &State| !state.stale),
            Property::always(AGREE, |_, state: &State| !state.disagree),
            // As long as no further fault happens and nobody who is stopped goes on: whoever runs and is not done can
            // move, and every move is one that happens a limited number of times.
            Property::always(COMPLETES, |world: &World, state: &State| {
                let running = || state.seats.iter().filter(|seat| seat.life == Life::Running);
                let few = running().count() < usize::from(world.shape.members());
                if few || running().all(|seat| seat.is_done()) {
                    return true;
                }
                let mut moves = Vec::new();
                world.moves(state, &mut moves);
                moves
                    .into_iter()
                    .any(|action| world.acted(state, action).is_some())
            }),
            Property::sometimes("all workers are done", |_, state: &State| {
                state.seats.iter().all(|seat| seat.is_done())
            }),
        ];
        // That the world is rich enough for what it is to show.
        let faulty = self.faults > 0 && (self.kinds.stop || self.kinds.crash);
        if faulty && matches!(self.way, Way::Tree { .. }) && self.shape.members() < self.shape.workers() {
            properties.push(Property::sometimes(
                "a second attempt is applied",
                |_, state: &State| state.seats.iter().any(|seat| seat.worker.past().attempt() > 0),
            ));
        }
        if faulty && self.kinds.crash && !self.stays() {
            properties.push(Property::sometimes("another home decides", |_, state: &State| {
                state.seats.iter().any(|seat| seat.worker.past().view() > 0)
            }));
        }
        if self.lag >= RING as u64 || (self.kinds.restart && faulty) {
            properties.push(Property::sometimes("somebody catches up", |_, state: &State| {
                state.seats.iter().any(|seat| seat.caught_up && seat.is_done())
            }));
        }
        properties
    }
}
