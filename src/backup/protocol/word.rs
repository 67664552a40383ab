//! The words of the barrier. Each carries its step in the highest bits, so that it only ever grows: whoever comes late
//! with a compare-and-swap finds another value than it expects, and nobody takes a word of another step for one of his.

/// Bits of a step's number.
const STEP_BITS: u32 = 38;
/// The highest number of a step; the first step is 1, so that zeroed memory belongs to none.
pub const MAXIMUM_STEP: u64 = (1 << STEP_BITS) - 1;
/// Bits below the step, in words at home.
const LOW: u32 = 64 - STEP_BITS;
const ATTEMPT_BITS: u32 = 13;
const VIEW_BITS: u32 = 12;
/// Where the worker's incarnation starts in a slot.
const INCARNATION: u32 = 16;
const VOID: u64 = (1 << INCARNATION) - 1;
/// Bits below the step in a tag, of which one is left over.
const TAG_LOW: u32 = VIEW_BITS + ATTEMPT_BITS;
const OPENED: u64 = 1 << 63;

macro_rules! word {
    ($(#[$about:meta])* $name:ident, $low:expr) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// Which step it belongs to; 0 if none yet.
            #[inline]
            pub const fn step(self) -> u64 {
                self.0 >> $low & MAXIMUM_STEP
            }

            const fn low(self) -> u64 {
                self.0 & ((1 << $low) - 1)
            }
        }
    };
}

word! {
    /// How many tickets of a step were taken. Changed by fetch-and-add; by compare-and-swap when the step begins.
    Tickets, LOW
}
word! {
    /// Who holds a ticket. Written once in a step, by compare-and-swap.
    Slot, LOW
}
word! {
    /// A ticket that counts no more. Written once in a step, by compare-and-swap, one after the other.
    Exclusion, LOW
}
word! {
    /// Which attempt of a step is in force, and whether it is committed. Changed by compare-and-swap.
    Seal, LOW
}
word! {
    /// Which result: of which step, in which view, of which attempt. Later ones are greater. In a worker's own memory it
    /// is a mark, written by that worker alone.
    Tag, TAG_LOW
}

impl Tickets {
    /// No ticket of `step` was taken yet.
    pub const fn none(step: u64) -> Self {
        Self(step << LOW)
    }

    /// How many were taken.
    pub const fn count(self) -> u64 {
        self.low()
    }
}

impl Slot {
    /// Ticket of a worker in one of its lives.
    pub const fn of(step: u64, worker: u16, incarnation: u16) -> Self {
        Self(step << LOW | (incarnation as u64 & 0x3ff) << INCARNATION | (worker as u64 + 1))
    }

    /// Nobody's: whoever took the ticket did not come in time, and has to take another.
    pub const fn void(step: u64) -> Self {
        Self(step << LOW | VOID)
    }

    /// Whose it is, unless it is void or empty.
    pub const fn worker(self) -> Option<u16> {
        match self.0 & VOID {
            0 | VOID => None,
            code => Some(code as u16 - 1),
        }
    }

    /// In which of its lives.
    pub const fn incarnation(self) -> u16 {
        (self.low() >> INCARNATION) as u16
    }
}

impl Exclusion {
    /// That `ticket` counts no more in `step`.
    pub const fn of(step: u64, ticket: u16) -> Self {
        Self(step << LOW | (ticket as u64 + 1))
    }

    /// Which ticket.
    pub const fn ticket(self) -> u16 {
        self.low().saturating_sub(1) as u16
    }
}

const SEALED: u64 = 1;
const COMMITTED: u64 = 2;

impl Seal {
    /// The members of `attempt` are to make the result.
    pub const fn sealed(step: u64, attempt: u16) -> Self {
        Self(step << LOW | (attempt as u64) << 2 | SEALED)
    }

    /// The result of `attempt` is the step's, for ever.
    pub const fn committed(step: u64, attempt: u16) -> Self {
        Self(step << LOW | (attempt as u64) << 2 | COMMITTED)
    }

    /// How many exclusions are in force, which is the attempt's number.
    pub const fn attempt(self) -> u16 {
        (self.low() >> 2) as u16
    }

    /// Whether the result may be applied.
    pub const fn is_committed(self) -> bool {
        self.low() & 3 == COMMITTED
    }
}

impl Tag {
    /// The result of an attempt.
    pub const fn of(step: u64, view: u16, attempt: u16) -> Self {
        Self(step << TAG_LOW | (view as u64) << ATTEMPT_BITS | attempt as u64)
    }

    /// Whose words decided: which home in the row of homes.
    pub const fn view(self) -> u16 {
        (self.low() >> ATTEMPT_BITS) as u16
    }

    /// See [`Seal::attempt`].
    pub const fn attempt(self) -> u16 {
        (self.low() & ((1 << ATTEMPT_BITS) - 1)) as u16
    }
}

/// The members of a step's first attempt among few workers, said by whoever proposes it beside the seal, in a plain store. It
/// is what everybody finds who scans the slots, so it does not matter who says it, nor how late; one of another step is of
/// no use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Few(pub u64);

impl Few {
    /// More workers have no room.
    pub const WORKERS: u16 = 16;

    /// These members, a bit each.
    #[inline]
    pub const fn of(step: u64, members: u64) -> Self {
        Self(step << LOW | members)
    }

    /// The members, a bit each, if they are that attempt's.
    #[inline]
    pub fn members(self, tag: Tag) -> Option<u64> {
        let same = self.0 >> LOW == tag.step() && tag.attempt() == 0;
        same.then_some(self.0 & ((1 << Self::WORKERS) - 1))
    }
}

/// What a home's words continue from: 0 until it is decided, by one compare-and-swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Opening(pub u64);

impl Opening {
    /// The home's steps follow this result.
    pub const fn after(tag: Tag) -> Self {
        Self(tag.0 | OPENED)
    }

    /// The last result before, once it is decided.
    pub fn tag(self) -> Option<Tag> {
        (self.0 & OPENED != 0).then_some(Tag(self.0 & !OPENED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_give_back_what_was_put_in() {
        for step in [1, 2, 77, MAXIMUM_STEP] {
            assert_eq!(
                (
                    Tickets::none(step).step(),
                    Tickets(Tickets::none(step).0 + 8200).count()
                ),
                (step, 8200)
            );
            for worker in [0, 1, 4095] {
                let slot = Slot::of(step, worker, 1023);
                assert_eq!(
                    (slot.step(), slot.worker(), slot.incarnation()),
                    (step, Some(worker), 1023)
                );
            }
            assert_eq!((Slot::void(step).worker(), Slot::void(step).step()), (None, step));
            assert_eq!(
                (Exclusion::of(step, 8190).ticket(), Exclusion::of(step, 0).step()),
                (8190, step)
            );
            let seal = Seal::committed(step, 8191);
            assert_eq!(
                (seal.step(), seal.attempt(), seal.is_committed()),
                (step, 8191, true)
            );
            let tag = Tag::of(step, 4095, 8191);
            assert_eq!((tag.step(), tag.view(), tag.attempt()), (step, 4095, 8191));
            assert_eq!(Opening::after(tag).tag(), Some(tag));
        }
        assert_eq!(
            (Opening(0).tag(), Opening::after(Tag::default()).tag()),
            (None, Some(Tag(0)))
        );
    }

    #[test]
    fn few_members_are_those_of_their_attempt_and_of_no_other() {
        for step in [1, 2, MAXIMUM_STEP] {
            let few = Few::of(step, 0x8009);
            assert_eq!(few.members(Tag::of(step, 3, 0)), Some(0x8009));
            for other in [Tag::of(step - 1, 3, 0), Tag::of(step, 3, 1)] {
                assert_eq!(few.members(other), None, "{few:?} {other:?}");
            }
        }
        assert_eq!(Few::default().members(Tag::of(1, 0, 0)), None);
    }

    #[test]
    fn words_only_grow() {
        assert!(Seal::sealed(3, 0) < Seal::committed(3, 0) && Seal::committed(3, 0) < Seal::sealed(3, 1));
        assert!(Seal::committed(3, 9) < Seal::sealed(4, 0));
        assert!(Tag::of(3, 1, 5) < Tag::of(3, 2, 0) && Tag::of(3, 2, 9) < Tag::of(4, 1, 0));
        assert!(Slot::void(3) < Slot::of(4, 0, 0) && Tickets(Tickets::none(3).0 + 9000) < Tickets::none(4));
    }
}
