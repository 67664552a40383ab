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

/// A packed description: collective 3 bits, operation 3, type 3, plan 8, root 12, count 35.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature(pub u64);

/// The largest element count that a signature holds.
pub const MAXIMUM_COUNT: usize = (1 << 35) - 1;

const OPERATIONS: [Operation; 5] = [
    Operation::Sum,
    Operation::Product,
    Operation::Min,
    Operation::Max,
    Operation::Average,
];

impl Signature {
    /// Packs a call. `count` is in elements, at most [`MAXIMUM_COUNT`]; the plan takes part as 8 bits of a hash of
    /// its name.
    pub fn new(
        collective: Collective,
        operation: Operation,
        data_type: DataType,
        plan: &str,
        count: usize,
    ) -> Self {
        debug_assert!(count <= MAXIMUM_COUNT);
        let (kind, root) = match collective {
            Collective::AllReduce => (1, 0),
            Collective::Reduce { root } => (2, root),
            Collective::Broadcast { root } => (3, root),
            Collective::Barrier => (4, 0),
        };
        let operation = OPERATIONS
            .iter()
            .position(|o| *o == operation)
            .expect("every operation is listed") as u64;
        let data_type = DataType::ALL
            .iter()
            .position(|t| *t == data_type)
            .expect("every type is listed") as u64;
        let plan = hash(plan);
        let plan = (plan >> 56) ^ (plan & 0xff);
        Self(
            kind | operation << 3
                | data_type << 6
                | plan << 9
                | u64::from(root & 0xfff) << 17
                | (count as u64) << 29,
        )
    }

    /// The collective's name, without its root.
    pub fn collective(self) -> &'static str {
        match self.0 & 7 {
            1 => "all-reduce",
            2 => "reduce",
            3 => "broadcast",
            4 => "barrier",
            _ => "something unknown",
        }
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.0 & 7;
        let operation = OPERATIONS
            .get((self.0 >> 3 & 7) as usize)
            .map_or("?".into(), |o| o.to_string());
        let data_type = DataType::ALL
            .get((self.0 >> 6 & 7) as usize)
            .map_or("?", |t| t.name());
        let (plan, root, count) = (self.0 >> 9 & 0xff, self.0 >> 17 & 0xfff, self.0 >> 29);
        f.write_str(self.collective())?;
        if matches!(kind, 2 | 3) {
            write!(f, " with root {root}")?;
        }
        if kind != 4 {
            write!(f, " of {count} {data_type}")?;
        }
        if matches!(kind, 1 | 2) {
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
            Signature::new(Collective::AllReduce, Operation::Sum, DataType::F32, "direct", 10),
            Signature::new(Collective::AllReduce, Operation::Sum, DataType::F32, "ring", 11),
        ] {
            assert_ne!(base(), other, "{other}");
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
                .starts_with("broadcast with root 7 of 34359738367 uint8")
        );
        assert!(
            base().to_string().starts_with("all-reduce of 10 float with sum"),
            "{}",
            base()
        );
    }
}
