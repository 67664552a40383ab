//! Every collective by every plan that has it, and by the one that is chosen.

use sapwood::communicator::{Communicator, Request};
use sapwood::plan::{Collective, builders};

use crate::reference::{Parts, UNTOUCHED, every, expected, fill, in_place, lengths, longest, plans, request};
use crate::support::{Reach, with};

/// One collective, out of place and in place, twice each so that memory is used again.
fn check(communicator: &Communicator, collective: Collective, request: &Request, parts: &Parts, what: &str) {
    let rank = communicator.rank();
    let (needs, gets) = lengths(collective, parts, rank);
    let expected = expected(collective, parts, rank);
    let (longest_input, longest_result) = longest(collective, parts);
    let mut input = communicator.window::<u32>(longest_input).unwrap();
    let mut result = communicator.window::<u32>(longest_result).unwrap();
    for round in 0..2 {
        fill(&mut input, rank, 0, needs);
        let before = input.to_vec();
        result.fill(UNTOUCHED);
        communicator.call_into(request, &input, &mut result).unwrap();
        assert!(
            input[..] == before[..],
            "{what}, rank {rank}: the input has changed"
        );
        let untouched = match &expected {
            Some(expected) => {
                assert_eq!(expected.len(), gets);
                assert!(
                    result[..gets] == expected[..],
                    "{what}, rank {rank}, round {round}: {:?}",
                    &result[..gets.min(8)]
                );
                gets
            }
            None => 0,
        };
        assert!(
            result[untouched..].iter().all(|x| *x == UNTOUCHED),
            "{what}, rank {rank}: wrote too much"
        );
    }
    if collective == Collective::AllToAll {
        return;
    }
    let mut window = communicator
        .window::<u32>(longest_input.max(longest_result))
        .unwrap();
    let (from, to) = in_place(collective, parts, rank);
    for round in 0..2 {
        fill(&mut window, rank, from, needs);
        communicator.call(request, &mut window).unwrap();
        match &expected {
            Some(expected) => assert!(
                window[to..to + gets] == expected[..],
                "{what} in place, rank {rank}, round {round}: {:?}",
                &window[to..to + gets.min(8)]
            ),
            None => {
                let mut kept = vec![0; window.len()];
                fill(&mut kept, rank, from, needs);
                assert!(
                    window[..] == kept[..],
                    "{what} in place, rank {rank}: wrote without a result"
                );
            }
        }
    }
}

fn everywhere(reach: Reach, sizes: &[u32], test: impl Fn(&Communicator, Collective, &str) + Sync) {
    for &size in sizes {
        let collectives = every(size / 2);
        let mut done = vec![0; collectives.len()];
        // Of these sizes, what is chosen is enough.
        let few = [1, 3].contains(&size);
        let plans = plans(size).into_iter();
        for plan in plans.filter(|plan| !few || plan.is_none()) {
            let has = |collective: &&Collective| match &plan {
                Some(plan) => builders::build(plan, **collective, size).is_ok(),
                None => true,
            };
            let having = collectives.iter().filter(has).copied().collect::<Vec<_>>();
            if having.is_empty() {
                continue;
            }
            let builder = match &plan {
                Some(plan) => reach.builder().plan(plan),
                None => reach.builder(),
            };
            let named = plan.as_deref().unwrap_or("choice");
            with(size, builder, |communicator| {
                for collective in &having {
                    test(
                        &communicator,
                        *collective,
                        &format!("{collective} by {named} on {size} ranks"),
                    );
                }
            });
            for collective in having {
                let index = collectives.iter().position(|known| *known == collective);
                done[index.expect("one of them")] += 1;
            }
        }
        assert!(
            few || done.iter().all(|plans| *plans > 1),
            "{done:?} plans of each for {size} ranks"
        );
    }
}

pub fn every_collective_by_every_plan_is_the_reference(reach: Reach) {
    everywhere(reach, &[1, 2, 3, 4, 5], |communicator, collective, what| {
        for count in [5, 20_011] {
            let parts = Parts::even(communicator.size(), count, collective);
            check(
                communicator,
                collective,
                &request(collective),
                &parts,
                &format!("{what}, {count} each"),
            );
        }
    });
}

pub fn parts_may_have_different_lengths_or_none(reach: Reach) {
    everywhere(reach, &[2, 5], |communicator, collective, what| {
        if !collective.has_parts() {
            return;
        }
        {
            let most = 9_001;
            let parts = Parts::varying(communicator.size(), most, collective);
            let request = request(collective).varying(&parts.counts);
            check(
                communicator,
                collective,
                &request,
                &parts,
                &format!("{what}, up to {most} each"),
            );
        }
    });
}

/// More tasks than boards have counters for unless they are told.
pub fn a_ring_of_several_channels_runs(reach: Reach) {
    with(5, reach.builder().plan("ring:4"), |communicator| {
        for collective in [Collective::AllReduce, Collective::ReduceScatter] {
            let parts = Parts::even(communicator.size(), 3_000, collective);
            check(&communicator, collective, &request(collective), &parts, "ring:4");
        }
    });
}

/// Each holds a partial sum for every other rank.
pub fn a_ring_of_many_ranks_has_slots_enough(reach: Reach) {
    with(40, reach.builder().plan("ring:2"), |communicator| {
        let collective = Collective::ReduceScatter;
        let parts = Parts::even(communicator.size(), 3_000, collective);
        check(
            &communicator,
            collective,
            &request(collective),
            &parts,
            "ring of 40",
        );
    });
}
