//! Plans and hosts: what crosses between hosts, who needs a connection to whom, and how it is drawn.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sapwood::plan::dataflow::Symmetry;
use sapwood::plan::lowered::{Action, Place, Program, Rank};
use sapwood::plan::verify::{Claim, verify};
use sapwood::plan::{Collective, Plan, PlanError, Reach, builders, draw, hierarchical_name};

#[path = "plan_support/collectives.rs"]
mod collectives;
#[path = "plan_support/oracle.rs"]
mod oracle;
use collectives::{KINDS, collective};

const REACHES: [Reach; 3] = [Reach::Load, Reach::LoadStore, Reach::Message { slots: 3 }];

/// The collectives that have a hierarchical plan.
fn on_hosts_kinds() -> Vec<u8> {
    let builder = builders::find("hierarchical").unwrap().builder();
    (0..KINDS)
        .filter(|kind| (builder.supports)(collective(*kind, 0)))
        .collect()
}

/// Any grouping of any number of ranks into hosts, and any root.
fn on_hosts(most: usize) -> impl Strategy<Value = (Vec<u32>, Plan)> {
    let hosts = (1u32..20).prop_flat_map(move |hosts| prop::collection::vec(0..hosts, 1..=most));
    let kinds = prop::sample::select(on_hosts_kinds());
    (hosts, any::<prop::sample::Index>(), kinds).prop_map(|(hosts, root, kind)| {
        let collective = collective(kind, root.index(hosts.len()) as u32);
        let plan = builders::build(&hierarchical_name(&hosts), collective, hosts.len() as u32).unwrap();
        (hosts, plan)
    })
}

fn programs(plan: &Plan, reach: Reach) -> Vec<Program> {
    (0..plan.ranks())
        .map(|rank| plan.lower(rank, reach).unwrap())
        .collect()
}

/// Where a task's data comes from and where it goes to.
fn moves(action: &Action) -> (&[Place], &[Place]) {
    match action {
        Action::Signal => (&[], &[]),
        Action::Reduce { sources, into, .. } => (sources, into),
        Action::Copy { source, into } => (std::slice::from_ref(source), into),
    }
}

/// Blocks that leave and that enter each host.
fn crossing(plan: &Plan, hosts: &[u32], reach: Reach) -> (Vec<u32>, Vec<u32>) {
    let count = *hosts.iter().max().unwrap() as usize + 1;
    let (mut out, mut into_host) = (vec![0; count], vec![0; count]);
    for program in programs(plan, reach) {
        for task in &program.tasks {
            let (sources, into) = moves(&task.action);
            let mut cross = |from: Rank, to: Rank| {
                let (from, to) = (hosts[from as usize] as usize, hosts[to as usize] as usize);
                if from != to {
                    out[from] += 1;
                    into_host[to] += 1;
                }
            };
            sources.iter().for_each(|place| cross(place.rank, program.rank));
            into.iter().for_each(|place| cross(program.rank, place.rank));
        }
    }
    (out, into_host)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_grouping_is_proved((hosts, plan) in on_hosts(60), reach in prop::sample::select(&REACHES[..])) {
        if let Err(error) = verify(&plan, reach) {
            prop_assert!(false, "{:?} on {hosts:?}: {error}", plan.collective());
        }
    }

    /// Independent of the verifier.
    #[test]
    fn every_grouping_runs_right_in_any_order(
        (_, plan) in on_hosts(16), reach in prop::sample::select(&REACHES[..]), seed in any::<u64>()
    ) {
        let programs = programs(&plan, reach);
        let claim = Claim { symmetry: Symmetry::None, ..Claim::of(&plan, reach) };
        if let Err(harm) = oracle::run(&claim, &programs, seed) {
            prop_assert!(false, "{}: {harm}\n{}", plan.name(), oracle::show(&programs));
        }
    }

    /// In vectors, of which there are two blocks: an all-reduce sends about one up and one down; others one. Of parts: a
    /// reduce-scatter sends each part of other hosts once and gets its own from each host, an all-gather the other way.
    #[test]
    fn what_crosses_does_not_grow((hosts, plan) in on_hosts(60), reach in prop::sample::select(&REACHES[..])) {
        let (out, into_host) = crossing(&plan, &hosts, reach);
        let count = |host: u32| hosts.iter().filter(|other| **other == host).count() as u32;
        let used: BTreeSet<u32> = hosts.iter().copied().collect();
        if plan.collective().has_parts() {
            for &host in &used {
                let own_parts = count(host) * (used.len() as u32 - 1);
                let other_parts = hosts.len() as u32 - count(host);
                let (leave, enter) = match plan.collective() {
                    Collective::AllGather => (own_parts, other_parts),
                    _ => (other_parts, own_parts),
                };
                let found = (out[host as usize], into_host[host as usize]);
                prop_assert_eq!(found, (leave, enter), "host {}, {}", host, plan.name());
            }
            return Ok(());
        }
        let directions = match plan.collective() {
            Collective::AllReduce => 2,
            Collective::Barrier => 0,
            _ => 1,
        };
        for count in out.iter().chain(&into_host) {
            prop_assert!(*count <= directions * 2, "{out:?} leave, {into_host:?} enter, {}", plan.name());
        }
    }
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let names = prop::sample::select(
        builders::ALL
            .iter()
            .map(|builder| builder.name)
            .collect::<Vec<_>>(),
    );
    let any = (names, 1u32..60, any::<prop::sample::Index>(), 0..KINDS);
    let plain = any.prop_filter_map("no such collective", |(name, ranks, root, kind)| {
        builders::build(name, collective(kind, root.index(ranks as usize) as u32), ranks).ok()
    });
    prop_oneof![plain, on_hosts(60).prop_map(|(_, plan)| plan)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever a lowered program names is a neighbour, nobody else is, and it is mutual.
    #[test]
    fn neighbours_are_who_a_lowering_talks_to(plan in any_plan(), reach in prop::sample::select(&REACHES[..])) {
        let mut named: Vec<BTreeSet<Rank>> = vec![BTreeSet::new(); plan.ranks() as usize];
        for program in programs(&plan, reach) {
            for task in &program.tasks {
                let (sources, into) = moves(&task.action);
                let places = sources.iter().chain(into).map(|place| place.rank);
                let waits = task.waits.iter().map(|wait| wait.rank);
                for peer in places.chain(waits).chain(task.notify.iter().copied()) {
                    if peer != program.rank {
                        named[program.rank as usize].insert(peer);
                        named[peer as usize].insert(program.rank);
                    }
                }
            }
        }
        for rank in 0..plan.ranks() {
            let neighbours = plan.neighbours(rank);
            prop_assert!(
                neighbours.iter().eq(&named[rank as usize]),
                "{} {:?}: rank {rank}: {neighbours:?}, not {:?}", plan.name(), plan.collective(), named[rank as usize]
            );
            for peer in neighbours {
                prop_assert!(plan.neighbours(peer).contains(&rank), "{peer} does not know {rank}");
            }
        }
    }
}

/// With room on a host, only its leaders have neighbours on others, and few.
#[test]
fn few_ranks_have_neighbours_on_other_hosts() {
    let plan = builders::build("hierarchical:16", Collective::AllReduce, 256).unwrap();
    let far = |rank: Rank| {
        plan.neighbours(rank)
            .iter()
            .filter(|peer| *peer / 16 != rank / 16)
            .count()
    };
    let with: Vec<Rank> = (0..256).filter(|rank| far(*rank) > 0).collect();
    assert!(with.iter().all(|rank| rank % 16 < 2), "{with:?}");
    assert!((0..256).all(|rank| far(rank) <= 3));
}

#[test]
fn a_map_for_another_number_of_ranks_is_refused() {
    for ranks in [1, 4, 6] {
        let error = builders::build("hierarchical:0*3/1*2", Collective::AllReduce, ranks).unwrap_err();
        assert!(
            matches!(error, PlanError::BadParameter { .. }) && error.to_string().contains("5 ranks"),
            "{error}"
        );
    }
    builders::build("hierarchical:0*3/1*2", Collective::AllReduce, 5).unwrap();
    let many = builders::find("hierarchical:0*65000/1*537")
        .unwrap_err()
        .to_string();
    assert!(many.contains("65536"), "{many}");
}

#[test]
fn hosts_are_drawn_as_boxes() {
    for hosts in [
        &[0][..],
        &[0; 5],
        &[0, 1, 2],
        &[0, 0, 0, 1, 1, 2, 0, 2, 3, 3, 3, 3],
        &[0; 70],
    ] {
        for kind in on_hosts_kinds() {
            let ranks = hosts.len() as u32;
            let plan =
                builders::build(&hierarchical_name(hosts), collective(kind, ranks - 1), ranks).unwrap();
            let picture = draw::svg(&plan);
            assert!(!picture.contains("NaN") && !picture.contains("inf\""));
            if ranks > 1 {
                let last = hosts.iter().max().unwrap();
                assert!((0..=*last).all(|host| picture.contains(&format!(">host {host}</text>"))));
            }
            if ranks <= draw::LEGIBLE_RANKS {
                assert!((0..ranks).all(|rank| picture.contains(&format!(">{rank}</text>"))));
            }
        }
    }
}
