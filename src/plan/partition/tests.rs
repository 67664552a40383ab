//! Buffers are tiled by their blocks, as a person would list them.

use super::*;
use proptest::prelude::*;

fn collective(kind: u8, root: Rank) -> Collective {
    match kind {
        0 => Collective::ReduceScatter,
        1 => Collective::AllGather,
        2 => Collective::Gather { root },
        3 => Collective::Scatter { root },
        4 => Collective::AllToAll,
        5 => Collective::AllReduce,
        6 => Collective::Reduce { root },
        _ => Collective::Broadcast { root },
    }
}

/// A collective, its blocks to a part, and counts for all of its parts: even, or one for each.
fn any_cut() -> impl Strategy<Value = (Cut, Vec<usize>, Partition)> {
    let shape = (1u32..8, 0u32..8, 0u8..8, 1u32..5, any::<bool>());
    shape.prop_flat_map(|(ranks, root, kind, k, even)| {
        let collective = collective(kind, root % ranks);
        let parts = Cut::new(collective, ranks, ranks * ranks).unwrap().parts() as usize;
        let cut = Cut::new(collective, ranks, parts as u32 * k).unwrap();
        prop::collection::vec(0usize..9, parts).prop_map(move |mut counts| {
            if even || !collective.has_parts() {
                counts = vec![counts[0]; parts];
                let partition = Partition::even(counts[0]);
                (cut, counts, partition)
            } else if collective == Collective::AllToAll {
                let partition = Partition::per_pair(ranks, &counts).unwrap();
                (cut, counts, partition)
            } else {
                let partition = Partition::per_rank(&counts).unwrap();
                (cut, counts, partition)
            }
        })
    })
}

/// The parts that a rank has on a side, in their order, as a person would list them.
fn parts_of(collective: Collective, ranks: u32, side: Side, rank: Rank) -> Vec<u32> {
    let all: Vec<u32> = (0..ranks).collect();
    let none = Vec::new();
    let only_at = |root: Rank, parts: Vec<u32>| if rank == root { parts } else { Vec::new() };
    match (collective, side) {
        (Collective::ReduceScatter, Side::Input) | (Collective::AllGather, Side::Result) => all,
        (Collective::ReduceScatter, Side::Result) | (Collective::AllGather, Side::Input) => vec![rank],
        (Collective::Gather { root }, Side::Result) | (Collective::Scatter { root }, Side::Input) => {
            only_at(root, all)
        }
        (Collective::Gather { .. }, Side::Input) | (Collective::Scatter { .. }, Side::Result) => {
            vec![rank]
        }
        (Collective::AllToAll, Side::Input) => all.iter().map(|to| rank * ranks + to).collect(),
        (Collective::AllToAll, Side::Result) => all.iter().map(|from| from * ranks + rank).collect(),
        (Collective::Reduce { root }, Side::Result) | (Collective::Broadcast { root }, Side::Input) => {
            only_at(root, vec![0])
        }
        (Collective::Barrier, _) => none,
        _ => vec![0],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn buffers_are_filled_without_gaps((cut, counts, partition) in any_cut()) {
        let placement = Placement::new(cut, &partition, false).unwrap();
        let k = cut.blocks_per_part();
        for rank in 0..cut.ranks() {
            for side in [Side::Input, Side::Result] {
                let mut next = 0;
                let parts = parts_of(cut.collective(), cut.ranks(), side, rank);
                for &part in &parts {
                    let begin = next;
                    for block in part * k..(part + 1) * k {
                        prop_assert_eq!(placement.offset(side, rank, block), next);
                        next += placement.len(block);
                    }
                    prop_assert_eq!(next - begin, counts[part as usize]);
                }
                prop_assert_eq!(placement.elements(side, rank), next);
                for block in 0..cut.blocks() {
                    let holds = match side {
                        Side::Input => cut.contributes(rank, block),
                        Side::Result => cut.defines(rank, block),
                    };
                    prop_assert_eq!(holds, parts.contains(&(block / k)));
                }
            }
        }
    }

    /// In place both sides of a rank put a block at one place, which is the longer side's.
    #[test]
    fn in_place_the_own_part_lies_inside((cut, _, partition) in any_cut()) {
        let collective = cut.collective();
        let Ok(inside) = Placement::new(cut, &partition, true) else {
            prop_assert_eq!(collective, Collective::AllToAll);
            return Ok(());
        };
        let apart = Placement::new(cut, &partition, false).unwrap();
        for rank in 0..cut.ranks() {
            for block in 0..cut.blocks() {
                let both = cut.contributes(rank, block) && cut.defines(rank, block);
                for side in [Side::Input, Side::Result] {
                    let long = [Side::Input, Side::Result]
                        .map(|side| apart.offset(side, rank, block))
                        .into_iter()
                        .max()
                        .unwrap_or(0);
                    if both {
                        prop_assert_eq!(inside.offset(side, rank, block), long);
                    } else if collective.root().is_some_and(|root| root != rank) {
                        prop_assert_eq!(inside.offset(side, rank, block), apart.offset(side, rank, block));
                    }
                }
            }
        }
    }

    #[test]
    fn turning_keeps_roles((cut, ..) in any_cut(), by in 0u32..20) {
        for block in 0..cut.blocks() {
            let Some(turned) = cut.turned(block, by) else { continue };
            for rank in 0..cut.ranks() {
                let there = (rank + by) % cut.ranks();
                prop_assert_eq!(cut.contributes(rank, block), cut.contributes(there, turned));
                prop_assert_eq!(cut.defines(rank, block), cut.defines(there, turned));
            }
            prop_assert_eq!(cut.turned(turned, cut.ranks() - by % cut.ranks()), Some(block));
        }
    }
}

#[test]
fn counts_that_cannot_be_are_refused_in_words() {
    let text = |outcome: Result<Partition, PlanError>| outcome.unwrap_err().to_string();
    assert!(text(Partition::per_rank(&[usize::MAX, 1])).contains("more elements than can be counted"));
    assert!(text(Partition::per_rank(&[])).contains("there are 0, where 1 are needed"));
    assert!(text(Partition::per_pair(2, &[1, 2, 3])).contains("there are 3, where 4"));
    assert!(text(Partition::per_pair(2, &[0, usize::MAX, 0, 1])).contains("more elements than"));
    let place = |collective, blocks, partition: &Partition, in_place| {
        let cut = Cut::new(collective, 3, blocks).unwrap();
        Placement::new(cut, partition, in_place)
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    let gather = Collective::AllGather;
    let two = Partition::per_rank(&[1, 2]).unwrap();
    assert!(place(gather, 3, &two, false).contains("there are 2 for 3 ranks"));
    assert!(place(gather, 3, &Partition::even(usize::MAX / 2), false).contains("more than can be counted"));
    assert!(place(Collective::AllReduce, 3, &two, false).contains("all-reduce does not take"));
    assert!(place(Collective::AllToAll, 9, &Partition::even(1), true).contains("in place"));
    assert!(
        place(
            Collective::AllToAll,
            9,
            &Partition::per_rank(&[1; 3]).unwrap(),
            false
        )
        .contains("each rank")
    );
    let whole = Cut::new(Collective::AllReduce, 3, 3).unwrap();
    let all = Partition::even(usize::MAX);
    let placement = Placement::new(whole, &all, true).unwrap();
    assert_eq!(placement.offset(Side::Input, 0, 2) + placement.len(2), usize::MAX);
    let error = Cut::new(gather, 3, 4).unwrap_err().to_string();
    assert_eq!(
        error,
        "4 blocks do not cut the 3 parts of all-gather into as many each"
    );
}

#[test]
fn parts_lie_where_it_was_said() {
    let cut = Cut::new(Collective::AllGather, 3, 6).unwrap();
    let partition = Partition::per_rank_at(&[2, 0, 3], &[10, 99, 4]).unwrap();
    let apart = Placement::new(cut, &partition, false).unwrap();
    let inside = Placement::new(cut, &partition, true).unwrap();
    let at =
        |placement: &Placement<'_>, side, block| (placement.offset(side, 2, block), placement.len(block));
    // Two blocks to a part.
    assert_eq!(at(&apart, Side::Result, 0), (10, 1));
    assert_eq!(at(&apart, Side::Result, 1), (11, 1));
    assert_eq!(at(&apart, Side::Result, 4), (4, 1));
    assert_eq!(at(&apart, Side::Input, 4), (0, 1));
    assert_eq!(at(&inside, Side::Input, 5), (5, 2));
    assert_eq!(
        [Side::Input, Side::Result].map(|side| apart.elements(side, 2)),
        [3, 12]
    );
    assert_eq!(inside.elements(Side::Input, 2), 7);

    let cut = Cut::new(Collective::AllToAll, 2, 4).unwrap();
    let partition = Partition::per_pair_at(2, &[1, 2, 3, 4], &[9, 0, 0, 5], &[0, 7, 8, 1]).unwrap();
    let placement = Placement::new(cut, &partition, false).unwrap();
    // From rank 0 to rank 1: two elements, from 0 of its input to 7 of the other's result.
    assert_eq!(
        (
            placement.offset(Side::Input, 0, 1),
            placement.offset(Side::Result, 1, 1)
        ),
        (0, 7)
    );
    assert_eq!([0, 1].map(|rank| placement.elements(Side::Input, rank)), [10, 9]);
    assert_eq!([0, 1].map(|rank| placement.elements(Side::Result, rank)), [11, 9]);
}

#[test]
fn parts_that_overlap_are_named() {
    let text = |outcome: Result<Partition, PlanError>| outcome.unwrap_err().to_string();
    let overlap = text(Partition::per_rank_at(&[3, 1, 2], &[0, 8, 2]));
    assert!(overlap.contains("ranks 0 and 2 overlap"), "{overlap}");
    assert!(Partition::per_rank_at(&[3, 0, 2], &[0, 1, 3]).is_ok());
    assert!(text(Partition::per_rank_at(&[1, 1], &[0])).contains("there are 1 displacements, where 2"));
    assert!(text(Partition::per_rank_at(&[2], &[usize::MAX])).contains("more elements than can be counted"));
    let (counts, apart, same) = ([1; 4], [0, 1, 0, 1], [0, 0, 1, 1]);
    assert!(Partition::per_pair_at(2, &counts, &apart, &same).is_ok());
    assert!(text(Partition::per_pair_at(2, &counts, &same, &same)).contains("overlap"));
    assert!(text(Partition::per_pair_at(2, &counts, &apart, &apart)).contains("overlap"));
}

#[test]
fn a_part_without_elements_lies_nowhere() {
    let partition = Partition::per_rank_at(&[2, 0], &[1, usize::MAX]).unwrap();
    let cut = Cut::new(Collective::ReduceScatter, 2, 2).unwrap();
    let inside = Placement::new(cut, &partition, true).unwrap();
    // It asks for no memory behind the others, and nobody computes with where it was said to be.
    assert_eq!((inside.offset(Side::Result, 1, 1), inside.len(1)), (3, 0));
    assert_eq!(
        [Side::Input, Side::Result].map(|side| inside.elements(side, 1)),
        [3, 3]
    );
    let none = usize::MAX;
    let pairs = Partition::per_pair_at(2, &[1, 0, 0, 1], &[0, none, none, 0], &[0, none, none, 0]).unwrap();
    let cut = Cut::new(Collective::AllToAll, 2, 4).unwrap();
    let placement = Placement::new(cut, &pairs, false).unwrap();
    assert_eq!(placement.offset(Side::Input, 0, 1), 1);
    assert_eq!(placement.offset(Side::Result, 1, 1), 1);
}
