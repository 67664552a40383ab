//! The end of a communicator: in order, by an abort from any thread, or by a failure that somebody asks about.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sapwood::bootstrap::Job;
use sapwood::engine::reduce::Operation;

use crate::{Gathering, WAYS, networked, on_threads, sum, wait_for, with, with_patience};

#[test]
fn finalize_waits_for_everybody_and_everything() {
    for way in WAYS {
        with(3, way, |communicator| {
            let rank = communicator.rank();
            let mut window = communicator.window::<f32>(50_000).unwrap();
            window.fill(1.0);
            let pending = communicator.start_all_reduce(window, Operation::Sum).unwrap();
            // One is late; the others do not leave without it, nor with their operations unfinished.
            std::thread::sleep(Duration::from_millis(u64::from(rank) * 60));
            communicator.finalize().unwrap();
            assert_eq!(pending.wait().unwrap()[0], 3.0);
        });
    }
}

#[test]
fn finalize_names_a_rank_that_left_without_it() {
    for way in WAYS {
        let said = with(2, way, |communicator| {
            if communicator.rank() == 1 {
                return String::new();
            }
            let error = communicator.finalize().unwrap_err();
            assert_eq!(error.culprit(), Some(1));
            error.to_string()
        });
        assert!(said[0].contains("rank 1 left"), "{said:?}");
    }
}

#[test]
fn failures_are_seen_without_waiting() {
    for way in WAYS {
        let all_are_through = Gathering::of(3);
        with(3, way, |communicator| {
            assert!(communicator.async_error().is_none());
            communicator.barrier().unwrap();
            all_are_through.wait();
            if communicator.rank() == 2 {
                communicator.abort_handle().abort();
            }
            let handle = communicator.abort_handle();
            let seen = std::thread::scope(|scope| {
                let watcher = scope.spawn(|| wait_for("news of the abort", || handle.async_error()));
                watcher.join().expect("the watcher sees it")
            });
            assert_eq!(seen.culprit(), Some(2), "{seen}");
            assert_eq!(communicator.async_error().unwrap().culprit(), Some(2));
            // Nobody leaves before all have seen it.
            let _ = communicator.shrink().unwrap();
        });
    }
}

#[test]
fn a_death_is_seen_without_waiting() {
    for way in WAYS {
        let all_are_through = Gathering::of(3);
        with(3, way, |communicator| {
            communicator.barrier().unwrap();
            all_are_through.wait();
            if communicator.rank() == 1 {
                let dies = AssertUnwindSafe(|| {
                    let _own = communicator;
                    panic!("this rank ends as the test wants it to");
                });
                assert!(catch_unwind(dies).is_err());
                return;
            }
            let seen = wait_for("news of the death", || communicator.async_error());
            assert_eq!(seen.culprit(), Some(1), "{seen}");
            let rest = communicator.shrink().unwrap();
            assert_eq!((rest.size(), sum(&rest, 1)), (2, 2));
            rest.finalize().unwrap();
        });
    }
}

/// Much longer than anybody would want to wait for a test: what ends before was told.
const LONG: Duration = Duration::from_secs(300);

#[test]
fn abort_from_another_thread_ends_operations_on_every_rank() {
    for way in WAYS {
        let (all_are_through, all_have_heard) = (Gathering::of(4), Gathering::of(4));
        with_patience(4, way, LONG, |communicator| {
            let mut window = communicator.window::<f32>(100_000).unwrap();
            communicator.all_reduce(&mut window, Operation::Sum).unwrap();
            all_are_through.wait();
            let handle = communicator.abort_handle();
            // Rank 3 never comes: the others would wait for it.
            let error = match communicator.rank() {
                3 => wait_for("news of the abort", || communicator.async_error()),
                rank => std::thread::scope(|scope| {
                    if rank == 0 {
                        scope.spawn(move || {
                            std::thread::sleep(Duration::from_millis(50));
                            handle.abort();
                        });
                    }
                    communicator.all_reduce(&mut window, Operation::Sum).unwrap_err()
                }),
            };
            assert_eq!(error.culprit(), Some(0), "{error}");
            let late = communicator.barrier().unwrap_err().to_string();
            assert!(late.contains("abort"), "{late}");
            all_have_heard.wait();
        });
    }
}

#[test]
fn abort_ends_waits_in_calls_that_move_no_data() {
    for way in WAYS {
        for jobs in [Job::local(3).unwrap(), networked(3, &["one"])] {
            let all_have_heard = Gathering::of(3);
            let errors = on_threads(&way.of(jobs), |job| {
                let communicator = way.builder().timeout(LONG).join(job).unwrap();
                let error = match job.rank {
                    // It never comes.
                    0 => {
                        std::thread::sleep(Duration::from_millis(50));
                        communicator.abort_handle().abort();
                        communicator.barrier().unwrap_err()
                    }
                    _ => communicator.window::<f32>(100).unwrap_err(),
                };
                all_have_heard.wait();
                error.to_string()
            });
            for error in errors {
                assert!(
                    ["gave up", "given up", "abort"]
                        .iter()
                        .any(|word| error.contains(word)),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn abort_ends_the_wait_of_its_own_rank() {
    for way in WAYS {
        for jobs in [Job::local(2).unwrap(), networked(2, &["one"])] {
            let heard = Gathering::of(2);
            on_threads(&way.of(jobs), |job| {
                let communicator = way.builder().timeout(LONG).join(job).unwrap();
                if job.rank == 1 {
                    // It comes to nothing until the other has its error.
                    heard.wait();
                    assert!(communicator.split(Some(0), 0).is_err());
                    return;
                }
                let handle = communicator.abort_handle();
                std::thread::scope(|scope| {
                    scope.spawn(move || {
                        std::thread::sleep(Duration::from_millis(50));
                        handle.abort();
                    });
                    let error = communicator
                        .all_gather_bytes("anything", &[])
                        .unwrap_err()
                        .to_string();
                    assert!(error.contains("aborted"), "{error}");
                });
                heard.wait();
            });
        }
    }
}

/// Who is gone is not waited for, whatever it has kept.
#[test]
fn a_handle_that_is_kept_holds_nothing_open() {
    for way in WAYS {
        for jobs in [Job::local(2).unwrap(), networked(2, &["one"])] {
            let over = Gathering::of(2);
            on_threads(&way.of(jobs), |job| {
                let communicator = way.builder().timeout(Duration::from_secs(20)).join(job).unwrap();
                if job.rank == 0 {
                    let rest = communicator.shrink().unwrap();
                    assert_eq!((rest.size(), sum(&rest, 3)), (1, 3));
                    over.wait();
                    return;
                }
                let handle = communicator.abort_handle();
                drop(communicator);
                over.wait();
                let error = handle.async_error().expect("it is gone").to_string();
                assert!(error.contains("dropped"), "{error}");
                handle.abort();
            });
        }
    }
}
