//! The 32 bits that travel with data, and alone where progress is all there is to say. Their layout is fixed here and
//! nowhere else:
//!
//! | bits | |
//! |---|---|
//! | 31..28 | generation of the communicator, modulo 16 |
//! | 27..20 | number of the operation, modulo 256 |
//! | 19..6 | which task of the sender has come further |
//! | 5..0 | by how many chunks, less one |
//!
//! The last task number stands for none: then the numbers beside it say, as one of 14 bits, how many receives (less
//! one) the sender has posted anew.

/// Tasks that can be told apart.
pub(super) const TASKS: usize = (1 << 14) - 1;

/// The most chunks that one immediate reports.
pub(super) const MOST_CHUNKS: u64 = 64;

/// The most receives that one immediate gives back.
pub(super) const MOST_RECEIVES: u64 = 1 << 14;

/// What an immediate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Immediate {
    /// A task has come further.
    Progress {
        /// Of which operation, modulo 256.
        sequence: u8,
        /// The sender's task.
        task: u16,
        /// 1 to [`MOST_CHUNKS`].
        chunks: u8,
    },
    /// So many receives have been posted anew: 1 to [`MOST_RECEIVES`].
    Receives(u16),
}

impl Immediate {
    /// Packs it, for a communicator of this generation.
    #[inline]
    pub fn pack(self, generation: u32) -> u32 {
        let rest = match self {
            Self::Progress {
                sequence,
                task,
                chunks,
            } => {
                debug_assert!(usize::from(task) < TASKS && (1..=MOST_CHUNKS).contains(&u64::from(chunks)));
                u32::from(sequence) << 20 | u32::from(task) << 6 | u32::from(chunks - 1)
            }
            Self::Receives(count) => {
                let less_one = u32::from(count - 1);
                (less_one >> 6) << 20 | (TASKS as u32) << 6 | less_one & 0x3f
            }
        };
        (generation & 0xf) << 28 | rest
    }

    /// Unpacks it; `None` if it is of another generation.
    #[inline]
    pub fn unpack(word: u32, generation: u32) -> Option<Self> {
        if word >> 28 != generation & 0xf {
            return None;
        }
        let (sequence, task, low) = (
            (word >> 20) as u8,
            (word >> 6 & 0x3fff) as u16,
            (word & 0x3f) as u16,
        );
        Some(if usize::from(task) == TASKS {
            Self::Receives((u16::from(sequence) << 6 | low) + 1)
        } else {
            Self::Progress {
                sequence,
                task,
                chunks: low as u8 + 1,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(
            sequence: u8, task in 0..TASKS as u16, chunks in 1..=MOST_CHUNKS as u8, count in 1..=MOST_RECEIVES as u16,
            generation: u32,
        ) {
            for word in [Immediate::Progress { sequence, task, chunks }, Immediate::Receives(count)] {
                let packed = word.pack(generation);
                prop_assert_eq!(Immediate::unpack(packed, generation), Some(word));
                prop_assert_eq!(Immediate::unpack(packed, generation.wrapping_add(1)), None);
            }
        }
    }
}
