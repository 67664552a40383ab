//! Every collective, by every plan that has it and by the one that is chosen, against a scalar reference: over a fabric
//! with load/store reach and over one without, in place and out of place, with parts of equal and of different lengths.

use sapwood::communicator::{Communicator, CommunicatorError, Request, Window};
use sapwood::engine::reduce::Operation;
use sapwood::plan::{Collective, builders};

#[path = "ranks/mod.rs"]
mod support;

use support::{Reach, with};

/// Good as random, and the same for everybody who asks.
fn value(rank: u32, index: usize) -> u32 {
    let mut bits = (u64::from(rank) << 32 ^ index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits ^= bits >> 29;
    (bits.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32) as u32
}

/// What no rank contributes.
const UNTOUCHED: u32 = 0xDEAD_BEEF;

/// The collectives of this file, with a root where they have one.
fn every(root: u32) -> Vec<Collective> {
    vec![
        Collective::AllReduce,
        Collective::Reduce { root },
        Collective::Broadcast { root },
        Collective::ReduceScatter,
        Collective::AllGather,
        Collective::Gather { root },
        Collective::Scatter { root },
        Collective::AllToAll,
    ]
}

fn request(collective: Collective) -> Request {
    match collective {
        Collective::AllReduce => Request::all_reduce(Operation::Sum),
        Collective::Reduce { root } => Request::reduce(Operation::Sum, root),
        Collective::Broadcast { root } => Request::broadcast(root),
        Collective::ReduceScatter => Request::reduce_scatter(Operation::Sum),
        Collective::AllGather => Request::all_gather(),
        Collective::Gather { root } => Request::gather(root),
        Collective::Scatter { root } => Request::scatter(root),
        Collective::AllToAll => Request::all_to_all(),
        Collective::Barrier => unreachable!("moves nothing"),
    }
}

/// Every plan that there is for so many ranks, and `None` for the ones that are chosen.
fn plans(ranks: u32) -> Vec<Option<String>> {
    let named = builders::ALL.iter().map(|builder| match builder.name {
        // Two hosts, as unequal as can be.
        "hierarchical" => format!("hierarchical:{}", (ranks - 1).max(1)),
        name => name.to_owned(),
    });
    named.map(Some).chain([None]).collect()
}

/// The lengths of the parts, and where each begins.
#[derive(Clone)]
struct Parts {
    ranks: u32,
    /// By rank; for an all-to-all by sender and receiver.
    counts: Vec<usize>,
}

impl Parts {
    fn even(ranks: u32, count: usize, collective: Collective) -> Self {
        let parts = if collective == Collective::AllToAll {
            ranks * ranks
        } else {
            ranks
        };
        Self {
            ranks,
            counts: vec![count; parts as usize],
        }
    }

    /// Some of them nothing.
    fn varying(ranks: u32, most: usize, collective: Collective) -> Self {
        let mut parts = Self::even(ranks, most, collective);
        for (index, count) in parts.counts.iter_mut().enumerate() {
            *count = if index % 3 == 1 {
                0
            } else {
                value(9, index) as usize % most + 1
            };
        }
        parts
    }

    fn of(&self, rank: u32) -> usize {
        self.counts[rank as usize]
    }

    fn before(&self, rank: u32) -> usize {
        self.counts[..rank as usize].iter().sum()
    }

    fn all(&self) -> usize {
        self.counts.iter().sum()
    }

    fn pair(&self, sender: u32, receiver: u32) -> usize {
        self.counts[(sender * self.ranks + receiver) as usize]
    }
}

/// Elements of input and result that a rank needs. (A vector without parts has the length of the first.)
fn lengths(collective: Collective, parts: &Parts, rank: u32) -> (usize, usize) {
    let ranks = 0..parts.ranks;
    match collective {
        Collective::AllReduce | Collective::Reduce { .. } | Collective::Broadcast { .. } => {
            (parts.of(0), parts.of(0))
        }
        Collective::ReduceScatter | Collective::Scatter { .. } => (parts.all(), parts.of(rank)),
        Collective::AllGather | Collective::Gather { .. } => (parts.of(rank), parts.all()),
        Collective::AllToAll => (
            ranks.clone().map(|other| parts.pair(rank, other)).sum(),
            ranks.map(|other| parts.pair(other, rank)).sum(),
        ),
        Collective::Barrier => (0, 0),
    }
}

/// What a rank's result holds afterwards; `None` where it is not touched.
fn expected(collective: Collective, parts: &Parts, rank: u32) -> Option<Vec<u32>> {
    let all = || 0..parts.ranks;
    let sum = |index: usize| all().fold(0u32, |sum, rank| sum.wrapping_add(value(rank, index)));
    let gathered = || {
        all()
            .flat_map(|from| (0..parts.of(from)).map(move |index| value(from, index)))
            .collect()
    };
    match collective {
        Collective::AllReduce => Some((0..parts.of(0)).map(sum).collect()),
        Collective::Reduce { root } => (rank == root).then(|| (0..parts.of(0)).map(sum).collect()),
        Collective::Broadcast { root } => Some((0..parts.of(0)).map(|index| value(root, index)).collect()),
        Collective::ReduceScatter => {
            let first = parts.before(rank);
            Some((first..first + parts.of(rank)).map(sum).collect())
        }
        Collective::AllGather => Some(gathered()),
        Collective::Gather { root } => (rank == root).then(gathered),
        Collective::Scatter { root } => {
            let first = parts.before(rank);
            Some(
                (first..first + parts.of(rank))
                    .map(|index| value(root, index))
                    .collect(),
            )
        }
        Collective::AllToAll => Some(
            all()
                .flat_map(|from| {
                    let first: usize = (0..rank).map(|other| parts.pair(from, other)).sum();
                    (first..first + parts.pair(from, rank)).map(move |index| value(from, index))
                })
                .collect(),
        ),
        Collective::Barrier => None,
    }
}

/// Where in place the own input and result begin in the one window.
fn in_place(collective: Collective, parts: &Parts, rank: u32) -> (usize, usize) {
    let own = match collective.root() {
        Some(root) if root != rank => 0,
        _ => parts.before(rank),
    };
    match collective {
        Collective::AllGather | Collective::Gather { .. } => (own, 0),
        Collective::ReduceScatter | Collective::Scatter { .. } => (0, own),
        _ => (0, 0),
    }
}

fn longest(collective: Collective, parts: &Parts) -> (usize, usize) {
    let lengths = (0..parts.ranks).map(|rank| lengths(collective, parts, rank));
    lengths.fold((1, 1), |(one, other), (input, result)| {
        (one.max(input), other.max(result))
    })
}

fn fill(window: &mut [u32], rank: u32, at: usize, len: usize) {
    window.fill(UNTOUCHED);
    for (index, element) in window[at..at + len].iter_mut().enumerate() {
        *element = value(rank, index);
    }
}

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

fn every_collective_by_every_plan_is_the_reference(reach: Reach) {
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

fn parts_may_have_different_lengths_or_none(reach: Reach) {
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

fn named_calls_are_the_requests(reach: Reach) {
    with(3, reach.builder(), |communicator| {
        let rank = communicator.rank();
        let window = |len: usize| {
            let mut window = communicator.window::<u64>(len).unwrap();
            window
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = 100 * u64::from(rank) + i as u64);
            window
        };
        let (mut long, mut short) = (window(6), window(2));
        communicator.all_gather_into(&short, &mut long).unwrap();
        assert_eq!(long[..], [0, 1, 100, 101, 200, 201]);
        communicator
            .reduce_scatter_into(&long, &mut short, Operation::Sum)
            .unwrap();
        assert_eq!(short[..], [300 * u64::from(rank), 300 * u64::from(rank) + 3]);
        communicator.scatter_into(&long, &mut short, 2).unwrap();
        assert_eq!(short[..], [100 * u64::from(rank), 100 * u64::from(rank) + 1]);
        long.fill(7);
        communicator.gather_into(&short, &mut long, 1).unwrap();
        assert_eq!(long[5], if rank == 1 { 201 } else { 7 });
        let (from, mut to) = (window(3), window(3));
        communicator.all_to_all(&from, &mut to).unwrap();
        assert_eq!(to[..], [0, 1, 2].map(|sender| 100 * sender + u64::from(rank)));
        communicator.broadcast_into(&from, &mut to, 1).unwrap();
        assert_eq!(to[..], [100, 101, 102]);
        communicator
            .reduce_into(&from, &mut to, Operation::Max, 0)
            .unwrap();
        assert_eq!(to[2], if rank == 0 { 202 } else { 102 });
        let mut all = window(3);
        communicator.all_gather(&mut all).unwrap();
        assert_eq!(all[..], [0, 101, 202]);
        communicator.reduce_scatter(&mut all, Operation::Min).unwrap();
        assert_eq!(all[rank as usize], 101 * u64::from(rank));
        let counts = [2, 0, 1];
        let (input, mut result) = (window(2), window(3));
        communicator
            .all_gather_varying(&input, &mut result, &counts)
            .unwrap();
        assert_eq!(result[..], [0, 1, 200]);
        // Rank r sends r elements to each, so gets s from rank s.
        let (input, mut result) = (window(6), window(6));
        let send = vec![rank as usize; 3];
        communicator
            .all_to_all_varying(&input, &send, &mut result, &[0, 1, 2])
            .unwrap();
        let r = u64::from(rank);
        assert_eq!(result[..3], [100 + r, 200 + 2 * r, 201 + 2 * r]);
    });
}

fn started_collectives_end_in_any_order(reach: Reach) {
    with(4, reach.builder(), |communicator| {
        let size = communicator.size();
        let run = |collective: Collective| {
            let parts = Parts::even(size, 3_000, collective);
            let (needs, _) = lengths(collective, &parts, communicator.rank());
            let (longest_input, longest_result) = longest(collective, &parts);
            let mut input = communicator.window::<u32>(longest_input).unwrap();
            fill(&mut input, communicator.rank(), 0, needs);
            let result = communicator.window::<u32>(longest_result).unwrap();
            (
                collective,
                parts,
                communicator
                    .start_into(&request(collective), input, result)
                    .unwrap(),
            )
        };
        let started = every(1).into_iter().map(run).collect::<Vec<_>>();
        for (collective, parts, started) in started.into_iter().rev() {
            let (_, result) = started.wait().unwrap();
            if let Some(expected) = expected(collective, &parts, communicator.rank()) {
                assert!(result[..expected.len()] == expected[..], "{collective}");
            }
        }
        let window = communicator.window::<u32>(4_000).unwrap();
        let window = communicator.start_all_gather(window).unwrap().wait().unwrap();
        communicator.start_broadcast(window, 2).unwrap().wait().unwrap();
    });
}

fn a_persistent_collective_is_started_many_times(reach: Reach) {
    with(3, reach.builder(), |communicator| {
        let (rank, size) = (communicator.rank(), communicator.size());
        for collective in every(1) {
            for count in [2, 5_000] {
                let parts = Parts::even(size, count, collective);
                let (needs, gets) = lengths(collective, &parts, rank);
                let (longest_input, longest_result) = longest(collective, &parts);
                let input = communicator.window::<u32>(longest_input).unwrap();
                let result = communicator.window::<u32>(longest_result).unwrap();
                let mut lasting = communicator
                    .persistent_into(&request(collective), input, result)
                    .unwrap();
                for round in 0..20 {
                    let (input, result) = lasting.windows();
                    fill(input, rank, 0, needs);
                    result.fill(UNTOUCHED);
                    lasting.start(&communicator).unwrap();
                    if round % 2 == 0 {
                        while !lasting.poll() {
                            std::thread::yield_now();
                        }
                    }
                    lasting.wait().unwrap();
                    if let Some(expected) = expected(collective, &parts, rank) {
                        assert!(
                            lasting.windows().1[..gets] == expected[..],
                            "{collective}, round {round}"
                        );
                    }
                }
                lasting.into_windows().unwrap();
            }
        }
        let mut lasting = communicator
            .persistent_all_reduce(communicator.window::<u32>(10).unwrap(), Operation::Sum)
            .unwrap();
        assert!(lasting.poll(), "not started");
        lasting.start(&communicator).unwrap();
        let twice = lasting.start(&communicator).unwrap_err().to_string();
        assert!(twice.contains("started and not waited for"), "{twice}");
        lasting.wait().unwrap();
        // Dropped while it is under way, it goes on.
        lasting.start(&communicator).unwrap();
        drop(lasting);
        communicator.barrier().unwrap();
    });
}

fn a_group_is_issued_as_one(reach: Reach) {
    with(4, reach.builder(), |communicator| {
        let rank = communicator.rank();
        let mut sums: Vec<Window<f32>> = (0..10)
            .map(|i| communicator.window(100 * i + 1).unwrap())
            .collect();
        let mut shared = communicator.window::<u64>(5).unwrap();
        let (part, mut all) = (
            communicator.window::<i8>(3).unwrap(),
            communicator.window::<i8>(12).unwrap(),
        );
        sums.iter_mut().for_each(|window| window.fill(1.5));
        shared.fill(u64::from(rank));
        communicator
            .group(|group| {
                for window in &mut sums {
                    group.add(&Request::all_reduce(Operation::Sum), window)?;
                }
                group.add(&Request::broadcast(3), &mut shared)?;
                group.add_into(&Request::all_gather(), &part, &mut all)
            })
            .unwrap();
        assert!(sums.iter().all(|window| window.iter().all(|x| *x == 6.0)));
        assert_eq!(shared[..], [3; 5]);
        communicator.group(|_| Ok(())).unwrap();
        // Refused as a whole, with the number of what is wrong.
        let refused = communicator.group(|group| {
            group.add(&Request::broadcast(0), &mut shared)?;
            group.add(&Request::gather(4), &mut all)
        });
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.contains("operation 1 of the group (gather)") && refused.contains("root 4"),
            "{refused}"
        );
        assert_eq!(shared[..], [3; 5]);
        communicator.broadcast(&mut shared, 1).unwrap();
    });
}

fn a_failure_in_a_group_names_the_operation(reach: Reach) {
    let errors = with(3, reach.builder(), |communicator| {
        let mut one = communicator.window::<f32>(1_000).unwrap();
        let mut two = communicator.window::<f32>(1_000).unwrap();
        communicator.all_reduce(&mut one, Operation::Max).unwrap();
        let operation = if communicator.rank() == 1 {
            Operation::Max
        } else {
            Operation::Sum
        };
        let outcome = communicator.group(|group| {
            group.add(&Request::all_reduce(Operation::Max), &mut one)?;
            group.add(&Request::all_reduce(operation), &mut two)
        });
        assert!(one.in_custody() && two.in_custody());
        outcome.unwrap_err().to_string()
    });
    // Who finds it says which and what; who is told of it may have had the operation before still to end.
    let found = |error: &&String| {
        error.contains("operation 1 of the group (all-reduce)")
            && error.contains("rank 1 called all-reduce of 1000 float with max")
    };
    assert!(errors.iter().any(|error| found(&error)), "{errors:?}");
    for error in &errors {
        let told = error.contains("of the group (all-reduce)") && error.contains("disagree");
        assert!(told || found(&error), "{error}");
    }
}

/// Ranks that nothing makes wait run ahead of the others; what they have shown must be there when these come.
fn ranks_that_run_ahead_overwrite_nothing(reach: Reach) {
    // Over messages nobody runs ahead, and each operation may be as long as a time slice of a busy machine.
    let (rounds, planned) = match reach {
        Reach::Mapped => (2_000u64, 600u64),
        Reach::Messages => (100, 20),
    };
    for size in [2, 4] {
        with(size, reach.builder(), |communicator| {
            let rank = communicator.rank();
            let mut windows = [1usize, 4, 11, 40].map(|len| communicator.window::<u64>(len).unwrap());
            let mut long = communicator.window::<u64>(4 * size as usize).unwrap();
            let mut large = communicator.window::<u64>(5_000).unwrap();
            for round in 0..rounds {
                if round % 700 == u64::from(rank) * 150 {
                    std::thread::sleep(std::time::Duration::from_millis(3));
                }
                let root = (round / 100) as u32 % size;
                let window = &mut windows[(round % 4) as usize];
                window.fill(round << 8 | u64::from(rank));
                if round % 3 == 0 {
                    communicator.reduce(window, Operation::Max, root).unwrap();
                    let wanted = if rank == root {
                        u64::from(size) - 1
                    } else {
                        u64::from(rank)
                    };
                    assert!(
                        window.iter().all(|x| *x == round << 8 | wanted),
                        "round {round}: {:?}",
                        &window[..]
                    );
                } else {
                    communicator.broadcast(window, root).unwrap();
                    assert!(
                        window.iter().all(|x| *x == round << 8 | u64::from(root)),
                        "round {round}"
                    );
                }
                if round % 5 == 0 {
                    long.fill(round << 8 | u64::from(rank));
                    communicator.gather_into(&windows[1], &mut long, root).unwrap();
                }
                if round % 301 == 0 {
                    large.fill(1);
                    communicator.all_reduce(&mut large, Operation::Sum).unwrap();
                    assert_eq!(large[4_999], u64::from(size));
                }
            }
            // Many planned ones between two that are not waited for.
            let mut lasting = communicator.persistent_all_reduce(large, Operation::Max).unwrap();
            for round in 0..planned {
                if round % 290 == 0 {
                    windows[0].fill(round + u64::from(rank));
                    communicator.broadcast(&mut windows[0], 1).unwrap();
                    assert_eq!(windows[0][0], round + 1);
                }
                lasting.start(&communicator).unwrap();
                lasting.wait().unwrap();
            }
        });
    }
}

fn only_what_is_passed_on_through_slots_is_copied(reach: Reach) {
    let count = 10_000usize;
    for (plan, passed_on) in [("direct", 0), ("binomial-tree", 1)] {
        let copied = with(4, reach.builder().plan(plan), |communicator| {
            let part = communicator.window::<u32>(count).unwrap();
            let mut all = communicator.window::<u32>(4 * count).unwrap();
            communicator.gather_into(&part, &mut all, 0).unwrap();
            communicator.counters().bytes_copied
        });
        // One of four ranks is no neighbour of the root in the tree.
        let copied = copied.iter().sum::<u64>();
        assert_eq!(copied, passed_on * 4 * count as u64, "gather by {plan}");
    }
    let copied = with(3, reach.builder().plan("direct"), |communicator| {
        let part = communicator.window::<u32>(count).unwrap();
        let mut all = communicator.window::<u32>(3 * count).unwrap();
        let mut other = communicator.window::<u32>(3 * count).unwrap();
        communicator.all_gather_into(&part, &mut all).unwrap();
        communicator
            .call_into(&Request::all_to_all(), &all, &mut other)
            .unwrap();
        communicator.broadcast(&mut all, 1).unwrap();
        communicator.counters().bytes_copied
    });
    assert_eq!(copied, [0, 0, 0]);
}

fn text<T: std::fmt::Debug, E: std::fmt::Display>(outcome: Result<T, E>) -> String {
    match outcome {
        Ok(value) => panic!("expected an error, got {value:?}"),
        Err(error) => error.to_string(),
    }
}

fn what_does_not_fit_is_refused_on_every_rank_and_changes_nothing(reach: Reach) {
    with(3, reach.builder(), |communicator| {
        let rank = communicator.rank();
        let mut seven = communicator.window::<f32>(7).unwrap();
        let mut six = communicator.window::<f32>(6).unwrap();
        let mut two = communicator.window::<f32>(2).unwrap();
        let mut little = communicator.window::<f32>(2).unwrap();
        for window in [&mut seven, &mut six, &mut two, &mut little] {
            window.fill(1.0);
        }
        let refuses = |outcome: Result<(), CommunicatorError>, parts: &[&str]| {
            let error = text(outcome);
            assert!(error.contains(&format!("rank {rank}: ")), "{error}");
            for part in parts {
                assert!(error.contains(part), "{error}");
            }
        };
        refuses(
            communicator.all_gather(&mut seven),
            &["all-gather", "7 elements", "each of 3 ranks"],
        );
        refuses(
            communicator.reduce_scatter(&mut seven, Operation::Sum),
            &["reduce-scatter", "7 elements"],
        );
        refuses(
            communicator.all_gather_into(&two, &mut seven),
            &["a result of 7", "3 times as long"],
        );
        refuses(
            communicator.scatter_into(&seven, &mut two, 0),
            &["an input of 7", "3 times as long"],
        );
        refuses(
            communicator.gather_into(&two, &mut six, 3),
            &["root 3 does not exist, the ranks are 0 to 2"],
        );
        refuses(communicator.broadcast_into(&two, &mut six, 0), &["equally long"]);
        refuses(communicator.all_to_all(&seven, &mut two), &["equally long"]);
        refuses(
            communicator.call(&Request::all_to_all(), &mut six),
            &["cannot be done in place", "two windows"],
        );
        let varying = |counts: &[usize]| Request::all_gather().varying(counts);
        refuses(
            communicator.call_into(&varying(&[2, 2]), &two, &mut six),
            &["2 for 3 ranks"],
        );
        refuses(
            communicator.call_into(&varying(&[2, 3, 1]), &two, &mut six),
            &["an input of 3 elements on rank 1, the windows have 2"],
        );
        refuses(
            communicator.call_into(&varying(&[2, 2, 2]), &two, &mut little),
            &["a result of 6 elements", "the windows have 2"],
        );
        refuses(
            communicator.call_into(&varying(&[usize::MAX, 2, 2]), &two, &mut six),
            &["more elements than can be counted"],
        );
        refuses(
            communicator.call(&Request::all_reduce(Operation::Sum).varying(&[1, 1, 1]), &mut six),
            &["all-reduce does not take a count for each rank"],
        );
        let mut integers = communicator.window::<i32>(3).unwrap();
        refuses(
            communicator.reduce_scatter(&mut integers, Operation::pre_multiplied_sum(0.5)),
            &["int32 has no pre-multiplied sum"],
        );
        // What one rank means to get is not what another sends: refused on all.
        let receive = if rank == 2 { [1, 2, 1] } else { [1, 1, 1] };
        let mut other = communicator.window::<f32>(6).unwrap();
        refuses(
            communicator.all_to_all_varying(&six, &[1, 1, 1], &mut other, &receive),
            &["rank 1 sends 1 elements to rank 2, which means to get 2"],
        );
        refuses(
            communicator.all_to_all_varying(
                &six,
                if rank == 0 { &[1] } else { &[1, 1, 1] },
                &mut other,
                &[1; 3],
            ),
            &["rank 0 gave 1 counts to send and 3 to receive"],
        );
        for window in [&seven, &six, &two, &little] {
            assert!(window.iter().all(|x| *x == 1.0));
        }
        communicator.all_gather(&mut six).unwrap();
    });
}

fn calls_in_another_order_are_named_on_every_rank(reach: Reach) {
    for count in [3, 30_000] {
        let errors = with(3, reach.builder(), |communicator| {
            let mut window = communicator.window::<f32>(3 * count).unwrap();
            let outcome = match communicator.rank() {
                2 => communicator.broadcast(&mut window, 1),
                _ => communicator.all_gather(&mut window),
            };
            let error = text(outcome);
            let later = text(communicator.all_gather(&mut window));
            (error, later)
        });
        for (error, later) in errors {
            assert!(later.contains("cannot be used any more"), "{later}");
            assert!(error.contains("rank 2 called broadcast with root 1"), "{error}");
            assert!(error.contains("ranks 0 and 1 called all-gather"), "{error}");
        }
    }
    // Counts that differ between the ranks.
    let errors = with(2, reach.builder(), |communicator| {
        let input = communicator.window::<f32>(2_000).unwrap();
        let mut result = communicator.window::<f32>(4_000).unwrap();
        let counts = if communicator.rank() == 0 {
            [1_000, 2_000]
        } else {
            [2_000, 1_000]
        };
        text(communicator.all_gather_varying(&input, &mut result, &counts))
    });
    for error in errors {
        assert!(error.contains("disagree"), "{error}");
    }
}

/// Each test over a fabric with load/store reach and over one without.
macro_rules! over_both {
    ($($test:ident),* $(,)?) => {
        mod mapped {
            $(#[test] fn $test() { super::$test(super::Reach::Mapped); })*
        }
        mod messages {
            $(#[test] fn $test() { super::$test(super::Reach::Messages); })*
        }
    };
}

over_both! {
    every_collective_by_every_plan_is_the_reference,
    parts_may_have_different_lengths_or_none,
    named_calls_are_the_requests,
    started_collectives_end_in_any_order,
    only_what_is_passed_on_through_slots_is_copied,
    ranks_that_run_ahead_overwrite_nothing,
    a_persistent_collective_is_started_many_times,
    a_group_is_issued_as_one,
    a_failure_in_a_group_names_the_operation,
    what_does_not_fit_is_refused_on_every_rank_and_changes_nothing,
    calls_in_another_order_are_named_on_every_rank,
}
