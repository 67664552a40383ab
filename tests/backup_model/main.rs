//! The backup-worker barrier's protocol, model-checked: every order of what workers do, writes that land late, workers
//! that stop and go on, die and come back, queue pairs that break. `docs/backup-barrier.md` says what is abstracted.
//!
//! `cargo test --test backup_model` checks the smaller worlds; `-- --ignored --nocapture --test-threads 1` the larger
//! ones, in minutes.

mod doing;
mod judging;
mod properties;
mod shared;
mod state;
mod straight;
mod symmetry;
mod walks;
mod world;

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sapwood::backup::protocol::{Reach, Way};
use stateright::{Checker, HasDiscoveries, Model};

use properties::{AGREE, COMPLETES, STALE};
use state::State;
use walks::walk;
use world::{Kinds, Seeded, World};

/// Checks all of a world and prints how many states it has.
fn check(name: &str, world: World) {
    check_for(name, world, None);
}

/// Checks a world, for so many seconds at most. Depth first: what is left to be looked at stays small, and of what was
/// looked at only the hashes are kept.
fn check_for(name: &str, world: World, seconds: Option<u64>) {
    let began = Instant::now();
    let mut checker = world
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures);
    if let Some(seconds) = seconds {
        checker = checker.timeout(Duration::from_secs(seconds));
    }
    let checker = checker.spawn_dfs().join();
    let took = began.elapsed();
    let ended = seconds.is_none_or(|seconds| took.as_secs() < seconds);
    println!(
        "{name}: {} states, {} of them different, {} deep, {took:.1?}{}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        if ended { "" } else { ", NOT to its end" }
    );
    match ended {
        true => checker.assert_properties(),
        false => [STALE, AGREE, COMPLETES]
            .iter()
            .for_each(|name| checker.assert_no_discovery(name)),
    }
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

/// Workers that differ in nothing but their numbers are not told apart.
fn alike(mut world: World) -> World {
    world.alike = true;
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
fn who_is_driven_straight_down_moves_no_other_way() {
    check("flat, 2 of 3, one comes back", close(flat(3, 1, 1, RESTART)));
    let compared = straight::MOVES.iter().zip(&straight::COMPARED);
    let compared = compared.map(|(name, count)| (*name, count.load(Ordering::Relaxed)));
    let compared = compared.collect::<Vec<_>>();
    println!("compared: {compared:?}");
    assert!(compared.iter().all(|(_, count)| *count > 0), "{compared:?}");
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

#[test]
#[ignore = "takes seconds"]
fn a_result_that_is_marked_while_it_is_written_over_is_caught() {
    let mut world = close(reads(3, 1, 2, STOP_OR_CRASH));
    world.eager = false;
    catch(seeded(world, Seeded::MarksWhatIsWrittenOver), STALE);
}

#[test]
#[ignore = "takes seconds"]
fn a_result_that_is_waited_for_though_nobody_has_it_is_caught() {
    let world = close(reads(3, 1, 2, RESTART));
    catch(seeded(world, Seeded::WaitsForWhatNobodyHas), COMPLETES);
}

/// What is looked at stands for all states there are, and for no others.
#[test]
fn workers_that_are_alike_stand_for_each_other() {
    for world in [
        close(flat(3, 1, 1, STOP_OR_CRASH)),
        close(flat(3, 1, 1, RESTART)),
        close(flat(3, 1, 1, BROKEN)),
    ] {
        let all = reached(&world);
        let few = reached(&alike(world.clone()));
        let represented: HashSet<State> = all
            .iter()
            .map(|state| world.representative(state.clone()))
            .collect();
        println!("{} states, {} but for numbers", all.len(), few.len());
        assert!(few == represented && few.len() * 6 >= all.len());
    }
    let world = alike(close(flat(3, 1, 1, RESTART)));
    catch(seeded(world, Seeded::WritesOverEarlierLife), AGREE);
}

/// All states of a world.
fn reached(world: &World) -> HashSet<State> {
    let mut reached = HashSet::from([world.beginning()]);
    let mut left: Vec<State> = reached.iter().cloned().collect();
    while let Some(state) = left.pop() {
        let mut actions = Vec::new();
        world.actions(&state, &mut actions);
        for next in actions
            .into_iter()
            .filter_map(|action| world.after(&state, action))
        {
            if reached.insert(next.clone()) {
                left.push(next);
            }
        }
    }
    reached
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
    check(
        "reads, 2 of 3, two deaths and returns",
        close(reads(3, 1, 2, RESTART)),
    );
    check(
        "messages, 2 of 3, two deaths and returns",
        close(messages(3, 1, 2, RESTART)),
    );
}

/// A million states take three seconds of one core, or eleven but for numbers: all together 25 minutes, and 700 MB at most.
#[test]
#[ignore = "takes very long"]
fn larger_worlds_of_four_workers() {
    let one = |world: fn(u32, u32, u8, Kinds) -> World, backups| close(world(4, backups, 1, STOP_OR_CRASH));
    let two = |backups| alike(close(flat(4, backups, 2, STOP_OR_CRASH)));
    check("flat, 3 of 4, one", one(flat, 1));
    check("flat, 3 of 4, one, but for numbers", alike(one(flat, 1)));
    check("flat, 2 of 4, one, but for numbers", alike(one(flat, 2)));
    check("flat, 3 of 4, two, but for numbers", two(1));
    check("flat, 2 of 4, two, but for numbers", two(2));
    check("tree, 3 of 4, one", one(tree, 1));
    check("tree, 2 of 4, one", one(tree, 2));
    check("reads, 3 of 4, one", one(reads, 1));
    check("messages, 3 of 4, one", one(messages, 1));
}

#[test]
#[ignore = "takes three quarters of an hour, and gigabytes"]
fn the_largest_world() {
    check("tree, 3 of 4, two", close(tree(4, 1, 2, STOP_OR_CRASH)));
}

#[test]
#[ignore = "has not been run to its end"]
fn a_world_that_nobody_has_seen_through() {
    check("reads, 3 of 4, two", close(reads(4, 1, 2, STOP_OR_CRASH)));
}

/// Proves nothing; finds what is not rare.
#[test]
#[ignore = "takes minutes"]
fn walks_with_two_faults() {
    let all = Kinds {
        stop: true,
        crash: true,
        restart: true,
        broken: true,
    };
    for (name, world) in [
        ("flat", flat as fn(u32, u32, u8, Kinds) -> World),
        ("tree", tree),
        ("messages", messages),
        ("reads", reads),
    ] {
        for (faults, kinds) in [("stop or crash", STOP_OR_CRASH), ("of any kind", all)] {
            let world = world(4, 1, 2, kinds);
            let name = format!("{name}, 3 of 4, two {faults}");
            walk(&format!("{name}, close"), &close(world.clone()), 30, 1);
            walk(&format!("{name}, apart"), &apart(world), 30, 2);
        }
    }
}

/// One world, by the environment: `WORLD=messages WORKERS=4 BACKUPS=1 FAULTS=2 KINDS=stop,crash EAGER=1 LAG=0`;
/// `ALIKE=1` (flat only), `LIMIT=600` seconds, or `WALKS=600 SEED=7` for walks at random, of so many seconds.
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
    world.alike = number("ALIKE", 0) != 0;
    let name = format!(
        "{name}, {workers} - {backups}, {faults} of {kinds:?}, lag {}",
        world.lag
    );
    match number("WALKS", 0) {
        0 => check_for(&name, world, Some(number("LIMIT", 1 << 30))),
        seconds => walk(&name, &world, seconds, number("SEED", 1)),
    }
}
