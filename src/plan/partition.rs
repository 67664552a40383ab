//! How many elements each block of a plan has and where it lies in a rank's buffers, for one call's counts. Knows no
//! bytes, addresses or types.
//!
//! # Buffers
//! A buffer holds the blocks that the rank contributes ([`Cut::contributes`]) or gets ([`Cut::defines`]), without gaps,
//! in the order of their parts; an all-to-all's input in the order of receivers, its result in the order of senders.
//! Where the caller says where parts begin, they lie there.
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
    /// By rank, and where the last of them ends.
    PerRank {
        parts: Arc<[Part]>,
        end: usize,
    },
    /// `[sender][receiver]` in the sender's input, then `[receiver][sender]` in the receiver's result; and where each
    /// input, then each result, ends.
    PerPair {
        ranks: u32,
        parts: Arc<[Part]>,
        ends: Arc<[usize]>,
    },
}

/// A part in a buffer that has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    begin: usize,
    len: usize,
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
        let begins = begins(counts.iter().copied())?;
        Self::per_rank_at(counts, &begins)
    }

    /// The same with parts that begin at these elements of a buffer that has them all: gaps are left alone.
    ///
    /// # Errors
    /// As there, and parts that overlap.
    pub fn per_rank_at(counts: &[usize], begins: &[usize]) -> Result<Self, PlanError> {
        let wanted = counts.len().max(1);
        as_many("counts", counts.len(), wanted)?;
        as_many("displacements", begins.len(), wanted)?;
        let (parts, end) = lay_out(counts.iter().copied(), begins)?;
        Ok(Self(Counts::PerRank {
            parts: parts.into(),
            end,
        }))
    }

    /// One count for each pair of ranks, for an all-to-all: `counts[sender * ranks + receiver]`. Counts may be 0.
    ///
    /// # Errors
    /// [`PlanError::Counts`] where there are not as many as pairs, or what a rank sends or gets is more than can be
    /// counted.
    pub fn per_pair(ranks: u32, counts: &[usize]) -> Result<Self, PlanError> {
        let p = ranks as usize;
        as_many("counts", counts.len(), p.saturating_mul(p))?;
        let (mut sent, mut received) = (Vec::with_capacity(p * p), vec![0; p * p]);
        for row in counts.chunks(p.max(1)) {
            sent.extend(begins(row.iter().copied())?);
        }
        for receiver in 0..p {
            let column = counts.iter().skip(receiver).step_by(p);
            for (sender, begin) in begins(column.copied())?.into_iter().enumerate() {
                received[sender * p + receiver] = begin;
            }
        }
        Self::per_pair_at(ranks, counts, &sent, &received)
    }

    /// The same with places of their own, numbered like the counts: where what goes to the receiver begins in the sender's
    /// input, and where it begins in the receiver's result. Gaps are left alone.
    ///
    /// # Errors
    /// As there, and parts that overlap in one buffer.
    pub fn per_pair_at(
        ranks: u32,
        counts: &[usize],
        sent: &[usize],
        received: &[usize],
    ) -> Result<Self, PlanError> {
        let p = ranks as usize;
        let wanted = p.saturating_mul(p).max(1);
        as_many("counts", counts.len(), wanted)?;
        as_many("displacements to send from", sent.len(), wanted)?;
        as_many("displacements to receive at", received.len(), wanted)?;
        let (mut parts, mut ends) = (Vec::with_capacity(2 * p * p), Vec::with_capacity(2 * p));
        for (row, sent) in counts.chunks(p).zip(sent.chunks(p)) {
            let (laid_out, end) = lay_out(row.iter().copied(), sent)?;
            parts.extend(laid_out);
            ends.push(end);
        }
        for receiver in 0..p {
            let column = |all: &[usize]| all.iter().skip(receiver).step_by(p).copied().collect::<Vec<_>>();
            let (laid_out, end) = lay_out(column(counts).into_iter(), &column(received))?;
            parts.extend(laid_out);
            ends.push(end);
        }
        Ok(Self(Counts::PerPair {
            ranks,
            parts: parts.into(),
            ends: ends.into(),
        }))
    }
}

/// Where each part begins if there are no gaps.
fn begins(counts: impl Iterator<Item = usize>) -> Result<Vec<usize>, PlanError> {
    let (mut begins, mut sum) = (Vec::new(), 0usize);
    for count in counts {
        begins.push(sum);
        sum = sum.checked_add(count).ok_or_else(too_many)?;
    }
    Ok(begins)
}

/// The parts of one buffer, and where the last of them ends. Those without elements lie nowhere: no farther
/// than that end, wherever they were said to, so that their place can be reckoned with.
fn lay_out(counts: impl Iterator<Item = usize>, begins: &[usize]) -> Result<(Vec<Part>, usize), PlanError> {
    let parts = counts.zip(begins).map(|(len, begin)| Part { begin: *begin, len });
    let mut parts = parts.collect::<Vec<_>>();
    let mut end = 0;
    let mut order = (0..parts.len())
        .filter(|at| parts[*at].len != 0)
        .collect::<Vec<_>>();
    order.sort_unstable_by_key(|at| parts[*at].begin);
    for (number, &at) in order.iter().enumerate() {
        let Part { begin, len } = parts[at];
        if begin < end {
            let before = order[number - 1];
            return Err(PlanError::Counts {
                reason: format!(
                    "the parts of ranks {} and {} overlap: one begins at element {begin}, the other ends before element {end}",
                    before.min(at),
                    before.max(at)
                ),
            });
        }
        end = begin.checked_add(len).ok_or_else(too_many)?;
    }
    for part in parts.iter_mut().filter(|part| part.len == 0) {
        part.begin = part.begin.min(end);
    }
    Ok((parts, end))
}

fn too_many() -> PlanError {
    PlanError::Counts {
        reason: "their sum is more elements than can be counted".to_owned(),
    }
}

fn as_many(what: &str, found: usize, wanted: usize) -> Result<(), PlanError> {
    if found == wanted {
        return Ok(());
    }
    let what = match what {
        "counts" => String::new(),
        what => format!(" {what}"),
    };
    Err(PlanError::Counts {
        reason: format!("there are {found}{what}, where {wanted} are needed"),
    })
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
            Counts::PerRank { parts, .. } => {
                if !collective.has_parts() || collective == Collective::AllToAll {
                    return refuse(format!("{collective} does not take a count for each rank"));
                }
                if parts.len() != ranks {
                    return refuse(format!("there are {} for {ranks} ranks", parts.len()));
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
            (Counts::PerRank { parts, .. }, Some((owner, _))) => parts[owner as usize].len,
            (Counts::PerPair { ranks, parts, .. }, Some((sender, receiver))) => {
                parts[sender as usize * *ranks as usize + receiver as usize].len
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
            (Counts::PerRank { parts, .. }, _) => parts[sender as usize].begin,
            (Counts::PerPair { ranks, parts, .. }, Side::Input) => {
                parts[sender as usize * *ranks as usize + receiver as usize].begin
            }
            (Counts::PerPair { ranks, parts, .. }, Side::Result) => {
                let row = *ranks as usize + receiver as usize;
                parts[row * *ranks as usize + sender as usize].begin
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
        match self.counts {
            Counts::PerRank { parts, end } => {
                let own = parts[rank as usize];
                return if !holds(rank * k) {
                    0
                } else if self.is_own_part(side, rank) {
                    own.len
                } else if holds((rank + 1) % ranks * k) {
                    *end
                } else {
                    own.begin + own.len
                };
            }
            Counts::PerPair { ends, .. } => {
                return match side {
                    Side::Input => ends[rank as usize],
                    Side::Result => ends[ranks as usize + rank as usize],
                };
            }
            Counts::Even { .. } => {}
        }
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
