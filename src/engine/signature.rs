//! What a rank says it is about to do, packed into one word that travels with the first message of a collective.
//!
//! Two ranks whose words differ at the same sequence number have called different things.

use super::reduce::Operation;
use crate::memory::DataType;
use crate::plan::Collective;

/// FNV-1a of a plan's name.
pub(super) const fn hash(plan: &str) -> u64 {
    let (bytes, mut at, mut hash) = (plan.as_bytes(), 0, 0xcbf2_9ce4_8422_2325);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// Of those that run no plan.
const FLAT: u64 = hash("flat");

/// Of those whose payload travels in units.
const UNITS: u64 = hash("units");

/// A packed description: collective 4 bits, operation 3, type 4, plan 8, root 12, count 33.
///
/// Which is which follows from the constants below alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature(pub u64);

/// Where each field begins; each ends where the next one begins, the count at 64.
const OPERATION: u32 = 4;
const DATA_TYPE: u32 = OPERATION + 3;
const PLAN: u32 = DATA_TYPE + 4;
const ROOT: u32 = PLAN + 8;
const COUNT: u32 = ROOT + 12;

/// The largest element count that a signature holds.
pub const MAXIMUM_COUNT: usize = (1 << (64 - COUNT)) - 1;

impl Signature {
    /// Packs a call. `count` is in elements, at most [`MAXIMUM_COUNT`]; the plan takes part as 8 bits of a hash of
    /// its name. The factor of a pre-multiplied sum takes no part: each rank has its own.
    pub fn new(
        collective: Collective,
        operation: Operation,
        data_type: DataType,
        plan: &str,
        count: usize,
    ) -> Self {
        Self::with(collective, operation, data_type, hash(plan), count)
    }

    /// The same for a small one, which runs no plan.
    #[inline]
    pub fn flat(collective: Collective, operation: Operation, data_type: DataType, count: usize) -> Self {
        Self::with(collective, operation, data_type, FLAT, count)
    }

    /// The same for one whose payload travels in units.
    #[inline]
    pub fn units(collective: Collective, operation: Operation, data_type: DataType, count: usize) -> Self {
        Self::with(collective, operation, data_type, UNITS, count)
    }

    /// All that two signatures of [`Self::units`] of one collective without a root can differ in, in as few bits: as many
    /// as the count has, and 7.
    #[inline]
    pub(super) fn of_units(self) -> u64 {
        self.0 >> COUNT << (PLAN - OPERATION) | self.field(OPERATION, PLAN)
    }

    #[inline]
    fn with(
        collective: Collective,
        operation: Operation,
        data_type: DataType,
        plan: u64,
        count: usize,
    ) -> Self {
        debug_assert!(count <= MAXIMUM_COUNT);
        let root = collective.root().unwrap_or(0);
        // In the order of the tables, as a test says.
        let operation: u64 = match operation {
            Operation::Sum => 0,
            Operation::Product => 1,
            Operation::Min => 2,
            Operation::Max => 3,
            Operation::Average => 4,
            Operation::PreMultipliedSum(_) => 5,
        };
        // From 1: nothing is no collective.
        let kind = collective.index() as u64 + 1;
        let plan = (plan >> 56) ^ (plan & 0xff);
        Self(
            kind | operation << OPERATION
                | (data_type as u64) << DATA_TYPE
                | plan << PLAN
                | u64::from(root & 0xfff) << ROOT
                | (count as u64) << COUNT,
        )
    }

    /// One of the fields between two of the places above.
    fn field(self, from: u32, to: u32) -> u64 {
        self.0 >> from & ((1 << (to - from)) - 1)
    }

    /// The collective, but for its root.
    fn kind(self) -> Option<Collective> {
        let code = self.field(0, OPERATION) as usize;
        Collective::every(0).get(code.wrapping_sub(1)).copied()
    }

    /// The collective's name, without its root.
    pub fn collective(self) -> &'static str {
        self.kind().map_or("something unknown", Collective::name)
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let operation = match self.field(OPERATION, DATA_TYPE) as usize {
            known if known < Operation::ALL.len() => Operation::ALL[known].name(),
            known if known == Operation::ALL.len() => Operation::pre_multiplied_sum(1.0).name(),
            _ => "?",
        };
        let code = self.field(DATA_TYPE, PLAN);
        let data_type = DataType::ALL
            .iter()
            .find(|known| **known as u64 == code)
            .map_or("?", |t| t.name());
        let (plan, root, count) = (self.field(PLAN, ROOT), self.field(ROOT, COUNT), self.0 >> COUNT);
        f.write_str(self.collective())?;
        if self.kind().is_some_and(|kind| kind.root().is_some()) {
            write!(f, " with root {root}")?;
        }
        if self.kind() != Some(Collective::Barrier) {
            write!(f, " of {count} {data_type}")?;
        }
        if self.kind().is_some_and(Collective::combines) {
            write!(f, " with {operation}")?;
        }
        write!(f, " (plan {plan:02x})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_must_agree_changes_the_word() {
        let base = || Signature::new(Collective::AllReduce, Operation::Sum, DataType::F32, "ring", 10);
        for other in [
            Signature::new(Collective::Barrier, Operation::Sum, DataType::F32, "ring", 10),
            Signature::new(Collective::AllReduce, Operation::Max, DataType::F32, "ring", 10),
            Signature::new(Collective::AllReduce, Operation::Sum, DataType::F64, "ring", 10),
            Signature::new(
                Collective::AllReduce,
                Operation::pre_multiplied_sum(2.0),
                DataType::F32,
                "ring",
                10,
            ),
            Signature::new(Collective::AllReduce, Operation::Sum, DataType::F32, "direct", 10),
            Signature::new(Collective::AllReduce, Operation::Sum, DataType::F32, "ring", 11),
        ] {
            assert_ne!(base(), other, "{other}");
        }
        for (code, listed) in Operation::ALL.iter().enumerate() {
            let word = Signature::new(Collective::AllReduce, *listed, DataType::F32, "ring", 10);
            assert_eq!(word.field(OPERATION, DATA_TYPE), code as u64, "{listed}");
        }
        for listed in &DataType::ALL {
            let word = Signature::flat(Collective::AllReduce, Operation::Sum, *listed, 10);
            assert!(word.to_string().contains(listed.name()), "{word}");
        }
        let every = Collective::every(0);
        let words = every.map(|it| Signature::new(it, Operation::Sum, DataType::F32, "ring", 10));
        for (code, (collective, word)) in (1..).zip(every.iter().zip(words)) {
            assert_eq!(word.field(0, OPERATION), code, "{collective}");
            assert_eq!(word.collective(), collective.name());
            assert_eq!(words.iter().filter(|other| **other == word).count(), 1);
        }
        let rooted = |root| {
            Signature::new(
                Collective::Broadcast { root },
                Operation::Sum,
                DataType::U8,
                "ring",
                MAXIMUM_COUNT,
            )
        };
        assert_ne!(rooted(0), rooted(4095));
        assert!(
            rooted(7)
                .to_string()
                .starts_with("broadcast with root 7 of 8589934591 uint8")
        );
        assert!(
            base().to_string().starts_with("all-reduce of 10 float with sum"),
            "{}",
            base()
        );
    }
}
