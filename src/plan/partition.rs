//! How many elements each block of a plan has and where it lies in a rank's buffers, for one call's counts. Knows no
//! bytes, addresses or types.
//!
//! # Buffers
//! A buffer holds the blocks that the rank contributes ([`Cut::contributes`]) or gets ([`Cut::defines`]), without gaps,
//! in the order of their parts; an all-to-all's input in the order of receivers, its result in the order of senders.
//!
//! In place a rank has one buffer for both, laid out as the longer one: what it contributes or gets alone (its own part)
//! lies where that part lies among all of them. So it is in NCCL. An all-to-all cannot be done in place.

use std::sync::Arc;

use super::cut::Cut;
use super::dataflow::Collective;
use super::error::PlanError;
use super::lowered::{Rank, block_range};

/// Which of a rank's two buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// What it contributes.
    Input,
    /// What it gets.
    Result,
}

/// How many elements the parts of a collective have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition(Counts);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Counts {
    Even {
        count: usize,
    },
    /// Before each rank's part, and after the last.
    PerRank(Arc<[usize]>),
    /// `[sender][receiver]`: before what goes to the receiver in the sender's input; then `[receiver][sender]`: before
    /// what comes from the sender in the receiver's result. Each row has `ranks + 1` entries.
    PerPair {
        ranks: u32,
        places: Arc<[usize]>,
    },
}

impl Partition {
    /// The same number of elements in every part: of the whole vector for an all-reduce, reduce and broadcast; of what a
    /// rank gets from a reduce-scatter or scatter and gives to an all-gather or gather; of what each rank sends to each
    /// in an all-to-all. May be 0.
    pub const fn even(count: usize) -> Self {
        Self(Counts::Even { count })
    }

    /// One count for each rank's part, for a reduce-scatter, all-gather, gather or scatter. Counts may be 0.
    ///
    /// # Errors
    /// [`PlanError::Counts`] where there is none, or their sum is more than can be counted.
    pub fn per_rank(counts: &[usize]) -> Result<Self, PlanError> {
        let places = sums(counts.iter().copied()).filter(|_| !counts.is_empty());
        let places = places.ok_or_else(|| refuse(counts.len(), counts.len().max(1)))?;
        Ok(Self(Counts::PerRank(places.into())))
    }

    /// One count for each pair of ranks, for an all-to-all: `counts[sender * ranks + receiver]`. Counts may be 0.
    ///
    /// # Errors
    /// [`PlanError::Counts`] where there are not as many as pairs, or what a rank sends or gets is more than can be
    /// counted.
    pub fn per_pair(ranks: u32, counts: &[usize]) -> Result<Self, PlanError> {
        let p = ranks as usize;
        if p == 0 || p.checked_mul(p) != Some(counts.len()) {
            return Err(refuse(counts.len(), p.saturating_mul(p)));
        }
        let mut places = Vec::with_capacity(2 * p * (p + 1));
        for row in counts.chunks(p) {
            places.extend(sums(row.iter().copied()).ok_or_else(|| refuse(p * p, p * p))?);
        }
        for receiver in 0..p {
            let column = counts.iter().skip(receiver).step_by(p);
            places.extend(sums(column.copied()).ok_or_else(|| refuse(p * p, p * p))?);
        }
        Ok(Self(Counts::PerPair {
            ranks,
            places: places.into(),
        }))
    }
}

/// What lies before each part, and after the last; none where that is more than can be counted.
fn sums(counts: impl Iterator<Item = usize>) -> Option<Vec<usize>> {
    let mut places = vec![0usize];
    let mut sum = 0usize;
    for count in counts {
        sum = sum.checked_add(count)?;
        places.push(sum);
    }
    Some(places)
}

fn refuse(found: usize, wanted: usize) -> PlanError {
    let reason = match found == wanted {
        true => "their sum is more elements than can be counted".to_owned(),
        false => format!("there are {found}, where {wanted} are needed"),
    };
    PlanError::Counts { reason }
}

/// Where the elements of each block are, for one call. Nothing here allocates, and nothing overflows.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    cut: Cut,
    counts: &'a Counts,
    in_place: bool,
}

impl<'a> Placement<'a> {
    /// For a plan's blocks and a call's counts. With `in_place` the own part lies inside of the long buffer on every
    /// rank that has one: all of them in a reduce-scatter or all-gather, the root of a gather or scatter; where nothing
    /// has parts it changes nothing.
    ///
    /// # Errors
    /// [`PlanError::Counts`] where the counts are for another collective or number of ranks, or more than can be
    /// counted, and where an all-to-all is to be done in place.
    pub fn new(cut: Cut, partition: &'a Partition, in_place: bool) -> Result<Self, PlanError> {
        let refuse = |reason: String| Err(PlanError::Counts { reason });
        let collective = cut.collective();
        let ranks = cut.ranks() as usize;
        if in_place && collective == Collective::AllToAll {
            return refuse("an all-to-all cannot be done in place: use two buffers".to_owned());
        }
        match &partition.0 {
            // A buffer holds at most one part from or for each rank.
            Counts::Even { count } if !collective.has_parts() || count.checked_mul(ranks).is_some() => {}
            Counts::Even { count } => {
                return refuse(format!(
                    "{count} elements for each of {ranks} ranks are more than can be counted"
                ));
            }
            Counts::PerRank(places) => {
                if !collective.has_parts() || collective == Collective::AllToAll {
                    return refuse(format!("{collective} does not take a count for each rank"));
                }
                if places.len() != ranks + 1 {
                    return refuse(format!("there are {} for {ranks} ranks", places.len() - 1));
                }
            }
            Counts::PerPair { ranks: theirs, .. } => {
                if collective != Collective::AllToAll {
                    return refuse(format!(
                        "{collective} does not take a count for each pair of ranks"
                    ));
                }
                if *theirs != cut.ranks() {
                    return refuse(format!("they are for {theirs} ranks, not {ranks}"));
                }
            }
        }
        Ok(Self {
            cut,
            counts: &partition.0,
            in_place,
        })
    }

    /// The block within its part: its first element, and how many it has.
    fn within(&self, block: u32) -> (usize, usize) {
        let k = self.cut.blocks_per_part();
        let range = block_range(self.part_len(block), k, block % k);
        (range.start, range.len())
    }

    fn part_len(&self, block: u32) -> usize {
        match (self.counts, self.cut.owners(block)) {
            (Counts::Even { count }, _) => *count,
            (Counts::PerRank(places), Some((owner, _))) => {
                places[owner as usize + 1] - places[owner as usize]
            }
            (Counts::PerPair { ranks, places }, Some((sender, receiver))) => {
                let at = sender as usize * (*ranks as usize + 1) + receiver as usize;
                places[at + 1] - places[at]
            }
            // `new` let no such pair in.
            (_, None) => 0,
        }
    }

    /// How many elements a block has; with many blocks and few elements perhaps none.
    ///
    /// # Panics
    /// Perhaps, if there is no such block.
    #[inline]
    pub fn len(&self, block: u32) -> usize {
        self.within(block).1
    }

    /// Whether a block has no elements.
    pub fn is_empty(&self, block: u32) -> bool {
        self.len(block) == 0
    }

    /// Where a block begins in a rank's buffer, in elements from the buffer's start. Asked of a block that the buffer
    /// does not hold, it answers as if nothing were wrong.
    ///
    /// # Panics
    /// Perhaps, if there is no such rank or block.
    #[inline]
    pub fn offset(&self, side: Side, rank: Rank, block: u32) -> usize {
        let within = self.within(block).0;
        let Some((sender, receiver)) = self.cut.owners(block) else {
            return within;
        };
        let part = match (self.counts, side) {
            _ if self.is_own_part(side, rank) => 0,
            (Counts::Even { count }, Side::Input) => count * receiver as usize,
            (Counts::Even { count }, Side::Result) => count * sender as usize,
            (Counts::PerRank(places), _) => places[sender as usize],
            (Counts::PerPair { ranks, places }, Side::Input) => {
                places[sender as usize * (*ranks as usize + 1) + receiver as usize]
            }
            (Counts::PerPair { ranks, places }, Side::Result) => {
                let row = *ranks as usize + receiver as usize;
                places[row * (*ranks as usize + 1) + sender as usize]
            }
        };
        part + within
    }

    /// Whether a rank's buffer holds its own part and nothing else.
    fn is_own_part(&self, side: Side, rank: Rank) -> bool {
        let collective = self.cut.collective();
        let short = match side {
            Side::Input => matches!(collective, Collective::AllGather | Collective::Gather { .. }),
            Side::Result => matches!(collective, Collective::ReduceScatter | Collective::Scatter { .. }),
        };
        let has_long = collective.root().is_none_or(|root| root == rank);
        short && !(self.in_place && has_long)
    }

    /// How many elements a rank's buffer must have, from the start that [`Placement::offset`] counts from. 0 where the
    /// rank needs none.
    pub fn elements(&self, side: Side, rank: Rank) -> usize {
        let holds = |block| match side {
            Side::Input => self.cut.contributes(rank, block),
            Side::Result => self.cut.defines(rank, block),
        };
        let (collective, ranks) = (self.cut.collective(), self.cut.ranks());
        let k = self.cut.blocks_per_part();
        // The last block that it holds; parts lie in the order of the ranks.
        let last = match (collective, side) {
            (Collective::Barrier, _) => return 0,
            (Collective::AllToAll, Side::Input) => (rank * ranks + ranks) * k - 1,
            (Collective::AllToAll, Side::Result) => ((ranks - 1) * ranks + rank + 1) * k - 1,
            _ if self.is_own_part(side, rank) => (rank + 1) * k - 1,
            _ => self.cut.blocks() - 1,
        };
        let own = (rank + 1).saturating_mul(k) - 1;
        if holds(last) {
            self.offset(side, rank, last) + self.len(last)
        } else if collective.has_parts() && holds(own) {
            self.offset(side, rank, own) + self.len(own)
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests;
