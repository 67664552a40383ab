//! Where every worker adds up for itself, workers differ by nothing but their numbers: of states that are the same but for
//! those, one stands for all.

use sapwood::backup::protocol::{Slot, Tag, Way, Word};

use super::shared::{Shared, hash};
use super::state::{Home, MOST, Memory, RING, Seat, State, Sum};
use super::world::World;

/// The new number of each worker.
type Numbers = [usize; MOST];

impl World {
    /// The state that stands for this one.
    pub fn representative(&self, state: State) -> State {
        assert_eq!(self.way, Way::Flat, "in a tree each number has its place");
        let count = state.seats.len();
        let keys = self.keys(&state);
        let mut sorted = keys[..count].to_vec();
        sorted.sort_unstable();
        // Those whose keys are alike may come in any order: the one that makes the least hash.
        let mut least: Option<(u64, State)> = None;
        numberings(&sorted, &keys, &mut [MOST; MOST], 0, &mut |numbers| {
            let mut other = self.renumbered(&state, numbers);
            other.settle();
            let key = hash(&other);
            if least.as_ref().is_none_or(|(least, _)| key < *least) {
                least = Some((key, other));
            }
        });
        least.expect("they have some order").1
    }

    /// What is to be said about each worker without anybody's number.
    fn keys(&self, state: &State) -> [u64; MOST] {
        let mut keys = [0; MOST];
        for (me, seat) in state.seats.iter().enumerate() {
            let places = state.homes.iter().map(|home| places(self, home, me));
            let others = state.seats.iter().fold(0u64, |all, other| {
                all.wrapping_add(hash(&sums(other).map(|(tag, sum)| (tag, sum.of[me]))))
            });
            let own = sums(seat).map(|(tag, sum)| (tag, sum.of[me], sum.contributors(), sum.twice));
            let worker = seat
                .worker
                .renumbered(|other| u16::from(usize::from(other) != me));
            let rest = (
                seat.life,
                seat.doubted,
                seat.lives,
                seat.caught_up,
                seat.memory.gradients,
            );
            keys[me] = hash(&(worker, rest, own, others, places.collect::<Vec<_>>()));
        }
        keys
    }

    fn renumbered(&self, state: &State, numbers: &Numbers) -> State {
        let to = |worker: u16| numbers[usize::from(worker)] as u16;
        if numbers
            .iter()
            .enumerate()
            .take(state.seats.len())
            .all(|(old, new)| old == *new)
        {
            return state.clone();
        }
        assert!(state.flights.is_empty(), "nobody writes into another's memory");
        let mut other = state.clone();
        for home in &mut other.homes {
            home.renumber(&self.layout, &self.shape, to);
        }
        for (old, seat) in state.seats.iter().enumerate() {
            other.seats[numbers[old]] = Shared::new(Seat {
                worker: seat.worker.renumbered(to),
                memory: renumbered_memory(&seat.memory, numbers),
                history: seat.history.map(|sum| renumbered_sum(sum, numbers)),
                copied: seat.copied.map(|sum| renumbered_sum(sum, numbers)),
                ..Seat::clone(seat)
            });
        }
        other.late = state.late.map(|(home, access)| (home, access.renumbered(to)));
        other
    }
}

/// Tells `each` of every numbering that puts the keys in this order.
fn numberings(
    sorted: &[u64],
    keys: &[u64; MOST],
    numbers: &mut Numbers,
    next: usize,
    each: &mut impl FnMut(&Numbers),
) {
    if next == sorted.len() {
        return each(numbers);
    }
    for worker in 0..sorted.len() {
        if numbers[worker] == MOST && keys[worker] == sorted[next] {
            numbers[worker] = next;
            numberings(sorted, keys, numbers, next + 1, each);
            numbers[worker] = MOST;
        }
    }
}

/// In which slots a worker stands.
fn places(world: &World, home: &Home, worker: usize) -> u64 {
    let mut places = 0;
    for step in 0..RING as u64 {
        for ticket in 0..world.shape.tickets() {
            let slot = Slot(home.get(&world.layout, Word::Slot(step, ticket)));
            let here = slot.worker().is_some_and(|other| usize::from(other) == worker);
            places = places << 1 | u64::from(here);
        }
    }
    places
}

/// All sums that a worker has.
fn sums(seat: &Seat) -> [(Tag, Sum); 9] {
    let [first, second] = seat.memory.results;
    let untagged = |sum| (Tag::default(), sum);
    let ([a, b, c], [d, e, f]) = (seat.history.map(untagged), seat.copied.map(untagged));
    [first, second, seat.memory.sum, a, b, c, d, e, f]
}

fn renumbered_sum(sum: Sum, numbers: &Numbers) -> Sum {
    let mut other = Sum { of: [0; MOST], ..sum };
    for (old, new) in numbers.iter().enumerate().filter(|(_, new)| **new < MOST) {
        other.of[*new] = sum.of[old];
    }
    other
}

fn renumbered_memory(memory: &Memory, numbers: &Numbers) -> Memory {
    let tagged = |(tag, sum)| (tag, renumbered_sum(sum, numbers));
    Memory {
        sum: tagged(memory.sum),
        results: memory.results.map(tagged),
        ..memory.clone()
    }
}
