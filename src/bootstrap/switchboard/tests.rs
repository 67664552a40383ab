use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::{Rendezvous, Secret, socket};
use super::*;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// All ranks of a job, as threads would have them.
fn met(jobs: Vec<Job>) -> Vec<Membership> {
    let join = |job: Job| std::thread::spawn(move || Membership::join(&job, soon()).unwrap());
    let joining: Vec<_> = jobs.into_iter().map(join).collect();
    joining.into_iter().map(|one| one.join().unwrap()).collect()
}

fn local(size: u32) -> Vec<Membership> {
    met(Job::local(size).unwrap())
}

/// A job over the network whose first two ranks say that they share a host, and the others that each has its own.
fn networked(size: u32) -> Vec<Membership> {
    let mut jobs = Job::networked(size, "127.0.0.1").unwrap();
    for job in &mut jobs {
        job.host = Some(format!("host {}", job.rank.saturating_sub(1)));
    }
    met(jobs)
}

fn bytes(bytes: &[u8]) -> Said {
    Said {
        bytes: bytes.to_vec(),
        descriptors: Vec::new(),
    }
}

/// Says back what was said, and who said it.
fn echo() -> Answer {
    Box::new(|rank, mut said| {
        said.bytes.push(rank as u8);
        Ok(said)
    })
}

#[test]
fn what_is_said_comes_with_descriptors_and_goes_back_with_them() {
    let members = local(3);
    let boards: Vec<_> = members
        .iter()
        .map(|one| one.answer_calls(4, echo()).unwrap())
        .collect();
    // Nobody elsewhere could want to know.
    assert!(boards.iter().all(|board| board.place() == Place::default()));
    for (member, rank) in members.iter().zip(0..) {
        let caller = member.caller(4, &[]);
        for peer in 0..3 {
            let (mut kept, given) = UnixStream::pair().unwrap();
            let said = Said {
                bytes: vec![7; SAID_LIMIT - 1],
                descriptors: vec![given.into()],
            };
            let mut heard = caller.call(peer, 0, said, soon()).unwrap();
            assert_eq!(heard.bytes.pop(), Some(rank));
            assert!(heard.bytes == vec![7; SAID_LIMIT - 1]);
            kept.write_all(b"leaf").unwrap();
            let mut back = [0; 4];
            UnixStream::from(heard.descriptors.remove(0))
                .read_exact(&mut back)
                .unwrap();
            assert_eq!(&back, b"leaf");
        }
        let error = caller.call(3, 0, bytes(b""), soon()).unwrap_err();
        assert!(
            error.of(3).contains("rank 3") && error.of(3).contains("3 ranks"),
            "{error}"
        );
    }
}

#[test]
fn who_is_refused_is_told_why() {
    let members = local(2);
    let _board = members[0].answer_calls(
        0,
        Box::new(|rank, said| match said.bytes.as_slice() {
            b"panic" => panic!("as it was asked to"),
            b"long" => Ok(bytes(&vec![0; SAID_LIMIT + 1])),
            _ => Err(format!("rank {rank} is not served on Mondays")),
        }),
    );
    let caller = members[1].caller(0, &[]);
    let refused = |said: Vec<u8>| match caller.call(0, 0, bytes(&said), soon()) {
        Err(CallError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(Vec::new()), "rank 1 is not served on Mondays");
    assert!(refused(b"long".to_vec()).contains("its answer has 1048577 bytes"));
    assert!(refused(vec![0; SAID_LIMIT + 1]).contains("1048577 bytes are more"));
    // The thread outlives it, so that nobody waits for nothing.
    assert!(refused(b"panic".to_vec()).contains("panicked"));
    assert!(refused(Vec::new()).contains("panicked"));
}

#[test]
fn one_after_the_other_and_who_has_given_up_is_not_answered() {
    let members = local(2);
    let (go_on, wait) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel();
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    let answer: Answer = Box::new(move |_, said| {
        if counted.fetch_add(1, Ordering::Relaxed) == 0 {
            began.send(()).unwrap();
            wait.recv().unwrap();
        }
        Ok(said)
    });
    let board = members[0].answer_calls(0, answer).unwrap();
    let caller = members[1].caller(0, &[]);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| caller.call(0, 0, bytes(b"first"), soon()));
        begun.recv().unwrap();
        let moment = Instant::now() + Duration::from_millis(100);
        let silent = caller.call(0, 0, bytes(b"second"), moment).unwrap_err();
        assert_eq!(silent, CallError::Silent);
        assert!(silent.of(0).contains("rank 0"), "{silent}");
        let third = scope.spawn(|| caller.call(0, 0, bytes(b"third"), soon()));
        go_on.send(()).unwrap();
        assert_eq!(first.join().unwrap().unwrap().bytes, b"first");
        assert_eq!(third.join().unwrap().unwrap().bytes, b"third");
    });
    drop(board);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn nobody_is_there_before_after_and_in_another_life() {
    for members in [local(2), networked(3)] {
        let callee = members.len() - 1;
        let peer = callee as Rank;
        let call = |caller: &Caller, life| caller.call(peer, life, bytes(b"bud"), soon());
        let board = members[callee].answer_calls(1, echo()).unwrap();
        let mut places = vec![Place::default(); callee];
        places.push(board.place());
        let caller = members[0].caller(1, &places);
        assert_eq!(call(&caller, 0).unwrap().bytes, b"bud\0");
        // Of another life, or another number at the same port.
        assert_eq!(call(&caller, 1).unwrap_err(), CallError::NobodyThere);
        assert_eq!(
            call(&members[0].caller(2, &places), 0).unwrap_err(),
            CallError::NobodyThere
        );
        let taken = members[callee]
            .answer_calls(1, echo())
            .err()
            .expect("it is open")
            .to_string();
        assert!(
            taken.contains(&format!("rank {peer}'s switchboard 1, which is open already")),
            "{taken}"
        );
        drop(members);
        assert_eq!(
            call(&caller, 0).unwrap().bytes,
            b"bud\0",
            "they outlive the membership"
        );
        drop(board);
        assert_eq!(call(&caller, 0).unwrap_err(), CallError::NobodyThere);
    }
}

#[test]
fn ranks_of_other_hosts_are_called_over_the_network() {
    let mut members = networked(3);
    let boards: Vec<_> = members
        .iter()
        .map(|one| one.answer_calls(9, echo()).unwrap())
        .collect();
    let places: Vec<Place> = boards
        .iter()
        .map(|board| serde_json::from_str(&serde_json::to_string(&board.place()).unwrap()).unwrap())
        .collect();
    assert!(places.iter().all(|place| place.seen_by(&places).is_some()));
    let (_kept, given) = UnixStream::pair().unwrap();
    let with_descriptor = || Said {
        bytes: b"twig".to_vec(),
        descriptors: vec![given.try_clone().unwrap().into()],
    };
    for (member, rank) in members.iter().zip(0..) {
        let caller = member.caller(9, &places);
        for peer in 0..3 {
            let large = vec![rank; SAID_LIMIT - 1];
            let heard = caller.call(peer, 0, bytes(&large), soon()).unwrap();
            assert!(heard.bytes == vec![rank; SAID_LIMIT], "{rank} {peer}");
            let same_host = member.host(peer) == member.host(rank.into());
            match caller.call(peer, 0, with_descriptor(), soon()) {
                Ok(heard) => assert!(same_host && heard.descriptors.len() == 1),
                Err(error) => assert!(
                    !same_host && error.to_string().contains("another host"),
                    "{error}"
                ),
            }
        }
    }
    // Where nobody has said anything.
    let error = members[0]
        .caller(9, &[])
        .call(2, 0, bytes(b""), soon())
        .unwrap_err();
    assert!(error.to_string().contains("has not said where"), "{error}");
    // Who knows where it is, and another secret.
    members[0].job.secret = Secret::random().unwrap();
    let error = members[0]
        .caller(9, &places)
        .call(2, 0, bytes(b""), soon())
        .unwrap_err();
    assert!(error.to_string().contains("secret differs"), "{error}");
    let error = members[0]
        .caller(9, &places)
        .call(1, 0, bytes(b""), soon())
        .unwrap_err();
    assert_eq!(error, CallError::NobodyThere, "it cannot make the name");
}

#[test]
fn many_call_at_once() {
    let members = local(2);
    let _board = members[0].answer_calls(0, echo()).unwrap();
    let caller = members[1].caller(0, &[]);
    std::thread::scope(|scope| {
        for thread in 0..16u8 {
            let caller = caller.clone();
            scope.spawn(move || {
                for turn in 0..20 {
                    let heard = caller.call(0, 0, bytes(&[thread, turn]), soon()).unwrap();
                    assert_eq!(heard.bytes, [thread, turn, 1]);
                }
            });
        }
    });
}

#[test]
fn a_forked_child_leaves_it_open() {
    let members = local(2);
    let board = members[0].answer_calls(0, echo()).unwrap();
    let caller = members[1].caller(0, &[]);
    // SAFETY: the child drops what it has a copy of, which only closes descriptors and frees memory, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(board);
        // SAFETY: ends the child without running anything else of the parent's.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: the child is this test's own; nobody asks how it ended.
    assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
    assert_eq!(
        caller.call(0, 0, bytes(b"fruit"), soon()).unwrap().bytes,
        b"fruit\x01"
    );
    drop(board);
    assert_eq!(
        caller.call(0, 0, bytes(b""), soon()).unwrap_err(),
        CallError::NobodyThere
    );
}

/// One that strangers come to: where it is, and who calls it.
fn visited() -> &'static (Rendezvous, Caller, Switchboard, Vec<Membership>) {
    static VISITED: OnceLock<(Rendezvous, Caller, Switchboard, Vec<Membership>)> = OnceLock::new();
    VISITED.get_or_init(|| {
        let members = local(2);
        let board = members[0].answer_calls(0, echo()).unwrap();
        let header = CallHeader {
            salt: members[0].salt,
            number: 0,
            rank: 0,
            life: 0,
        };
        let place = place::near(&members[0].job, &header).unwrap();
        (place, members[1].caller(0, &[]), board, members)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_bytes_are_not_answered_and_change_nothing(
        plausible: bool,
        random in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let (place, caller, ..) = visited();
        let mut stranger = UnixStream::from(socket::connect_to_socket(place).unwrap());
        stranger.set_nonblocking(false).unwrap();
        if plausible {
            let _ = stranger.write_all(&48u32.to_le_bytes());
        }
        let _ = stranger.write_all(&random);
        let _ = stranger.shutdown(std::net::Shutdown::Write);
        let mut heard = Vec::new();
        let _ = stranger.read_to_end(&mut heard);
        prop_assert!(heard.is_empty());
        prop_assert_eq!(caller.call(0, 0, bytes(b"root"), soon()).unwrap().bytes, b"root\x01");
    }

    #[test]
    fn random_calls_are_read_without_harm(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = message::decode_with_payload::<CallHeader>(body.clone());
        let _ = message::decode_with_payload::<ReplyHeader>(body);
    }
}
