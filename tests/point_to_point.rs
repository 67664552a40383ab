//! Messages between two ranks: order, tags, lengths, many at once, to oneself, and what happens where the two ends do not
//! want the same or one never comes.

use std::time::Duration;

use sapwood::communicator::{CommunicatorError, Request};
use sapwood::engine::EngineError;
use sapwood::engine::reduce::Operation;

#[path = "ranks/mod.rs"]
mod support;

use support::{Reach, over_both, with};

fn value(from: u32, to: u32, index: usize) -> u32 {
    (index as u32).wrapping_mul(2_654_435_761) ^ from << 16 ^ to << 8
}

fn text<T, E: std::fmt::Display>(outcome: Result<T, E>) -> String {
    outcome.err().expect("an error").to_string()
}

fn every_length_arrives(reach: Reach) {
    with(2, reach.builder(), |communicator| {
        let rank = communicator.rank();
        let mut window = communicator.window::<u32>(2_000_000).unwrap();
        for (number, len) in [0usize, 1, 3, 1_000, 70_001, 1_900_000, 5]
            .into_iter()
            .enumerate()
        {
            if rank == 0 {
                for (index, x) in window[7..7 + len].iter_mut().enumerate() {
                    *x = value(0, 1, index);
                }
                communicator.send(&window, 7..7 + len, 1, number as u32).unwrap();
            } else {
                window.fill(1);
                let got = communicator
                    .receive(&mut window, 3..2_000_000, 0, number as u32)
                    .unwrap();
                assert_eq!(got, len);
                assert!(
                    window[3..3 + len]
                        .iter()
                        .enumerate()
                        .all(|(i, x)| *x == value(0, 1, i))
                );
                assert!(
                    window[..3].iter().chain(&window[3 + len..]).all(|x| *x == 1),
                    "{len}"
                );
            }
        }
        let moved = communicator.counters();
        assert_eq!(moved.bytes_copied, 0, "{moved:?}");
    });
}

fn all_send_to_all_at_once_in_a_group(reach: Reach) {
    for size in [2, 3, 5] {
        with(size, reach.builder(), |communicator| {
            let (rank, len) = (communicator.rank(), 3_001);
            let mut from = (0..size)
                .map(|_| communicator.window::<u32>(len).unwrap())
                .collect::<Vec<_>>();
            let mut into = (0..size)
                .map(|_| communicator.window::<u32>(len).unwrap())
                .collect::<Vec<_>>();
            let mut sum = communicator.window::<u32>(40_000).unwrap();
            for round in 0..20 {
                for (to, window) in (0..).zip(&mut from) {
                    for (index, x) in window.iter_mut().enumerate() {
                        *x = value(rank, to, index + round);
                    }
                }
                sum.fill(1);
                communicator
                    .group(|group| {
                        for (peer, window) in (0..).zip(&mut into) {
                            group.receive(window, 0..len, peer, 5)?;
                        }
                        group.add(&Request::all_reduce(Operation::Sum), &mut sum)?;
                        for (peer, window) in (0..).zip(&from) {
                            group.send(window, 0..len, peer, 5)?;
                        }
                        Ok(())
                    })
                    .unwrap();
                assert!(sum.iter().all(|x| *x == size));
                for (peer, window) in (0..).zip(&into) {
                    assert!(
                        window
                            .iter()
                            .enumerate()
                            .all(|(i, x)| *x == value(peer, rank, i + round)),
                        "from {peer}"
                    );
                }
            }
        });
    }
}

fn the_nth_send_meets_the_nth_receive(reach: Reach) {
    with(2, reach.builder(), |communicator| {
        // More than a board shows at a time.
        let windows = (0..40)
            .map(|_| communicator.window::<u64>(10).unwrap())
            .collect::<Vec<_>>();
        let started = windows.into_iter().enumerate().map(|(number, mut window)| {
            if communicator.rank() == 0 {
                window.fill(number as u64);
                communicator.start_send(window, 1, 0).unwrap()
            } else {
                communicator.start_receive(window, 0, 0).unwrap()
            }
        });
        let started = started.collect::<Vec<_>>();
        communicator.barrier().unwrap();
        for (number, started) in started.into_iter().enumerate().rev() {
            while !started.poll() {
                std::thread::yield_now();
            }
            assert_eq!(started.moved(), 80);
            assert_eq!(started.wait().unwrap()[..], [number as u64; 10]);
        }
    });
}

/// More than a board shows at a time, both ways, and so long that answers come while others are still being copied.
fn long_messages_both_ways_at_once_arrive(reach: Reach) {
    const MESSAGES: u32 = 20;
    let len = 1 << 18;
    with(2, reach.builder(), |communicator| {
        let (rank, peer) = (communicator.rank(), 1 - communicator.rank());
        let windows = |fill: bool| {
            let windows = (0..MESSAGES).map(|number| {
                let mut window = communicator.window::<u32>(len).unwrap();
                window.fill(if fill { value(rank, number, 0) } else { 0 });
                window
            });
            windows.collect::<Vec<_>>()
        };
        let (from, mut into) = (windows(true), windows(false));
        communicator
            .group(|group| {
                for (to_send, to_receive) in from.iter().zip(&mut into) {
                    group.send(to_send, 0..len, peer, 5)?;
                    group.receive(to_receive, 0..len, peer, 5)?;
                }
                Ok(())
            })
            .unwrap();
        for (number, window) in (0..).zip(&into) {
            let expected = value(peer, number, 0);
            assert!(window.iter().all(|x| *x == expected), "message {number}");
        }
    });
}

fn ends_that_differ_are_refused_on_both_and_the_next_is_right(reach: Reach) {
    with(3, reach.builder(), |communicator| {
        let rank = communicator.rank();
        let mut window = communicator.window::<f32>(100).unwrap();
        let mut integers = communicator.window::<u32>(100).unwrap();
        window.fill(rank as f32);
        let refused = |outcome: Result<(), CommunicatorError>, parts: &[&str]| {
            let error = outcome.expect_err("an error");
            assert!(
                matches!(error, CommunicatorError::Engine(EngineError::Letter { .. })),
                "{error}"
            );
            let error = error.to_string();
            for part in ["from rank 0 to rank 1"].iter().chain(parts) {
                assert!(error.contains(part), "{error}");
            }
        };
        match rank {
            0 => {
                refused(
                    communicator.send(&window, 0..50, 1, 1),
                    &["message 1", "tag 1", "tag 2"],
                );
                refused(
                    communicator.send(&window, 0..50, 1, 1),
                    &["sends 200 bytes", "receives at most 196 bytes"],
                );
                refused(
                    communicator.send(&window, 0..50, 1, 1),
                    &["bytes of float", "bytes of uint32"],
                );
                communicator.send(&window, 0..50, 1, 1).unwrap();
            }
            1 => {
                let mut receive = |range, tag| communicator.receive(&mut window, range, 0, tag).map(drop);
                refused(receive(0..50, 2), &["message 1", "tag 1", "tag 2"]);
                refused(
                    receive(0..49, 1),
                    &["sends 200 bytes", "receives at most 196 bytes"],
                );
                refused(
                    communicator.receive(&mut integers, 0..50, 0, 1).map(drop),
                    &["of float", "of uint32"],
                );
                assert!(window.iter().all(|x| *x == 1.0), "nothing was moved");
                assert_eq!(communicator.receive(&mut window, 0..60, 0, 1).unwrap(), 50);
                assert!(window[..50].iter().all(|x| *x == 0.0));
            }
            _ => {}
        }
        assert!(!window.in_custody());
        // The communicator goes on.
        communicator.all_reduce(&mut window, Operation::Sum).unwrap();
        assert!(
            text(communicator.send(&window, 0..1, 3, 0))
                .contains("rank 3 does not exist, the ranks are 0 to 2")
        );
        assert!(text(communicator.receive(&mut window, 99..101, 0, 0)).contains("99..101"));
        let refused = text(communicator.group(|group| group.send(&window, 0..101, 0, 0)));
        assert!(refused.contains("operation 0 of the group (send)"), "{refused}");
        // What was refused took no number.
        match rank {
            0 => communicator.send(&window, 0..1, 1, 9).unwrap(),
            1 => drop(communicator.receive(&mut window, 0..1, 0, 9).unwrap()),
            _ => {}
        }
    });
}

fn a_window_that_the_other_rank_has_dropped_is_named(reach: Reach) {
    with(2, reach.builder(), |communicator| {
        let kept = communicator.window::<u8>(10).unwrap();
        let mut other = communicator.window::<u8>(10).unwrap();
        let outcome = match communicator.rank() {
            0 => communicator.send(&kept, 0..10, 1, 0),
            _ => {
                drop(kept);
                communicator.receive(&mut other, 0..10, 0, 0).map(drop)
            }
        };
        match reach {
            // The receiver reads it where it lies.
            Reach::Mapped => assert!(text(outcome).contains("rank 1 has dropped its part")),
            // The sender writes into the other window, which is there.
            Reach::Messages => outcome.unwrap(),
        }
        communicator.barrier().unwrap();
    });
}

fn a_rank_that_never_comes_is_named(reach: Reach) {
    for way in ["send", "receive"] {
        let errors = with(3, reach.builder(), |communicator| {
            let mut window = communicator.window::<f32>(10).unwrap();
            communicator.set_timeout(Duration::from_millis(300));
            if communicator.rank() != 0 {
                std::thread::sleep(Duration::from_millis(900));
                return None;
            }
            let error = match way {
                "send" => communicator.send(&window, 0..10, 2, 4).unwrap_err(),
                _ => communicator.receive(&mut window, 0..10, 2, 4).unwrap_err(),
            };
            assert_eq!(error.culprit(), Some(2), "{error}");
            assert!(window.in_custody());
            Some(error.to_string())
        });
        let error = errors.into_iter().flatten().next().unwrap();
        assert!(
            error.contains(way) && error.contains("with tag 4") && error.contains("rank 2"),
            "{error}"
        );
    }
}

fn a_rank_that_leaves_or_aborts_ends_the_wait(reach: Reach) {
    for abort in [false, true] {
        let errors = with(2, reach.builder(), |communicator| {
            let mut window = communicator.window::<f32>(10).unwrap();
            if communicator.rank() == 1 {
                std::thread::sleep(Duration::from_millis(100));
                if abort {
                    communicator.abort_handle().abort();
                    std::thread::sleep(Duration::from_millis(200));
                }
                return String::new();
            }
            text(communicator.receive(&mut window, 0..10, 1, 0))
        });
        assert!(errors[0].contains("rank 1"), "{errors:?}");
    }
}

fn who_waits_for_two_that_have_left_is_told_long_before_the_deadline(reach: Reach) {
    let errors = with(3, reach.builder(), |communicator| {
        let windows = [(); 2].map(|()| communicator.window::<f32>(10).unwrap());
        if communicator.rank() != 0 {
            return None;
        }
        communicator.set_timeout(Duration::from_secs(20));
        let [first, second] = windows;
        let one = communicator.start_receive(first, 1, 0).unwrap();
        let other = communicator.start_receive(second, 2, 0).unwrap();
        Some([text(one.wait()), text(other.wait())])
    });
    for error in errors.into_iter().flatten().flatten() {
        assert!(error.contains("left") && !error.contains("20."), "{error}");
    }
}

/// Whom a rank has waited for once is not to blame for what comes later.
#[test]
fn who_has_got_its_message_waits_for_nobody_any_more() {
    let errors = with(3, Reach::Mapped.builder(), |communicator| {
        let mut window = communicator.window::<f32>(100_000).unwrap();
        match communicator.rank() {
            1 => assert_eq!(communicator.receive(&mut window, 0..10, 2, 0).unwrap(), 10),
            2 => {
                // So that it is waited for long enough to be said.
                std::thread::sleep(Duration::from_millis(200));
                communicator.send(&window, 0..10, 1, 0).unwrap();
            }
            _ => communicator.set_timeout(Duration::from_secs(2)),
        }
        if communicator.rank() == 0 {
            return Some(communicator.all_reduce(&mut window, Operation::Sum).unwrap_err());
        }
        // They have called it, and do nothing more for it.
        let started = communicator.start_all_reduce(window, Operation::Sum).unwrap();
        std::thread::sleep(Duration::from_secs(4));
        let _ = started.wait();
        None
    });
    let error = errors.into_iter().flatten().next().expect("rank 0's");
    assert!(
        !error.to_string().contains("rank 1 itself waits for rank 2"),
        "{error}"
    );
    assert_eq!(error.culprit(), Some(1), "{error}");
}

#[test]
fn ranks_that_no_collective_has_connected_are_told_how() {
    // Nine ranks' barriers go along a tree.
    with(9, Reach::Messages.builder(), |communicator| {
        let rank = communicator.rank();
        let mut window = communicator.window::<u32>(4).unwrap();
        window.fill(rank);
        let far = (rank + 4) % 9;
        if !communicator.connections().contains(&far) {
            let refused = text(communicator.send(&window, 0..4, far, 0));
            assert!(refused.contains("Communicator::connect"), "{refused}");
        }
        communicator.connect(&[far]).unwrap();
        let mut into = communicator.window::<u32>(4).unwrap();
        communicator
            .group(|group| {
                group.send(&window, 0..4, far, 0)?;
                group.receive(&mut into, 0..4, (rank + 5) % 9, 0)
            })
            .unwrap();
        assert_eq!(into[..], [(rank + 5) % 9; 4]);
        let wrong = if rank == 3 { vec![9] } else { vec![] };
        assert!(text(communicator.connect(&wrong)).contains("rank 9"));
    });
}

/// Whichever of the two is started before a call for which all ranks come together.
fn messages_move_while_ranks_come_together(reach: Reach) {
    with(2, reach.builder(), |communicator| {
        let (rank, peer) = (communicator.rank(), 1 - communicator.rank());
        let window = || communicator.window::<u32>(50_000).unwrap();
        let (mut from, into) = (window(), window());
        from.fill(rank + 1);
        // It is received after the window was made.
        if rank == 0 {
            let started = communicator.start_receive(into, peer, 1).unwrap();
            let _another = window();
            communicator.all_gather_bytes("settings", &[]).unwrap();
            // Kept: the other rank's part of this window is used below.
            let received = started.wait().unwrap();
            assert!(received.iter().all(|x| *x == 2));
            let started = communicator.start_send(from, peer, 2).unwrap();
            let _another = window();
            started.wait().unwrap();
        } else {
            let mut into = into;
            let _another = window();
            communicator.all_gather_bytes("settings", &[]).unwrap();
            communicator.send(&from, 0..50_000, peer, 1).unwrap();
            // It is received before the window is made.
            assert_eq!(
                communicator.receive(&mut into, 0..50_000, peer, 2).unwrap(),
                50_000
            );
            let _another = window();
            assert!(into.iter().all(|x| *x == 1));
        }
    });
}

over_both! {
    messages_move_while_ranks_come_together,
    every_length_arrives,
    all_send_to_all_at_once_in_a_group,
    the_nth_send_meets_the_nth_receive,
    long_messages_both_ways_at_once_arrive,
    ends_that_differ_are_refused_on_both_and_the_next_is_right,
    a_window_that_the_other_rank_has_dropped_is_named,
    a_rank_that_never_comes_is_named,
    a_rank_that_leaves_or_aborts_ends_the_wait,
    who_waits_for_two_that_have_left_is_told_long_before_the_deadline,
}
