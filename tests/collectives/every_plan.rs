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

/// Parts in the reverse order of the ranks, with gaps, by every plan.
pub fn parts_may_lie_anywhere(reach: Reach) {
    everywhere(reach, &[2, 5], |communicator, collective, what| {
        let (rank, size) = (communicator.rank(), communicator.size());
        if !collective.has_parts() {
            return;
        }
        let parts = Parts::varying(size, 3_001, collective);
        let plain = expected(collective, &parts, rank);
        let (needs, gets) = lengths(collective, &parts, rank);
        // Of rows of one buffer each: where each part begins, and where it began without gaps.
        let row = |counts: &[usize]| {
            let mut at = 5;
            let mut begins = vec![0; counts.len()];
            for (begin, count) in begins.iter_mut().zip(counts).rev() {
                *begin = at;
                at += count + 3;
            }
            begins
        };
        let p = size as usize;
        let column = |receiver: usize| {
            let counts = parts.counts.iter().skip(receiver).step_by(p);
            counts.copied().collect::<Vec<_>>()
        };
        let request = request(collective).varying(&parts.counts);
        let all_to_all = collective == Collective::AllToAll;
        let (request, sent, received) = if all_to_all {
            let sent = parts.counts.chunks(p).flat_map(row).collect::<Vec<_>>();
            let columns = (0..p).map(|to| row(&column(to))).collect::<Vec<_>>();
            let received = (0..p * p)
                .map(|pair| columns[pair % p][pair / p])
                .collect::<Vec<_>>();
            let own_sent = sent[rank as usize * p..][..p].to_vec();
            let own_received = columns[rank as usize].clone();
            (
                request.displaced_pairs(&sent, &received),
                (parts.counts[rank as usize * p..][..p].to_vec(), own_sent),
                (column(rank as usize), own_received),
            )
        } else {
            let begins = row(&parts.counts);
            let list = (parts.counts.clone(), begins.clone());
            (request.displaced(&begins), list.clone(), list)
        };
        let room = 3_100 * p + 20;
        let mut input = communicator.window::<u32>(room).unwrap();
        let mut result = communicator.window::<u32>(room).unwrap();
        let spread = |into: &mut [u32], from: &[u32], (counts, begins): &(Vec<usize>, Vec<usize>)| {
            let mut before = 0;
            for (count, begin) in counts.iter().zip(begins) {
                into[*begin..][..*count].copy_from_slice(&from[before..][..*count]);
                before += count;
            }
        };
        let mut own = vec![0; needs];
        fill(&mut own, rank, 0, needs);
        // What is one part alone lies at the start.
        let parts_go =
            matches!(collective, Collective::ReduceScatter | Collective::Scatter { .. }) || all_to_all;
        let parts_come =
            matches!(collective, Collective::AllGather | Collective::Gather { .. }) || all_to_all;
        input.fill(UNTOUCHED);
        match parts_go {
            true => spread(&mut input, &own, &sent),
            false => input[..needs].copy_from_slice(&own),
        }
        result.fill(UNTOUCHED);
        let mut right = result.to_vec();
        if let Some(plain) = plain {
            match parts_come {
                true => spread(&mut right, &plain, &received),
                false => right[..gets].copy_from_slice(&plain),
            }
        }
        communicator.call_into(&request, &input, &mut result).unwrap();
        assert!(result[..] == right[..], "{what}, rank {rank}, displaced");
    });
}
