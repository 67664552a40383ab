//! Every builder is proved for every small number of ranks, root and reach.

use super::*;
use crate::plan::builders;

pub(crate) fn collectives(ranks: u32) -> Vec<Collective> {
    let mut all = vec![
        Collective::AllReduce,
        Collective::Barrier,
        Collective::ReduceScatter,
        Collective::AllGather,
        Collective::AllToAll,
    ];
    let mut roots = vec![0, ranks / 2, ranks - 1];
    roots.dedup();
    for root in roots {
        all.extend([
            Collective::Reduce { root },
            Collective::Broadcast { root },
            Collective::Gather { root },
            Collective::Scatter { root },
        ]);
    }
    all
}

pub(crate) const REACHES: [Reach; 5] = [
    Reach::Load,
    Reach::LoadStore,
    Reach::Message { slots: 1 },
    Reach::Message { slots: 2 },
    Reach::Message { slots: 5 },
];

#[test]
fn small_plans_of_every_builder_are_proved() {
    for builder in builders::ALL {
        for ranks in (1..=17).chain([32, 33]) {
            for collective in collectives(ranks)
                .into_iter()
                .filter(|&collective| (builder.supports)(collective))
            {
                let plan = builders::build(builder.name, collective, ranks).unwrap();
                for reach in REACHES {
                    if let Err(error) = verify(&plan, reach) {
                        panic!("{} {collective:?} {ranks} {reach:?}: {error}", builder.name);
                    }
                }
            }
        }
    }
}

const SYMMETRIC: [(&str, Collective); 13] = [
    ("ring", Collective::AllReduce),
    ("ring", Collective::ReduceScatter),
    ("ring:3", Collective::AllReduce),
    ("ring:2", Collective::AllGather),
    ("direct", Collective::AllReduce),
    ("direct", Collective::ReduceScatter),
    ("direct", Collective::AllGather),
    ("direct", Collective::Barrier),
    ("halving-doubling", Collective::AllReduce),
    ("halving-doubling", Collective::ReduceScatter),
    ("direct", Collective::AllToAll),
    ("pairwise", Collective::AllToAll),
    ("dissemination", Collective::Barrier),
];

/// The general way and the way by symmetry agree.
#[test]
fn symmetric_plans_are_proved_without_their_symmetry_too() {
    for (name, collective) in SYMMETRIC {
        for ranks in 2..=17 {
            let plan = builders::build(name, collective, ranks).unwrap();
            assert_eq!(plan.symmetry(), Symmetry::Rotation);
            for reach in REACHES {
                let claim = Claim {
                    symmetry: Symmetry::None,
                    ..Claim::of(&plan, reach)
                };
                let by_symmetry = verify(&plan, reach).unwrap();
                let in_full = verify_programs(&claim, |rank| plan.lower(rank, reach)).unwrap();
                assert!(by_symmetry.by_symmetry && !in_full.by_symmetry);
                assert_eq!(
                    (by_symmetry.tasks, by_symmetry.places),
                    (in_full.tasks, in_full.places)
                );
            }
        }
    }
}
