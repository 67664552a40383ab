//! What the flags amount to for one test: defaults, and combinations that make no sense, refused as in perftest.

use std::time::Duration;

use sapwood::memory::check_allocation;

use super::arguments::PerfArguments;
use super::test::{AtomicKind, Test, Verb};

/// Above this, a completion for every message: waiting for many large ones would distort the figure.
const LARGEST_MODERATED: usize = 8192;
/// Above so many iterations the peak is not looked for.
pub(super) const MOST_FOR_PEAK: u64 = 20_000;
const ALL_SIZES: std::ops::RangeInclusive<u32> = 1..=23;
/// Small messages walk through this much memory, so that not one cache line takes them all.
pub(super) const WALK: usize = 4096;
const LINE: usize = 64;
/// A data check has several messages in flight as long as they fit this.
const CHECKED_AT_ONCE: usize = 256 << 10;
/// No queue is shorter.
const MOST_CHECKED: usize = 16;

/// A test with everything decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) test: Test,
    pub(super) sizes: Vec<usize>,
    pub(super) length: Length,
    pub(super) queue_pairs: usize,
    pub(super) tx_depth: usize,
    pub(super) rx_depth: usize,
    pub(super) post_list: usize,
    /// As asked for; see [`Self::moderation`].
    cq_mod: Option<usize>,
    pub(super) inline: Option<usize>,
    pub(super) with_immediate: bool,
    pub(super) bidirectional: bool,
    pub(super) events: bool,
    pub(super) atomic: AtomicKind,
    pub(super) validate: bool,
    pub(super) gbits: bool,
    pub(super) timeout: Duration,
    sweep: bool,
}

/// When a test is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// After so many messages for each queue pair.
    Iterations(u64),
    /// After this time.
    Time(Duration),
}

impl Setup {
    /// Refuses, in a sentence, what cannot be run.
    pub(super) fn new(arguments: &PerfArguments, timeout: Duration) -> Result<Self, String> {
        let test = arguments.test;
        if arguments.use_cuda.is_some() || arguments.use_cuda_dmabuf {
            return Err(
                "--use_cuda: memory of GPUs is not built yet; leave it out to test host memory".into(),
            );
        }
        refuse_what_does_not_fit(arguments)?;
        let sizes = match (arguments.all, arguments.size) {
            (true, _) => ALL_SIZES.map(|power| 1 << power).collect(),
            (false, size) => vec![size.unwrap_or(test.usual_size())],
        };
        let length = match arguments.duration {
            Some(seconds) => Length::Time(Duration::from_secs(seconds.into())),
            None => Length::Iterations(arguments.iters.unwrap_or(test.usual_iterations())),
        };
        let most = match length {
            Length::Iterations(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Length::Time(_) => usize::MAX,
        };
        let usual_depth = if test.is_latency() { 1 } else { 128 };
        let post_list = arguments.post_list as usize;
        let setup = Self {
            test,
            sizes,
            length,
            queue_pairs: arguments.queue_pairs as usize,
            tx_depth: arguments
                .tx_depth
                .map_or(usual_depth, |depth| depth as usize)
                .min(most)
                .max(post_list),
            rx_depth: arguments.rx_depth.map_or(512, |depth| depth as usize).min(most),
            post_list,
            cq_mod: arguments.cq_mod.map(|count| count as usize),
            inline: arguments.inline_size.map(|size| size as usize),
            with_immediate: arguments.write_with_imm,
            bidirectional: arguments.bidirectional,
            events: arguments.events,
            atomic: arguments.atomic_type.unwrap_or(AtomicKind::FetchAdd),
            validate: arguments.data_validation,
            gbits: arguments.report_gbits,
            timeout,
            sweep: arguments.all,
        };
        setup.check_post_list(arguments)?;
        setup.check_memory()?;
        Ok(setup)
    }

    fn check_post_list(&self, arguments: &PerfArguments) -> Result<(), String> {
        let list = self.post_list;
        if let Length::Iterations(count) = self.length
            && !count.is_multiple_of(list as u64)
        {
            return Err(format!(
                "-n {count} is not a multiple of -l {list}; give one that is"
            ));
        }
        if let Some(depth) = arguments.tx_depth
            && (depth as usize) < list
        {
            return Err(format!(
                "-t {depth} holds no list of -l {list}; give at least -t {list}"
            ));
        }
        match self.cq_mod {
            Some(moderation) if list > 1 && !list.is_multiple_of(moderation) => Err(format!(
                "-l {list} is not a multiple of -Q {moderation}; give a -Q that divides it, or none"
            )),
            _ => Ok(()),
        }
    }

    fn check_memory(&self) -> Result<(), String> {
        let samples = match self.length {
            Length::Iterations(count) if self.test.is_latency() => count.checked_mul(8),
            _ => Some(0),
        };
        let bytes = samples
            .and_then(|bytes| usize::try_from(bytes).ok())
            .zip(self.region_bytes())
            .and_then(|(samples, region)| samples.checked_add(region))
            .ok_or("-s and -q: the buffers do not fit an address space; give smaller ones")?;
        check_allocation(bytes).map_err(|error| format!("-s, -q and -n: for buffers and samples {error}"))
    }

    /// How many messages share a completion, for messages of this size.
    pub(super) fn moderation(&self, size: usize) -> usize {
        if self.test.is_latency() {
            return 1;
        }
        let usual = match self.post_list {
            1 if size > LARGEST_MODERATED && !self.sweep && !self.events => 1,
            1 => 100,
            list => list,
        };
        self.cq_mod.unwrap_or(usual).min(self.tx_depth)
    }

    /// Whether the target takes part by posting receives.
    pub(super) fn has_receives(&self) -> bool {
        self.test.verb == Verb::Send || self.with_immediate
    }

    /// Whether messages carry data from the initiator, which could be inline.
    pub(super) fn sends_data(&self) -> bool {
        matches!(self.test.verb, Verb::Write | Verb::Send)
    }

    /// Requests and receives that a queue must hold, with some to spare.
    pub(super) fn queue_depth(&self) -> usize {
        const SPARE: usize = 8;
        let receives = if self.has_receives() { self.rx_depth } else { 0 };
        let moderation = self
            .sizes
            .iter()
            .map(|size| self.moderation(*size))
            .max()
            .unwrap_or(1);
        // A queue may insist on a completion for every quarter of it; a data check has one message more than slots.
        let most = self.tx_depth.max(receives).max(4 * moderation);
        most.max(2 * MOST_CHECKED) + SPARE
    }

    pub(super) fn iterations(&self) -> Option<u64> {
        match self.length {
            Length::Iterations(count) => Some(count),
            Length::Time(_) => None,
        }
    }

    /// Messages of this size that lie beside each other when timed, and how far apart.
    pub(super) fn walk(&self, size: usize) -> (usize, usize) {
        let stride = size.next_multiple_of(LINE);
        let slots = if size <= WALK / 2 && !self.test.is_latency() {
            WALK / stride
        } else {
            1
        };
        (slots, stride)
    }

    /// The same for a data check, which leaves a guard between them.
    pub(super) fn checked(&self, size: usize) -> (usize, usize) {
        let stride = (size + 1).next_multiple_of(LINE);
        ((CHECKED_AT_ONCE / stride).clamp(1, MOST_CHECKED), stride)
    }

    /// Bytes that one queue pair sends from, and as many again that it receives into; `None` beyond what there is.
    pub(super) fn area(&self) -> Option<usize> {
        let areas = self.sizes.iter().map(|size| {
            let (walk, check) = (self.walk(*size), self.checked(*size));
            (walk.0 * walk.1)
                .checked_add(LINE)
                .map(|bytes| bytes.max(check.0 * check.1))
        });
        areas
            .chain([Some(WALK)])
            .try_fold(0, |most, area| area.map(|area| most.max(area)))
            .map(|area| area.next_multiple_of(WALK))
    }

    /// Bytes to register.
    pub(super) fn region_bytes(&self) -> Option<usize> {
        self.area()?.checked_mul(2)?.checked_mul(self.queue_pairs)
    }

    /// A time in which a side that only waits may expect the other to be done: it sees nothing of what goes on.
    pub(super) fn patience(&self, size: usize) -> Duration {
        const EACH: Duration = Duration::from_millis(10);
        let own = match self.length {
            Length::Time(time) => time,
            Length::Iterations(count) => {
                let one = EACH + Duration::from_micros(size as u64);
                let messages = count.saturating_mul(self.queue_pairs as u64).min(1 << 30);
                one.saturating_mul(messages as u32)
            }
        };
        self.timeout.saturating_add(own)
    }
}

/// Flags that have no meaning for the test.
fn refuse_what_does_not_fit(arguments: &PerfArguments) -> Result<(), String> {
    let test = arguments.test;
    let latency = test.is_latency();
    let one_sided = matches!(test.verb, Verb::Read | Verb::Atomic);
    let refusals = [
        (
            test.verb == Verb::Atomic && arguments.size.is_some_and(|size| size != 8),
            format!("-s: an atomic works on a word of 8 bytes; {test} takes no other size"),
        ),
        (
            test.verb == Verb::Atomic && arguments.all,
            format!("-a: an atomic works on a word of 8 bytes; {test} has no other sizes"),
        ),
        (
            latency && arguments.queue_pairs > 1,
            format!(
                "-q {}: {test} measures one message at a time; several queue pairs are for bandwidth tests",
                arguments.queue_pairs
            ),
        ),
        (
            latency && arguments.bidirectional,
            format!("-b: {test} has no directions; it is for bandwidth tests"),
        ),
        (
            latency && arguments.post_list > 1,
            format!(
                "-l {}: {test} posts one message at a time; lists are for bandwidth tests",
                arguments.post_list
            ),
        ),
        (
            one_sided && arguments.inline_size.is_some(),
            format!("-I: {test} sends no data that could be inline; it is for write and send tests"),
        ),
        (
            one_sided && arguments.rx_depth.is_some_and(|depth| depth > 1),
            format!("-r: the target of {test} posts no receives; leave it out"),
        ),
        (
            arguments.write_with_imm && test.verb != Verb::Write,
            format!("--write_with_imm: {test} does not write; it is for write-lat and write-bw"),
        ),
        (
            arguments.atomic_type.is_some() && test.verb != Verb::Atomic,
            format!("-A: {test} posts no atomics; it is for atomic-lat and atomic-bw"),
        ),
        (
            arguments.events && latency && test.verb == Verb::Write && !arguments.write_with_imm,
            format!("-e: {test} looks at memory, which wakes nobody; give --write_with_imm too"),
        ),
        (
            !arguments.local && arguments.ib_dev.len() > 1,
            "-d: this side uses one device; two are for --local, one for each side".into(),
        ),
    ];
    match refusals.into_iter().find(|(refused, _)| *refused) {
        Some((_, sentence)) => Err(sentence),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: PerfArguments,
    }

    impl Setup {
        /// As from a command line that is right.
        pub(in super::super) fn for_tests(line: &str) -> Self {
            setup(line).unwrap_or_else(|error| panic!("{line}: {error}"))
        }
    }

    fn setup(line: &str) -> Result<Setup, String> {
        let words = std::iter::once("perf").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        Setup::new(&line.arguments, Duration::from_secs(60))
    }

    #[test]
    fn defaults_are_perftest_s() {
        let bandwidth = setup("write-bw").unwrap();
        assert_eq!(
            (bandwidth.tx_depth, bandwidth.rx_depth, bandwidth.queue_pairs),
            (128, 512, 1)
        );
        assert_eq!(bandwidth.moderation(65536), 1);
        assert_eq!(bandwidth.moderation(8), 100);
        assert_eq!(bandwidth.length, Length::Iterations(5000));
        let latency = setup("send-lat").unwrap();
        assert_eq!((latency.sizes, latency.tx_depth), (vec![2], 1));
        let sweep = setup("read-bw -a").unwrap();
        assert_eq!(
            (sweep.sizes.len(), sweep.sizes[0], sweep.sizes[22]),
            (23, 2, 8 << 20)
        );
        assert_eq!(sweep.moderation(8 << 20), 100, "one moderation for a whole sweep");
        assert_eq!(setup("send-bw -l 16 -n 1600").unwrap().moderation(8), 16);
        assert_eq!(setup("send-bw -n 50").unwrap().tx_depth, 50);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_would() {
        for (line, part) in [
            ("atomic-lat -s 7", "8 bytes"),
            ("atomic-bw -a", "8 bytes"),
            ("write-lat -q 2", "bandwidth"),
            ("send-lat -b", "bandwidth"),
            ("send-lat -l 4", "bandwidth"),
            ("read-lat -I 8", "write and send"),
            ("read-bw -r 2", "no receives"),
            ("send-bw --write_with_imm", "write-lat and write-bw"),
            ("write-bw -A FETCH_AND_ADD", "atomic-lat"),
            ("write-lat -e", "--write_with_imm"),
            ("write-bw -n 10 -l 3", "multiple"),
            ("write-bw -l 16 -t 8 -n 1600", "-t 16"),
            ("write-bw -l 16 -Q 3 -n 1600", "divides"),
            ("write-lat --use_cuda 0", "not built yet"),
            ("write-bw -d a,b", "--local"),
        ] {
            let said = setup(line).unwrap_err();
            assert!(said.contains(part), "{line}: {said}");
        }
        assert!(setup("atomic-lat -s 8").is_ok());
    }

    #[test]
    fn areas_hold_every_walk_and_every_check() {
        for line in [
            "write-bw -s 1",
            "write-bw -s 65",
            "send-bw -a",
            "atomic-bw",
            "write-lat -s 4096",
        ] {
            let setup = setup(line).unwrap();
            let area = setup.area().unwrap();
            for size in &setup.sizes {
                for (slots, stride) in [setup.walk(*size), setup.checked(*size)] {
                    assert!(
                        slots >= 1 && stride >= *size && slots * stride <= area,
                        "{line}, {size}"
                    );
                }
            }
        }
    }
}
