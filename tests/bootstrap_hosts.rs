//! Ranks that say they are on several hosts, and pairs of processes, as threads.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use sapwood::bootstrap::{BootstrapError, Job, JoinProgress, Membership, PairRole};

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
