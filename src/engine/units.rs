//! The smallest all-reduces: 8 bytes of payload and the number of their operation in one word of 16 bytes, which processors
//! store and load at once. Whoever sees the number has the payload, so that nothing has to be stored or looked at in any
//! order, and one movement of a cache line is all that a rank waits for.
//!
//! Slots are used in turn, as in [`super::small`], and for the same reason two would be enough. What was called is said in
//! the line of the operation, too, for those who look there because nothing has come; nobody reads it where all goes well.
//!
//! This must not be used where words of 16 bytes can tear, or where a store can overtake an earlier load: on processors of this
//! one kind it is ([`available`]).

use super::awaiting::Awaited;
use super::{Core, EngineError, Occasion, Signature, Small};
use crate::observe::{CopySite, Kind, NONE};
use crate::plan::Collective;

/// Slots on each board: more than are needed, so that the next is not the one that was read just now.
pub(super) const UNIT_SLOTS: usize = 4;

/// The longest payload, and all that a rank may have to look at: it is twice as many bytes as they would be elsewhere, and each
/// word is looked at by itself. Where a line moves in 50 ns, more are faster in lines that are announced.
const MOST_BYTES: usize = 64;

/// Bytes from one slot to the next: as many as a page has, so that no processor that reads one slot fetches on its own what is
/// about to be stored in the next.
pub(super) const UNIT_SLOT_BYTES: usize = 4096;

/// Looks before the wait becomes like every other.
const MOST_LOOKS: u32 = 64;

/// The most ranks: each has the payloads of all on its stack.
const MOST_RANKS: u32 = 32;

/// Above the numbers of operations, of which a communicator has fewer than this many bits say: what was called.
const NUMBER_BITS: u32 = 40;

/// 8 bytes of payload, and whose they are.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(super) struct Unit {
    tag: u64,
    payload: u64,
}

impl Unit {
    /// # Safety
    /// `at` is valid for writes, and aligned; others may read it at the same time by [`Unit::load`].
    #[inline]
    unsafe fn store(self, at: *mut Self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller's contract. Every processor with AVX carries an aligned access of 16 bytes out as one (Intel's
        // manual, volume 3, 9.1.1; AMD's says the same). Not a plain store, since it may race with other processes' loads.
        unsafe {
            use std::arch::x86_64::_mm_set_epi64x;
            let both = _mm_set_epi64x(self.payload as i64, self.tag as i64);
            std::arch::asm!("movdqa [{}], {}", in(reg) at, in(xmm_reg) both, options(nostack, preserves_flags));
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("{at:?}: see `available`")
    }

    /// # Safety
    /// `at` is valid for reads, and aligned; others may write it at the same time by [`Unit::store`].
    #[inline]
    unsafe fn load(at: *const Self) -> Self {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        unsafe {
            use std::arch::x86_64::{__m128i, _mm_cvtsi128_si64, _mm_unpackhi_epi64};
            let both: __m128i;
            // Nothing says that it only reads, so that the compiler moves no later access above it.
            std::arch::asm!("movdqa {}, [{}]", out(xmm_reg) both, in(reg) at, options(nostack, preserves_flags));
            Self {
                tag: _mm_cvtsi128_si64(both) as u64,
                payload: _mm_cvtsi128_si64(_mm_unpackhi_epi64(both, both)) as u64,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("{at:?}: see `available`")
    }
}

/// Whether words of 16 bytes are stored and loaded at once here.
#[inline]
fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether an operation with this payload goes this way. The same on all ranks: they are on one host. (Where they are not
/// on one processor, the signatures differ, and say so.)
#[inline]
pub fn fits_units(collective: Collective, ranks: u32, bytes: usize) -> bool {
    collective == Collective::AllReduce
        && (1..=MOST_BYTES).contains(&bytes)
        && bytes * (ranks.max(2) as usize - 1) <= MOST_BYTES
        && ranks <= MOST_RANKS
        && available()
}

/// An all-reduce that [`fits_units`], with the signature of [`Signature::units`].
///
/// # Errors
/// As [`super::small_exchange`].
///
/// # Safety
/// As there.
#[inline]
pub unsafe fn units_exchange(
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
        timeout,
        ..
    } = occasion;
    let group = core.group();
    let (rank, ranks) = (group.rank as usize, group.ranks as usize);
    let bytes = count * small.element;
    let units = bytes.div_ceil(8);
    assert!(
        bytes <= MOST_BYTES && ranks <= MOST_RANKS as usize,
        "what is shown has no room"
    );
    let tag = tag(sequence, signature);
    let board = group.board();
    let own = board.units(turn);
    for index in 0..units {
        // SAFETY: the input is the caller's; the slot holds so many, and its last readers are done: they have shown a later
        // operation (see the module's text).
        unsafe {
            let payload = word(input, index, bytes);
            Unit { tag, payload }.store(own.add(index));
        }
    }
    board.reuse(sequence);
    board.announce(sequence, signature);
    group.ring_others();
    // While they come.
    let caller = &group.caller;
    caller
        .recorder
        .mark(Kind::End, sequence as u32, 0, 0, NONE, bytes as u64);
    caller.counters.copied(CopySite::SmallMessage, bytes as u64);
    caller.counters.exchanged((ranks - 1) as u64 * bytes as u64);
    caller.counters.operation();

    let mut payloads =
        [const { std::mem::MaybeUninit::<[u64; MOST_BYTES / 8]>::uninit() }; MOST_RANKS as usize];
    let mut sources = [const { std::mem::MaybeUninit::<*const u8>::uninit() }; MOST_RANKS as usize];
    sources[rank].write(input);
    // With pauses: who looks all the time takes the line away from who is about to store there. Where ranks share processors,
    // one that pauses keeps another from storing.
    for peer in (0..ranks).filter(|peer| *peer != rank) {
        let theirs = group.boards[peer].units(turn);
        let mut looks = if group.patience.crowded { 0 } else { MOST_LOOKS };
        let payload = payloads[peer].as_mut_ptr().cast::<u64>();
        for index in 0..units {
            // SAFETY: the slot holds so many.
            let look = || unsafe { Unit::load(theirs.add(index)) };
            let mut unit = look();
            while unit.tag != tag && looks > 0 {
                std::hint::spin_loop();
                unit = look();
                looks -= 1;
            }
            if unit.tag != tag {
                let awaited = Awaited {
                    sequence,
                    signature,
                    details: None,
                    plan: "units",
                    peer: peer as u32,
                    step: "it has not called this operation yet",
                    timeout,
                };
                awaited.here(core, || look().tag == tag)?;
                unit = look();
            }
            // SAFETY: there is room for so many.
            unsafe { payload.add(index).write(unit.payload) };
        }
        sources[peer].write(payload.cast());
    }
    // SAFETY: as many were written, one for each rank.
    let sources = unsafe { std::slice::from_raw_parts(sources.as_ptr().cast::<*const u8>(), ranks) };
    // SAFETY: each source holds `bytes` bytes, the result is the caller's.
    unsafe { (small.kernel)(result, sources, count, small.divisor) };
    Ok(())
}

/// What no earlier or other operation's units have.
#[inline]
fn tag(sequence: u64, signature: Signature) -> u64 {
    sequence | signature.of_units() << NUMBER_BITS
}

/// Word `index` of so many bytes, which may end within it.
///
/// # Safety
/// They are valid for reads, and some of them are that word's.
#[inline]
unsafe fn word(from: *const u8, index: usize, bytes: usize) -> u64 {
    let mut word = [0; 8];
    let rest = bytes - 8 * index;
    // SAFETY: the caller's contract.
    unsafe {
        let at = from.add(8 * index);
        if rest >= 8 {
            word = at.cast::<[u8; 8]>().read();
        } else {
            std::ptr::copy_nonoverlapping(at, word.as_mut_ptr(), rest);
        }
    }
    u64::from_ne_bytes(word)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::engine::reduce::Operation;
    use crate::memory::DataType;

    #[test]
    fn a_tag_is_one_operations_alone() {
        let mut tags = std::collections::HashSet::new();
        let mut all = 0;
        for sequence in [1, 2, 1 << 24, crate::engine::MAXIMUM_SEQUENCE] {
            for operation in Operation::ALL {
                for data_type in DataType::ALL {
                    for count in 1..=MOST_BYTES / data_type.size() {
                        let signature = Signature::units(Collective::AllReduce, operation, data_type, count);
                        tags.insert(tag(sequence, signature));
                        all += 1;
                    }
                }
            }
        }
        assert_eq!(tags.len(), all);
        assert!(!tags.contains(&0), "what fresh memory holds");
    }

    #[test]
    fn words_end_where_the_payload_does() {
        let bytes: Vec<u8> = (1..=24).collect();
        for len in 1..=bytes.len() {
            let words = (0..len.div_ceil(8)).flat_map(|index| {
                // SAFETY: the word begins within `len` bytes.
                unsafe { word(bytes[..len].as_ptr(), index, len) }.to_ne_bytes()
            });
            let mut expected = bytes[..len].to_vec();
            expected.resize(len.next_multiple_of(8), 0);
            assert_eq!(words.collect::<Vec<_>>(), expected);
        }
    }

    /// A word whose halves do not belong together would show.
    #[test]
    fn no_unit_is_torn() {
        const ROUNDS: u64 = 200_000;
        let mut shared = Unit { tag: 0, payload: 0 };
        struct Place(*mut Unit);
        // SAFETY: accessed by `store` and `load` alone while shared.
        unsafe impl Sync for Place {}
        let place = &Place(&raw mut shared);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 1..=ROUNDS {
                    let unit = Unit {
                        tag: number,
                        payload: !number,
                    };
                    // SAFETY: the place outlives the scope.
                    unsafe { unit.store(place.0) };
                }
            });
            loop {
                // SAFETY: as above.
                let unit = unsafe { Unit::load(place.0) };
                assert!(unit.tag == 0 || unit.payload == !unit.tag, "{unit:?}");
                if unit.tag == ROUNDS {
                    break;
                }
            }
        });
    }
}
