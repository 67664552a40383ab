//! The ring of events. One writer at a time, any number of readers; recording allocates nothing and waits for nobody.

use std::sync::atomic::{AtomicU64, Ordering};

use super::clock::Clock;
use super::event::{Event, Kind};
use super::slot::Slot;
use super::wait::{self, OpenWait};

/// A ring of events that keeps the newest `capacity`. Share it as `Arc<Recorder>`.
///
/// One thread records at a time; which one may change, if the change is ordered (a lock, a try-token). Two that
/// record at the same moment corrupt nothing but may lose or mix up events. Readers may look whenever they like:
/// they get whole events or none, and never hold the writer up.
pub struct Recorder {
    slots: Box<[Slot]>,
    /// How many events were ever recorded.
    recorded: AtomicU64,
    clock: Clock,
}

impl Recorder {
    /// Events that [`Recorder::new`] keeps: 512 KiB of them.
    pub const DEFAULT_CAPACITY: usize = 16_384;

    /// A ring of the default capacity.
    pub fn new() -> Self {
        Self::with_capacity(Self::DEFAULT_CAPACITY)
    }

    /// A ring that keeps the newest `capacity` events (raised to a power of two, at least 2), 32 bytes each. This
    /// is the only allocation that the recorder ever makes.
    pub fn with_capacity(capacity: usize) -> Self {
        let capacity = capacity.next_power_of_two().max(2);
        Self {
            slots: std::iter::repeat_with(Slot::new).take(capacity).collect(),
            recorded: AtomicU64::new(0),
            clock: Clock::new(),
        }
    }

    /// How many events the ring keeps.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// How many events were recorded since the beginning, those that the ring has lost included.
    pub fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::Acquire)
    }

    /// What the events' ticks mean.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Records an event that happened at `event.ticks`.
    #[inline]
    pub fn record(&self, event: Event) {
        let number = self.recorded.load(Ordering::Relaxed);
        let (slot, lap) = self.place(number);
        self.slots[slot].write(lap, event.pack());
        self.recorded.store(number + 1, Ordering::Release);
    }

    /// Records an event that happens now. `peer` may be [`NONE`](super::NONE).
    #[inline]
    pub fn mark(&self, kind: Kind, operation: u32, task: u16, chunk: u32, peer: u32, bytes: u64) {
        self.record(Event {
            ticks: self.clock.now(),
            kind,
            operation,
            task,
            chunk,
            peer,
            bytes,
        });
    }

    /// The events that the ring holds, oldest first and without gaps. Where the writer overtakes the reader, the
    /// older part is left out.
    pub fn snapshot(&self) -> Vec<Event> {
        let mut events = Vec::with_capacity(self.slots.len());
        let end = self.recorded();
        for number in end.saturating_sub(self.slots.len() as u64)..end {
            let (slot, lap) = self.place(number);
            match self.slots[slot].read(lap).and_then(Event::unpack) {
                Some(event) => events.push(event),
                None => events.clear(),
            }
        }
        events
    }

    /// What was being waited for when this was called: waits that began and did not end, oldest first.
    pub fn last_waits(&self) -> Vec<OpenWait> {
        wait::open_waits(&self.snapshot())
    }

    /// Slot and lap of the event with this number.
    #[inline]
    fn place(&self, number: u64) -> (usize, u64) {
        let capacity = self.slots.len() as u64;
        (
            (number & (capacity - 1)) as usize,
            number >> capacity.trailing_zeros(),
        )
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("capacity", &self.capacity())
            .field("recorded", &self.recorded())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::observe::NONE;

    #[test]
    fn a_snapshot_is_what_was_recorded_oldest_first() {
        let recorder = Recorder::with_capacity(8);
        assert_eq!(recorder.snapshot(), []);
        for chunk in 0..5 {
            recorder.mark(Kind::Reduce, 1, 2, chunk, 3, 64);
        }
        let events = recorder.snapshot();
        assert_eq!(
            events.iter().map(|event| event.chunk).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4]
        );
        assert!(events.is_sorted_by_key(|event| event.ticks));
        let expected = Event {
            ticks: events[4].ticks,
            kind: Kind::Reduce,
            operation: 1,
            task: 2,
            chunk: 4,
            peer: 3,
            bytes: 64,
        };
        assert_eq!(events[4], expected);
    }

    #[test]
    fn a_full_ring_keeps_the_newest() {
        let recorder = Recorder::with_capacity(5);
        assert_eq!(recorder.capacity(), 8);
        for chunk in 0..100 {
            recorder.mark(Kind::Pull, 1, 0, chunk, NONE, 0);
        }
        let chunks: Vec<u32> = recorder.snapshot().iter().map(|event| event.chunk).collect();
        assert_eq!(chunks, (92..100).collect::<Vec<_>>());
        assert_eq!(recorder.recorded(), 100);
    }

    #[test]
    fn a_wait_without_an_end_is_named() {
        let recorder = Recorder::with_capacity(16);
        recorder.mark(Kind::WaitBegin, 4, 1, 9, 2, 0);
        recorder.mark(Kind::WaitEnd, 4, 1, 9, 2, 0);
        recorder.mark(Kind::WaitBegin, 4, 1, 10, 6, 0);
        let [wait] = recorder.last_waits()[..] else {
            panic!("one wait is open")
        };
        assert_eq!((wait.peer, wait.operation, wait.task, wait.chunk), (6, 4, 1, 10));
        assert!(recorder.clock().elapsed(wait.since) < std::time::Duration::from_secs(60));
    }

    /// Every field of an event says its number, so that one put together from two is noticed.
    #[test]
    fn readers_never_see_a_torn_event_or_a_gap() {
        let event = |number: u64| Event {
            ticks: number,
            kind: Kind::ALL[number as usize % Kind::ALL.len()],
            operation: number as u32,
            task: number as u16,
            chunk: number as u32,
            peer: number as u32,
            bytes: number,
        };
        let recorder = Recorder::with_capacity(16);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let events = recorder.snapshot();
                        for pair in events.windows(2) {
                            assert_eq!(pair[0].ticks + 1, pair[1].ticks, "a gap");
                        }
                        for seen in events {
                            assert_eq!(seen, event(seen.ticks));
                        }
                    }
                });
            }
            // Stops the readers also if one of them, or this thread, fails.
            let finish = Finish(&stop);
            for number in 0..3_000_000 {
                recorder.record(event(number));
            }
            drop(finish);
        });
        assert_eq!(recorder.snapshot().len(), 16);
    }

    struct Finish<'a>(&'a AtomicBool);

    impl Drop for Finish<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
