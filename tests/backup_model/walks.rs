//! Walks at random from the beginning to where nothing can happen any more: for worlds that are too large to be seen
//! through. They may find an error, and prove nothing if they find none.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use stateright::{Expectation, Model};

use super::shared::hash;
use super::state::State;
use super::world::{Action, World};

/// A fault is chosen once in so many times, as long as there may be one: most walks would have all of theirs in the first
/// step otherwise.
const RARE: usize = 24;

struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.drawn += 1;
        (hash(&(self.seed, self.drawn)) % bound as u64) as usize
    }
}

/// Walks for so many seconds, and prints how far.
pub fn walk(name: &str, world: &World, seconds: u64, seed: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut random = Random { seed, drawn: 0 };
    let mut seen = HashMap::new();
    let (mut walks, mut moves, mut longest) = (0, 0, 0);
    while Instant::now() < end {
        let length = one(world, &mut random, &mut seen);
        (walks, moves, longest) = (walks + 1, moves + length, longest.max(length));
    }
    println!(
        "{name}, at random from seed {seed}: {walks} walks, {moves} moves, the longest {longest}, {seen:?}"
    );
    for property in world.properties() {
        let sometimes = property.expectation == Expectation::Sometimes;
        assert!(
            !sometimes || seen.contains_key(property.name),
            "never: {}",
            property.name
        );
    }
}

/// One walk, and its length. `seen`: in how many of them happened what is to happen sometimes.
fn one(world: &World, random: &mut Random, seen: &mut HashMap<&'static str, u64>) -> u64 {
    let properties = world.properties();
    let mut happened = vec![false; properties.len()];
    let (mut state, mut path) = (world.beginning(), Vec::new());
    loop {
        for (property, happened) in properties.iter().zip(&mut happened) {
            let holds = (property.condition)(world, &state);
            *happened |= holds;
            let always = property.expectation == Expectation::Always;
            assert!(!always || holds, "not: {}: {path:?}", property.name);
        }
        let Some((action, next)) = chosen(world, &state, random) else {
            break;
        };
        path.push(action);
        state = next;
    }
    for (property, _) in properties.iter().zip(happened).filter(|(_, happened)| *happened) {
        if property.expectation == Expectation::Sometimes {
            *seen.entry(property.name).or_default() += 1;
        }
    }
    path.len() as u64
}

fn chosen(world: &World, state: &State, random: &mut Random) -> Option<(Action, State)> {
    let (mut moves, mut faults) = (Vec::new(), Vec::new());
    world.moves(state, &mut moves);
    world.misfortunes(state, &mut faults);
    loop {
        let rare = random.below(RARE) == 0;
        let some = match (moves.is_empty(), faults.is_empty()) {
            (true, true) => return None,
            (true, false) => &mut faults,
            (false, false) if rare => &mut faults,
            (false, _) => &mut moves,
        };
        let action = some.swap_remove(random.below(some.len()));
        if let Some(next) = world.after(state, action) {
            return Some((action, next));
        }
    }
}
