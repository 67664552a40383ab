//! Plans for a thousand, for 4,096 and for 65,536 ranks are proved whole; a rank's own part stays small.

use std::time::Instant;

use sapwood::plan::{Collective, MAX_RANKS, Reach, builders, verify};

#[path = "plan_support/collectives.rs"]
mod collectives;

fn prove(name: &str, collective: Collective, ranks: u32, reach: Reach) {
    let plan = builders::build(name, collective, ranks).unwrap();
    let started = Instant::now();
    let proof = verify::verify(&plan, reach)
        .unwrap_or_else(|error| panic!("{name}, {collective:?}, {ranks} ranks, {reach:?}: {error}"));
    println!(
        "{name:20} {collective:10} {ranks:5} {:10} {:9} tasks {:9} places {:7.1} ms",
        reach.name(),
        proof.tasks,
        proof.places,
        started.elapsed().as_secs_f64() * 1e3
    );
}

fn prove_all(ranks: u32, collectives: &[Collective]) {
    for builder in builders::ALL {
        for &collective in collectives
            .iter()
            .filter(|&&collective| (builder.supports)(collective))
        {
            // Plans with parts have as many blocks as ranks or more; without symmetry each block has a proof of its own.
            let ranks = match collective.has_parts() {
                true if builder.name == "hierarchical" => ranks / 8,
                true => ranks / 4,
                false => ranks,
            };
            for reach in [Reach::LoadStore, Reach::Message { slots: 8 }] {
                prove(builder.name, collective, ranks, reach);
            }
        }
    }
}

#[test]
fn a_thousand_ranks() {
    let all: Vec<Collective> = collectives::all(200).collect();
    prove_all(1024, &all);
}

#[test]
fn four_thousand_ranks_along_trees() {
    let root = 4095;
    for name in [
        "binomial-tree",
        "k-nomial:8",
        "k-ary-tree",
        "k-ary-tree:2",
        "double-binary-tree",
        "hierarchical:64",
    ] {
        for collective in collectives::all(root).filter(|collective| !collective.has_parts()) {
            for reach in [Reach::LoadStore, Reach::Message { slots: 8 }] {
                prove(name, collective, 4096, reach);
            }
        }
    }
}

#[test]
fn four_thousand_ranks_around_a_ring() {
    prove("ring", Collective::AllReduce, 4096, Reach::LoadStore);
    prove("ring", Collective::Broadcast { root: 7 }, 4096, Reach::LoadStore);
    prove(
        "ring",
        Collective::Reduce { root: 7 },
        4096,
        Reach::Message { slots: 8 },
    );
}

#[test]
fn four_thousand_ranks_with_parts() {
    prove(
        "halving-doubling",
        Collective::ReduceScatter,
        4096,
        Reach::LoadStore,
    );
    prove("dissemination", Collective::Barrier, 4096, Reach::LoadStore);
    prove(
        "dissemination",
        Collective::Barrier,
        4096,
        Reach::Message { slots: 8 },
    );
}

#[test]
fn the_most_ranks() {
    let broadcast = Collective::Broadcast { root: 7 };
    for (name, collective) in [
        ("binomial-tree", Collective::AllReduce),
        ("double-binary-tree", broadcast),
        ("double-binary-tree", Collective::Barrier),
        ("halving-doubling", Collective::AllReduce),
    ] {
        for reach in [Reach::LoadStore, Reach::Message { slots: 2 }] {
            prove(name, collective, MAX_RANKS, reach);
        }
    }
}

/// A rank's part among 4,096 with parts grows with their number, not with its square.
#[test]
fn a_rank_lowers_only_its_own_part() {
    let root = 4095;
    for (name, collective) in [
        ("ring:2", Collective::AllReduce),
        ("direct", Collective::ReduceScatter),
        ("halving-doubling", Collective::AllReduce),
        ("k-nomial:2", Collective::Gather { root }),
        ("k-nomial:4", Collective::Scatter { root }),
        ("direct", Collective::Gather { root }),
        ("pairwise", Collective::AllToAll),
        ("hierarchical:64", Collective::AllGather),
        ("hierarchical:64", Collective::ReduceScatter),
    ] {
        let plan = builders::build(name, collective, 4096).unwrap();
        for reach in [Reach::LoadStore, Reach::Message { slots: 8 }] {
            let started = Instant::now();
            let mut most = 0;
            for rank in (0..4096).step_by(512).chain([1, 4095]) {
                let program = plan.lower(rank, reach).unwrap();
                most = most.max(program.tasks.len());
                let waits: usize = program.tasks.iter().map(|task| task.waits.len()).sum();
                // What a rank has to do with each other rank, and in each channel, is bounded.
                assert!(
                    program.tasks.len() <= 7 * 4096 && waits <= 14 * 4096,
                    "{name}, rank {rank}"
                );
            }
            let each = started.elapsed().as_secs_f64() * 1e6 / 10.0;
            println!(
                "{name:20} {collective:14} {:10} {most:6} tasks, {each:8.1} µs to lower one rank",
                reach.name()
            );
        }
    }
}

/// One rank's part of a tree among 4,096 does not grow with the number of ranks.
#[test]
fn a_rank_of_a_tree_holds_only_its_own_part() {
    let depth = 12;
    for name in ["binomial-tree", "k-ary-tree", "double-binary-tree"] {
        let plan = builders::build(name, Collective::AllReduce, 4096).unwrap();
        let started = Instant::now();
        for rank in 0..4096 {
            for reach in [Reach::LoadStore, Reach::Message { slots: 8 }] {
                let program = plan.lower(rank, reach).unwrap();
                let waits: usize = program.tasks.iter().map(|task| task.waits.len()).sum();
                assert!(
                    program.tasks.len() <= 8,
                    "{name}, rank {rank}: {} tasks",
                    program.tasks.len()
                );
                assert!(waits <= 2 * depth + 4, "{name}, rank {rank}: {waits} waits");
            }
        }
        println!(
            "{name}: {:.1} µs to lower one rank",
            started.elapsed().as_secs_f64() * 1e6 / 8192.0
        );
    }
}
