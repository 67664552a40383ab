//! What a benchmark of each kind brings and gets: lengths, places, whose element comes to lie where, and the factor of
//! its bus bandwidth. Moves nothing.

use sapwood::communicator::Request;
use sapwood::engine::reduce::Operation;
use sapwood::plan::Collective;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A collective, with its root if it has one.
    Collective(Collective),
    /// Every rank sends to the next one and receives from the one before it.
    SendReceive,
}

/// What elements are combined by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Redop {
    /// Nothing is combined.
    None,
    Plain(Operation),
    /// A sum of contributions that are each multiplied by their own rank's factor.
    PreMultiplied,
}

impl Redop {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Plain(operation) => operation.name(),
            Self::PreMultiplied => "mulsum",
        }
    }

    /// As a rank calls it.
    pub(crate) fn of(self, rank: u32) -> Operation {
        match self {
            Self::None => Operation::Sum,
            Self::Plain(operation) => operation,
            Self::PreMultiplied => Operation::pre_multiplied_sum(factor(rank)),
        }
    }
}

/// What a rank multiplies its contribution by: exact in every type.
pub(crate) fn factor(rank: u32) -> f64 {
    0.5 + f64::from(rank % 3) / 2.0
}

/// What comes to lie in an element of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// All ranks' elements with this index, combined.
    All(usize),
    /// A rank's element with this index.
    From(u32, usize),
}

/// One kind with its ranks and the elements of a part (of the whole, where it has no parts).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) ranks: u32,
    pub(crate) part: usize,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Collective(collective) => collective.name(),
            Self::SendReceive => "send-receive",
        }
    }

    /// The collective, if it is one.
    pub(crate) fn collective(self) -> Option<Collective> {
        match self {
            Self::Collective(collective) => Some(collective),
            Self::SendReceive => None,
        }
    }

    /// Whether elements are combined.
    pub(crate) fn combines(self) -> bool {
        matches!(self, Self::Collective(collective) if collective.combines())
    }

    /// Whether there is anything to move.
    pub(crate) fn moves(self) -> bool {
        self != Self::Collective(Collective::Barrier)
    }

    /// Elements of a part, where the longest buffer is to have about `count`: at least one.
    pub(crate) fn part(self, count: usize, ranks: u32) -> usize {
        match self {
            Self::Collective(Collective::Barrier) => 0,
            Self::Collective(collective) if collective.has_parts() => (count / ranks as usize).max(1),
            Self::Collective(_) | Self::SendReceive => count,
        }
    }
}

impl Case {
    /// The ranks that a rank of a send-receive sends to and receives from.
    pub(crate) fn neighbours(&self, rank: u32) -> (u32, u32) {
        ((rank + 1) % self.ranks, (rank + self.ranks - 1) % self.ranks)
    }

    /// What is called, by a rank, where it is a request.
    pub(crate) fn request(&self, redop: Redop, rank: u32) -> Option<Request> {
        let operation = redop.of(rank);
        Some(match self.kind.collective()? {
            Collective::Barrier => return None,
            Collective::AllReduce => Request::all_reduce(operation),
            Collective::Reduce { root } => Request::reduce(operation, root),
            Collective::Broadcast { root } => Request::broadcast(root),
            Collective::ReduceScatter => Request::reduce_scatter(operation),
            Collective::AllGather => Request::all_gather(),
            Collective::Gather { root } => Request::gather(root),
            Collective::Scatter { root } => Request::scatter(root),
            Collective::AllToAll => Request::all_to_all(),
        })
    }

    /// Elements of input and result.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        let long = self.part * self.ranks as usize;
        match self.kind.collective() {
            Some(Collective::AllGather | Collective::Gather { .. }) => (self.part, long),
            Some(Collective::ReduceScatter | Collective::Scatter { .. }) => (long, self.part),
            Some(Collective::AllToAll) => (long, long),
            _ => (self.part, self.part),
        }
    }

    /// Elements of the longer one, which is what nccl-tests calls the size.
    pub(crate) fn total(&self) -> usize {
        let (input, result) = self.lengths();
        input.max(result)
    }

    /// Whether it can be done in place.
    pub(crate) fn in_place(&self) -> bool {
        !matches!(
            self.kind.collective(),
            None | Some(Collective::AllToAll | Collective::Barrier)
        )
    }

    /// Where in place a rank's input and result begin in the one buffer.
    pub(crate) fn places(&self, rank: u32) -> (usize, usize) {
        let own = match self.kind.collective().and_then(Collective::root) {
            Some(root) if root != rank => 0,
            _ => self.part * rank as usize,
        };
        match self.kind.collective() {
            Some(Collective::AllGather | Collective::Gather { .. }) => (own, 0),
            Some(Collective::ReduceScatter | Collective::Scatter { .. }) => (0, own),
            _ => (0, 0),
        }
    }

    /// Whether a rank gets a result.
    pub(crate) fn gets(&self, rank: u32) -> bool {
        match self.kind.collective() {
            Some(Collective::Reduce { root } | Collective::Gather { root }) => rank == root,
            Some(Collective::Barrier) => false,
            _ => true,
        }
    }

    /// What comes to lie in an element of a rank's result.
    pub(crate) fn origin(&self, rank: u32, index: usize) -> Origin {
        let own = self.part * rank as usize;
        let (from, within) = ((index / self.part.max(1)) as u32, index % self.part.max(1));
        let Some(collective) = self.kind.collective() else {
            return Origin::From(self.neighbours(rank).1, index);
        };
        match collective {
            Collective::AllReduce | Collective::Reduce { .. } | Collective::Barrier => Origin::All(index),
            Collective::ReduceScatter => Origin::All(own + index),
            Collective::Broadcast { root } => Origin::From(root, index),
            Collective::Scatter { root } => Origin::From(root, own + index),
            Collective::AllGather | Collective::Gather { .. } => Origin::From(from, within),
            Collective::AllToAll => Origin::From(from, own + within),
        }
    }

    /// What the size over the time is multiplied by to get what each rank's link carries, whatever the algorithm: the
    /// factors of nccl-tests.
    pub(crate) fn bus_factor(&self) -> f64 {
        let ranks = f64::from(self.ranks);
        match self.kind.collective() {
            Some(Collective::AllReduce) => 2.0 * (ranks - 1.0) / ranks,
            None | Some(Collective::Reduce { .. } | Collective::Broadcast { .. }) => 1.0,
            Some(Collective::Barrier) => 0.0,
            _ => (ranks - 1.0) / ranks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_those_of_nccl_tests() {
        let factor = |collective| {
            Case {
                kind: Kind::Collective(collective),
                ranks: 4,
                part: 1,
            }
            .bus_factor()
        };
        assert_eq!(factor(Collective::AllReduce), 1.5);
        assert_eq!(factor(Collective::Broadcast { root: 0 }), 1.0);
        assert_eq!(factor(Collective::Reduce { root: 0 }), 1.0);
        for collective in [
            Collective::ReduceScatter,
            Collective::AllGather,
            Collective::Gather { root: 1 },
            Collective::Scatter { root: 1 },
            Collective::AllToAll,
        ] {
            assert_eq!(factor(collective), 0.75, "{collective}");
        }
    }

    #[test]
    fn a_part_has_at_least_an_element() {
        let all_gather = Kind::Collective(Collective::AllGather);
        assert_eq!((all_gather.part(2, 4), all_gather.part(9, 4)), (1, 2));
        assert_eq!(Kind::Collective(Collective::AllReduce).part(9, 4), 9);
    }
}
