//! Two ends of a channel over a pair of sockets.

use super::super::Secret;
use super::*;
use proptest::prelude::*;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

fn pair(limit: usize) -> (Channel, Channel) {
    let secret = Secret::from_bytes(vec![5; 32]).unwrap();
    let (left, right) = noise::both_ends(&secret).unwrap();
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (first, second) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    (
        Channel::new(first, left, limit),
        Channel::new(second, right, limit),
    )
}

fn carry(from: &mut Channel, to: &mut Channel) -> Message {
    for _ in 0..100_000 {
        from.flush().unwrap();
        to.receive().unwrap();
        if let Some(message) = to.next_message() {
            return message;
        }
    }
    panic!("the message did not arrive");
}

#[test]
fn large_bodies_and_many_descriptors_arrive_whole() {
    let (mut left, mut right) = pair(8 << 20);
    let body: Vec<u8> = (0..5_000_000u32).map(|index| (index * 7) as u8).collect();
    let descriptors: Vec<OwnedFd> = (0..600)
        .map(|_| OwnedFd::from(std::fs::File::open("/dev/null").unwrap()))
        .collect();
    left.queue(Kind::Relayed, Arc::new(body.clone()), Arc::new(descriptors));
    left.queue_body(Kind::Hello, Vec::new());
    let message = carry(&mut left, &mut right);
    assert_eq!((message.kind, message.descriptors.len()), (Kind::Relayed, 600));
    assert!(message.body == body);
    assert_eq!(carry(&mut left, &mut right).kind, Kind::Hello);
    assert!(left.is_flushed());
}

#[test]
fn descriptors_are_refused_over_the_network() {
    let (left, mut right) = pair(1000);
    let mut left = left.over_network();
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    left.queue(Kind::Contribution, Arc::default(), Arc::new(vec![file]));
    let refused = left.flush().unwrap_err();
    assert!(refused.contains("on one host only"), "{refused}");
    right.receive().unwrap();
    assert!(right.next_message().is_none());
}

#[test]
fn a_message_above_the_limit_is_refused() {
    let (mut left, mut right) = pair(1000);
    left.queue_body(Kind::Hello, vec![0; 1001]);
    left.flush().unwrap();
    assert!(right.receive().unwrap_err().contains("more than 1000 bytes"));
}

#[test]
fn a_hang_up_is_seen_after_the_last_message() {
    let (mut left, mut right) = pair(1000);
    left.queue_body(Kind::Verdict, vec![1]);
    left.flush().unwrap();
    drop(left);
    right.receive().unwrap();
    assert!(!right.is_closed());
    assert!(right.next_message().is_some());
    assert!(right.is_closed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_bytes_on_an_established_connection_are_refused(bytes in prop::collection::vec(any::<u8>(), 1..3000)) {
        let (left, mut right) = pair(1000);
        rustix::io::write(&**left.socket(), &bytes).unwrap();
        drop(left);
        // Either a malformed record is noticed or the stream ends inside one; no message comes of it.
        let _ = right.receive();
        prop_assert!(right.next_message().is_none());
    }
}
