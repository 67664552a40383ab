//! Why a rank gave up, in one word for the others.

/// Why a rank gave up, as it tells the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It found that this rank had died or left.
    Gone(u32),
    /// It waited for this rank until the deadline.
    Deadline(u32),
    /// The ranks called different things at this sequence number (its lower 32 bits).
    Mismatch(u32),
    /// Its caller aborted the communicator.
    Aborted,
}

impl Trouble {
    pub(super) fn pack(self) -> u64 {
        let (kind, value) = match self {
            Self::Gone(rank) => (1, rank),
            Self::Deadline(rank) => (2, rank),
            Self::Mismatch(sequence) => (3, sequence),
            Self::Aborted => (4, 0),
        };
        kind << 32 | u64::from(value)
    }

    pub(super) fn unpack(word: u64) -> Option<Self> {
        let value = word as u32;
        match word >> 32 {
            1 => Some(Self::Gone(value)),
            2 => Some(Self::Deadline(value)),
            3 => Some(Self::Mismatch(value)),
            4 => Some(Self::Aborted),
            _ => None,
        }
    }
}
