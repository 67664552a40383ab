//! Which plans are told apart, and for which sizes one is chosen.

use super::super::{Candidate, Curve, Link, Own, Parameters, Point, Residual, Setting, Shape, Tuning};
use super::{MESSAGES, near, parameters};
use crate::plan::{Collective, Reach, builders};

const ALL_REDUCE: Collective = Collective::AllReduce;

fn setting(ranks: usize, reach: Reach) -> Setting {
    Setting {
        hosts: vec![0; ranks],
        reach,
        slot_bytes: 1 << 15,
        most_tasks: usize::MAX,
    }
}

fn names(setting: &Setting, collective: Collective) -> Vec<Vec<String>> {
    let alternatives = setting.alternatives(collective).into_iter();
    alternatives.map(|alternative| alternative.names).collect()
}

fn candidate(name: &str, setting: &Setting) -> Candidate {
    Candidate {
        plan: builders::build(name, ALL_REDUCE, setting.ranks()).unwrap(),
        chunk: 1.0,
    }
}

#[test]
fn two_ranks_have_few_ways() {
    let two = names(&setting(2, Reach::LoadStore), ALL_REDUCE);
    let expected = [
        &["direct", "ring", "halving-doubling"][..],
        &["ring:2"],
        &["double-binary-tree"],
        &["k-ary-tree", "k-ary-tree:2", "binomial-tree", "k-nomial"],
    ];
    assert_eq!(two, expected);
}

/// Whatever is one, is one to the model, too.
#[test]
fn what_is_one_takes_one_time() {
    for reach in [Reach::LoadStore, MESSAGES] {
        for ranks in [2, 3, 5, 8] {
            let setting = setting(ranks, reach);
            let tuning = Tuning {
                parameters: parameters(),
                residuals: Vec::new(),
            };
            for names in names(&setting, ALL_REDUCE) {
                let time = |name: &String| {
                    let candidate = candidate(name, &setting);
                    tuning.model(&setting, &candidate, 1 << 20, false).unwrap().time
                };
                names.iter().for_each(|name| near(time(name), time(&names[0])));
            }
        }
    }
}

/// What was measured of a plan holds for it under its other names.
#[test]
fn a_plan_is_predicted_by_any_of_its_names() {
    let setting = setting(2, Reach::LoadStore);
    let ring = candidate("ring", &setting);
    let shape = setting.shape(&ring.plan, 1.0);
    let tuning = Tuning {
        parameters: parameters(),
        residuals: vec![Residual::new(&shape, vec![Point::new(1 << 20, 3.0)])],
    };
    let over_model = |name| {
        let candidate = candidate(name, &setting);
        let time = tuning.predict(&setting, &candidate, 1 << 20, false).unwrap().time;
        time / tuning.model(&setting, &candidate, 1 << 20, false).unwrap().time
    };
    near(over_model("ring"), 3.0);
    near(over_model("direct"), 3.0);
    near(over_model("k-nomial"), 1.0);
}

/// One size at which a plan is a little better does not outweigh the rest of its class; every size of a class has the same
/// choice.
#[test]
fn a_choice_is_for_all_of_its_class() {
    let setting = setting(2, Reach::LoadStore);
    let link = Link::new(1.0, 0.5, 0.1, Curve::flat(0.1));
    let chosen = |points: &[Point], bytes| {
        let tree = candidate("k-ary-tree", &setting);
        let of = |in_place| {
            let shape = Shape {
                in_place,
                ..setting.shape(&tree.plan, 1.0)
            };
            Residual::new(&shape, points.to_vec())
        };
        let tuning = Tuning {
            parameters: Parameters {
                cores: 2,
                own: Own::new(0.01, Curve::flat(0.05)),
                links: [Some(link.clone()), None, None],
            },
            residuals: vec![of(false), of(true)],
        };
        tuning.choose(&setting, ALL_REDUCE, bytes).unwrap().plan
    };
    let sizes = [1 << 20, 1_500_000, (2 << 20) - 4];
    let good = Point::new(1 << 20, 0.1);
    for bytes in sizes {
        assert_eq!(chosen(&[good], bytes), "k-ary-tree");
        let bad_else = [good, Point::new((1 << 20) + 4, 1000.0)];
        assert_eq!(chosen(&bad_else, bytes), "direct");
    }
}

/// Whatever the plan is, its chunks are of the size that is predicted to take the least.
#[test]
fn chunks_are_chosen_for_every_plan() {
    let setting = setting(4, Reach::LoadStore);
    for alternative in setting.alternatives(ALL_REDUCE) {
        let of = |in_place| {
            let shape = Shape {
                in_place,
                ..setting.shape(&alternative.plan, 0.25)
            };
            Residual::new(&shape, vec![Point::new(1, 0.01)])
        };
        let tuning = Tuning {
            parameters: parameters(),
            residuals: vec![of(false), of(true)],
        };
        let chosen = tuning.choose(&setting, ALL_REDUCE, 16 << 20).unwrap();
        assert_eq!(
            (chosen.plan.as_str(), chosen.chunk),
            (alternative.plan.name(), 0.25)
        );
    }
}
