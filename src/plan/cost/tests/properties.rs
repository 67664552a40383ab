//! What holds for every plan, whatever the parameters.

use proptest::prelude::*;

use super::super::{Case, Curve, Knot, Link, Own, Parameters, predict};
use crate::plan::{Collective, Reach, builders};

fn curve() -> impl Strategy<Value = Curve> {
    proptest::collection::vec((1u64..1 << 22, 0.0..2.0), 1..5).prop_map(|steps| {
        let (mut footprint, mut gap) = (0, 0.0);
        let knots = steps.into_iter().map(|(further, more)| {
            footprint += further;
            gap += more;
            Knot::new(footprint, gap)
        });
        Curve::try_from(knots.collect::<Vec<_>>()).unwrap()
    })
}

fn link() -> impl Strategy<Value = Link> {
    let times = (0.0..1e4, 0.0..100.0, 0.0..100.0);
    (times, curve()).prop_map(|((latency, overhead, gap), bytes)| Link::new(latency, overhead, gap, bytes))
}

fn parameters() -> impl Strategy<Value = Parameters> {
    let links = (link(), link(), link()).prop_map(|(a, b, c)| [Some(a), Some(b), Some(c)]);
    (1u32..10, 0.0..1.0, curve(), links).prop_map(|(cores, combine, bytes, links)| Parameters {
        cores,
        own: Own::new(combine, bytes),
        links,
    })
}

/// Who does what comes first may end a little later for having less to do (R. Graham: Bounds on Multiprocessing Timing
/// Anomalies, SIAM Journal on Applied Mathematics 17, 1969): so much is allowed.
const ANOMALY: f64 = 1.1;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// Finite, not negative, the same again; and no vector takes less than one of half its length, but for anomalies.
    #[test]
    fn more_bytes_never_take_less(
        parameters in parameters(),
        builder in 0..builders::ALL.len(),
        collective in 0..Collective::COUNT,
        ranks in 1u32..9,
        of_host in 1u32..9,
        message: bool,
        in_place: bool,
        chunk in 1usize << 10..1 << 16,
        power in 10u32..21,
    ) {
        let name = match builders::ALL[builder].name {
            "hierarchical" => format!("hierarchical:{of_host}"),
            name => name.to_owned(),
        };
        let Ok(plan) = builders::build(&name, Collective::every(ranks - 1)[collective], ranks) else {
            return Ok(());
        };
        let hosts: Vec<u32> = (0..ranks).map(|rank| rank / of_host).collect();
        let reach = if message { Reach::Message { slots: 4 } } else { Reach::LoadStore };
        let time = |bytes| {
            let case = Case { reach, hosts: &hosts, bytes, chunk, slot_bytes: 1 << 15, in_place };
            predict(&plan, &case, &parameters).unwrap().time
        };
        let (half, whole) = (time(1 << power), time(2 << power));
        prop_assert!(half.is_finite() && half >= 0.0, "{half}");
        prop_assert!(half <= whole * ANOMALY, "{name}: {half} for half of what takes {whole}");
        prop_assert_eq!(whole, time(2 << power));
    }
}
