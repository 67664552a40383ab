//! Pairwise: an all-to-all in `p - 1` rounds. In round `d` each rank sends to the one `d` further and gets from the one
//! `d` before it, so at any time every rank has one sender and one receiver, and no input is crowded.
//!
//! R. Thakur, R. Rabenseifner, W. Gropp: Optimization of Collective Communication Operations in MPICH (2005), section on
//! all-to-all; there powers of two exchange with `rank XOR d`, here all numbers of ranks go round.

use crate::plan::dataflow::Collective;
use crate::plan::exchange;

pub(super) const BUILDER: super::Builder = super::Builder {
    name: "pairwise",
    summary: "all-to-all in p - 1 rounds, in each of which every rank has one sender and one receiver: for many ranks",
    supports: |collective| collective == Collective::AllToAll,
    accepts: super::refuse_parameter,
    make: |name, _, _, ranks| exchange::plan(name, ranks, true),
};
