use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::super::attempt::Attempt;
use super::super::progress::Watch;
use super::super::roll::Roll;
use super::super::visits::ROOM;
use super::super::{HostIdentity, Secret, returning, socket};
use super::*;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Rank 0's door, with something kept at it, and what the two ranks know of the job.
fn door() -> (Door, Vec<Job>) {
    let mut jobs = Job::local(2).unwrap();
    jobs.iter_mut().for_each(|job| job.returns = true);
    let lock = Lock::take(&jobs[0]).unwrap().unwrap();
    let peer = Peer {
        pid: std::process::id() as i32,
        host: HostIdentity::of(&jobs[0]),
    };
    let roll = Roll::create(2)
        .unwrap()
        .descriptor()
        .try_clone_to_owned()
        .unwrap();
    let door = Door::new(lock, &jobs[0], (vec![peer.clone(), peer], 7), roll);
    (door, jobs)
}

fn kept() -> Result<(String, Vec<OwnedFd>), String> {
    let (file, mut other) = UnixStream::pair().unwrap();
    other.write_all(b"kept").unwrap();
    Ok(("settings".into(), vec![file.into()]))
}

#[test]
fn who_knows_the_secret_gets_what_is_kept() {
    let (door, jobs) = door();
    // Nothing is kept: it is closed.
    let closed = returning::fetch(&jobs[1], 7, 3, Instant::now())
        .unwrap_err()
        .to_string();
    assert!(closed.contains("no other rank's door is open"), "{closed}");
    door.keep(3, kept()).unwrap();
    let (text, mut descriptors) = returning::fetch(&jobs[1], 7, 3, soon()).unwrap();
    let mut said = [0; 4];
    UnixStream::from(descriptors.remove(0))
        .read_exact(&mut said)
        .unwrap();
    assert_eq!((text.as_str(), &said), ("settings", b"kept"));
    // Of another job, or another number, there is nothing.
    for (salt, number, why) in [(8, 3, "another job"), (7, 2, "number 2")] {
        let error = returning::fetch(&jobs[1], salt, number, Instant::now()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    door.keep(2, Err("they are elsewhere".into())).unwrap();
    let error = returning::fetch(&jobs[1], 7, 2, soon()).unwrap_err().to_string();
    assert!(
        error.contains("they are elsewhere") && error.contains("SAPWOOD_RETURNS"),
        "{error}"
    );
    door.forget(3);
    let error = returning::fetch(&jobs[1], 7, 3, Instant::now()).unwrap_err();
    assert!(error.to_string().contains("any more"), "{error}");
}

#[test]
fn one_at_a_time_is_the_rank() {
    let (door, jobs) = door();
    assert!(Lock::take(&jobs[0]).unwrap().is_none());
    assert!(Lock::take(&jobs[1]).unwrap().is_some(), "it is another's");
    door.keep(0, kept()).unwrap();
    let mut again = jobs[0].clone();
    again.attempt = 1;
    let error = returning::take_lock(&again, Instant::now())
        .err()
        .expect("it is taken")
        .to_string();
    assert!(error.contains("still runs"), "{error}");
    drop(door);
    assert!(returning::take_lock(&again, soon()).unwrap().is_some());
}

#[test]
fn strangers_get_nothing_and_change_nothing() {
    let (door, jobs) = door();
    door.keep(0, kept()).unwrap();
    let place = place(&jobs[0], 0).unwrap();
    let connect = || socket::connect_to_socket(&place).unwrap();
    // Who has found the name, and knows another secret.
    let mut stranger = jobs[1].clone();
    stranger.secret = Secret::random().unwrap();
    stranger.rendezvous = place.clone();
    let mut watch = Watch {
        tell: &mut |_| {},
        still: None,
    };
    let mut attempt = Attempt::new(&stranger, soon(), &mut watch);
    let refused = attempt
        .introduce(connect())
        .err()
        .expect("it is refused")
        .to_string();
    assert!(refused.contains("secret differs"), "{refused}");
    // Garbage, of any length, with and without a plausible beginning.
    for length in [0, 1, 51, 52, 53, 5000] {
        for prefix in [&[][..], &48u32.to_le_bytes()[..]] {
            let mut stream = UnixStream::from(connect());
            stream.set_nonblocking(false).unwrap();
            let mut bytes = prefix.to_vec();
            bytes.resize(prefix.len() + length, 0xa5);
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert!(answer.is_empty(), "{length}: {answer:?}");
        }
    }
    // Those who hold it up, as many as there is room for.
    let idle: Vec<_> = (0..ROOM + 10).map(|_| connect()).collect();
    assert!(returning::fetch(&jobs[1], 7, 0, soon()).is_ok());
    drop(idle);
    // Who knows the secret, and asks for what there is not.
    let mut known = jobs[1].clone();
    known.rendezvous = place.clone();
    let mut watch = Watch {
        tell: &mut |_| {},
        still: None,
    };
    let mut channel = Attempt::new(&known, soon(), &mut watch)
        .introduce(connect())
        .unwrap();
    channel.queue_body(Kind::Contribution, b"{}".to_vec());
    channel.flush().unwrap();
    while !channel.is_closed() {
        channel.receive().unwrap();
        if let Some(message) = channel.next_message() {
            let why: String = message::decode(&message.body).unwrap();
            assert_eq!(message.kind, Kind::Refused);
            assert!(why.contains("a Contribution instead of a knock"), "{why}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(returning::fetch(&jobs[1], 7, 0, soon()).unwrap().0, "settings");
}
