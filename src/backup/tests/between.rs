//! Workers that go straight, each on a thread of its own of which one runs at a time: between any two accesses to a word the
//! next one is drawn at random, and now and then one is left out for so long that the ring of steps comes round.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::*;

const STEPS: u64 = 16;
const DEADLINE: Duration = Duration::from_secs(60);

thread_local! {
    static TURNS: RefCell<Option<(usize, Arc<Turns>)>> = const { RefCell::new(None) };
}

/// Whose turn it is.
struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    random: Random,
    /// Who may run.
    runs: Vec<Chair>,
    next: usize,
    switches: usize,
    naps: usize,
}

#[derive(Clone, Copy, Debug)]
struct Chair {
    done: bool,
    /// So many draws it is left out.
    nap: u64,
}

impl State {
    /// Draws who is next. `me` may be left out for long, if it is not done.
    fn draw(&mut self, me: usize) {
        self.switches += 1;
        let napping = self.runs.iter().filter(|seat| seat.nap > 0).count();
        if napping == 0 && self.random.one_in(40) {
            self.runs[me].nap = self.random.below(1500);
            self.naps += 1;
        }
        let ready = |seat: &Chair| !seat.done && seat.nap == 0;
        for seat in &mut self.runs {
            seat.nap = seat.nap.saturating_sub(1);
        }
        let mut able = (0..self.runs.len())
            .filter(|index| ready(&self.runs[*index]))
            .collect::<Vec<_>>();
        if able.is_empty() {
            // The others are done: it goes on.
            self.runs.iter_mut().for_each(|seat| seat.nap = 0);
            able = (0..self.runs.len())
                .filter(|index| !self.runs[*index].done)
                .collect();
        }
        if !able.is_empty() {
            self.next = able[self.random.below(able.len() as u64) as usize];
        }
    }
}

impl Turns {
    fn state(&self) -> MutexGuard<'_, State> {
        // Poisoned where another's assertion failed, which is told by its own thread.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait(&self, me: usize, state: MutexGuard<'_, State>) {
        let waited = self
            .changed
            .wait_timeout_while(state, DEADLINE, |state| state.next != me);
        let (state, over) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        let next = state.next;
        drop(state);
        assert!(
            !over.timed_out(),
            "worker {me} has waited {DEADLINE:?} for its turn; it is worker {next}'s"
        );
    }

    fn pass(&self, me: usize) {
        let mut state = self.state();
        state.draw(me);
        if state.next != me {
            self.changed.notify_all();
            self.wait(me, state);
        }
    }

    fn end(&self, me: usize) {
        let mut state = self.state();
        state.runs[me].done = true;
        state.draw(me);
        self.changed.notify_all();
    }
}

/// Others may go first here.
pub(in crate::backup) fn between() {
    let turns = TURNS.with_borrow(Clone::clone);
    if let Some((me, turns)) = turns {
        turns.pass(me);
    }
}

/// Passes the turn on for good, also from a test that fails.
struct Done;

impl Drop for Done {
    fn drop(&mut self) {
        if let Some((me, turns)) = TURNS.with_borrow_mut(Option::take) {
            turns.end(me);
        }
    }
}

fn run(workers: u32, backups: u32, count: usize, seed: u64, seen: &mut Seen) -> (usize, usize) {
    let mut seats = seats(Lies::Mapped, workers, backups, count, Way::Flat);
    let turns = Arc::new(Turns {
        state: Mutex::new(State {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            runs: vec![Chair { done: false, nap: 0 }; workers as usize],
            next: 0,
            switches: 0,
            naps: 0,
        }),
        changed: Condvar::new(),
    });
    std::thread::scope(|scope| {
        for (rank, seat) in seats.iter_mut().enumerate() {
            let turns = turns.clone();
            scope.spawn(move || {
                let mut random = Random((seed << 8 | rank as u64) + 1);
                turns.wait(rank, turns.state());
                TURNS.set(Some((rank, turns.clone())));
                let _done = Done;
                let mut idle = 0;
                while seat.applied() < STEPS {
                    // Who is left out for long is taken for stopped.
                    let napping = |(rank, seat): (u16, &Chair)| (seat.nap > 100).then_some(rank);
                    let doubted = (0..)
                        .zip(&turns.state().runs)
                        .filter_map(napping)
                        .collect::<Vec<_>>();
                    let applied = seat.applied();
                    seat.go(rank, &doubted, &mut random);
                    idle = if seat.applied() > applied { 0 } else { idle + 1 };
                    assert!(idle < 200_000, "seed {seed}: nothing moves any more");
                    between();
                }
            });
        }
    });
    check(&seats, STEPS, workers - backups);
    for seat in &mut seats {
        seen.late += seat
            .ended
            .iter()
            .filter(|(ended, ..)| ended.how == How::Late)
            .count();
        let caught_up = |ended: &Ended| matches!(ended.how, How::CaughtUp { .. });
        seen.caught_up += seat.ended.iter().filter(|(ended, ..)| caught_up(ended)).count();
        either!(seat.barrier, core => core.timeout = Duration::ZERO);
    }
    let state = turns.state();
    (state.switches, state.naps)
}

#[test]
fn any_order_inside_of_a_straight_step() {
    let (mut seen, mut switches, mut naps) = (Seen::default(), 0, 0);
    for seed in 1..=4 * rounds() {
        for (workers, backups) in [(2, 1), (3, 1), (4, 1), (5, 2)] {
            let (more, long) = run(workers, backups, 3, seed, &mut seen);
            (switches, naps) = (switches + more, naps + long);
        }
    }
    println!("{switches} switches, {naps} of them long: {seen:?}");
    assert!(seen.late > 0 && seen.caught_up > 0, "{seen:?}");
}
