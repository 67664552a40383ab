//! What a rank says it is about to do, packed into one word that travels with the first message of a collective.
//!
//! Two ranks whose words differ at the same sequence number have called different things.

use super::reduce::Operation;
use crate::memory::DataType;
use crate::plan::Collective;

/// FNV-1a of a plan's name.
pub(super) fn hash(plan: &str) -> u64 {
    plan.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

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

/// The code of each is its place here, from 1.
const COLLECTIVES: [Collective; 9] = [
    Collective::AllReduce,
    Collective::Reduce { root: 0 },
    Collective::Broadcast { root: 0 },
    Collective::Barrier,
    Collective::ReduceScatter,
    Collective::AllGather,
    Collective::Gather { root: 0 },
    Collective::Scatter { root: 0 },
    Collective::AllToAll,
];

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
        debug_assert!(count <= MAXIMUM_COUNT);
        let kind = COLLECTIVES
            .iter()
            .position(|known| std::mem::discriminant(known) == std::mem::discriminant(&collective))
            .expect("every collective is listed") as u64
            + 1;
        let root = collective.root().unwrap_or(0);
        let operation = match operation {
            Operation::PreMultipliedSum(_) => Operation::ALL.len(),
            other => {
                let listed = Operation::ALL.iter().position(|operation| *operation == other);
                listed.expect("every operation is listed")
            }
        } as u64;
        let data_type = DataType::ALL
            .iter()
            .position(|t| *t == data_type)
            .expect("every type is listed") as u64;
        let plan = hash(plan);
        let plan = (plan >> 56) ^ (plan & 0xff);
        Self(
            kind | operation << OPERATION
                | data_type << DATA_TYPE
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
        COLLECTIVES.get(code.wrapping_sub(1)).copied()
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
        let data_type = DataType::ALL
            .get(self.field(DATA_TYPE, PLAN) as usize)
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
        let words = COLLECTIVES.map(|it| Signature::new(it, Operation::Sum, DataType::F32, "ring", 10));
        for (collective, word) in COLLECTIVES.iter().zip(words) {
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
