//! Plans for a thousand and for 4,096 ranks are proved whole; a rank's own part stays small.

use std::time::Instant;

use sapwood::plan::{Collective, Reach, builders, verify};

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
            for reach in [Reach::LoadStore, Reach::Message { slots: 8 }] {
                prove(builder.name, collective, ranks, reach);
            }
        }
    }
}

#[test]
fn a_thousand_ranks() {
    let root = 1000;
    let collectives = [
        Collective::AllReduce,
        Collective::Reduce { root },
        Collective::Broadcast { root },
        Collective::Barrier,
    ];
    prove_all(1024, &collectives);
}

#[test]
fn four_thousand_ranks_along_trees() {
    let root = 4095;
    for name in [
        "binomial-tree",
        "k-ary-tree",
        "k-ary-tree:2",
        "double-binary-tree",
        "hierarchical:64",
    ] {
        for collective in [
            Collective::AllReduce,
            Collective::Reduce { root },
            Collective::Broadcast { root },
            Collective::Barrier,
        ] {
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
