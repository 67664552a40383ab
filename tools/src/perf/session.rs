//! Both sides connected: the queue pairs of a test, the memory that they share, and the steps between measurements.

use std::time::Duration;

use sapwood::fabric::{AtomicDomain, Capabilities, OrderingScope};
use sapwood::observe::Clock;
use serde::{Deserialize, Serialize};

use super::lane::{Lane, Place};
use super::meeting::{Meeting, Setting};
use super::memory::Memory;
use super::provider::Provider;
use super::setup::{Length, Setup};
use super::test::Verb;
use super::watch::Side;
use crate::output::Failure;

/// Looks at the endpoints between two offers of the processor to others.
const LOOKS: usize = 16;

/// How the target of a latency test learns that a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notification {
    /// It looks at the message's last byte in memory.
    Memory,
    /// By the completion of a receive.
    Receive,
    /// It does not: only the initiator knows.
    None,
}

/// See the module.
pub(super) struct Session {
    // Dropped in this order: queue pairs before the memory that they reach.
    pub(super) lanes: Vec<Lane>,
    pub(super) memory: Memory,
    pub(super) meeting: Meeting,
    pub(super) setup: Setup,
    pub(super) notification: Notification,
    pub(super) clock: Clock,
    /// What the other side asks of this one's memory is done by this one's endpoints, so that somebody must drive them.
    drives: bool,
}

impl Session {
    /// Compares settings and connects. What the fabric cannot do is refused before that, on both sides alike.
    pub(super) fn connect(
        meeting: Meeting,
        provider: &mut Provider,
        mut setup: Setup,
    ) -> Result<Self, Failure> {
        let capabilities = provider.fabrics[0].capabilities().clone();
        let ordered = capabilities.ordering == OrderingScope::QueuePair;
        meeting.agree(&settings(&setup, provider.name()))?;
        meeting.reached_by(&capabilities, provider.name())?;
        let ours = (ordered, provider.facts.mtu);
        let (theirs_ordered, their_mtu) = meeting.exchange("comparing the fabrics", &ours, setup.timeout)?;
        let both_ordered = theirs_ordered && ordered;
        // The path's is the smaller of the two.
        provider.facts.mtu = provider
            .facts
            .mtu
            .zip(their_mtu)
            .map(|(ours, theirs)| ours.min(theirs));
        let notification = match setup.test.verb {
            Verb::Read | Verb::Atomic => Notification::None,
            Verb::Send => Notification::Receive,
            Verb::Write if setup.with_immediate => Notification::Receive,
            Verb::Write if !setup.test.is_latency() => Notification::None,
            Verb::Write if both_ordered => Notification::Memory,
            Verb::Write => {
                // The last byte of a write says nothing on such a fabric.
                setup.with_immediate = true;
                Notification::Receive
            }
        };
        fit(&mut setup, &capabilities, &mut provider.remarks)?;

        let side = meeting.side();
        let too_large = || Failure::Arguments("-s and -q: the buffers do not fit an address space".into());
        let area = setup.area().ok_or_else(too_large)?;
        let memory = Memory::new(setup.region_bytes().ok_or_else(too_large)?)
            .map_err(|error| Failure::Arguments(format!("-s and -q: {error}")))?;
        let mut lanes = Vec::with_capacity(setup.queue_pairs);
        for number in 0..setup.queue_pairs {
            let fabric = &provider.fabrics[number % provider.fabrics.len()];
            let out = 2 * area * number;
            let place = Place {
                out,
                into: out + area,
                area,
            };
            let (mut lane, parcels) =
                Lane::prepare(&**fabric, side, number, &memory, place, setup.with_immediate)?;
            let what = format!("connecting queue pair {} of {}", number + 1, setup.queue_pairs);
            lane.connect(meeting.exchange_parcels(&what, parcels)?)?;
            lanes.push(lane);
        }
        meeting.together("connected")?;
        Ok(Self {
            lanes,
            memory,
            meeting,
            setup,
            notification,
            clock: Clock::new(),
            drives: !capabilities.progress_while_stopped,
        })
    }

    /// Both sides come here.
    pub(super) fn together(&mut self, what: &str) -> Result<(), Failure> {
        self.meet(|meeting| meeting.together(what))
    }

    /// Gives the other side a value, and gets its own.
    pub(super) fn exchange<T: Serialize + for<'a> Deserialize<'a> + Send + Sync>(
        &mut self,
        what: &str,
        value: &T,
        patience: Duration,
    ) -> Result<T, Failure> {
        self.meet(|meeting| meeting.exchange(what, value, patience))
    }

    /// Meets the other side, which may not be done with this side's memory yet.
    fn meet<T: Send>(
        &mut self,
        meet: impl FnOnce(&Meeting) -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        let Self { lanes, meeting, .. } = self;
        if !self.drives {
            return meet(meeting);
        }
        std::thread::scope(|scope| {
            let meeting = &*meeting;
            let met = scope.spawn(move || meet(meeting));
            while !met.is_finished() {
                // As often as a side that waits for a message looks for it.
                for _ in 0..LOOKS {
                    for lane in &mut *lanes {
                        lane.drive()?;
                    }
                }
                std::thread::yield_now();
            }
            met.join()
                .unwrap_or_else(|_| Err(Failure::Check("meeting the other side broke off".into())))
        })
    }

    pub(super) fn side(&self) -> Side {
        self.meeting.side()
    }

    /// Whether this side posts the test's requests.
    pub(super) fn initiates(&self) -> bool {
        self.side() == Side::Client || self.setup.bidirectional
    }

    /// Whether the other side posts the test's requests to this one.
    pub(super) fn is_target(&self) -> bool {
        self.side() == Side::Server || self.setup.bidirectional
    }

    /// How long a step may take for which the other side measures alone.
    pub(super) fn patience(&self, size: usize) -> Duration {
        self.setup.patience(size)
    }
}

/// What both sides must share, as flags for people.
fn settings(setup: &Setup, fabric: &str) -> Vec<Setting> {
    let sizes = match setup.sizes.as_slice() {
        [one] => one.to_string(),
        several => format!("{} to {}", several[0], several[several.len() - 1]),
    };
    let (iterations, duration) = match setup.length {
        Length::Iterations(count) => (count.to_string(), "not given".into()),
        Length::Time(time) => ("not given".into(), format!("{} s", time.as_secs())),
    };
    let given = |given: bool| if given { "given" } else { "not given" };
    vec![
        Setting::new("the test", setup.test),
        Setting::new("--fabric", fabric),
        Setting::new("-s", sizes),
        Setting::new("-n", iterations),
        Setting::new("-D", duration),
        Setting::new("-q", setup.queue_pairs),
        Setting::new("-b", given(setup.bidirectional)),
        Setting::new("--write_with_imm", given(setup.with_immediate)),
        Setting::new("-A", setup.atomic.name()),
        Setting::new("--data_validation", given(setup.validate)),
        Setting::new("--report_gbits", given(setup.gbits)),
    ]
}

/// Reduces depths to what the fabric's queues hold, and refuses what it cannot do at all.
pub(super) fn fit(
    setup: &mut Setup,
    capabilities: &Capabilities,
    remarks: &mut Vec<String>,
) -> Result<(), Failure> {
    if setup.test.verb == Verb::Atomic && capabilities.atomic_domain == AtomicDomain::None {
        return Err(Failure::Arguments(format!(
            "{}: there are no atomics here; the other tests do without",
            setup.test
        )));
    }
    let most = capabilities.queue_depth;
    if setup.post_list > most {
        return Err(Failure::Arguments(format!(
            "-l {}: a queue of this fabric holds {most}; give at most that",
            setup.post_list
        )));
    }
    let mut fit = |flag: &str, depth: &mut usize, usual: bool| {
        if *depth > most {
            if !usual {
                remarks.push(format!(
                    "{flag} {depth}: a queue here holds {most}, which is used"
                ));
            }
            *depth = most;
        }
    };
    let usual = setup.rx_depth == 512;
    if setup.has_receives() {
        fit("-r", &mut setup.rx_depth, usual);
    }
    fit("-t", &mut setup.tx_depth, false);
    Ok(())
}
