//! Time for events: the processor's counter where it may be trusted, read without a system call, and its meaning on
//! the host's monotonic clock, so that the timelines of several processes fall into place.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The source of an event's ticks. Making one costs a few microseconds; nothing is calibrated ahead.
#[derive(Debug)]
pub struct Clock {
    source: Source,
    start: Anchor,
}

/// The same moment on both clocks.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    ticks: u64,
    nanoseconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// `rdtsc`.
    #[cfg(target_arch = "x86_64")]
    ProcessorCounter,
    /// CLOCK_MONOTONIC itself; a tick is a nanosecond.
    Monotonic,
}

impl Clock {
    /// Chooses the source and notes when it was.
    pub fn new() -> Self {
        #[cfg(target_arch = "x86_64")]
        let source = if x86::counter_is_steady() {
            Source::ProcessorCounter
        } else {
            Source::Monotonic
        };
        #[cfg(not(target_arch = "x86_64"))]
        let source = Source::Monotonic;
        Self {
            source,
            start: Anchor::now(source),
        }
    }

    /// The ticks of this moment. They never go backwards on one thread.
    #[inline]
    pub fn now(&self) -> u64 {
        self.source.now()
    }

    /// Whether ticks come from the processor's counter (`rdtsc`) and not from the kernel's clock.
    pub fn uses_processor_counter(&self) -> bool {
        self.source != Source::Monotonic
    }

    /// What ticks mean up to this moment.
    pub fn conversion(&self) -> Conversion {
        Conversion {
            start: self.start,
            end: Anchor::now(self.source),
            source: self.source,
        }
    }

    /// How long ago `ticks` was.
    pub fn elapsed(&self, ticks: u64) -> Duration {
        let conversion = self.conversion();
        Duration::from_nanos(
            conversion
                .end
                .nanoseconds
                .saturating_sub(conversion.nanoseconds(ticks)),
        )
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Translates ticks to nanoseconds on CLOCK_MONOTONIC.
///
/// It interpolates between two moments read on both clocks, the clock's beginning and the conversion's, so it is as
/// exact as those readings (tens of nanoseconds) as long as the kernel's clock runs evenly between them. Processes
/// that begin and convert at about the same time share whatever unevenness there is.
#[derive(Clone, Copy, Debug)]
pub struct Conversion {
    source: Source,
    start: Anchor,
    end: Anchor,
}

impl Conversion {
    /// CLOCK_MONOTONIC, in nanoseconds, when the ticks were `ticks`.
    pub fn nanoseconds(&self, ticks: u64) -> u64 {
        if self.source == Source::Monotonic {
            return ticks;
        }
        let span = i128::from(self.end.ticks.saturating_sub(self.start.ticks).max(1));
        let passed = i128::from(self.end.nanoseconds) - i128::from(self.start.nanoseconds);
        let at = i128::from(ticks) - i128::from(self.start.ticks);
        (i128::from(self.start.nanoseconds) + at * passed / span).clamp(0, i128::from(u64::MAX)) as u64
    }
}

impl Anchor {
    /// Of a few readings the one that took the shortest: an interrupt in between would spoil it.
    fn now(source: Source) -> Self {
        let reading = || {
            let before = source.now();
            let nanoseconds = monotonic();
            let took = source.now().saturating_sub(before);
            (
                took,
                Self {
                    ticks: before + took / 2,
                    nanoseconds,
                },
            )
        };
        let mut best = reading();
        for _ in 1..5 {
            let next = reading();
            if next.0 < best.0 {
                best = next;
            }
        }
        best.1
    }
}

impl Source {
    #[inline]
    fn now(self) -> u64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::ProcessorCounter => x86::counter(),
            Self::Monotonic => monotonic(),
        }
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__cpuid, _rdtsc};

    /// Whether the counter runs at one rate on all cores and through all power states: the kernel, which tests that all
    /// the time, keeps its own time by it, or the processor promises it and the kernel has not turned away from it.
    pub(super) fn counter_is_steady() -> bool {
        const INVARIANT: u32 = 1 << 8;
        // Leaf 0x8000_0000 says which is the last one.
        let invariant =
            || __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & INVARIANT != 0;
        let kernel =
            std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
        match kernel.as_deref().map(str::trim) {
            Ok("tsc") => true,
            Ok("hpet" | "acpi_pm" | "jiffies" | "refined-jiffies") => false,
            _ => invariant(),
        }
    }

    #[inline]
    pub(super) fn counter() -> u64 {
        // SAFETY: every x86-64 processor has the instruction; Linux does not forbid it unless a process asks.
        unsafe { _rdtsc() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversion_agrees_with_the_monotonic_clock() {
        let clock = Clock::new();
        let mut between = Vec::new();
        for _ in 0..20 {
            let before = monotonic();
            let ticks = clock.now();
            between.push((before, ticks, monotonic()));
            std::thread::sleep(Duration::from_millis(1));
        }
        let conversion = clock.conversion();
        for (before, ticks, after) in between {
            let converted = conversion.nanoseconds(ticks);
            // Readings of an anchor may straddle an interrupt of the host; 20 µs is far below a step, far above that.
            assert!(
                converted + 20_000 >= before && converted <= after + 20_000,
                "{before} {converted} {after}"
            );
        }
    }

    #[test]
    fn conversion_keeps_the_order_and_reaches_before_the_beginning() {
        let clock = Clock::new();
        std::thread::sleep(Duration::from_millis(2));
        let conversion = clock.conversion();
        let start = clock.start.ticks;
        let times: Vec<u64> = [start - 1_000_000, start, start + 1_000_000, u64::MAX]
            .map(|ticks| conversion.nanoseconds(ticks))
            .into();
        assert!(times.is_sorted(), "{times:?}");
        assert_eq!(times[1], clock.start.nanoseconds);
        assert_eq!(conversion.nanoseconds(0).min(times[0]), conversion.nanoseconds(0));
    }

    #[test]
    fn the_kernel_clock_needs_no_conversion() {
        let source = Source::Monotonic;
        let anchor = Anchor::now(source);
        let conversion = Conversion {
            source,
            start: anchor,
            end: anchor,
        };
        assert_eq!(conversion.nanoseconds(12_345), 12_345);
    }

    #[test]
    fn elapsed_counts_from_the_ticks() {
        let clock = Clock::new();
        let ticks = clock.now();
        std::thread::sleep(Duration::from_millis(5));
        assert!(clock.elapsed(ticks) >= Duration::from_millis(4));
    }
}
