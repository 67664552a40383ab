//! Communicators over a verbs device: every collective gives the same bits as over shared memory with the same plan;
//! ranks that say that they are on different hosts use shared memory inside and verbs across; queue pairs are opened
//! to neighbours only. Ignored where there is no device: `tools/rig/run collectives` runs all of it.

use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use sapwood::engine::reduce::Operation;
use sapwood::fabric::select::Choice;
use sapwood::fabric::verbs::inventory;

#[path = "ranks/mod.rs"]
mod support;

use support::bits::Over;

const PLANS: [&str; 5] = [
    "binomial-tree",
    "k-ary-tree:3",
    "double-binary-tree",
    "ring",
    "direct",
];

/// The ranks take the devices of `SAPWOOD_VERBS_DEVICE` in turn.
const VERBS: Over = Over {
    choice: Choice::Verbs,
    // Emulated processors are slow, and there are few of them.
    timeout: Duration::from_secs(240),
    counts: &[1, 1_001, 50_007],
};

type Outcome = Result<(), Failed>;
type Case = fn() -> Outcome;

fn main() {
    let arguments = Arguments::from_args();
    let present = inventory().is_ok_and(|inventory| !inventory.devices.is_empty());
    if !present {
        eprintln!("SKIPPED: all of it needs a verbs device; `tools/rig/run collectives` brings one.");
    }
    let trials: [(&str, Case); 7] = [
        ("every_plan_gives_the_bits_of_shared_memory", every_plan),
        ("every_type_gives_the_bits_of_shared_memory", every_type),
        (
            "sixteen_ranks_open_queue_pairs_to_their_neighbours_only",
            sixteen_ranks,
        ),
        (
            "pretended_hosts_use_shared_memory_inside_and_verbs_across",
            pretended_hosts,
        ),
        ("an_exchange_runs_over_verbs", exchange),
        ("a_leafs_gradient_and_the_result_are_not_copied", copies),
        ("a_rank_that_leaves_is_named", leaving),
    ];
    let trials = trials.map(|(name, case)| Trial::test(name, case).with_ignored_flag(!present));
    libtest_mimic::run(&arguments, trials.into()).exit();
}

fn every_plan() -> Outcome {
    for plan in PLANS {
        for size in [2, 3, 4] {
            VERBS.same_bits(plan, size, |x| x as f32, Operation::Sum);
        }
    }
    VERBS.same_bits("double-binary-tree", 7, |x| x as f32, Operation::Sum);
    Ok(())
}

fn every_type() -> Outcome {
    VERBS.same_bits("ring", 3, |x| x, Operation::Average);
    VERBS.same_bits("double-binary-tree", 3, half::f16::from_f64, Operation::Sum);
    VERBS.same_bits("direct", 3, half::bf16::from_f64, Operation::Average);
    VERBS.same_bits("binomial-tree", 2, |x| x as i32, Operation::Product);
    VERBS.same_bits("direct", 2, |x| x as i64, Operation::Min);
    VERBS.same_bits("k-ary-tree", 4, |x| x as u8, Operation::Max);
    Ok(())
}

fn sixteen_ranks() -> Outcome {
    const RANKS: u32 = 16;
    let connections = VERBS.with(RANKS, "binomial-tree", |communicator| {
        let rank = communicator.rank();
        let mut window = communicator.window::<f32>(5_000).unwrap();
        window.fill(rank as f32);
        communicator.all_reduce(&mut window, Operation::Sum).unwrap();
        assert!(window.iter().all(|x| *x == 120.0), "0 + 1 + … + 15");
        communicator.barrier().unwrap();
        communicator.connections()
    });
    for (rank, mine) in (0..RANKS).zip(&connections) {
        // A binomial tree: the parent takes away the lowest bit, children add lower ones.
        let expected = (0..RANKS)
            .filter(|&other| {
                let (low, high) = (rank.min(other), rank.max(other));
                low != high && high & (high - 1) == low
            })
            .collect::<Vec<_>>();
        assert_eq!(*mine, expected, "rank {rank}");
    }
    let pairs = connections.iter().map(Vec::len).sum::<usize>() / 2;
    println!("16 ranks, binomial tree: {pairs} connections; every rank to every other would be 120");
    Ok(())
}

fn pretended_hosts() -> Outcome {
    for (size, of_host) in [(4, 2), (5, 3), (6, 2)] {
        VERBS.pretended_hosts(size, of_host);
    }
    Ok(())
}

fn exchange() -> Outcome {
    VERBS.exchange(12);
    Ok(())
}

fn copies() -> Outcome {
    VERBS.only_what_is_staged_is_copied();
    Ok(())
}

fn leaving() -> Outcome {
    VERBS.a_rank_that_leaves_is_named();
    Ok(())
}
