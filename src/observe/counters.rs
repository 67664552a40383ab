//! How much was moved, where it was copied once more than needed, how often was waited.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// A place in the library where payload is moved other than into the final destination that the plan names. Every
/// such place has a name here and counts what it moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopySite {
    /// From the caller's memory into a staging slot.
    StageIn,
    /// From a staging slot into the caller's memory.
    StageOut,
    /// In or out of the cache line that carries a small message.
    SmallMessage,
    /// In or out of a window that stands in for memory which peers cannot reach.
    ForeignBounce,
    /// Inside a fabric that cannot take payload from where it lies.
    Fabric,
}

impl CopySite {
    /// Every site.
    pub const ALL: [CopySite; 5] = [
        Self::StageIn,
        Self::StageOut,
        Self::SmallMessage,
        Self::ForeignBounce,
        Self::Fabric,
    ];
}

/// Counters of one communicator or process. One thread counts at a time (as with the recorder); anyone may read.
#[derive(Debug, Default)]
pub struct Counters {
    bytes_exchanged: AtomicU64,
    operations: AtomicU64,
    waits: AtomicU64,
    sleeps: AtomicU64,
    copies: [Site; CopySite::ALL.len()],
}

#[derive(Debug, Default)]
struct Site {
    bytes: AtomicU64,
    count: AtomicU64,
}

impl Counters {
    /// All zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// `bytes` reached the destination that the plan names.
    #[inline]
    pub fn exchanged(&self, bytes: u64) {
        add(&self.bytes_exchanged, bytes);
    }

    /// `bytes` were copied once more at `site`.
    #[inline]
    pub fn copied(&self, site: CopySite, bytes: u64) {
        let site = &self.copies[site as usize];
        add(&site.bytes, bytes);
        add(&site.count, 1);
    }

    /// A collective ended.
    #[inline]
    pub fn operation(&self) {
        add(&self.operations, 1);
    }

    /// Something was not there yet.
    #[inline]
    pub fn wait(&self) {
        add(&self.waits, 1);
    }

    /// A wait went to sleep in the kernel.
    #[inline]
    pub fn sleep(&self) {
        add(&self.sleeps, 1);
    }

    /// The present values. Values that change meanwhile may be from slightly different moments.
    pub fn snapshot(&self) -> CounterValues {
        let copies: BTreeMap<CopySite, SiteValues> = CopySite::ALL
            .into_iter()
            .map(|site| {
                let counted = &self.copies[site as usize];
                (
                    site,
                    SiteValues {
                        bytes: get(&counted.bytes),
                        count: get(&counted.count),
                    },
                )
            })
            .collect();
        CounterValues {
            bytes_exchanged: get(&self.bytes_exchanged),
            bytes_copied: copies.values().map(|site| site.bytes).sum(),
            operations: get(&self.operations),
            waits: get(&self.waits),
            sleeps: get(&self.sleeps),
            copies,
        }
    }
}

/// One writer at a time: no locked instruction is needed.
#[inline]
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(get(counter).wrapping_add(amount), Ordering::Relaxed);
}

#[inline]
fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// The values of [`Counters`] at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterValues {
    /// Bytes that were moved into the destination that a plan names.
    pub bytes_exchanged: u64,
    /// Bytes that were moved otherwise: the sum over `copies`.
    pub bytes_copied: u64,
    /// Collectives that ended.
    pub operations: u64,
    /// Waits for something that was not there yet.
    pub waits: u64,
    /// Waits that slept in the kernel.
    pub sleeps: u64,
    /// Copies by where they were made; every site is present.
    pub copies: BTreeMap<CopySite, SiteValues>,
}

/// What one copy site did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteValues {
    /// Bytes copied.
    pub bytes: u64,
    /// Number of copies.
    pub count: u64,
}

impl CounterValues {
    /// Both together: two writers of one communicator.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        self.bytes_exchanged += other.bytes_exchanged;
        self.bytes_copied += other.bytes_copied;
        self.operations += other.operations;
        self.waits += other.waits;
        self.sleeps += other.sleeps;
        for (site, values) in &other.copies {
            let sum = self.copies.entry(*site).or_default();
            sum.bytes += values.bytes;
            sum.count += values.count;
        }
        self
    }

    /// What was counted after `earlier`, which is of the same counters.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let copies = self
            .copies
            .iter()
            .map(|(site, now)| {
                let then = earlier.copies.get(site).copied().unwrap_or_default();
                let bytes = now.bytes.wrapping_sub(then.bytes);
                (
                    *site,
                    SiteValues {
                        bytes,
                        count: now.count.wrapping_sub(then.count),
                    },
                )
            })
            .collect();
        Self {
            bytes_exchanged: self.bytes_exchanged.wrapping_sub(earlier.bytes_exchanged),
            bytes_copied: self.bytes_copied.wrapping_sub(earlier.bytes_copied),
            operations: self.operations.wrapping_sub(earlier.operations),
            waits: self.waits.wrapping_sub(earlier.waits),
            sleeps: self.sleeps.wrapping_sub(earlier.sleeps),
            copies,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_moves_its_own_site_and_the_total() {
        let counters = Counters::new();
        for (i, site) in CopySite::ALL.into_iter().enumerate() {
            let before = counters.snapshot();
            counters.copied(site, 100 + i as u64);
            let change = counters.snapshot().since(&before);
            assert_eq!(change.bytes_copied, 100 + i as u64);
            assert_eq!(change.bytes_exchanged, 0);
            for (other, values) in change.copies {
                let expected = if other == site {
                    (100 + i as u64, 1)
                } else {
                    (0, 0)
                };
                assert_eq!((values.bytes, values.count), expected, "{site:?} moved {other:?}");
            }
        }
    }

    #[test]
    fn exchange_is_no_copy() {
        let counters = Counters::new();
        counters.exchanged(4096);
        counters.operation();
        counters.wait();
        counters.wait();
        counters.sleep();
        let values = counters.snapshot();
        assert_eq!((values.bytes_exchanged, values.bytes_copied), (4096, 0));
        assert_eq!((values.operations, values.waits, values.sleeps), (1, 2, 1));
    }

    #[test]
    fn values_are_read_back_from_json_by_name() {
        let counters = Counters::new();
        counters.copied(CopySite::ForeignBounce, 5);
        let values = counters.snapshot();
        let json = serde_json::to_value(&values).unwrap();
        assert_eq!(json["bytes_copied"], 5);
        assert_eq!(json["copies"]["foreign_bounce"]["bytes"], 5);
        assert_eq!(serde_json::from_value::<CounterValues>(json).unwrap(), values);
    }
}
