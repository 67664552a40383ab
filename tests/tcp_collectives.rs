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
    ] {
        TCP.same_bits(plan, size, |x| x as f32, Operation::Sum);
    }
}

#[test]
fn other_types_give_the_bits_of_shared_memory() {
    TCP.same_bits("ring", 3, |x| x, Operation::Average);
    TCP.same_bits("double-binary-tree", 3, half::bf16::from_f64, Operation::Sum);
    TCP.same_bits("direct", 2, |x| x as i64, Operation::Min);
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
