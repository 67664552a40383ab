//! A slot of the ring: four words and the protocol by which a reader never takes a torn event.
//!
//! The writer marks the slot invalid, stores the payload, then stores the lap. A reader that sees the same lap
//! before and after reading the payload has read one whole event (a sequence lock; the fences are those of Boehm,
//! "Can seqlocks get along with programming language memory models?").

#[cfg(all(loom, test))]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(all(loom, test)))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Set in the first word of a slot that holds an event.
const VALID: u64 = 1 << 63;

/// The bits of the first word that belong to the event.
const OWN: u64 = u32::MAX as u64;

/// Two slots a cache line.
#[cfg_attr(not(all(loom, test)), repr(align(32)))]
pub(super) struct Slot([AtomicU64; 4]);

impl Slot {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Stores an event of lap `lap` (modulo 2³¹). One writer at a time.
    #[inline]
    pub(super) fn write(&self, lap: u64, words: [u64; 4]) {
        self.0[0].store(0, Ordering::Relaxed);
        // Whoever sees a word of the payload sees the mark above, too, behind its own fence.
        fence(Ordering::Release);
        for (word, value) in self.0[1..].iter().zip(&words[1..]) {
            word.store(*value, Ordering::Relaxed);
        }
        self.0[0].store(tag(lap) | (words[0] & OWN), Ordering::Release);
    }

    /// The event of lap `lap`, or `None` if the slot holds another or is being written.
    pub(super) fn read(&self, lap: u64) -> Option<[u64; 4]> {
        let before = self.0[0].load(Ordering::Acquire);
        if before & !OWN != tag(lap) {
            return None;
        }
        let words = [
            before & OWN,
            self.0[1].load(Ordering::Relaxed),
            self.0[2].load(Ordering::Relaxed),
            self.0[3].load(Ordering::Relaxed),
        ];
        fence(Ordering::Acquire);
        (self.0[0].load(Ordering::Relaxed) == before).then_some(words)
    }
}

fn tag(lap: u64) -> u64 {
    VALID | (lap << 32 & (VALID - 1))
}

#[cfg(all(loom, test))]
mod model {
    use super::*;
    use loom::sync::Arc;

    /// Every interleaving and every permitted reordering of a reader with a writer that writes two laps.
    #[test]
    fn no_torn_event() {
        loom::model(|| {
            let slot = Arc::new(Slot::new());
            let reader = {
                let slot = slot.clone();
                loom::thread::spawn(move || {
                    for lap in 0..2 {
                        if let Some(words) = slot.read(lap) {
                            assert_eq!(words, [lap + 7; 4], "lap {lap}");
                        }
                    }
                })
            };
            for lap in 0..2 {
                slot.write(lap, [lap + 7; 4]);
            }
            reader.join().unwrap();
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_yields_only_the_lap_that_it_holds() {
        let slot = Slot::new();
        assert_eq!(slot.read(0), None);
        slot.write(0, [1, 2, 3, 4]);
        assert_eq!(slot.read(0), Some([1, 2, 3, 4]));
        slot.write(1, [5, 6, 7, 8]);
        assert_eq!(slot.read(0), None);
        assert_eq!(slot.read(1), Some([5, 6, 7, 8]));
    }
}
