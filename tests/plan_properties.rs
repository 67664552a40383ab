//! What holds for every builder, collective, number of ranks, root and reach.

#[path = "plan_support/collectives.rs"]
mod collectives;
#[path = "plan_support/oracle.rs"]
mod oracle;

use proptest::prelude::*;
use sapwood::plan::dataflow::{Layout, Step, Symmetry, Value};
use sapwood::plan::verify::{Claim, VerifyError, verify, verify_programs};
use sapwood::plan::{Collective, Plan, PlanError, Reach, builders};

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("binomial-tree".to_owned()),
        Just("k-ary-tree".to_owned()),
        (2u32..40).prop_map(|arity| format!("k-ary-tree:{arity}")),
        Just("double-binary-tree".to_owned()),
        Just("ring".to_owned()),
        Just("direct".to_owned()),
        (1u32..40).prop_map(|size| format!("hierarchical:{size}")),
        (1u32..6).prop_map(|channels| format!("ring:{channels}")),
        (2u32..12).prop_map(|arity| format!("k-nomial:{arity}")),
        Just("halving-doubling".to_owned()),
        Just("pairwise".to_owned()),
        Just("dissemination".to_owned()),
        Just("parameter-server".to_owned()),
    ]
}

/// Every collective equally often, whatever the number of builders that have it.
fn any_plan(most: u32) -> impl Strategy<Value = Plan> {
    let collective = (1..=most, any::<prop::sample::Index>(), 0..collectives::KINDS);
    let collective = collective.prop_map(|(ranks, root, kind)| {
        let root = root.index(ranks as usize) as u32;
        (ranks, collectives::collective(kind, root))
    });
    collective.prop_flat_map(|(ranks, collective)| {
        any_name().prop_filter_map("no such collective", move |name| {
            builders::build(&name, collective, ranks).ok()
        })
    })
}

fn any_reach() -> impl Strategy<Value = Reach> {
    prop_oneof![
        Just(Reach::Load),
        Just(Reach::LoadStore),
        (1u32..12).prop_map(|slots| Reach::Message { slots })
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_up_to_99_ranks_is_proved(plan in any_plan(99), reach in any_reach()) {
        if let Err(error) = verify(&plan, reach) {
            prop_assert!(false, "{}, {:?}, {} ranks: {error}", plan.name(), plan.collective(), plan.ranks());
        }
    }

    /// The two views that a rule gives of its graph are one graph.
    #[test]
    fn steps_and_uses_agree(plan in any_plan(45)) {
        let rule = plan.rule();
        let mut needed = Vec::new();
        let mut offered = Vec::new();
        for rank in 0..plan.ranks() {
            for (step, index) in rule.steps(rank).iter().zip(0u32..) {
                for source in step.sources().iter().filter(|source| source.rank() != rank) {
                    let landing = step.lands().then(|| rule.landing(rank, index, source.rank()));
                    needed.push((format!("{source:?}"), rank, index, landing));
                }
            }
            for entry in rule.uses(rank) {
                for consumer in &entry.by {
                    let value: Value = entry.value.of(rank);
                    let landing = consumer.landing;
                    offered.push((format!("{value:?}"), consumer.rank, consumer.step, landing));
                    let step = &rule.steps(consumer.rank)[consumer.step as usize];
                    let theirs: Vec<u32> = step.run().of(step.block(), plan.blocks()).collect();
                    let mut blocks = entry.run.of(entry.block, plan.blocks());
                    prop_assert!(blocks.any(|block| theirs.contains(&block)));
                }
            }
        }
        needed.sort();
        offered.sort();
        prop_assert_eq!(needed, offered);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Independent of the verifier: whatever the schedule and the numbers of chunks, the results are right.
    #[test]
    fn plans_run_right_in_any_order(plan in any_plan(17), reach in any_reach(), seed in any::<u64>()) {
        let programs: Vec<_> = (0..plan.ranks()).map(|rank| plan.lower(rank, reach).unwrap()).collect();
        let claim = Claim {
            symmetry: Symmetry::None,
            ..Claim::of(&plan, reach)
        };
        if let Err(harm) = oracle::run(&claim, &programs, seed) {
            prop_assert!(false, "{}: {harm}\n{}", plan.name(), oracle::show(&programs));
        }
    }
}

/// No rank is an inner node of both trees, both span all ranks, and neither is deep.
#[test]
fn the_double_binary_tree_shares_the_work() {
    for ranks in 2..=1025u32 {
        let plan = builders::build("double-binary-tree", Collective::AllReduce, ranks).unwrap();
        let Layout::Trees(trees) = plan.rule().layout() else {
            panic!("it is made of trees")
        };
        assert_eq!(trees.len(), 2);
        let mut inner = vec![0; ranks as usize];
        for parents in &trees {
            let mut has_children = vec![0; ranks as usize];
            assert_eq!(parents.iter().filter(|parent| parent.is_none()).count(), 1);
            for start in 0..ranks {
                let mut depth = 0;
                let mut rank = start;
                while let Some(parent) = parents[rank as usize] {
                    rank = parent;
                    depth += 1;
                    assert!(
                        depth <= ranks.ilog2() + 1,
                        "{ranks} ranks: rank {start} is too deep"
                    );
                }
                if let Some(parent) = parents[start as usize] {
                    has_children[parent as usize] += 1;
                }
            }
            for (inner, &children) in inner.iter_mut().zip(&has_children) {
                assert!(children <= 2);
                *inner += u32::from(children > 0);
            }
        }
        assert!(
            inner.iter().all(|&times| times <= 1),
            "{ranks} ranks: inner in both trees: {inner:?}"
        );
    }
}

#[test]
fn bad_requests_are_refused_in_words() {
    let all = Collective::AllReduce;
    let text = |error: PlanError| error.to_string();
    assert_eq!(
        text(builders::build("ring", all, 0).unwrap_err()),
        "a plan has from 1 to 65536 ranks, not 0"
    );
    assert_eq!(
        text(builders::build("ring", all, 65537).unwrap_err()),
        "a plan has from 1 to 65536 ranks, not 65537"
    );
    let root = Collective::Reduce { root: 4 };
    assert_eq!(
        text(builders::build("direct", root, 4).unwrap_err()),
        "root 4 is not one of the 4 ranks (0 to 3)"
    );
    let unknown = text(builders::build("star", all, 4).unwrap_err());
    assert!(
        unknown.contains("\"star\"") && unknown.contains("double-binary-tree"),
        "{unknown}"
    );
    let unsupported = text(builders::build("ring", Collective::Barrier, 4).unwrap_err());
    assert_eq!(
        unsupported,
        "plan \"ring\" has no barrier; binomial-tree, k-nomial, k-ary-tree, double-binary-tree, direct, hierarchical, \
         dissemination have one"
    );
    for name in [
        "k-ary-tree:1",
        "k-ary-tree:",
        "k-ary-tree:x",
        "ring:0",
        "ring:17",
        "ring:x",
        "k-nomial:1",
        "k-nomial:",
        "halving-doubling:2",
        "hierarchical:0",
        "hierarchical:0,,1",
        "hierarchical:",
    ] {
        assert!(
            matches!(builders::find(name), Err(PlanError::BadParameter { .. })),
            "{name}"
        );
    }
    let plan = builders::build("ring", all, 4).unwrap();
    assert!(matches!(
        plan.lower(4, Reach::LoadStore),
        Err(PlanError::NoSuchRank { .. })
    ));
    assert!(matches!(
        plan.lower(0, Reach::Message { slots: 0 }),
        Err(PlanError::Slots { .. })
    ));
}

/// A plan is refused that claims to be the same for all ranks but is not.
#[test]
fn false_symmetry_is_refused() {
    let plan = builders::build("ring", Collective::AllReduce, 6).unwrap();
    let claim = Claim {
        collective: Collective::AllReduce,
        ranks: 6,
        blocks: 6,
        reach: Reach::LoadStore,
        symmetry: Symmetry::Rotation,
    };
    for odd in 0..6 {
        let outcome = verify_programs(&claim, |rank| {
            let mut program = plan.lower(rank, Reach::LoadStore)?;
            if rank == odd {
                program.tasks[3].waits.clear();
            }
            Ok(program)
        });
        assert!(
            matches!(
                outcome,
                Err(VerifyError::Asymmetric { .. } | VerifyError::Notify { .. })
            ),
            "{odd}"
        );
    }
}

/// The same inputs in the same order give the same bits: the order of sources is part of the plan.
#[test]
fn sums_have_a_fixed_order() {
    for builder in builders::ALL {
        for collective in collectives::all(5).filter(|collective| collective.combines()) {
            if !(builder.supports)(collective) {
                continue;
            }
            let plan = builders::build(builder.name, collective, 13).unwrap();
            for step in
                (0..13).flat_map(|rank| plan.rule().steps(rank).into_iter().map(move |step| (rank, step)))
            {
                let (rank, Step::Reduce { sources, .. }) = step else {
                    continue;
                };
                let in_rank_order = sources.is_sorted_by_key(|source| source.rank());
                assert!(
                    sources[0] == Value::Input(rank) || in_rank_order,
                    "{}: {sources:?}",
                    builder.name
                );
            }
        }
    }
}
