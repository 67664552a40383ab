//! What does not fit, and ranks that do not want the same: errors on every rank that say who and what, and nothing half
//! done.

use sapwood::communicator::{CommunicatorError, Request};
use sapwood::engine::reduce::Operation;

use crate::support::{Reach, with};

fn text<T: std::fmt::Debug, E: std::fmt::Display>(outcome: Result<T, E>) -> String {
    match outcome {
        Ok(value) => panic!("expected an error, got {value:?}"),
        Err(error) => error.to_string(),
    }
}

pub fn what_does_not_fit_is_refused_on_every_rank_and_changes_nothing(reach: Reach) {
    with(3, reach.builder(), |communicator| {
        let rank = communicator.rank();
        let mut seven = communicator.window::<f32>(7).unwrap();
        let mut six = communicator.window::<f32>(6).unwrap();
        let mut two = communicator.window::<f32>(2).unwrap();
        let mut little = communicator.window::<f32>(2).unwrap();
        for window in [&mut seven, &mut six, &mut two, &mut little] {
            window.fill(1.0);
        }
        let refuses = |outcome: Result<(), CommunicatorError>, parts: &[&str]| {
            let error = text(outcome);
            assert!(error.contains(&format!("rank {rank}: ")), "{error}");
            for part in parts {
                assert!(error.contains(part), "{error}");
            }
        };
        refuses(
            communicator.all_gather(&mut seven),
            &["all-gather", "7 elements", "each of 3 ranks"],
        );
        refuses(
            communicator.reduce_scatter(&mut seven, Operation::Sum),
            &["reduce-scatter", "7 elements"],
        );
        refuses(
            communicator.all_gather_into(&two, &mut seven),
            &["a result of 7", "3 times as long"],
        );
        refuses(
            communicator.scatter_into(&seven, &mut two, 0),
            &["an input of 7", "3 times as long"],
        );
        refuses(
            communicator.gather_into(&two, &mut six, 3),
            &["root 3 does not exist, the ranks are 0 to 2"],
        );
        refuses(communicator.broadcast_into(&two, &mut six, 0), &["equally long"]);
        refuses(communicator.all_to_all(&seven, &mut two), &["equally long"]);
        refuses(
            communicator.call(&Request::all_to_all(), &mut six),
            &["cannot be done in place", "two windows"],
        );
        let varying = |counts: &[usize]| Request::all_gather().varying(counts);
        refuses(
            communicator.call_into(&varying(&[2, 2]), &two, &mut six),
            &["2 for 3 ranks"],
        );
        refuses(
            communicator.call_into(&varying(&[2, 3, 1]), &two, &mut six),
            &["an input of 3 elements on rank 1, the windows have 2"],
        );
        refuses(
            communicator.call_into(&varying(&[2, 2, 2]), &two, &mut little),
            &["a result of 6 elements", "the windows have 2"],
        );
        refuses(
            communicator.call_into(&varying(&[usize::MAX, 2, 2]), &two, &mut six),
            &["more elements than can be counted"],
        );
        refuses(
            communicator.call(&Request::all_reduce(Operation::Sum).varying(&[1, 1, 1]), &mut six),
            &["all-reduce does not take a count for each rank"],
        );
        let mut integers = communicator.window::<i32>(3).unwrap();
        refuses(
            communicator.reduce_scatter(&mut integers, Operation::pre_multiplied_sum(0.5)),
            &["int32 has no pre-multiplied sum"],
        );
        // What one rank means to get is not what another sends: refused on all.
        let receive = if rank == 2 { [1, 2, 1] } else { [1, 1, 1] };
        let mut other = communicator.window::<f32>(6).unwrap();
        refuses(
            communicator.all_to_all_varying(&six, &[1, 1, 1], &mut other, &receive),
            &["rank 1 sends 1 elements to rank 2, which means to get 2"],
        );
        refuses(
            communicator.all_to_all_varying(
                &six,
                if rank == 0 { &[1] } else { &[1, 1, 1] },
                &mut other,
                &[1; 3],
            ),
            &["rank 0 gave 1 counts to send and 3 to receive"],
        );
        for window in [&seven, &six, &two, &little] {
            assert!(window.iter().all(|x| *x == 1.0));
        }
        communicator.all_gather(&mut six).unwrap();
    });
}

pub fn calls_in_another_order_are_named_on_every_rank(reach: Reach) {
    for count in [3, 30_000] {
        let errors = with(3, reach.builder(), |communicator| {
            let mut window = communicator.window::<f32>(3 * count).unwrap();
            let outcome = match communicator.rank() {
                2 => communicator.broadcast(&mut window, 1),
                _ => communicator.all_gather(&mut window),
            };
            let error = text(outcome);
            let later = text(communicator.all_gather(&mut window));
            (error, later)
        });
        for (error, later) in errors {
            assert!(later.contains("cannot be used any more"), "{later}");
            assert!(error.contains("rank 2 called broadcast with root 1"), "{error}");
            assert!(error.contains("ranks 0 and 1 called all-gather"), "{error}");
        }
    }
    // Counts that differ between the ranks.
    let errors = with(2, reach.builder(), |communicator| {
        let input = communicator.window::<f32>(2_000).unwrap();
        let mut result = communicator.window::<f32>(4_000).unwrap();
        let counts = if communicator.rank() == 0 {
            [1_000, 2_000]
        } else {
            [2_000, 1_000]
        };
        text(communicator.all_gather_varying(&input, &mut result, &counts))
    });
    for error in errors {
        assert!(error.contains("disagree"), "{error}");
    }
}

pub fn displacements_that_do_not_fit_are_refused_on_every_rank(reach: Reach) {
    with(2, reach.builder(), |communicator| {
        let short = communicator.window::<f32>(4).unwrap();
        let mut long = communicator.window::<f32>(10).unwrap();
        long.fill(7.0);
        let gather = || Request::all_gather().varying(&[3, 2]);
        for (request, why) in [
            (gather().displaced(&[0, 2]), "ranks 0 and 1 overlap"),
            (gather().displaced(&[0, 9]), "of 11 elements"),
            (gather().displaced(&[0]), "there are 1 displacements"),
            (Request::all_gather().displaced(&[0, 5]), "need counts"),
            (gather().displaced_pairs(&[0, 5], &[0, 5]), "one for each rank"),
        ] {
            let error = text(communicator.call_into(&request, &short, &mut long));
            assert!(error.contains(why) && error.contains("all-gather"), "{error}");
        }
        assert!(long.iter().all(|x| *x == 7.0), "something was written");
        // Other displacements than the other rank's: both hear of it.
        let rank = communicator.rank() as usize;
        let request = gather().displaced(&[0, 4 + rank]);
        let error = text(communicator.call_into(&request, &short, &mut long));
        assert!(error.contains("rank"), "{error}");
    });
}
