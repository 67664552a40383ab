//! Small collectives: every rank shows its payload, with the sequence number in the same cache line, waits until all
//! show theirs, and takes what it gets (sums in rank order). No read-modify-write, no lock, no allocation, no system call while the
//! peers are awake. While it waits it moves operations on that were started before, if there are any.
//!
//! A rank is at most one such operation ahead of another (it needs everybody's payload to get on), so two slots
//! for payloads, used in turn, are enough. Where there is a root, ranks wait only for those whose payload they get, and
//! may run ahead: their payloads lie in lines and slots of their own, none of which is used again before an operation in
//! which all wait for all. Callers see to that ([`MOST_AHEAD`], [`FARTHEST`]).

use std::time::Duration;

use super::awaiting::Awaited;
use super::board::{AHEAD, AHEAD_BYTES, DEPTH, LINE_PAYLOAD, SCALED_PAYLOAD};
use super::details::Details;
use super::reduce::{self, Kernel};
use super::{Board, Core, EngineError, Group, Scale, Signature};
use crate::observe::{CopySite, Kind, NONE};
use crate::plan::Collective;

/// Operations in which not all wait for all, at most, between two in which they do.
pub const MOST_AHEAD: usize = AHEAD;
/// Operations of any kind, at most, from one in which not all wait for all to the next in which they do: fewer than there
/// are lines.
pub const FARTHEST: u64 = DEPTH - 8;

/// Whether not all ranks need to wait for all, where each shows `bytes` in a collective with a root.
pub fn may_run_ahead(collective: Collective, bytes: usize) -> bool {
    collective.root().is_some() && bytes <= AHEAD_BYTES
}

/// The largest payload, in bytes.
pub const SMALL_BYTES: usize = 8 << 10;

/// The most ranks: each reads every other's payload.
const SMALL_RANKS: u32 = 32;

/// Whether a collective in which each of `ranks` ranks shows `bytes` goes this way.
pub fn fits_small(ranks: u32, bytes: usize) -> bool {
    ranks <= SMALL_RANKS && bytes <= SMALL_BYTES && bytes * ranks as usize <= 4 * SMALL_BYTES
}

/// What a small operation is. Which of its communicator's it is, an [`Occasion`] says.
#[derive(Clone, Copy, Debug)]
pub struct Small {
    /// Which.
    pub collective: Collective,
    /// What was called.
    pub signature: Signature,
    /// Payloads travel in units: words of 16 bytes, each with the number of its operation.
    pub in_units: bool,
    /// What ranks compare besides, where several calls were fused into this one: stands for their lengths.
    pub lengths: Option<u64>,
    /// Sums.
    pub kernel: Kernel,
    /// What contributions are multiplied by, where they are.
    pub scale: Option<Scale>,
    /// Bytes of one element.
    pub element: usize,
    /// Elements of a part, or of the whole where there are no parts; 0 for a barrier.
    pub count: usize,
    /// Bytes that a rank shows which shows something.
    pub shown: usize,
    /// What an average is divided by, else 1.
    pub divisor: u32,
}

/// One small operation among those of its communicator.
#[derive(Clone, Copy, Debug)]
pub struct Occasion {
    /// Its number.
    pub sequence: u64,
    /// How many small operations with a payload were before it: which slot is its.
    pub turn: u64,
    /// Not all ranks wait for all: how many such there were since the last in which they did.
    pub ahead: Option<usize>,
    /// How long to wait.
    pub timeout: Duration,
}

/// Shows `input` to all, and stores in `result` what this rank gets of what all show.
///
/// # Errors
/// The deadline, a rank that is gone, a mismatch: the communicator is unusable afterwards.
///
/// # Safety
/// `input` and `result` must be valid for what this rank gives and gets, and not be accessed by others during the call;
/// they may be the same memory, laid out as for a call in place. All ranks must agree on the turn, and [`fits_small`]
/// must hold.
#[inline]
pub unsafe fn small_exchange(
    core: &Core,
    small: &Small,
    occasion: Occasion,
    input: *const u8,
    result: *mut u8,
) -> Result<(), EngineError> {
    let Small { signature, count, .. } = *small;
    let Occasion {
        sequence,
        turn,
        ahead,
        timeout,
    } = occasion;
    let bytes = count * small.element;
    let group = core.group();
    let board = group.board();
    // Everybody shows as much, or nothing: all know where it is.
    let most = bytes * parts_shown(small.collective, group.ranks);
    let shown = match small.collective {
        Collective::Broadcast { root } | Collective::Scatter { root } if root != group.rank => 0,
        _ => most,
    };
    assert!(
        most <= if ahead.is_some() { AHEAD_BYTES } else { SMALL_BYTES },
        "what is shown has no room"
    );
    let room = match small.scale {
        None => LINE_PAYLOAD,
        Some(_) => SCALED_PAYLOAD,
    };
    // Takes the payload's place in the line.
    let details = small.lengths.map(|lengths| Details::new(lengths, None));
    let in_line = most <= room && details.is_none();
    let place = |board: &Board| match ahead {
        _ if in_line => board.line_payload(sequence),
        Some(index) => board.ahead_payload(index),
        None => board.small_payload(turn),
    };
    let own = place(board);
    board.reuse(sequence);
    // SAFETY: the input is the caller's; the place holds what is shown, as was checked, and its last readers are
    // done: they have announced a later operation (see the module's text).
    unsafe { reduce::copy(own, input, shown) };
    if let Some(scale) = small.scale {
        board.set_factor(sequence, scale.factor);
    }
    match details {
        None => board.announce(sequence, signature),
        Some(details) => board.announce_details(sequence, signature, details, None),
    }
    match ahead {
        None => group.ring_others(),
        // Nobody else waits for this.
        Some(_) => {
            let waits = |peer: &u32| gets_from(small.collective, *peer, group.rank);
            group.ring_these((0..group.ranks).filter(waits));
        }
    }
    board.expect(sequence + 1);

    let mut sources = [std::ptr::null::<u8>(); SMALL_RANKS as usize];
    for peer in 0..group.ranks {
        if ahead.is_some() && peer != group.rank && !gets_from(small.collective, group.rank, peer) {
            continue;
        }
        let theirs = &group.boards[peer as usize];
        let here = || theirs.announced(sequence) == sequence;
        if !here() {
            let awaited = Awaited {
                sequence,
                signature,
                details,
                plan: "flat",
                peer,
                step: "it has not called this operation yet",
                timeout,
            };
            awaited.here(core, here)?;
        }
        let differs = || group.disagrees(sequence, signature, details, peer);
        if theirs.signature(sequence) != signature || details.is_some() && differs() {
            return Err(group.fall_out(sequence));
        }
        sources[peer as usize] = place(theirs);
    }
    if count != 0 {
        // SAFETY: every peer has announced the operation after storing its payload (release, acquire) and does not
        // store there again before all ranks have announced a later one; the result is the caller's.
        let taken = unsafe {
            take(
                group,
                (small, sequence),
                &mut sources[..group.ranks as usize],
                (input, result),
            )
        };
        group.caller.counters.copied(CopySite::SmallMessage, shown as u64);
        group.caller.counters.exchanged(taken as u64);
    }
    group.caller.counters.operation();
    group
        .caller
        .recorder
        .mark(Kind::End, sequence as u32, 0, 0, NONE, most as u64);
    Ok(())
}

/// Whether a rank gets anything of another's in a collective with a root.
fn gets_from(collective: Collective, rank: u32, peer: u32) -> bool {
    match collective {
        Collective::Broadcast { root } | Collective::Scatter { root } => peer == root && rank != root,
        _ => collective.root() == Some(rank) && peer != rank,
    }
}

/// How many parts of the counted length a rank shows.
pub fn parts_shown(collective: Collective, ranks: u32) -> usize {
    match collective {
        Collective::ReduceScatter | Collective::Scatter { .. } | Collective::AllToAll => ranks as usize,
        _ => 1,
    }
}

/// Stores what this rank gets of what all show; answers how many bytes of that others have shown.
///
/// # Safety
/// `sources` are what the ranks show, by rank; input and result are as the collective has them.
#[inline]
unsafe fn take(
    group: &Group,
    (small, sequence): (&Small, u64),
    sources: &mut [*const u8],
    (input, result): (*const u8, *mut u8),
) -> usize {
    let (rank, ranks) = (group.rank as usize, sources.len());
    let bytes = small.count * small.element;
    // Own parts come from the input: in place they are there already.
    let copy_all = |of: &dyn Fn(usize) -> *const u8, own: *const u8| {
        for from in 0..ranks {
            let source = if from == rank { own } else { of(from) };
            // SAFETY: the caller's contract; the result has a part for each rank.
            unsafe { reduce::copy(result.add(from * bytes), source, bytes) };
        }
        (ranks - 1) * bytes
    };
    match small.collective {
        Collective::Reduce { root } | Collective::Gather { root } if root != group.rank => 0,
        Collective::Broadcast { root } if root == group.rank => {
            // SAFETY: the caller's contract.
            unsafe { reduce::copy(result, input, bytes) };
            0
        }
        Collective::Broadcast { root } => {
            // SAFETY: as above.
            unsafe { reduce::copy(result, sources[root as usize], bytes) };
            bytes
        }
        Collective::Scatter { root } => {
            let own = root == group.rank;
            let from = if own { input } else { sources[root as usize] };
            // SAFETY: as above; the root shows a part for each rank.
            unsafe { reduce::copy(result, from.add(rank * bytes), bytes) };
            if own { 0 } else { bytes }
        }
        Collective::AllGather | Collective::Gather { .. } => copy_all(&|from| sources[from], input),
        Collective::AllToAll => {
            let part = |base: *const u8| base.wrapping_add(rank * bytes);
            copy_all(&|from| part(sources[from]), part(input))
        }
        Collective::AllReduce
        | Collective::Reduce { .. }
        | Collective::ReduceScatter
        | Collective::Barrier => {
            if small.collective == Collective::ReduceScatter {
                sources
                    .iter_mut()
                    .for_each(|source| *source = source.wrapping_add(rank * bytes));
            }
            match small.scale {
                // SAFETY: as above.
                None => unsafe { (small.kernel)(result, sources, small.count, small.divisor) },
                Some(scale) => {
                    let mut factors = [0.0; SMALL_RANKS as usize];
                    for (factor, board) in factors.iter_mut().zip(&group.boards) {
                        *factor = board.factor(sequence);
                    }
                    // SAFETY: as above.
                    unsafe { (scale.kernel)(result, sources, &factors[..ranks], small.count) };
                }
            }
            (ranks - 1) * bytes
        }
    }
}
