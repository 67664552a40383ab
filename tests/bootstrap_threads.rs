//! The bootstrap between threads of one process: joining, exchanging, and every way in which that ends early.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use sapwood::bootstrap::{BootstrapError, DepartureKind, Job, Membership, Rendezvous, Secret};

fn soon(seconds: f64) -> Instant {
    Instant::now() + Duration::from_secs_f64(seconds)
}

/// Runs every job's rank on a thread of its own and gives what each returned, by position.
fn on_threads<T: Send>(jobs: Vec<Job>, body: impl Fn(Job) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = jobs.into_iter().map(|job| scope.spawn(|| body(job))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A job's descriptions for each way in which its ranks can meet.
fn every_way(size: u32) -> impl Iterator<Item = Vec<Job>> {
    let over_network = ["127.0.0.1", "::1"].map(|host| Job::networked(size, host).unwrap());
    [Job::local(size).unwrap()].into_iter().chain(over_network)
}

fn memory_file(content: &[u8]) -> OwnedFd {
    let file = File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    file.write_all_at(content, 0).unwrap();
    file.into()
}

fn content(descriptor: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let length = File::from(descriptor.try_clone().unwrap())
        .read_at(&mut bytes, 0)
        .unwrap();
    bytes.truncate(length);
    bytes
}

#[test]
fn ranks_join_and_exchange_payloads_and_descriptors() {
    for jobs in [1, 2, 8, 32].into_iter().flat_map(every_way) {
        let size = jobs.len() as u32;
        on_threads(jobs, |job| {
            let membership = Membership::join(&job, soon(30.0)).unwrap();
            assert_eq!(
                (membership.rank(), membership.size(), membership.local_rank()),
                (job.rank, size, job.rank)
            );
            assert!((0..size).all(|rank| membership.same_process(rank)));
            assert_eq!(membership.host_ranks(), (0..size).collect::<Vec<_>>());
            for round in 0..3u8 {
                let payload = vec![round; job.rank as usize * 100];
                let file = memory_file(&job.rank.to_le_bytes());
                let all = membership
                    .all_gather("windows", &payload, vec![file], soon(30.0))
                    .unwrap();
                assert_eq!(all.len(), size as usize);
                for (rank, gathered) in (0u32..).zip(&all) {
                    assert_eq!(gathered.payload, vec![round; rank as usize * 100]);
                    assert_eq!(content(&gathered.descriptors[0]), rank.to_le_bytes());
                }
            }
            assert_eq!(
                membership
                    .departures()
                    .iter()
                    .find(|gone| gone.how != DepartureKind::Left),
                None
            );
        });
    }
}

#[test]
fn megabytes_and_hundreds_of_descriptors_pass() {
    for jobs in every_way(3) {
        on_threads(jobs, |job| {
            let membership = Membership::join(&job, soon(30.0)).unwrap();
            let payload: Vec<u8> = (0..3_000_000u32).map(|index| (index + job.rank) as u8).collect();
            let files = (0..130u8)
                .map(|index| memory_file(&[job.rank as u8, index]))
                .collect();
            let all = membership
                .all_gather("everything", &payload, files, soon(30.0))
                .unwrap();
            for (rank, gathered) in (0u32..).zip(&all) {
                assert!(
                    gathered
                        .payload
                        .iter()
                        .zip(0u32..)
                        .all(|(byte, index)| *byte == (index + rank) as u8)
                );
                assert_eq!(
                    (gathered.payload.len(), gathered.descriptors.len()),
                    (3_000_000, 130)
                );
                assert!(
                    (0..130u8)
                        .zip(&gathered.descriptors)
                        .all(|(i, file)| content(file) == [rank as u8, i])
                );
            }
        });
    }
}

#[test]
fn every_rank_that_came_names_those_that_did_not() {
    for mut jobs in every_way(8) {
        jobs.retain(|job| job.rank != 3 && job.rank != 5);
        for error in on_threads(jobs, |job| Membership::join(&job, soon(2.0)).unwrap_err()) {
            assert!(
                matches!(&error, BootstrapError::Missing { ranks, size: 8, .. } if *ranks == [3, 5]),
                "{error}"
            );
            assert!(
                error
                    .to_string()
                    .starts_with("ranks 3 and 5 of 8 did not join within"),
                "{error}"
            );
        }
    }
}

#[test]
fn an_early_deadline_on_one_rank_still_names_the_absent_on_all() {
    for mut jobs in every_way(4) {
        jobs.retain(|job| job.rank != 2);
        for error in on_threads(jobs, |job| {
            Membership::join(&job, soon(if job.rank == 1 { 1.0 } else { 20.0 })).unwrap_err()
        }) {
            assert!(
                matches!(&error, BootstrapError::Missing { ranks, .. } if *ranks == [2]),
                "{error}"
            );
        }
    }
}

#[test]
fn without_rank_0_the_others_say_so() {
    for mut jobs in every_way(3) {
        jobs.remove(0);
        for error in on_threads(jobs, |job| Membership::join(&job, soon(0.2)).unwrap_err()) {
            assert!(
                error
                    .to_string()
                    .starts_with("rank 0 did not open the rendezvous "),
                "{error}"
            );
        }
    }
}

#[test]
fn another_secret_is_refused_on_that_rank_and_harms_nobody_else() {
    for jobs in every_way(3) {
        let mut stranger = jobs[2].clone();
        stranger.secret = Secret::random().unwrap();
        std::thread::scope(|scope| {
            let join = |job: Job| scope.spawn(move || Membership::join(&job, soon(20.0)).map(drop));
            let early: Vec<_> = jobs[..2].iter().cloned().map(join).collect();
            let error = join(stranger).join().unwrap().unwrap_err();
            assert!(
                matches!(error, BootstrapError::NotAuthenticated { .. }),
                "{error}"
            );
            assert!(error.to_string().contains("secret differs"), "{error}");
            join(jobs[2].clone()).join().unwrap().unwrap();
            early.into_iter().for_each(|rank| rank.join().unwrap().unwrap());
        });
    }
}

#[test]
fn duplicate_ranks_and_other_sizes_are_told_why() {
    for jobs in every_way(3) {
        let with =
            |rank, size| Job::new(rank, size, 0, jobs[0].rendezvous.clone(), jobs[0].secret.clone()).unwrap();
        std::thread::scope(|scope| {
            let join = |job: Job| scope.spawn(move || Membership::join(&job, soon(20.0)));
            let root = join(jobs[0].clone());
            // Whichever comes second is the duplicate; the other waits for rank 2.
            let mut twins = vec![join(jobs[1].clone()), join(with(1, 3))];
            let second = loop {
                match twins.iter().position(|twin| twin.is_finished()) {
                    Some(second) => break second,
                    None => std::thread::sleep(Duration::from_millis(5)),
                }
            };
            let duplicate = twins.remove(second).join().unwrap().unwrap_err();
            assert!(
                duplicate.to_string().contains("rank 1 has already joined"),
                "{duplicate}"
            );
            let other_size = join(with(2, 4)).join().unwrap().unwrap_err();
            assert!(
                other_size
                    .to_string()
                    .contains("a job of 4 ranks and this one has 3"),
                "{other_size}"
            );
            let second_root = join(with(0, 3)).join().unwrap().unwrap_err();
            assert!(
                matches!(second_root, BootstrapError::RendezvousTaken { .. }),
                "{second_root}"
            );
            let last = join(jobs[2].clone());
            for rank in twins.into_iter().chain([root, last]) {
                rank.join().unwrap().unwrap();
            }
        });
    }
}

#[test]
fn a_mismatched_step_names_both_steps_on_every_rank() {
    for jobs in every_way(4) {
        let errors = on_threads(jobs, |job| {
            let membership = Membership::join(&job, soon(20.0)).unwrap();
            let step = if job.rank == 2 {
                "register bias"
            } else {
                "register weights"
            };
            let error = membership.all_gather(step, &[], vec![], soon(20.0)).unwrap_err();
            assert_eq!(
                membership
                    .all_gather("again", &[], vec![], soon(20.0))
                    .unwrap_err(),
                error
            );
            error
        });
        for error in errors {
            let text = error.to_string();
            assert!(
                text.contains("rank 2")
                    && text.contains("register bias")
                    && text.contains("register weights"),
                "{text}"
            );
        }
    }
}

#[test]
fn a_rank_that_does_not_come_to_a_step_is_named_on_all_who_did() {
    let missed = |absent, jobs| {
        let errors = on_threads(jobs, |job| {
            let membership = Membership::join(&job, soon(20.0)).unwrap();
            if job.rank == absent {
                std::thread::sleep(Duration::from_secs(5));
                return None;
            }
            let outcome = membership.all_gather("tuning", &[1], vec![], soon(2.0));
            Some(outcome.unwrap_err())
        });
        for error in errors.into_iter().flatten() {
            assert!(
                matches!(&error, BootstrapError::Missing { ranks, .. } if *ranks == [absent]),
                "{error}"
            );
        }
    };
    std::thread::scope(|scope| {
        for absent in [0, 2] {
            for jobs in every_way(4) {
                scope.spawn(move || missed(absent, jobs));
            }
        }
    });
}

#[test]
fn a_rank_that_cannot_go_on_ends_the_step_on_all_with_its_reason() {
    for (unable, jobs) in [0, 2]
        .into_iter()
        .flat_map(|unable| every_way(4).map(move |jobs| (unable, jobs)))
    {
        let begun = Instant::now();
        // It lives on until all others have been told.
        let told = std::sync::Barrier::new(4);
        let errors = on_threads(jobs, |job| {
            let membership = Membership::join(&job, soon(60.0)).unwrap();
            membership.barrier("all are there", soon(60.0)).unwrap();
            if job.rank == unable {
                // Some wait in the step by now, some may not have come to it.
                std::thread::sleep(Duration::from_millis(20 * u64::from(unable)));
                membership.give_up("registering weights", "there is no memory left");
                membership.give_up("registering weights", "and another reason");
            }
            let error = membership.barrier("registering weights", soon(60.0)).unwrap_err();
            assert_eq!(membership.barrier("again", soon(60.0)).unwrap_err(), error);
            told.wait();
            error
        });
        for error in errors {
            let wanted =
                format!("rank {unable} cannot go on with \"registering weights\": there is no memory left");
            assert_eq!(error.to_string(), wanted);
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "by the deadline");
    }
}

#[test]
fn leaving_and_panicking_are_told_apart() {
    for mut jobs in every_way(3) {
        let watcher = jobs.remove(1);
        std::thread::scope(|scope| {
            for (job, panics) in jobs.into_iter().zip([false, true]) {
                scope.spawn(move || {
                    let _ = std::panic::catch_unwind(|| {
                        let _membership = Membership::join(&job, soon(20.0)).unwrap();
                        std::thread::sleep(Duration::from_millis(100));
                        assert!(!panics, "a rank that panics, as this test wants");
                    });
                });
            }
            let membership = Membership::join(&watcher, soon(20.0)).unwrap();
            assert_eq!(membership.departed(), None);
            let patience = soon(20.0);
            while membership.departures().len() < 2 && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(5));
            }
            let gone: Vec<_> = membership
                .departures()
                .iter()
                .map(|gone| (gone.rank, gone.how))
                .collect();
            assert_eq!(gone, [(0, DepartureKind::Left), (2, DepartureKind::Panicked)]);
            let error = membership.barrier("the end", soon(20.0)).unwrap_err();
            assert!(matches!(error, BootstrapError::Departed { .. }), "{error}");
        });
    }
}

#[test]
fn a_socket_path_works_too_and_is_gone_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rendezvous");
    // A rank 0 that was killed leaves its path behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut jobs = Job::local(2).unwrap();
    for job in &mut jobs {
        job.rendezvous = Rendezvous::Path(path.clone());
    }
    on_threads(jobs, |job| {
        Membership::join(&job, soon(20.0))
            .unwrap()
            .barrier("met", soon(20.0))
            .unwrap()
    });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_payload_that_is_too_large_is_refused_and_nothing_is_broken() {
    for jobs in every_way(2) {
        on_threads(jobs, |job| {
            let membership = Membership::join(&job, soon(20.0)).unwrap();
            let error = membership
                .all_gather("huge", &vec![0; 64 << 20], vec![], soon(20.0))
                .unwrap_err();
            assert!(matches!(error, BootstrapError::TooLarge { .. }), "{error}");
            membership.barrier("still here", soon(20.0)).unwrap();
        });
    }
}

#[test]
fn a_job_alone_needs_no_rendezvous() {
    let job = Job::local(1).unwrap().remove(0);
    let membership = Membership::join(&job, soon(1.0)).unwrap();
    let mut all = membership
        .all_gather("me", b"self", vec![memory_file(b"x")], soon(1.0))
        .unwrap();
    let mut text = String::new();
    File::from(all[0].descriptors.pop().unwrap())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(
        (all[0].payload.as_slice(), membership.departed()),
        (&b"self"[..], None)
    );
}
