//! Splitting and duplicating: who comes together, in which order, and that nothing is shared with what it was made from.

use std::time::{Duration, Instant};

use sapwood::bootstrap::{Invitation, Membership, Reachable};
use sapwood::engine::reduce::Operation;

use crate::{WAYS, Way, networked, on_threads, sum, with, with_patience};

#[test]
fn ranks_of_one_color_come_together_in_the_order_of_their_keys() {
    for way in WAYS {
        with(5, way, |whole| {
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
            assert_eq!(part.has_load_store(), way == Way::Mapped);
            assert_eq!(sum(&part, i64::from(rank)), mates);
            assert_eq!(sum(&whole, 1), 5);
            part.barrier().unwrap();
        });
    }
}

#[test]
fn parts_of_parts_go_on_when_the_whole_is_gone() {
    for way in WAYS {
        with(8, way, |whole| {
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
    for way in WAYS {
        with(3, way, |whole| {
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
    for way in WAYS {
        with(3, way, |whole| {
            let twin = whole.duplicate().unwrap();
            assert_eq!((twin.rank(), twin.size()), (whole.rank(), 3));
            let mut window = whole.window::<f32>(100).unwrap();
            let error = twin.all_reduce(&mut window, Operation::Sum).unwrap_err();
            assert!(error.to_string().contains("another communicator"), "{error}");
            // Ended by one rank, on all; its twin does not notice.
            twin.barrier().unwrap();
            // Who leaves a barrier does not know that the others have left it, too.
            whole.barrier().unwrap();
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
fn a_rank_that_does_something_else_is_named() {
    for way in WAYS {
        let errors = with_patience(3, way, Duration::from_secs(5), |whole| match whole.rank() {
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

#[test]
fn a_job_over_the_network_can_be_divided() {
    for way in WAYS {
        let jobs = way.of(networked(4, &["left"]));
        on_threads(&jobs, |job| {
            let whole = way.builder().join(job).unwrap();
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
        let invitation: Option<Invitation> = serde_json::from_slice(&all[4].payload).unwrap();
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
