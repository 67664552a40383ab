//! Dissemination: a barrier in `ceil(log2 p)` rounds without a root. In round `j` each rank tells the one `2^j` further
//! that it, and whoever has told it, has begun.
//!
//! D. Hensgen, R. Finkel, U. Manber: Two Algorithms for Barrier Synchronization, International Journal of Parallel
//! Programming 17 (1988).

use std::sync::Arc;

use crate::plan::dataflow::{Collective, Consumer, Layout, Own, Plan, Rule, Step, Symmetry, Use};
use crate::plan::forest;
use crate::plan::lowered::Rank;
use crate::plan::run::Run;

pub(super) const BUILDER: super::Builder = super::Builder {
    name: "dissemination",
    summary: "a barrier in log2(p) rounds, in each of which every rank tells one and hears from one",
    supports: |collective| collective == Collective::Barrier,
    accepts: super::refuse_parameter,
    make: |name, _, collective, ranks| {
        if ranks == 1 {
            return forest::alone(name, collective);
        }
        Plan::new(name, collective, ranks, 1, Symmetry::Rotation, Arc::new(Dissemination { ranks }))
    },
};

/// A rank's step `j` is that it has been told in round `j`.
#[derive(Debug)]
struct Dissemination {
    ranks: u32,
}

impl Dissemination {
    fn rounds(&self) -> impl Iterator<Item = (u32, u32)> {
        let distances = std::iter::successors(Some(1u32), |distance| Some(distance * 2));
        (0..).zip(distances.take_while(|distance| *distance < self.ranks))
    }

    /// What a rank can say in a round.
    fn said(round: u32) -> Own {
        round.checked_sub(1).map_or(Own::Input, Own::Step)
    }
}

impl Rule for Dissemination {
    fn steps(&self, rank: Rank) -> Vec<Step> {
        let step = |(round, distance)| {
            let from = (rank + self.ranks - distance) % self.ranks;
            let mut after = vec![Self::said(round).of(from)];
            if round > 0 {
                after.push(Self::said(round).of(rank));
            }
            Step::Signal { after }
        };
        self.rounds().map(step).collect()
    }

    fn uses(&self, rank: Rank) -> Vec<Use> {
        let one = |(round, distance)| {
            let to = (rank + distance) % self.ranks;
            let by = vec![Consumer { rank: to, step: round, landing: None }];
            Use { run: Run::ONE, block: 0, value: Self::said(round), by }
        };
        self.rounds().map(one).collect()
    }

    fn layout(&self) -> Layout {
        Layout::Rounds(self.rounds().map(|(_, distance)| distance).collect())
    }
}
