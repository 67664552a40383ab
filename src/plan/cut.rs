//! What the blocks of a plan stand for: whose they are, who contributes them and who gets them. One answer for the engine
//! that moves them and for the verifier that proves it; knows no counts.
//!
//! # Blocks
//! - All-reduce, reduce, broadcast: the blocks cut the one vector that all ranks have.
//! - Reduce-scatter, all-gather, gather, scatter: the vector is made of one part for each rank, in the order of the
//!   ranks, and each part is cut into `k` blocks: part `r` is blocks `r * k .. (r + 1) * k` of `ranks * k`.
//! - All-to-all: one part for each pair; what `s` sends to `r` is blocks `(s * ranks + r) * k ..` (`k` of them) of
//!   `ranks * ranks * k`.

use super::dataflow::Collective;
use super::error::PlanError;
use super::lowered::Rank;

/// What the blocks of a plan stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    collective: Collective,
    ranks: u32,
    blocks: u32,
}

impl Cut {
    /// For a plan of `blocks` blocks.
    ///
    /// # Errors
    /// [`PlanError::Blocks`] where that is not a number of blocks for each part, at least 1.
    pub fn new(collective: Collective, ranks: u32, blocks: u32) -> Result<Self, PlanError> {
        let cut = Self {
            collective,
            ranks,
            blocks,
        };
        let parts = cut.parts();
        if blocks == 0 || parts == 0 || !u64::from(blocks).is_multiple_of(parts) {
            return Err(PlanError::Blocks {
                collective,
                blocks,
                parts,
            });
        }
        Ok(cut)
    }

    /// What is cut.
    pub fn collective(self) -> Collective {
        self.collective
    }

    /// How many ranks take part.
    pub fn ranks(self) -> u32 {
        self.ranks
    }

    /// How many blocks there are.
    pub fn blocks(self) -> u32 {
        self.blocks
    }

    /// Into how many parts the collective itself cuts the vector.
    pub fn parts(self) -> u64 {
        let ranks = u64::from(self.ranks);
        match self.collective {
            Collective::AllToAll => ranks * ranks,
            _ if self.collective.has_parts() => ranks,
            _ => 1,
        }
    }

    /// How many blocks a part is cut into (`k` above).
    pub fn blocks_per_part(self) -> u32 {
        (u64::from(self.blocks) / self.parts()) as u32
    }

    /// The number of a block's part; for an all-to-all `sender * ranks + receiver`.
    fn part(self, block: u32) -> u32 {
        block / self.blocks_per_part()
    }

    /// The rank that a block's part belongs to; for an all-to-all the sender and the receiver. None where the
    /// collective has no parts.
    pub fn owners(self, block: u32) -> Option<(Rank, Rank)> {
        match self.collective {
            Collective::AllToAll => Some((self.part(block) / self.ranks, self.part(block) % self.ranks)),
            _ if self.collective.has_parts() => Some((self.part(block), self.part(block))),
            _ => None,
        }
    }

    /// Whether `rank`'s input holds the block. Only then may it be read.
    pub fn contributes(self, rank: Rank, block: u32) -> bool {
        match (self.collective, self.owners(block)) {
            (Collective::AllReduce | Collective::Reduce { .. } | Collective::ReduceScatter, _) => true,
            (Collective::Broadcast { root } | Collective::Scatter { root }, _) => rank == root,
            (_, Some((sender, _))) => rank == sender,
            (_, None) => false,
        }
    }

    /// Whether the block is in `rank`'s result when the collective has ended. Only then may it be written there.
    pub fn defines(self, rank: Rank, block: u32) -> bool {
        match (self.collective, self.owners(block)) {
            (Collective::AllReduce | Collective::Broadcast { .. } | Collective::AllGather, _) => true,
            (Collective::Reduce { root } | Collective::Gather { root }, _) => rank == root,
            (_, Some((_, receiver))) => rank == receiver,
            (_, None) => false,
        }
    }

    /// Whether contributions are combined.
    pub fn combines(self) -> bool {
        self.collective.combines()
    }

    /// The block that takes a block's place when `by` is added to all ranks (modulo their number): of the parts of
    /// ranks this follows, and a vector with as many blocks as ranks, or a multiple, is taken to be cut likewise. None
    /// where ranks cannot be turned: other numbers of blocks, and collectives with a root.
    pub fn turned(self, block: u32, by: u32) -> Option<u32> {
        let (ranks, by) = (u64::from(self.ranks), u64::from(by % self.ranks));
        if self.collective.root().is_some() {
            return None;
        }
        if self.collective == Collective::AllToAll {
            let k = u64::from(self.blocks_per_part());
            let (part, within) = (u64::from(block) / k, u64::from(block) % k);
            let (sender, receiver) = ((part / ranks + by) % ranks, (part % ranks + by) % ranks);
            return Some(((sender * ranks + receiver) * k + within) as u32);
        }
        match self.blocks {
            1 => Some(block),
            blocks if blocks.is_multiple_of(self.ranks) => {
                let k = u64::from(blocks) / ranks;
                Some(((u64::from(block) + by * k) % u64::from(blocks)) as u32)
            }
            _ => None,
        }
    }
}
