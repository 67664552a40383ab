//! Finds a partition key in a port's table.

use super::context::Context;
use super::error::{Place, VerbError, VerbsError};

/// The upper bit says whether a member is a full one; the others are the partition.
const PARTITION: u16 = 0x7fff;

/// Where the key is in the table of `length` entries: exactly as given, else of the same partition.
pub(super) fn find(context: &Context, port: u8, length: u16, key: u16) -> Result<u16, VerbsError> {
    let mut table = Vec::new();
    for index in 0..length {
        let mut entry = 0u16;
        // SAFETY: the context is open and the entry is writable.
        let result = unsafe { (context.library.query_pkey)(context.raw(), port, index.into(), &mut entry) };
        if result != 0 {
            let place = Place::device(context.name()).port(port);
            return Err(place.failed_with(
                VerbError::QueryPartitionKey,
                super::error::last_errno(),
                format!("index {index}"),
            ));
        }
        table.push(u16::from_be(entry));
    }
    position(&table, key).ok_or_else(|| {
        let mut keys: Vec<_> = table.iter().filter(|entry| **entry & PARTITION != 0).collect();
        keys.dedup();
        let keys: Vec<_> = keys.iter().map(|key| format!("{key:#06x}")).collect();
        VerbsError::Setting {
            name: "SAPWOOD_VERBS_PARTITION_KEY".into(),
            value: format!("{key:#06x}"),
            why: format!(
                "the table of device {} port {port} holds {}",
                context.name(),
                keys.join(", ")
            ),
        }
    })
}

fn position(table: &[u16], key: u16) -> Option<u16> {
    let exact = table.iter().position(|entry| *entry == key);
    let same = || {
        let partition = key & PARTITION;
        table
            .iter()
            .position(|entry| partition != 0 && entry & PARTITION == partition)
    };
    exact.or_else(same).and_then(|index| u16::try_from(index).ok())
}

#[cfg(test)]
mod tests {
    use super::position;

    #[test]
    fn the_exact_key_wins_over_the_same_partition() {
        let table = [0xffff, 0x0001, 0x8001, 0];
        assert_eq!(position(&table, 0x8001), Some(2));
        assert_eq!(position(&table, 0x0001), Some(1));
        assert_eq!(position(&table, 0x7fff), Some(0));
        assert_eq!(position(&table, 0x8002), None);
        assert_eq!(position(&table, 0x8000), None);
    }
}
