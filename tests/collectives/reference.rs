//! What every collective is to give, by a scalar reference that knows nothing of plans.

use sapwood::communicator::Request;
use sapwood::engine::reduce::Operation;
use sapwood::plan::{Collective, builders};

/// Good as random, and the same for everybody who asks.
pub fn value(rank: u32, index: usize) -> u32 {
    let mut bits = (u64::from(rank) << 32 ^ index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits ^= bits >> 29;
    (bits.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32) as u32
}

/// What no rank contributes.
pub const UNTOUCHED: u32 = 0xDEAD_BEEF;

/// The collectives of this file, with a root where they have one.
pub fn every(root: u32) -> Vec<Collective> {
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

pub fn request(collective: Collective) -> Request {
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
pub fn plans(ranks: u32) -> Vec<Option<String>> {
    let named = builders::ALL.iter().map(|builder| match builder.name {
        // Two hosts, as unequal as can be.
        "hierarchical" => format!("hierarchical:{}", (ranks - 1).max(1)),
        name => name.to_owned(),
    });
    named.map(Some).chain([None]).collect()
}

/// The lengths of the parts, and where each begins.
#[derive(Clone)]
pub struct Parts {
    ranks: u32,
    /// By rank; for an all-to-all by sender and receiver.
    pub counts: Vec<usize>,
}

impl Parts {
    pub fn even(ranks: u32, count: usize, collective: Collective) -> Self {
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
    pub fn varying(ranks: u32, most: usize, collective: Collective) -> Self {
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

    pub fn of(&self, rank: u32) -> usize {
        self.counts[rank as usize]
    }

    pub fn before(&self, rank: u32) -> usize {
        self.counts[..rank as usize].iter().sum()
    }

    pub fn all(&self) -> usize {
        self.counts.iter().sum()
    }

    pub fn pair(&self, sender: u32, receiver: u32) -> usize {
        self.counts[(sender * self.ranks + receiver) as usize]
    }
}

/// Elements of input and result that a rank needs. (A vector without parts has the length of the first.)
pub fn lengths(collective: Collective, parts: &Parts, rank: u32) -> (usize, usize) {
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
pub fn expected(collective: Collective, parts: &Parts, rank: u32) -> Option<Vec<u32>> {
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
pub fn in_place(collective: Collective, parts: &Parts, rank: u32) -> (usize, usize) {
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

pub fn longest(collective: Collective, parts: &Parts) -> (usize, usize) {
    let lengths = (0..parts.ranks).map(|rank| lengths(collective, parts, rank));
    lengths.fold((1, 1), |(one, other), (input, result)| {
        (one.max(input), other.max(result))
    })
}

pub fn fill(window: &mut [u32], rank: u32, at: usize, len: usize) {
    window.fill(UNTOUCHED);
    for (index, element) in window[at..at + len].iter_mut().enumerate() {
        *element = value(rank, index);
    }
}
