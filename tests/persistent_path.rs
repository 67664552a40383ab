//! A persistent collective that was run before allocates nothing when it is started, moved on and waited for, and makes
//! no system call while nobody has to wait, whatever the ranks reach each other by. Both ranks are driven by one thread,
//! in turn: so neither ever sleeps for the other, and what is counted is what the path itself does.

use sapwood::communicator::{Communicator, Pair, Persistent, Request};
use sapwood::engine::reduce::Operation;

mod counting;
#[path = "ranks/mod.rs"]
mod support;

use counting::allocations;
use support::{REACHES, Reach, with};

const RANKS: u32 = 2;
/// Elements that each rank has for each other: several chunks.
const COUNT: usize = 70_000;

const REQUESTS: usize = 8;

fn requests() -> [Request; REQUESTS] {
    [
        Request::all_reduce(Operation::Sum),
        Request::reduce(Operation::pre_multiplied_sum(0.5), 1),
        Request::broadcast(1),
        Request::reduce_scatter(Operation::Average),
        Request::all_gather(),
        Request::gather(0),
        Request::scatter(0),
        Request::all_to_all(),
    ]
}

/// One rank with everything that it starts.
struct Rank {
    communicator: Communicator,
    lasting: Vec<Persistent<Pair<f32>>>,
}

fn set_up(reach: Reach) -> Vec<Rank> {
    with(RANKS, reach.builder(), |communicator| {
        let lasting = requests().map(|request| {
            let (short, long) = (COUNT, COUNT * RANKS as usize);
            let (input, result) = match request.name() {
                "reduce-scatter" | "scatter" => (long, short),
                "all-gather" | "gather" => (short, long),
                _ => (long, long),
            };
            let (input, result) = (
                communicator.window(input).unwrap(),
                communicator.window(result).unwrap(),
            );
            communicator.persistent_into(&request, input, result).unwrap()
        });
        Rank {
            communicator,
            lasting: lasting.into(),
        }
    })
}

/// Starts everything and moves it to its end, a few times; says whether all ended well.
fn run(ranks: &mut [Rank], rounds: usize) -> bool {
    for _ in 0..rounds {
        for index in 0..REQUESTS {
            for rank in ranks.iter_mut() {
                if rank.lasting[index].start(&rank.communicator).is_err() {
                    return false;
                }
            }
            // More than it takes; each look at one rank moves what it can.
            let mut looks = 0;
            while ranks.iter().filter(|rank| rank.lasting[index].poll()).count() < ranks.len() {
                looks += 1;
                if looks > 1_000_000 {
                    return false;
                }
            }
            for rank in ranks.iter_mut() {
                if rank.lasting[index].wait().is_err() {
                    return false;
                }
            }
        }
    }
    true
}

#[test]
fn starting_again_allocates_nothing() {
    for reach in REACHES {
        let mut ranks = set_up(reach);
        assert!(run(&mut ranks, 3), "{reach:?}");
        let counted = allocations(|| assert!(run(&mut ranks, 20), "{reach:?}"));
        assert_eq!(counted, 0, "{reach:?}");
    }
}

/// The role of a child of the test below, in its environment.
#[cfg(target_arch = "x86_64")]
const CONFINED: &str = "SAPWOOD_TEST_CONFINED";

#[test]
#[cfg(target_arch = "x86_64")]
#[cfg_attr(sanitized, ignore = "the address sanitizer makes system calls of its own")]
fn starting_again_makes_no_system_call() {
    use std::os::unix::process::ExitStatusExt;
    if let Ok(role) = std::env::var(CONFINED) {
        confined(&role);
    }
    for role in ["mapped", "messages", "disobedient"] {
        let name = "starting_again_makes_no_system_call";
        let output = counting::again(name, CONFINED, role);
        let said = String::from_utf8_lossy(&output.stderr);
        let status = output.status;
        match role {
            // That the confinement works at all.
            "disobedient" => assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}: {said}"),
            _ => assert_eq!(
                status.code(),
                Some(0),
                "{role}: {status} (signal {} is a forbidden system call): {said}",
                libc::SIGSYS
            ),
        }
    }
}

/// Gives up every system call but ending, then starts everything again.
#[cfg(target_arch = "x86_64")]
fn confined(role: &str) -> ! {
    let reach = if role == "messages" {
        Reach::Messages
    } else {
        Reach::Mapped
    };
    let mut ranks = set_up(reach);
    let warm = run(&mut ranks, 3);
    counting::forbid_system_calls();
    if role == "disobedient" {
        counting::disobey();
    }
    let well = run(&mut ranks, 20);
    counting::leave(warm && well)
}
