//! Ranks that say to the hub what they please.

use std::time::Instant;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::super::{Secret, control, noise};
use super::*;

/// A hub and the other ends of its lines.
fn hub(size: u32) -> Vec<Channel> {
    let secret = Secret::from_bytes(vec![3; 32]).unwrap();
    let mut ends = Vec::new();
    let mut lines = Vec::new();
    for _ in 0..size {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (own, hubs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let (left, right) = noise::both_ends(&secret).unwrap();
        ends.push(Channel::new(own, left, message::MESSAGE_LIMIT));
        lines.push(Channel::new(hubs, right, message::MESSAGE_LIMIT));
    }
    start(lines).unwrap();
    ends
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// The next message; none if the hub hangs up.
fn next(channel: &mut Channel) -> Option<Message> {
    let until = soon();
    loop {
        channel.flush().unwrap();
        if let Some(message) = channel.next_message() {
            return Some(message);
        }
        if channel.is_closed() {
            return None;
        }
        assert!(Instant::now() < until, "the hub says nothing");
        control::turn(&mut [&mut *channel], |_| 0, until).unwrap();
    }
}

fn contribution(step: &str, sequence: u64) -> Vec<u8> {
    let header = ContributionHeader {
        step: step.into(),
        sequence,
        apart: 0,
    };
    message::encode_with_payload(&header, b"payload")
}

fn news(channel: &mut Channel) -> Vec<(Rank, Leaving)> {
    let message = next(channel).unwrap();
    assert_eq!(message.kind, Kind::News);
    message::decode::<News>(&message.body).unwrap().gone
}

#[test]
fn what_all_bring_goes_to_all_others() {
    let mut ranks = hub(3);
    for rank in &mut ranks {
        rank.queue_body(Kind::Contribution, contribution("weights", 1));
        rank.flush().unwrap();
    }
    for rank in &mut ranks {
        let message = next(rank).unwrap();
        assert_eq!(message.kind, Kind::Parts);
        let parts = parts::split(message.body, 1).unwrap();
        let payload = (b"payload".to_vec(), 0);
        assert_eq!(parts, [(0, payload.clone()), (1, payload.clone()), (2, payload)]);
    }
}

#[test]
fn who_has_not_come_is_said_to_who_asks() {
    let mut ranks = hub(3);
    ranks[1].queue_body(Kind::Contribution, contribution("weights", 1));
    ranks[1].queue_body(Kind::Question, message::encode(&Question { sequence: 1 }));
    let answer: Answer = message::decode(&next(&mut ranks[1]).unwrap().body).unwrap();
    assert_eq!(answer.behind, [0, 2]);
}

#[test]
fn nonsense_costs_its_own_connection_and_the_others_are_told() {
    let nonsense: [(Kind, Vec<u8>); 6] = [
        (Kind::Contribution, vec![255; 40]),
        (Kind::Contribution, Vec::new()),
        (Kind::Question, b"who?".to_vec()),
        (Kind::Leaving, b"{}".to_vec()),
        (Kind::Relayed, contribution("weights", 1)),
        (Kind::Hello, Vec::new()),
    ];
    for (kind, body) in nonsense {
        let mut ranks = hub(3);
        ranks[2].queue_body(kind, body);
        assert!(next(&mut ranks[2]).is_none());
        for rank in &mut ranks[..2] {
            let gone = news(rank);
            assert!(matches!(
                &gone[..],
                [(
                    2,
                    Leaving {
                        verdict: Some(Verdict::Failed { rank: 2, .. }),
                        ..
                    }
                )]
            ));
        }
    }
}

#[test]
fn two_contributions_to_one_step_are_one_too_many() {
    let mut ranks = hub(2);
    ranks[1].queue_body(Kind::Contribution, contribution("weights", 1));
    ranks[1].queue_body(Kind::Contribution, contribution("bias", 2));
    assert!(next(&mut ranks[1]).is_none());
    assert_eq!(news(&mut ranks[0])[0].0, 1);
}

#[test]
fn a_rank_that_gave_up_goes_on_hearing_who_has_gone() {
    let mut ranks = hub(3);
    let leaving = |how, last| {
        let verdict = None;
        message::encode(&Leaving { how, verdict, last })
    };
    ranks[0].queue_body(Kind::Leaving, leaving(DepartureKind::GaveUp, false));
    ranks[0].flush().unwrap();
    assert_eq!(news(&mut ranks[1])[0].1.how, DepartureKind::GaveUp);
    assert_eq!(news(&mut ranks[0])[0].0, 0);
    ranks[2].queue_body(Kind::Leaving, leaving(DepartureKind::Left, true));
    // It hears of rank 0, and of itself, and is let go.
    while next(&mut ranks[2]).is_some() {}
    for rank in &mut ranks[..2] {
        let gone = news(rank);
        assert_eq!((gone[0].0, gone[0].1.how), (2, DepartureKind::Left));
    }
    // A connection that ends without a word is a death: once for who had given up, and never for who had left.
    let last = ranks.remove(0);
    drop(last);
    drop(ranks.remove(1));
    let gone = news(&mut ranks[0]);
    assert_eq!(
        (gone.len(), gone[0].0, gone[0].1.how),
        (1, 0, DepartureKind::Died)
    );
    ranks[0].queue_body(Kind::Question, message::encode(&Question { sequence: 9 }));
    assert_eq!(
        next(&mut ranks[0]).unwrap().kind,
        Kind::Answer,
        "nobody's end is news twice"
    );
}

#[test]
fn who_dies_in_a_step_ends_it_for_all() {
    let mut ranks = hub(3);
    for rank in &mut ranks[..2] {
        rank.queue_body(Kind::Contribution, contribution("weights", 1));
        rank.flush().unwrap();
    }
    drop(ranks.remove(2));
    for rank in &mut ranks {
        let gone = news(rank);
        assert_eq!((gone[0].0, gone[0].1.how), (2, DepartureKind::Died));
    }
}

#[test]
fn that_a_rank_ends_after_it_has_given_up_is_said_too() {
    let mut ranks = hub(3);
    let leaving = |how, last| Leaving {
        how,
        verdict: None,
        last,
    };
    let given_up = leaving(DepartureKind::GaveUp, false);
    ranks[1].queue_body(Kind::Leaving, message::encode(&given_up));
    ranks[1].flush().unwrap();
    for rank in [0, 2] {
        let gone = news(&mut ranks[rank]);
        assert_eq!(
            (gone[0].0, gone[0].1.how, gone[0].1.last),
            (1, DepartureKind::GaveUp, false)
        );
    }
    drop(ranks.remove(1));
    for rank in &mut ranks {
        let gone = news(rank);
        assert_eq!(
            (gone[0].0, gone[0].1.how, gone[0].1.last),
            (1, DepartureKind::Died, true)
        );
    }
}
