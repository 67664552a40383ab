//! Peers that die, leave or are stopped.

use std::time::{Duration, Instant};

use sapwood::fabric::{Access, PostError, Status};

use super::Case;
use crate::line::{Line, at, part, read, write, write_with};
use crate::member::{Member, peek, poke};

pub const CASES: &[Case] = &[
    Case {
        ranks: 3,
        modes: super::PROCESSES,
        victims: &[1],
        ..Case::new("a peer that dies is reported", death)
    },
    Case {
        modes: super::PROCESSES,
        victims: &[1],
        ..Case::new("a death ends what waits for the dead", death_while_waiting)
    },
    Case::new("a peer that leaves is reported", leaving),
    Case {
        modes: super::PROCESSES,
        victims: &[1],
        needs: |fabric| {
            if fabric.capabilities().progress_while_stopped {
                Ok(())
            } else {
                Err("a stopped peer makes no progress")
            }
        },
        ..Case::new("a stopped peer is reached and is not dead", stopped)
    },
    Case {
        modes: super::PROCESSES,
        victims: &[1],
        ..Case::new("a kill leaves no file behind", nothing_left)
    },
];

/// Kills a process of this suite.
pub fn kill(pid: i32) {
    // SAFETY: a plain system call; the number is that of a rank of this run, which its parent has not yet waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0, "kill {pid}");
}

/// A process that is stopped now and then, and goes on in the end whatever happens.
pub struct Stopped(i32);

impl Stopped {
    pub fn new(pid: i32) -> Self {
        Self(pid)
    }

    /// Returns once it has stopped.
    pub fn stop(&self) {
        // SAFETY: as in `kill`.
        assert_eq!(unsafe { libc::kill(self.0, libc::SIGSTOP) }, 0);
        loop {
            let stat =
                std::fs::read_to_string(format!("/proc/{}/stat", self.0)).expect("the state of a rank");
            let state = stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('T'));
            if state == Some(true) {
                return;
            }
            std::thread::yield_now();
        }
    }

    pub fn resume(&self) {
        // SAFETY: as in `kill`.
        unsafe { libc::kill(self.0, libc::SIGCONT) };
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.resume();
    }
}

fn take_pid(member: &Member) -> i32 {
    i32::from_ne_bytes(member.take(1).try_into().expect("a process number"))
}

fn tell_pid(member: &Member) {
    member.give(0, &std::process::id().to_ne_bytes());
}

/// Until something says that the peer is gone.
fn reported(line: &mut Line, peer: u32, member: &Member) -> Vec<sapwood::fabric::Completion> {
    let deadline = Instant::now() + member.patience;
    let mut all = Vec::new();
    loop {
        all.extend(line.poll_all());
        let lost = |completion: &sapwood::fabric::Completion| {
            completion.peer == peer && completion.status == Status::PeerUnreachable
        };
        if all.iter().any(lost) {
            return all;
        }
        assert!(
            Instant::now() < deadline,
            "the loss of rank {peer} was not reported: {all:?}"
        );
        line.endpoint
            .wait((Instant::now() + Duration::from_millis(50)).min(deadline))
            .expect("wait");
    }
}

fn death(member: &mut Member) {
    let mut line = member.connect();
    let memory = member.memory(1 << 20, Access::ALL);
    match member.rank {
        1 => {
            tell_pid(member);
            member.offer(0, &memory);
            let theirs = member.accept(&mut line, 0);
            loop {
                line.perform(0, write(1, part(&memory, 0, 1 << 20), at(&theirs, 0)));
            }
        }
        0 => {
            let peer = take_pid(member);
            let theirs = member.accept(&mut line, 1);
            member.offer(1, &memory);
            std::thread::sleep(Duration::from_millis(5));
            kill(peer);
            let deadline = member.deadline();
            let ended = 'lost: loop {
                assert!(Instant::now() < deadline, "the death of rank 1 was not reported");
                let scratch = member.memory(64, Access::LOCAL);
                let posted = line
                    .endpoint
                    .post(1, &[read(1, part(&scratch, 0, 64), at(&theirs, 0))]);
                for completion in line.listen(Duration::from_millis(1)) {
                    assert_eq!(completion.peer, 1);
                    if completion.status != Status::Success {
                        break 'lost completion;
                    }
                }
                // A fabric that needs a while to notice takes what it can hold until then.
                assert!(matches!(
                    posted,
                    Ok(())
                        | Err(PostError::QueuePairError { posted: 0 } | PostError::QueueFull { posted: 0 })
                ));
            };
            assert!(member.last_words.contains(&ended.status), "{ended:?}");
            // Refused by what was left of it, it is not known to be gone.
            assert!(ended.status != Status::PeerUnreachable || !line.endpoint.reachable(1));
            assert!(line.endpoint.reachable(2));
            // Who lives is still reached.
            line.expect_immediates(2, 50, 1);
            member.offer(2, &memory);
            let survivor = loop {
                let next = line.next("a write of the survivor");
                if next.peer == 2 {
                    break next;
                }
                // What was in flight to the dead one when that was noticed.
                assert_ne!(next.status, Status::Success, "{next:?}");
            };
            assert_eq!((survivor.id, survivor.status), (50, Status::Success));
            assert!(line.endpoint.reachable(2));
            member.give(2, b"seen");
        }
        _ => {
            // Rank 2 only waits: for it, too, the death is something to do.
            let deadline = member.deadline();
            while line.endpoint.reachable(1) {
                assert!(
                    Instant::now() < deadline,
                    "rank 2 did not notice the death of rank 1"
                );
                line.endpoint.wait(deadline).expect("wait");
                line.poll();
            }
            let theirs = member.accept(&mut line, 0);
            line.perform(0, write_with(1, part(&memory, 0, 8), at(&theirs, 0), 1));
            // Gone before rank 0 has looked, it would be another that is lost.
            member.take(0);
        }
    }
}

fn death_while_waiting(member: &mut Member) {
    let mut line = member.connect();
    let memory = member.memory(4096, Access::ALL);
    if member.rank == 1 {
        tell_pid(member);
        member.offer(0, &memory);
        std::thread::sleep(Duration::from_secs(600));
    }
    let peer = take_pid(member);
    let theirs = member.accept(&mut line, 1);
    line.expect_immediates(1, 10, 2);
    // No receive will ever be there for these.
    let with = |id| write_with(id, part(&memory, 0, 8), at(&theirs, 0), 1);
    line.endpoint.post(1, &[with(1), with(2)]).expect("post");
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        kill(peer);
    });
    let mut all = reported(&mut line, 1, member);
    killer.join().expect("the killer");
    let deadline = member.deadline();
    while all.len() < 4 {
        assert!(Instant::now() < deadline, "not everything was ended: {all:?}");
        all.extend(line.poll_all());
    }
    all.sort_by_key(|completion| completion.id);
    assert!(
        all.iter().map(|completion| completion.id).eq([1, 2, 10, 11]),
        "{all:?}"
    );
    assert!(
        all.iter().all(|completion| completion.status != Status::Success),
        "{all:?}"
    );
    let refused = line.endpoint.post(1, &[with(3)]);
    assert_eq!(refused, Err(PostError::QueuePairError { posted: 0 }));
}

fn leaving(member: &mut Member) {
    let mut line = member.connect();
    let memory = member.memory(4096, Access::ALL);
    if member.rank == 1 {
        member.offer(0, &memory);
        let theirs = member.accept(&mut line, 0);
        // What was handed over before leaving still arrives.
        line.perform(0, write_with(1, part(&memory, 0, 8), at(&theirs, 0), 42));
        drop(line);
        member.give(0, b"left");
        member.take(0);
        return;
    }
    line.expect_immediates(1, 10, 3);
    let theirs = member.accept(&mut line, 1);
    member.offer(1, &memory);
    member.take(1);
    let all = reported(&mut line, 1, member);
    let first = all
        .iter()
        .find(|completion| completion.id == 10)
        .expect("the last words");
    assert_eq!((first.status, first.immediate), (Status::Success, Some(42)));
    let late = line
        .endpoint
        .post(1, &[write(2, part(&memory, 0, 8), at(&theirs, 0))]);
    assert_eq!(late, Err(PostError::QueuePairError { posted: 0 }));
    assert!(!line.endpoint.reachable(1));
    member.give(1, b"seen");
}

fn stopped(member: &mut Member) {
    let mut line = member.connect();
    let memory = member.memory(4096, Access::ALL);
    if member.rank == 1 {
        tell_pid(member);
        line.expect_immediates(0, 5, 1);
        member.offer(0, &memory);
        let arrived = line
            .await_successes(1, "an immediate that came while we were stopped")
            .remove(0);
        assert_eq!((arrived.immediate, peek(&memory, 0, 8)), (Some(9), vec![4; 8]));
        return;
    }
    let peer = Stopped::new(take_pid(member));
    let theirs = member.accept(&mut line, 1);
    peer.stop();
    poke(&memory, 0, &[4; 8]);
    for id in 0..200 {
        line.perform(1, write(id, part(&memory, 0, 8), at(&theirs, 0)));
        line.perform(1, read(id, part(&memory, 8, 8), at(&theirs, 0)));
    }
    assert_eq!(peek(&memory, 8, 8), [4; 8]);
    line.perform(1, write_with(1, part(&memory, 0, 8), at(&theirs, 0), 9));
    assert_eq!(line.listen(Duration::from_millis(100)), []);
    assert!(line.endpoint.reachable(1), "stopped is not dead");
}

/// Names that this library could have left. (Others use these folders, too.)
fn leftovers() -> Vec<String> {
    ["/dev/shm", "/tmp"]
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().display().to_string()))
        .filter(|path| path.to_lowercase().contains("sapwood"))
        .collect()
}

/// Files of those folders that a process has mapped or open, under whatever name.
fn held(pid: i32) -> Vec<String> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("the mappings of a rank");
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the descriptors of a rank");
    let open = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    maps.lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(5).map(String::from))
        .chain(open.map(|path| path.display().to_string()))
        .filter(|path| path.starts_with("/dev/shm/") || path.starts_with("/tmp/"))
        .filter(|path| !path.contains("/conformance-"))
        .collect()
}

fn nothing_left(member: &mut Member) {
    let before = leftovers();
    let mut line = member.connect();
    let memory = member.memory(1 << 20, Access::ALL);
    if member.rank == 1 {
        tell_pid(member);
        let theirs = member.accept(&mut line, 0);
        loop {
            line.perform(0, write(1, part(&memory, 0, 1 << 20), at(&theirs, 0)));
        }
    }
    let peer = take_pid(member);
    member.offer(1, &memory);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(
        held(peer),
        Vec::<String>::new(),
        "files with names, which a kill would leave behind"
    );
    kill(peer);
    line.endpoint.fence(1, member.deadline()).expect("fence");
    let new: Vec<_> = leftovers()
        .into_iter()
        .filter(|path| !before.contains(path))
        .collect();
    assert_eq!(new, Vec::<String>::new());
}
