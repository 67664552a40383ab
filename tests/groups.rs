//! Communicators made from communicators: independent of each other, whatever becomes of the others.

use std::time::{Duration, Instant};

use sapwood::bootstrap::{Job, Membership, Reachable, UniqueId};
use sapwood::communicator::{Builder, Communicator};
use sapwood::engine::reduce::Operation;

#[path = "ranks/mod.rs"]
mod support;

use support::{REACHES, Reach, with};

/// The sum of what all ranks of a communicator bring.
fn sum(communicator: &Communicator, mine: i64) -> i64 {
    let mut window = communicator.window::<i64>(3000).unwrap();
    window.fill(mine);
    communicator.all_reduce(&mut window, Operation::Sum).unwrap();
    assert!(window.iter().all(|one| *one == window[0]));
    window[0]
}

#[test]
fn ranks_of_one_color_come_together_in_the_order_of_their_keys() {
    for reach in REACHES {
        with(5, reach.builder(), |whole| {
            let rank = whole.rank();
            // 0 and 3 with reversed keys, 1 and 4 with equal ones, 2 with nobody.
            let color = (rank != 2).then_some(rank % 3);
            let key = if color == Some(0) { -i64::from(rank) } else { 5 };
            let part = whole.split(color, key).unwrap();
            let Some(part) = part else {
                assert_eq!(rank, 2);
                assert_eq!(sum(&whole, 1), 5);
                return;
            };
            let (place, mates) = match rank {
                3 => (0, 3),
                0 => (1, 3),
                1 => (0, 5),
                _ => (1, 5),
            };
            assert_eq!((part.rank(), part.size()), (place, 2));
            assert_eq!(part.has_load_store(), reach == Reach::Mapped);
            assert_eq!(sum(&part, i64::from(rank)), mates);
            assert_eq!(sum(&whole, 1), 5);
            part.barrier().unwrap();
        });
    }
}

#[test]
fn parts_of_parts_go_on_when_the_whole_is_gone() {
    for reach in REACHES {
        with(8, reach.builder(), |whole| {
            let rank = whole.rank();
            let mut part = whole;
            for bit in [4, 2] {
                let smaller = part.split(Some(rank & bit), 0).unwrap().unwrap();
                drop(std::mem::replace(&mut part, smaller));
            }
            assert_eq!(part.size(), 2);
            assert_eq!(sum(&part, i64::from(rank)), i64::from(rank & !1) * 2 + 1);
        });
    }
}

#[test]
fn a_communicator_of_one_and_one_that_everybody_leaves_out() {
    for reach in REACHES {
        with(3, reach.builder(), |whole| {
            let alone = whole.split(Some(whole.rank()), 0).unwrap().unwrap();
            assert_eq!((alone.size(), sum(&alone, 7)), (1, 7));
            assert!(whole.split(None, 0).unwrap().is_none());
            let again = alone.duplicate().unwrap();
            assert_eq!(sum(&again, 8), 8);
        });
    }
}

#[test]
fn windows_and_failures_are_a_communicators_own() {
    for reach in REACHES {
        with(3, reach.builder(), |whole| {
            let twin = whole.duplicate().unwrap();
            assert_eq!((twin.rank(), twin.size()), (whole.rank(), 3));
            let mut window = whole.window::<f32>(100).unwrap();
            let error = twin.all_reduce(&mut window, Operation::Sum).unwrap_err();
            assert!(error.to_string().contains("another communicator"), "{error}");
            // Ended by one rank, on all; its twin does not notice.
            twin.barrier().unwrap();
            if twin.rank() == 1 {
                twin.abort_handle().abort();
            }
            assert!(twin.barrier().is_err());
            assert_eq!(sum(&whole, 2), 6);
            let third = whole.duplicate().unwrap();
            drop(whole);
            assert_eq!(sum(&third, 3), 9);
        });
    }
}

#[test]
fn many_are_used_at_once_by_threads_of_their_own() {
    for reach in REACHES {
        with(2, reach.builder(), |whole| {
            let rank = whole.rank();
            let twins: Vec<Communicator> = (0..8).map(|_| whole.duplicate().unwrap()).collect();
            std::thread::scope(|scope| {
                for (number, twin) in (0..).zip(twins) {
                    scope.spawn(move || {
                        // Neither the order nor the number of operations has to do with any other's.
                        for turn in 0..10 + number {
                            let mine = i64::from(rank) + turn * number;
                            assert_eq!(sum(&twin, mine), 1 + 2 * turn * number);
                        }
                    });
                }
                assert_eq!(sum(&whole, 1), 2);
            });
        });
    }
}

#[test]
fn a_rank_that_does_something_else_is_named() {
    for reach in REACHES {
        let builder = reach.builder().timeout(Duration::from_secs(5));
        let errors = with(3, builder, |whole| match whole.rank() {
            2 => whole.all_gather_bytes("something else", &[]).map(drop),
            _ => whole.duplicate().map(drop),
        });
        for error in errors {
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains("rank 2") && error.contains("duplicating"),
                "{error}"
            );
        }
    }
}

/// A job over the network on one host, whose ranks say that they are on as many hosts as there are names.
fn networked(size: u32, hosts: &[&str]) -> Vec<Job> {
    let mut jobs = Job::networked(size, "127.0.0.1").unwrap();
    for (job, host) in jobs.iter_mut().zip(hosts.iter().cycle()) {
        job.host = Some((*host).to_owned());
    }
    jobs
}

fn on_threads<T: Send>(jobs: &[Job], rank: impl Fn(&Job) -> T + Sync) -> Vec<T> {
    let rank = &rank;
    std::thread::scope(|scope| {
        let threads: Vec<_> = jobs.iter().map(|job| scope.spawn(move || rank(job))).collect();
        threads
            .into_iter()
            .map(|one| one.join().expect("no rank panics"))
            .collect()
    })
}

#[test]
fn a_job_over_the_network_can_be_divided() {
    let jobs = networked(4, &["left"]);
    let builder = |reach: Reach| -> Builder { reach.builder() };
    for reach in REACHES {
        let jobs = if reach == Reach::Mapped {
            jobs.clone()
        } else {
            networked(4, &["left"])
        };
        on_threads(&jobs, |job| {
            let whole = builder(reach).join(job).unwrap();
            let half = whole.split(Some(whole.rank() / 2), 0).unwrap().unwrap();
            assert_eq!(
                sum(&half, i64::from(whole.rank())),
                i64::from(whole.rank() / 2) * 4 + 1
            );
            let twin = whole.duplicate().unwrap();
            drop(whole);
            assert_eq!(sum(&twin, 1), 4);
        });
    }
}

#[test]
fn a_part_on_several_hosts_meets_without_rank_0() {
    on_threads(&networked(5, &["left", "right"]), |job| {
        let until = Instant::now() + Duration::from_secs(30);
        let whole = Membership::join(job, until).unwrap();
        let mine = serde_json::to_vec(&whole.reachable()).unwrap();
        let all = whole.all_gather("reachable", &mine, Vec::new(), until).unwrap();
        let reachable: Vec<Reachable> = all
            .iter()
            .map(|one| serde_json::from_slice(&one.payload).unwrap())
            .collect();
        // Ranks 4 and 1, then 3: two on another host than the third.
        let ranks = [4, 1, 3];
        let opened = (whole.rank() == 4).then(|| whole.open_part(&ranks, &reachable).unwrap());
        let said = opened.as_ref().map(|(_, invitation)| invitation);
        let said = serde_json::to_vec(&said).unwrap();
        let all = whole.all_gather("invitation", &said, Vec::new(), until).unwrap();
        let invitation: Option<sapwood::bootstrap::Invitation> =
            serde_json::from_slice(&all[4].payload).unwrap();
        if !ranks.contains(&whole.rank()) {
            assert!(whole.invited(&ranks, &invitation.unwrap()).is_err());
            return;
        }
        let part = match opened {
            Some((part, _)) => part,
            None => whole.invited(&ranks, &invitation.unwrap()).unwrap(),
        };
        let part = part.join(until).unwrap();
        assert_eq!(part.hosts(), [0, 1, 1]);
        let all = part
            .all_gather("ranks", &[job.rank as u8], Vec::new(), until)
            .unwrap();
        let found: Vec<u8> = all.iter().map(|one| one.payload[0]).collect();
        assert_eq!(found, [4, 1, 3]);
    });
}

#[test]
fn ranks_meet_by_a_unique_id() {
    for id in [
        UniqueId::on_one_host().unwrap(),
        UniqueId::at("127.0.0.1").unwrap(),
    ] {
        let bytes = id.to_bytes();
        std::thread::scope(|scope| {
            for rank in 1..3 {
                scope.spawn(move || {
                    let id = UniqueId::from_bytes(&bytes).unwrap();
                    let communicator = Communicator::from_unique_id(&id, rank, 3).unwrap();
                    assert_eq!((communicator.rank(), sum(&communicator, 2)), (rank, 6));
                    communicator.finalize().unwrap();
                });
            }
            let communicator = Communicator::from_unique_id(&id, 0, 3).unwrap();
            assert_eq!(sum(&communicator, 2), 6);
            communicator.finalize().unwrap();
        });
    }
    let error = UniqueId::on_one_host().unwrap().job(3, 3).unwrap_err();
    assert!(error.to_string().contains("the last one is 2"), "{error}");
}

#[test]
fn finalize_waits_for_everybody_and_everything() {
    for reach in REACHES {
        with(3, reach.builder(), |communicator| {
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
    for reach in REACHES {
        let said = with(2, reach.builder(), |communicator| {
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
    for reach in REACHES {
        with(3, reach.builder(), |communicator| {
            assert!(communicator.async_error().is_none());
            communicator.barrier().unwrap();
            if communicator.rank() == 2 {
                communicator.abort_handle().abort();
            }
            let handle = communicator.abort_handle();
            let until = Instant::now() + Duration::from_secs(20);
            let seen = std::thread::scope(|scope| {
                let watch = || loop {
                    if let Some(error) = handle.async_error() {
                        return error;
                    }
                    assert!(Instant::now() < until, "nobody hears of the abort");
                    std::thread::sleep(Duration::from_millis(1));
                };
                scope.spawn(watch).join().expect("the watcher sees it")
            });
            assert_eq!(seen.culprit(), Some(2), "{seen}");
            assert_eq!(communicator.async_error().unwrap().culprit(), Some(2));
            // Nobody leaves before all have seen it.
            let _ = communicator.shrink().unwrap();
        });
    }
}

#[test]
fn abort_ends_waits_in_calls_that_move_no_data() {
    let over_network = || networked(3, &["one"]);
    for jobs in [Job::local(3).unwrap(), over_network()] {
        let errors = on_threads(&jobs, |job| {
            let communicator = Reach::Messages.builder().join(job).unwrap();
            let handle = communicator.abort_handle();
            let began = Instant::now();
            let error = match job.rank {
                // It never comes; it is the others' patience that would end.
                0 => {
                    std::thread::sleep(Duration::from_millis(100));
                    handle.abort();
                    communicator.barrier().unwrap_err()
                }
                _ => communicator.window::<f32>(100).unwrap_err(),
            };
            assert!(began.elapsed() < Duration::from_secs(10), "{error}");
            // Nobody leaves before all have their error.
            let _ = communicator.shrink().unwrap();
            error.to_string()
        });
        assert!(
            errors[1].contains("gave up") || errors[1].contains("interrupted"),
            "{errors:?}"
        );
    }
    // The same rank's own wait.
    for jobs in [Job::local(2).unwrap(), networked(2, &["one"])] {
        on_threads(&jobs, |job| {
            let communicator = Reach::Messages.builder().join(job).unwrap();
            let handle = communicator.abort_handle();
            if job.rank == 1 {
                // It waits for the other's end, which it sees by its error.
                assert!(communicator.split(Some(0), 0).is_err());
                return;
            }
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(100));
                    handle.abort();
                });
                std::thread::sleep(Duration::from_millis(200));
                assert!(communicator.all_gather_bytes("anything", &[]).is_err());
            });
        });
    }
}

#[test]
fn shrinking_leaves_out_who_has_left_and_nobody_else() {
    for reach in REACHES {
        for over_network in [false, true] {
            let jobs = if over_network {
                networked(5, &["one"])
            } else {
                Job::local(5).unwrap()
            };
            on_threads(&jobs, |job| {
                let whole = reach.builder().join(job).unwrap();
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

fn text(outcome: Result<Communicator, sapwood::communicator::CommunicatorError>) -> String {
    outcome.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn who_does_not_come_to_shrink_is_named_and_may_come_later() {
    with(3, Reach::Mapped.builder(), |whole| {
        whole.barrier().unwrap();
        if whole.rank() == 2 {
            std::thread::sleep(Duration::from_secs(1));
        } else {
            whole.set_timeout(Duration::from_millis(200));
            let error = text(whole.shrink());
            // On a busy machine not only this one may be late.
            assert!(error.contains("2 of 3 did not come to"), "{error}");
        }
        whole.set_timeout(Duration::from_secs(30));
        let all = whole.shrink().unwrap();
        assert_eq!((all.size(), sum(&all, 1)), (3, 3));
    });
}
