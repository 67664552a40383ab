//! Shrinking, with ranks that are threads: who is left out, and who is waited for. Processes that are killed are in
//! `tests/shrink.rs`.

use std::time::Duration;

use sapwood::bootstrap::Job;
use sapwood::communicator::{Communicator, CommunicatorError};
use sapwood::engine::reduce::Operation;

use crate::{Gathering, WAYS, Way, networked, on_threads, sum, with};

#[test]
fn shrinking_leaves_out_who_has_left_and_nobody_else() {
    for way in WAYS {
        let places: &[&[&str]] = match way {
            // Shared memory alone reaches nobody on another host.
            Way::Messages => &[&[], &["one"]],
            Way::Mapped | Way::Tcp => &[&[], &["one"], &["left", "right"]],
        };
        for hosts in places {
            let jobs = way.of(match hosts {
                [] => Job::local(5).unwrap(),
                hosts => networked(5, hosts),
            });
            on_threads(&jobs, |job| {
                let whole = way.builder().join(job).unwrap();
                let mut window = whole.window::<f32>(20_000).unwrap();
                whole.barrier().unwrap();
                // Over the network rank 0's process carries the hub: a thread that leaves takes nothing with it.
                if [0, 3].contains(&job.rank) {
                    return;
                }
                let error = loop {
                    match whole.all_reduce(&mut window, Operation::Sum) {
                        Ok(()) => window.fill(1.0),
                        Err(error) => break error,
                    }
                };
                assert!([Some(0), Some(3)].contains(&error.culprit()), "{error}");
                let rest = whole.shrink().unwrap();
                assert_eq!((rest.size(), rest.generation()), (3, 1));
                assert_eq!(
                    rest.rank(),
                    [1, 2, 4].iter().position(|rank| *rank == job.rank).unwrap() as u32
                );
                whole.abort(&[&window]).unwrap();
                window.fill(0.0);
                assert_eq!(sum(&rest, i64::from(job.rank)), 7);
                let again = text(whole.shrink());
                assert!(again.contains("already"), "{again}");
                let part = rest.split(Some(0), -i64::from(job.rank)).unwrap().unwrap();
                assert_eq!(sum(&part, 1), 3);
                part.finalize().unwrap();
                rest.finalize().unwrap();
            });
        }
    }
}

fn text(outcome: Result<Communicator, CommunicatorError>) -> String {
    outcome.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn who_does_not_come_to_shrink_is_named_and_may_come_later() {
    let (all_are_through, all_have_given_up_once) = (Gathering::of(3), Gathering::of(3));
    with(3, Way::Mapped, |whole| {
        whole.barrier().unwrap();
        all_are_through.wait();
        if whole.rank() != 2 {
            whole.set_timeout(Duration::from_millis(200));
            let error = text(whole.shrink());
            // On a busy machine not only this one may be late.
            assert!(error.contains("2 of 3 did not come to"), "{error}");
        }
        all_have_given_up_once.wait();
        whole.set_timeout(Duration::from_secs(30));
        let all = whole.shrink().unwrap();
        assert_eq!((all.size(), sum(&all, 1)), (3, 3));
    });
}
