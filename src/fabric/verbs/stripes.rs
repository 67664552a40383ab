//! How a large write is divided among the queue pairs of a connection, and into messages that a device can carry.
//! Arithmetic only.

/// What one queue pair carries of a write: consecutive bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stripe {
    /// The first byte, from the write's start.
    pub offset: usize,
    /// Bytes; 0 where there was not enough for every queue pair.
    pub len: usize,
}

/// Stripes begin at multiples of this, so that no packet or cache line is shared by two of them.
const GRAIN: usize = 4096;

/// The part of queue pair `lane` of `lanes`, of a write of `len` bytes. Below `threshold` bytes the first carries
/// everything.
pub(super) fn stripe(len: usize, lane: usize, lanes: usize, threshold: usize) -> Stripe {
    if lanes == 1 || len < threshold {
        return Stripe {
            offset: if lane == 0 { 0 } else { len },
            len: if lane == 0 { len } else { 0 },
        };
    }
    let share = len.div_ceil(lanes).next_multiple_of(GRAIN);
    let offset = (share * lane).min(len);
    Stripe {
        offset,
        len: share.min(len - offset),
    }
}

/// How many messages of at most `largest` bytes carry `len` bytes; one carries none.
pub(super) fn messages(len: usize, largest: usize) -> usize {
    len.div_ceil(largest).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stripes_cover_every_byte_once_and_in_order(
            len in 0usize..100_000_000, lanes in 1usize..=64, threshold in 1usize..1_000_000
        ) {
            let mut next = 0;
            for lane in 0..lanes {
                let part = stripe(len, lane, lanes, threshold);
                prop_assert_eq!(part.offset, next);
                next += part.len;
                if lanes > 1 && len < threshold {
                    prop_assert_eq!(part.len, if lane == 0 { len } else { 0 });
                }
            }
            prop_assert_eq!(next, len);
        }

        #[test]
        fn messages_are_enough_and_not_one_too_many(len in 0usize..10_000, largest in 1usize..100) {
            let count = messages(len, largest);
            prop_assert!(count * largest >= len);
            prop_assert!(count == 1 || (count - 1) * largest < len);
        }
    }

    #[test]
    fn four_queue_pairs_share_evenly() {
        let parts: Vec<_> = (0..4).map(|lane| stripe(1 << 20, lane, 4, 1 << 16).len).collect();
        assert_eq!(parts, [1 << 18; 4]);
    }
}
