//! Communicators over tcp, on any machine: every collective gives the same bits as over shared memory with the same
//! plan; ranks that say that they are on different hosts use shared memory inside and a network across; what is staged is
//! counted, and a rank that leaves is named.

use std::time::Duration;

use sapwood::engine::reduce::Operation;
use sapwood::fabric::select::Choice;

#[path = "ranks/mod.rs"]
mod support;

use support::bits::Over;

const TCP: Over = Over {
    choice: Choice::Tcp,
    timeout: Duration::from_secs(60),
    counts: &[1, 1_001, 300_007],
};

#[test]
fn every_plan_gives_the_bits_of_shared_memory() {
    for (plan, size) in [
        ("binomial-tree", 2),
        ("k-ary-tree:3", 4),
        ("double-binary-tree", 5),
        ("ring", 3),
        ("direct", 4),
        ("halving-doubling", 4),
        ("halving-doubling", 7),
    ] {
        TCP.same_bits(plan, size, |x| x as f32, Operation::Sum);
    }
}

#[test]
fn other_types_give_the_bits_of_shared_memory() {
    TCP.same_bits("ring", 3, |x| x, Operation::Average);
    TCP.same_bits("double-binary-tree", 3, half::bf16::from_f64, Operation::Sum);
    TCP.same_bits("direct", 2, |x| x as i64, Operation::Min);
    TCP.same_bits("halving-doubling", 6, half::bf16::from_f64, Operation::Sum);
}

/// Where there is a device, the network is that; the bits are the same.
#[test]
fn pretended_hosts_use_shared_memory_inside_and_a_network_across() {
    for (size, of_host) in [(4, 2), (5, 3)] {
        TCP.pretended_hosts(size, of_host);
    }
}

#[test]
fn an_exchange_runs_over_tcp() {
    TCP.exchange(8);
}

#[test]
fn nothing_but_what_is_staged_to_be_summed_is_copied() {
    TCP.only_what_is_staged_is_copied();
}

#[test]
fn a_rank_that_leaves_is_named() {
    TCP.a_rank_that_leaves_is_named();
}

/// More than a peer can be told of in one go, begun by the others long ago: what moves waits for what announces it.
#[test]
fn many_operations_started_at_once_end() {
    for plan in ["direct", "ring"] {
        TCP.with(3, plan, |communicator| {
            let rank = communicator.rank();
            for round in 0..5 {
                let windows = (0..60).map(|number| {
                    let mut window = communicator.window::<u32>(3).unwrap();
                    window[rank as usize] = rank + number + round;
                    window
                });
                let windows = windows.collect::<Vec<_>>();
                if rank == round % 3 {
                    std::thread::sleep(Duration::from_millis(100));
                }
                let started = windows
                    .into_iter()
                    .map(|window| communicator.start_all_gather(window).unwrap());
                let started = started.collect::<Vec<_>>();
                for (number, started) in (0..).zip(started) {
                    let window = started.wait().unwrap();
                    let expected = [0, 1, 2].map(|rank| rank + number + round);
                    assert_eq!(window[..], expected, "operation {number} by {plan}");
                }
            }
        });
    }
}
