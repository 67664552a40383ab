//! The backup-worker barrier's protocol, model-checked: every order of what workers do, writes that land late, workers
//! that stop and go on, die and come back, queue pairs that break. `docs/backup-barrier.md` says what is abstracted.
//!
//! `cargo test --test backup_model` checks the smaller worlds; `-- --ignored --nocapture --test-threads 1` the larger
//! ones, in minutes.

mod doing;
mod state;
mod world;

use sapwood::backup::protocol::{Reach, Way};
use stateright::{Checker, HasDiscoveries, Model, Property};

use state::{Life, State};
use world::{Action, Kinds, Seeded, World};

const STALE: &str = "a stale gradient is never summed";
const AGREE: &str = "all replicas agree";
const COMPLETES: &str = "a step with N live workers completes";

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
                    .any(|action| world.after(state, action).is_some())
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
        if self.lag >= state::RING as u64 || (self.kinds.restart && faulty) {
            properties.push(Property::sometimes("somebody catches up", |_, state: &State| {
                state.seats.iter().any(|seat| seat.caught_up && seat.is_done())
            }));
        }
        properties
    }
}

/// Checks all of a world and prints how many states it has.
fn check(name: &str, world: World) {
    let began = std::time::Instant::now();
    let checker = world
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    println!(
        "{name}: {} states, {} of them different, {} deep, {:.1?}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    checker.assert_properties();
}

/// Checks a world with an error in it, by which it must come to break this property.
fn catch(world: World, broken: &'static str) {
    let checker = world
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AllOf([broken].into()))
        .spawn_bfs()
        .join();
    let states = checker.unique_state_count();
    let Some(path) = checker.discovery(broken) else {
        panic!("the error was not found in {states} states");
    };
    println!(
        "not: {broken}. Found in {states} different states: {:?}",
        path.into_actions()
    );
}

const CHAIN: Way = Way::Tree { children: 1 };
const NONE: Kinds = Kinds {
    stop: false,
    crash: false,
    restart: false,
    broken: false,
};
const STOP_OR_CRASH: Kinds = Kinds {
    stop: true,
    crash: true,
    ..NONE
};
const RESTART: Kinds = Kinds {
    crash: true,
    restart: true,
    ..NONE
};
const BROKEN: Kinds = Kinds { broken: true, ..NONE };

/// Workers that run stay within one step of each other, and do at once what they have decided to do.
fn close(mut world: World) -> World {
    world.eager = true;
    world.lag = 0;
    world
}

fn seeded(mut world: World, seeded: Seeded) -> World {
    world.seeded = seeded;
    world
}

fn flat(workers: u32, backups: u32, faults: u8, kinds: Kinds) -> World {
    World::new(workers, backups, Reach::LoadStore, Way::Flat, faults, kinds)
}

fn tree(workers: u32, backups: u32, faults: u8, kinds: Kinds) -> World {
    World::new(workers, backups, Reach::LoadStore, CHAIN, faults, kinds)
}

fn messages(workers: u32, backups: u32, faults: u8, kinds: Kinds) -> World {
    World::new(workers, backups, Reach::Messages, CHAIN, faults, kinds)
}

fn reads(workers: u32, backups: u32, faults: u8, kinds: Kinds) -> World {
    World::new(workers, backups, Reach::Reads, CHAIN, faults, kinds)
}

#[test]
fn without_faults_in_any_order() {
    check("flat, 2 of 3", flat(3, 1, 0, NONE));
    check("tree, 2 of 3", tree(3, 1, 0, NONE));
    check("messages, 2 of 3", messages(3, 1, 0, NONE));
    check("reads, 2 of 3", reads(3, 1, 0, NONE));
}

#[test]
fn one_stop_or_crash() {
    check(
        "flat, 2 of 3, one stop or crash",
        close(flat(3, 1, 1, STOP_OR_CRASH)),
    );
    check(
        "tree, 2 of 3, one stop or crash",
        close(tree(3, 1, 1, STOP_OR_CRASH)),
    );
    check(
        "messages, 2 of 3, one stop or crash",
        close(messages(3, 1, 1, STOP_OR_CRASH)),
    );
    check(
        "reads, 2 of 3, one stop or crash",
        close(reads(3, 1, 1, STOP_OR_CRASH)),
    );
}

#[test]
fn four_workers_without_faults() {
    check("flat, 3 of 4", close(flat(4, 1, 0, NONE)));
    check("flat, 2 of 4", close(flat(4, 2, 0, NONE)));
    check("tree, 3 of 4", close(tree(4, 1, 0, NONE)));
    check("tree, 2 of 4", close(tree(4, 2, 0, NONE)));
    check("messages, 3 of 4", close(messages(4, 1, 0, NONE)));
    check("reads, 3 of 4", close(reads(4, 1, 0, NONE)));
}

#[test]
fn a_queue_pair_breaks_or_a_worker_comes_back() {
    check(
        "messages, 2 of 3, a queue pair breaks",
        close(messages(3, 1, 1, BROKEN)),
    );
    check(
        "reads, 2 of 3, a queue pair breaks",
        close(reads(3, 1, 1, BROKEN)),
    );
    check(
        "reads, 2 of 3, a death and a return",
        close(reads(3, 1, 1, RESTART)),
    );
    check(
        "messages, 2 of 3, a death and a return",
        close(messages(3, 1, 1, RESTART)),
    );
    check(
        "flat, 2 of 3, a death and a return",
        close(flat(3, 1, 1, RESTART)),
    );
    check(
        "tree, 2 of 3, a death and a return",
        close(tree(3, 1, 1, RESTART)),
    );
}

#[test]
fn staging_that_is_used_again_without_a_fence_is_caught() {
    let world = close(messages(3, 1, 1, STOP_OR_CRASH));
    catch(seeded(world, Seeded::NoFenceBeforeReuse), STALE);
}

#[test]
#[ignore = "takes seconds"]
fn staging_that_is_offered_while_it_is_fenced_is_caught() {
    let stop = Kinds { stop: true, ..NONE };
    let mut world = close(messages(3, 1, 1, stop));
    world.eager = false;
    catch(seeded(world, Seeded::ReadyWhileFencing), STALE);
}

#[test]
fn a_result_that_is_applied_before_its_commit_is_caught() {
    let world = close(messages(3, 1, 1, STOP_OR_CRASH));
    catch(seeded(world, Seeded::ApplyBeforeCommit), AGREE);
}

#[test]
fn a_fetch_and_add_that_is_repeated_is_caught() {
    let world = close(messages(3, 1, 1, BROKEN));
    catch(seeded(world, Seeded::RepeatedFetchAdd), STALE);
}

#[test]
fn a_gradient_over_that_of_an_earlier_life_is_caught() {
    let world = close(flat(3, 1, 1, RESTART));
    catch(seeded(world, Seeded::WritesOverEarlierLife), AGREE);
}

/// Workers that run are at most one step apart, and may stop between deciding and doing.
fn apart(mut world: World) -> World {
    world.lag = 1;
    world
}

#[test]
#[ignore = "takes long, and some gigabytes"]
fn larger_worlds() {
    check("flat, 1 of 3", flat(3, 2, 0, NONE));
    check("tree, 1 of 3", tree(3, 2, 0, NONE));
    check("flat, 2 of 3, one, apart", apart(flat(3, 1, 1, STOP_OR_CRASH)));
    check("tree, 2 of 3, one, apart", apart(tree(3, 1, 1, STOP_OR_CRASH)));
    check(
        "messages, 2 of 3, one, apart",
        apart(messages(3, 1, 1, STOP_OR_CRASH)),
    );
    check("flat, 2 of 3, two", close(flat(3, 1, 2, STOP_OR_CRASH)));
    check("flat, 1 of 3, two", close(flat(3, 2, 2, STOP_OR_CRASH)));
    check("tree, 2 of 3, two", close(tree(3, 1, 2, STOP_OR_CRASH)));
    check("tree, 1 of 3, two", close(tree(3, 2, 2, STOP_OR_CRASH)));
    check("messages, 2 of 3, two", close(messages(3, 1, 2, STOP_OR_CRASH)));
    check("reads, 2 of 3, one, apart", apart(reads(3, 1, 1, STOP_OR_CRASH)));
    check("reads, 2 of 3, two", close(reads(3, 1, 2, STOP_OR_CRASH)));
    check("flat, 3 of 4, one", close(flat(4, 1, 1, STOP_OR_CRASH)));
    check("flat, 2 of 3, a return, apart", apart(flat(3, 1, 1, RESTART)));
    check("tree, 2 of 3, a return, apart", apart(tree(3, 1, 1, RESTART)));
    check(
        "flat, 2 of 3, two deaths and returns",
        close(flat(3, 1, 2, RESTART)),
    );
    check(
        "tree, 2 of 3, two deaths and returns",
        close(tree(3, 1, 2, RESTART)),
    );
}

#[test]
#[ignore = "has not been run to its end"]
fn worlds_that_nobody_has_seen_through() {
    check("flat, 2 of 4, one", close(flat(4, 2, 1, STOP_OR_CRASH)));
    check("tree, 3 of 4, one", close(tree(4, 1, 1, STOP_OR_CRASH)));
    check("tree, 2 of 4, one", close(tree(4, 2, 1, STOP_OR_CRASH)));
    check("messages, 3 of 4, one", close(messages(4, 1, 1, STOP_OR_CRASH)));
}

/// One world, by the environment: `WORLD=messages WORKERS=4 BACKUPS=1 FAULTS=2 KINDS=stop,crash EAGER=1 LAG=0`.
#[test]
#[ignore = "what it does is up to the environment"]
fn one_world() {
    let number =
        |name, otherwise| std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"));
    let kinds = std::env::var("KINDS").unwrap_or_default();
    let kinds = Kinds {
        stop: kinds.contains("stop"),
        crash: kinds.contains("crash"),
        restart: kinds.contains("restart"),
        broken: kinds.contains("broken"),
    };
    let name = std::env::var("WORLD").unwrap_or_else(|_| "messages".into());
    let make = match name.as_str() {
        "flat" => flat,
        "tree" => tree,
        "reads" => reads,
        _ => messages,
    };
    let (workers, backups, faults) = (number("WORKERS", 3), number("BACKUPS", 1), number("FAULTS", 0));
    let mut world = make(workers as u32, backups as u32, faults as u8, kinds);
    world.eager = number("EAGER", 0) != 0;
    world.lag = number("LAG", 3);
    check(
        &format!(
            "{name}, {workers} - {backups}, {faults} of {kinds:?}, lag {}",
            world.lag
        ),
        world,
    );
}
