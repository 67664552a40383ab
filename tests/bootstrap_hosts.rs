//! Ranks that say they are on several hosts, and pairs of processes, as threads.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use sapwood::bootstrap::{BootstrapError, Job, JoinProgress, Membership, PairRole, Rendezvous, Secret};
use sapwood::communicator::Communicator;
use sapwood::engine::reduce::Operation;

fn soon(seconds: f64) -> Instant {
    Instant::now() + Duration::from_secs_f64(seconds)
}

fn on_threads<T: Send>(jobs: Vec<Job>, body: impl Fn(Job) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = jobs.into_iter().map(|job| scope.spawn(|| body(job))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Descriptors of a pipe that holds one byte.
fn pipe_with(byte: u8) -> OwnedFd {
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, &[byte]).unwrap();
    reader.into()
}

fn content(descriptor: OwnedFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::from(descriptor).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn bytes_go_to_all_and_descriptors_to_host_mates() {
    let names = [
        Some("left"),
        None,
        Some("left"),
        Some("right"),
        None,
        Some("right"),
    ];
    let numbers = [0, 1, 0, 2, 1, 2];
    let mut jobs = Job::local(6).unwrap();
    for (job, name) in jobs.iter_mut().zip(names) {
        job.host = name.map(str::to_owned);
    }
    on_threads(jobs, |job| {
        let membership = Membership::join(&job, soon(30.0)).unwrap();
        let me = job.rank as usize;
        assert_eq!(membership.hosts(), numbers);
        let mates: Vec<u32> = (0..6)
            .filter(|rank| numbers[*rank as usize] == numbers[me])
            .collect();
        assert_eq!(membership.host_ranks(), mates);
        let all = membership
            .all_gather(
                "windows",
                &[job.rank as u8],
                vec![pipe_with(job.rank as u8)],
                soon(30.0),
            )
            .unwrap();
        for (rank, one) in all.into_iter().enumerate() {
            assert_eq!(one.payload, [rank as u8]);
            let mate = numbers[rank] == numbers[me];
            assert_eq!(one.descriptors.len(), usize::from(mate), "rank {me} from {rank}");
            assert_eq!(membership.same_process(rank as u32), mate);
            // One of the ranks that share the pipe gets the byte.
            drop(one.descriptors);
        }
        membership.barrier("read", soon(30.0)).unwrap();
    });
}

#[test]
fn a_host_without_a_name_is_refused() {
    let mut job = Job::local(1).unwrap().remove(0);
    job.host = Some(String::new());
    let error = Membership::join(&job, soon(1.0)).unwrap_err();
    assert!(matches!(error, BootstrapError::InvalidJob(_)), "{error}");
}

#[test]
fn a_pair_of_one_user_meets_without_a_secret_and_says_what_it_waits_for() {
    // Nobody else's pair uses this port: it is this process's own number.
    let port = (std::process::id() % 60_000) as u16 + 1;
    let server = Job::pair(port, PairRole::Server, None, None).unwrap();
    let client = Job::pair(port, PairRole::Client, Some("127.0.0.1"), None).unwrap();
    std::thread::scope(|scope| {
        let client = scope.spawn(move || {
            let mut said = Vec::new();
            let membership = Membership::join_with(&client, soon(30.0), |progress| {
                said.push(match progress {
                    JoinProgress::NobodyThere { .. } => "nobody there",
                    JoinProgress::Accepted => "accepted",
                    other => panic!("a client came to {other:?}"),
                });
            });
            let all = membership
                .unwrap()
                .all_gather("hello", b"client", vec![], soon(30.0));
            (said, all.unwrap())
        });
        std::thread::sleep(Duration::from_millis(100));
        let mut said = Vec::new();
        let membership = Membership::join_with(&server, soon(30.0), |progress| {
            said.push(format!("{progress:?}"));
        })
        .unwrap();
        let all = membership
            .all_gather("hello", b"server", vec![pipe_with(7)], soon(30.0))
            .unwrap();
        assert_eq!(all[1].payload, b"client");
        assert!(
            said[0].starts_with("Open") && said[1].contains("absent: [1]"),
            "{said:?}"
        );
        let (said, mut all) = client.join().unwrap();
        assert_eq!(said, ["nobody there", "accepted"]);
        assert_eq!(all[0].payload, b"server");
        assert_eq!(content(all[0].descriptors.remove(0)), [7]);
    });
}

#[test]
fn a_pair_with_a_secret_meets_over_the_network() {
    let secret = || Secret::from_bytes(vec![9; 32]).unwrap();
    // Nobody else's pair uses this port: it is this process's own number, below those that the system gives away.
    let port = (std::process::id() % 20_000) as u16 + 10_000;
    let server = Job::pair(port, PairRole::Server, None, Some(secret())).unwrap();
    let client = Job::pair(port, PairRole::Client, None, Some(secret())).unwrap();
    let brought = on_threads(vec![client, server], |job| {
        let membership = Membership::join(&job, soon(30.0)).unwrap();
        let rank = job.rank as u8;
        membership
            .all_gather("hello", &[rank], vec![pipe_with(rank)], soon(30.0))
            .unwrap()
    });
    for all in brought {
        assert_eq!(all.iter().map(|one| one.payload[0]).collect::<Vec<_>>(), [0, 1]);
        assert!(all.iter().all(|one| one.descriptors.len() == 1));
    }
}

#[test]
fn a_port_that_nobody_opens_and_one_that_says_nothing_are_told_apart_at_the_deadline() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let join = || {
        let rendezvous = Rendezvous::network("127.0.0.1", address.port()).unwrap();
        let job = Job::new(1, 2, 1, rendezvous, Secret::random().unwrap()).unwrap();
        let started = Instant::now();
        let error = Membership::join(&job, soon(0.5)).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(5), "{error}");
        error
    };
    let silent = join();
    assert!(matches!(silent, BootstrapError::Silent { .. }), "{silent}");
    drop(listener);
    let nobody = join();
    assert!(matches!(nobody, BootstrapError::NoRendezvous { .. }), "{nobody}");
}

#[test]
fn ranks_of_one_host_that_met_over_the_network_share_memory() {
    let sums = on_threads(Job::networked(4, "127.0.0.1").unwrap(), |job| {
        let communicator = Communicator::builder().join(&job).unwrap();
        let mut values = vec![job.rank as f32 + 1.0; 1000];
        communicator
            .all_reduce_slice(&mut values, Operation::Sum)
            .unwrap();
        values
    });
    assert!(sums.iter().flatten().all(|sum| *sum == 10.0));
}
