//! After each move: is what was applied right, and what of it all can make no difference any more?

use super::state::{Life, RING, STEPS, State, Sum, step_of};
use super::world::World;

impl World {
    /// Looks at what was applied, before it is forgotten.
    pub fn judge(&self, before: &State, state: &mut State) {
        for index in 0..state.seats.len() {
            let seat = &state.seats[index];
            let (earlier, applied) = (before.seats[index].worker.applied(), seat.worker.applied());
            if seat.life == Life::Dead || applied <= earlier {
                continue;
            }
            for step in 1..=applied.min(STEPS as u64) {
                let sum = seat.history[step as usize - 1];
                if sum == Sum::default() {
                    // Forgotten: all had it.
                    continue;
                }
                let fresh = sum.of.iter().all(|of| *of == 0 || step_of(*of) == step);
                state.stale |= !fresh || sum.twice || sum.contributors() != usize::from(self.shape.members());
                let others = state.seats.iter().filter(|seat| seat.life != Life::Dead);
                state.disagree |= others
                    .filter(|other| other.worker.applied() >= step)
                    .any(|other| other.history[step as usize - 1] != sum);
            }
        }
    }

    /// Forgets what can make no difference any more: words, results and sums of steps that every worker which lives has
    /// applied. (Words of different earlier steps are alike to whoever comes to the place in the ring later.)
    pub fn forget(&self, state: &mut State) {
        let alive = || state.seats.iter().filter(|seat| seat.life != Life::Dead);
        let floor = alive().map(|seat| seat.worker.applied()).min().unwrap_or(0);
        let furthest = alive().map(|seat| seat.worker.step()).max().unwrap_or(0);
        for step in (1..=floor).filter(|step| furthest < step + RING as u64) {
            for home in &mut state.homes {
                if home.has(&self.layout, step) {
                    home.forget(&self.layout, &self.shape, step);
                }
            }
        }
        // What is shared with other states is left alone unless there is something to forget.
        for seat in &mut state.seats {
            let past = 0..floor as usize;
            let sums = past
                .clone()
                .any(|of| seat.history[of] != Sum::default() || seat.copied[of] != Sum::default());
            if sums {
                seat.history[past.clone()].fill(Sum::default());
                seat.copied[past].fill(Sum::default());
            }
            if seat.memory.remembers(floor) {
                seat.memory.forget(floor);
            }
        }
    }
}
