//! The model against times computed by hand, and what holds for every plan; the file against whatever may stand in one.

mod choosing;
mod file;
mod properties;

use super::{Case, Class, CostError, Curve, Knot, Link, Own, Parameters, predict};
use crate::plan::{Collective, Reach, builders};

const MESSAGES: Reach = Reach::Message { slots: 8 };

/// L, o, g and G.
const FIGURES: [f64; 4] = [10.0, 2.0, 1.0, 0.5];
const OWN_GAP: f64 = 0.25;
const COMBINE: f64 = 0.125;

pub(super) fn parameters() -> Parameters {
    let [latency, overhead, gap, bytes] = FIGURES;
    let link = Link::new(latency, overhead, gap, Curve::flat(bytes));
    Parameters {
        cores: 8,
        own: Own::new(COMBINE, Curve::flat(OWN_GAP)),
        links: [Some(link.clone()), Some(link.clone()), Some(link)],
    }
}

fn time(
    plan: &str,
    collective: Collective,
    reach: Reach,
    bytes: usize,
    in_place: bool,
    parameters: &Parameters,
) -> f64 {
    let plan = builders::build(plan, collective, 2).unwrap();
    let case = Case {
        reach,
        hosts: &[0, 0],
        bytes,
        chunk: bytes.max(1),
        slot_bytes: bytes.max(1),
        in_place,
    };
    predict(&plan, &case, parameters).unwrap().time
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
}

/// A rank says that it has begun (o), the other sees it (L), looks (g) and is done (o).
#[test]
fn a_barrier_over_shared_memory() {
    let [l, o, g, _] = FIGURES;
    near(
        time(
            "direct",
            Collective::Barrier,
            Reach::LoadStore,
            0,
            false,
            &parameters(),
        ),
        o + l + g + o,
    );
}

/// One message each way at once: LogGP's time of a short message.
#[test]
fn a_barrier_of_messages() {
    let [l, o, g, _] = FIGURES;
    near(
        time(
            "dissemination",
            Collective::Barrier,
            MESSAGES,
            0,
            false,
            &parameters(),
        ),
        o + g + l + o,
    );
}

/// Beginning, one block combined of two inputs and stored into two results, the other's waited for.
#[test]
fn an_all_reduce_over_shared_memory() {
    let [l, o, g, _] = FIGURES;
    let block = 1000.0 * (4.0 * OWN_GAP + COMBINE) / 1e3;
    let found = time(
        "direct",
        Collective::AllReduce,
        Reach::LoadStore,
        2000,
        false,
        &parameters(),
    );
    near(found, o + l + (g + o + block) + l + (g + o));
}

/// The receiver says that it has begun; the root hears of it and sends; what it has sent is known to have arrived later
/// than it has.
#[test]
fn a_broadcast_of_messages() {
    let [l, o, g, gap] = FIGURES;
    let root = Collective::Broadcast { root: 0 };
    let sent = (o + g + l) + o + o;
    let arrived = sent + l + g + 1000.0 * gap / 1e3;
    near(
        time("direct", root, MESSAGES, 1000, false, &parameters()),
        arrived + l,
    );
}

/// What a rank combines along a tree another one has written: it comes from there.
#[test]
fn bytes_that_another_rank_writes_are_dearer() {
    let mut dear = parameters();
    let [l, o, g, _] = FIGURES;
    dear.links[Class::Memory as usize] = Some(Link::new(l, o, g, Curve::flat(100.0)));
    let all = |plan, parameters: &Parameters| {
        time(
            plan,
            Collective::AllReduce,
            Reach::LoadStore,
            1 << 20,
            true,
            parameters,
        )
    };
    assert!(all("binomial-tree", &dear) > 10.0 * all("binomial-tree", &parameters()));
}

#[test]
fn ranks_share_cores() {
    let four = |cores| {
        let plan = builders::build("direct", Collective::AllReduce, 4).unwrap();
        let case = Case {
            reach: Reach::LoadStore,
            hosts: &[7; 4],
            bytes: 1 << 20,
            chunk: 1 << 20,
            slot_bytes: 1 << 15,
            in_place: false,
        };
        predict(
            &plan,
            &case,
            &Parameters {
                cores,
                ..parameters()
            },
        )
        .unwrap()
        .time
    };
    let (one, two, more) = (four(1), four(2), four(64));
    assert!(one > 1.9 * two && two > 1.9 * more, "{one} {two} {more}");
    assert_eq!(more, four(4));
}

#[test]
fn a_curve_goes_in_straight_lines() {
    let curve = Curve::try_from(vec![Knot::new(100, 1.0), Knot::new(200, 3.0)]).unwrap();
    for (footprint, gap) in [(0, 1.0), (100, 1.0), (150, 2.0), (200, 3.0), (u64::MAX, 3.0)] {
        near(curve.at(footprint), gap);
    }
    for knots in [
        vec![],
        vec![(2, 1.0), (1, 1.0)],
        vec![(1, 1.0), (1, 2.0)],
        vec![(1, 2.0), (2, 1.0)],
    ] {
        let knots = knots
            .into_iter()
            .map(|(footprint, gap)| Knot::new(footprint, gap));
        assert!(Curve::try_from(knots.collect::<Vec<_>>()).is_err());
    }
}

#[test]
fn what_cannot_be_predicted_is_said() {
    let plan = builders::build("ring", Collective::AllReduce, 2).unwrap();
    let case = Case {
        reach: MESSAGES,
        hosts: &[0, 1],
        bytes: 8,
        chunk: 8,
        slot_bytes: 8,
        in_place: false,
    };
    let mut known = parameters();
    known.links[Class::Network as usize] = None;
    assert_eq!(
        predict(&plan, &case, &known),
        Err(CostError::Class(Class::Network))
    );
    let few = Case { hosts: &[0], ..case };
    assert!(matches!(
        predict(&plan, &few, &known),
        Err(CostError::Hosts { ranks: 2, hosts: 1 })
    ));
    let long = Case {
        bytes: 1 << 40,
        chunk: 1,
        ..case
    };
    assert!(matches!(
        predict(&plan, &long, &parameters()),
        Err(CostError::Large { .. })
    ));
}

/// The times of tasks are the plan's, and one of the last ones is on the critical path.
#[test]
fn tasks_are_inside_the_plan() {
    let plan = builders::build("double-binary-tree", Collective::AllReduce, 7).unwrap();
    let case = Case {
        reach: MESSAGES,
        hosts: &[0, 0, 0, 1, 1, 1, 1],
        bytes: 1 << 20,
        chunk: 1 << 14,
        slot_bytes: 1 << 15,
        in_place: true,
    };
    let prediction = predict(&plan, &case, &parameters()).unwrap();
    let tasks = || prediction.tasks.iter().flatten();
    assert!(tasks().all(|task| 0.0 <= task.start && task.start <= task.end && task.end <= prediction.time));
    assert!(tasks().any(|task| task.critical && task.end == prediction.time));
    assert!(tasks().any(|task| task.critical && task.start == 0.0));
}
