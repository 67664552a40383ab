//! One thing that happened, and how it packs into three words.

use serde::{Deserialize, Serialize};

/// The peer of an event that has none.
pub const NONE: u32 = u32::MAX;

/// The largest `bytes` that an event can say; anything above is recorded as this.
const MAX_BYTES: u64 = (1 << 40) - 1;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal),* $(,)?) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $name = $code),*
        }

        impl Kind {
            /// Every kind, by its code.
            pub const ALL: &'static [Kind] = &[$(Self::$name),*];

            const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// A collective began on this rank; `bytes` is its size.
    Begin = 1,
    /// A bucket was declared ready by the training loop.
    Ready = 2,
    /// A chunk of several sources was combined.
    Reduce = 3,
    /// A chunk was moved to its final destination by the plan (an exchange, not a copy).
    Pull = 4,
    /// A chunk was moved once more than the plan names: staging and its like. Counted, see `CopySite`.
    Copy = 5,
    /// Progress was made known to `peer`.
    Signal = 6,
    /// Waiting for `peer` began.
    WaitBegin = 7,
    /// The wait with the same operation, task, chunk and peer ended.
    WaitEnd = 8,
    /// The waiting thread went to sleep in the kernel.
    Sleep = 9,
    /// A collective ended on this rank.
    End = 10,
    /// A collective failed on this rank; `peer` is whom the error names.
    Error = 11,
    /// A training step began; `operation` is its number.
    StepBegin = 12,
    /// A training step ended.
    StepEnd = 13,
    /// The training loop began to compute.
    ComputeBegin = 14,
    /// The training loop stopped computing.
    ComputeEnd = 15,
}

/// One entry of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in the ticks of the recorder's [`Clock`](super::Clock).
    pub ticks: u64,
    /// What.
    pub kind: Kind,
    /// Sequence number of the collective on its communicator (or of the step).
    pub operation: u32,
    /// Index of the task in this rank's program.
    pub task: u16,
    /// Which chunk of the task's block.
    pub chunk: u32,
    /// The other rank, or [`NONE`].
    pub peer: u32,
    /// How many bytes it was about; values from 2⁴⁰ on are recorded as 2⁴⁰ − 1.
    pub bytes: u64,
}

impl Event {
    /// The four words of a slot; the upper half of the first belongs to the slot.
    pub(super) fn pack(&self) -> [u64; 4] {
        [
            u64::from(self.operation),
            self.ticks,
            u64::from(self.chunk) << 32 | u64::from(self.peer),
            self.bytes.min(MAX_BYTES) << 24 | u64::from(self.task) << 8 | self.kind as u64,
        ]
    }

    /// `None` if the words hold no known kind.
    pub(super) fn unpack(words: [u64; 4]) -> Option<Self> {
        Some(Self {
            ticks: words[1],
            kind: Kind::from_code(words[3] as u8)?,
            operation: words[0] as u32,
            task: (words[3] >> 8) as u16,
            chunk: (words[2] >> 32) as u32,
            peer: words[2] as u32,
            bytes: words[3] >> 24,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_event_survives_packing(
            ticks: u64, kind in 0..Kind::ALL.len(), operation: u32, task: u16, chunk: u32, peer: u32,
            bytes in 0..=MAX_BYTES,
        ) {
            let event = Event { ticks, kind: Kind::ALL[kind], operation, task, chunk, peer, bytes };
            prop_assert_eq!(Event::unpack(event.pack()), Some(event));
        }
    }

    #[test]
    fn sizes_beyond_the_field_are_recorded_as_the_largest() {
        let event = Event {
            ticks: 1,
            kind: Kind::Begin,
            operation: u32::MAX,
            task: u16::MAX,
            chunk: u32::MAX,
            peer: NONE,
            bytes: u64::MAX,
        };
        let unpacked = Event::unpack(event.pack()).unwrap();
        assert_eq!(
            unpacked,
            Event {
                bytes: MAX_BYTES,
                ..event
            }
        );
    }

    #[test]
    fn an_empty_slot_is_no_event() {
        assert_eq!(Event::unpack([0; 4]), None);
    }
}
