//! Many messages at a time: every queue pair is kept full, lists are posted at once, and only some messages ask for a
//! completion. Initiator and target run the same loop, a bidirectional test is both at once.

use std::time::{Duration, Instant};

use sapwood::fabric::{Operation, Request};
use sapwood::observe::Clock;

use super::lane::{LAST, Lane};
use super::peak::Stamps;
use super::session::Session;
use super::setup::{Length, MOST_FOR_PEAK, Setup};
use super::watch::{Side, Watch};
use super::window::Window;
use crate::output::Failure;

/// How long one of several queue pairs is slept on.
const SHORTLY: Duration = Duration::from_millis(1);

/// What one side measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    /// Messages.
    pub(super) messages: u64,
    /// From the first post to the last completion; the window of a test that ran for a time.
    pub(super) nanoseconds: f64,
    /// Of the fastest stretch between a post and a completion, for one message; where it was looked for.
    pub(super) fastest: Option<f64>,
}

/// One size, on one side. `None` on a side that measures nothing.
pub(super) fn measure(session: &mut Session, size: usize) -> Result<Option<Measured>, Failure> {
    let initiates = session.initiates();
    let receives = session.setup.has_receives() && session.is_target();
    let depth = session.setup.rx_depth;
    for lane in &mut session.lanes {
        lane.begin(receives);
        if receives {
            lane.fill(depth)?;
        }
    }
    session.together(&format!("measuring {size} bytes"))?;
    if !initiates && !receives {
        return Ok(None);
    }
    let mut flows: Vec<Flow> = session
        .lanes
        .iter()
        .map(|lane| Flow::new(&session.setup, lane, size))
        .collect();
    let watch = Watch::new(
        session.meeting.membership(),
        session.meeting.side(),
        session.setup.timeout,
    );
    let run = Run {
        setup: &session.setup,
        clock: &session.clock,
        lanes: &mut session.lanes,
        flows: &mut flows,
        stamps: Stamps::new(&session.setup, initiates),
        watch,
        initiates,
        receives,
        other: session.meeting.side().other(),
        waited: 0,
    };
    match run.setup.length {
        Length::Iterations(count) => run.count(count).map(Some),
        Length::Time(time) => {
            let window = Window::start(time).map_err(|error| Failure::Check(error.to_string()))?;
            run.time(window).map(Some)
        }
    }
}

/// One queue pair's requests, made once and aimed anew before each post.
struct Flow {
    list: Vec<Request>,
    out: usize,
    into: usize,
    slots: usize,
    stride: usize,
    /// The slot of the next message.
    slot: usize,
    moderation: u64,
    /// The number after the last message, where it is known.
    end: u64,
}

impl Flow {
    fn new(setup: &Setup, lane: &Lane, size: usize) -> Self {
        let (slots, stride) = setup.walk(size);
        Self {
            list: (0..setup.post_list).map(|_| lane.request(setup, size)).collect(),
            out: lane.place.out,
            into: lane.place.into,
            slots,
            stride,
            slot: 0,
            moderation: setup.moderation(size) as u64,
            end: setup.iterations().unwrap_or(u64::MAX),
        }
    }

    /// Posts the next list.
    #[inline]
    fn post(&mut self, lane: &mut Lane, last: bool) -> Result<(), Failure> {
        let first = lane.posted;
        let final_one = if last {
            first + self.list.len() as u64 - 1
        } else {
            u64::MAX
        };
        for (number, request) in (first..).zip(&mut self.list) {
            let step = self.slot * self.stride;
            self.slot = if self.slot + 1 == self.slots {
                0
            } else {
                self.slot + 1
            };
            request.id = number;
            request.signaled = (number + 1).is_multiple_of(self.moderation) || number + 1 == self.end || last;
            match &mut request.operation {
                Operation::Write {
                    local,
                    remote,
                    immediate,
                } => {
                    (local.offset, remote.offset) = (self.out + step, self.into + step);
                    if let Some(immediate) = immediate {
                        *immediate = if number == final_one {
                            LAST
                        } else {
                            number as u32 & (LAST >> 1)
                        };
                    }
                }
                Operation::Send { local, immediate } => {
                    local.offset = self.out + step;
                    *immediate = (number == final_one).then_some(LAST);
                }
                Operation::Read { local, remote }
                | Operation::FetchAdd { local, remote, .. }
                | Operation::CompareSwap { local, remote, .. } => {
                    (local.offset, remote.offset) = (self.out + step, self.into + step);
                }
            }
        }
        lane.post(&self.list)
    }
}

struct Run<'a> {
    setup: &'a Setup,
    clock: &'a Clock,
    lanes: &'a mut [Lane],
    flows: &'a mut [Flow],
    stamps: Stamps,
    watch: Watch<'a>,
    initiates: bool,
    receives: bool,
    other: Side,
    /// The queue pair that was slept on last.
    waited: usize,
}

impl Run<'_> {
    /// Until every queue pair has carried `count` messages.
    fn count(mut self, count: u64) -> Result<Measured, Failure> {
        let total = count * self.lanes.len() as u64;
        let (mut posted, mut done, mut arrived) = (0, 0, 0);
        let peaks = self.stamps.wanted();
        let mut first = if self.initiates { self.clock.now() } else { 0 };
        loop {
            if self.initiates && posted < total {
                let depth = self.setup.tx_depth as u64;
                for (lane, flow) in self.lanes.iter_mut().zip(&mut *self.flows) {
                    let list = flow.list.len() as u64;
                    while lane.posted < count && lane.posted - lane.done + list <= depth {
                        if peaks {
                            self.stamps.posted(self.clock.now());
                        }
                        flow.post(lane, false)?;
                        posted += list;
                    }
                }
            }
            let mut came = 0;
            for lane in &mut *self.lanes {
                let (before, received) = (lane.done, lane.arrived);
                came += lane.poll()?;
                done += lane.done - before;
                arrived += lane.arrived - received;
                if peaks && lane.done != before {
                    self.stamps.completed(done, self.clock.now());
                }
            }
            if came == 0 {
                self.idle(done, arrived, total)?;
                continue;
            }
            self.watch.came();
            if !self.initiates && first == 0 {
                first = self.clock.now();
            }
            if (!self.initiates || done == total) && (!self.receives || arrived == total) {
                break;
            }
        }
        let last = self.clock.now();
        let conversion = self.clock.conversion();
        let nanoseconds = (conversion.nanoseconds(last) - conversion.nanoseconds(first)).max(1) as f64;
        let each = nanoseconds / last.saturating_sub(first).max(1) as f64;
        Ok(Measured {
            messages: total,
            nanoseconds,
            fastest: self.stamps.fastest().map(|ticks| ticks * each),
        })
    }

    /// Until the window is over; then everything in flight is awaited.
    fn time(mut self, mut window: Window) -> Result<Measured, Failure> {
        let depth = self.setup.tx_depth as u64;
        let mut over = !self.initiates;
        loop {
            if self.initiates && !over {
                for (lane, flow) in self.lanes.iter_mut().zip(&mut *self.flows) {
                    let list = flow.list.len() as u64;
                    while lane.posted - lane.done + list <= depth {
                        flow.post(lane, false)?;
                    }
                }
            }
            let mut came = 0;
            let mut counted = 0;
            for lane in &mut *self.lanes {
                let (before, received) = (lane.done, lane.arrived);
                came += lane.poll()?;
                counted += if self.initiates {
                    lane.done - before
                } else {
                    lane.arrived - received
                };
            }
            if window.add(counted) && !over {
                over = true;
                self.finish()?;
            }
            let ended = !self.receives || self.lanes.iter().all(|lane| lane.ended);
            if over && ended {
                break;
            }
            if came == 0 {
                let done = self.lanes.iter().map(|lane| lane.done).sum();
                self.idle(done, 0, u64::MAX)?;
            } else {
                self.watch.came();
            }
        }
        let (messages, time) = window.close();
        Ok(Measured {
            messages,
            nanoseconds: (time.as_nanos() as f64).max(1.0),
            fastest: None,
        })
    }

    /// Posts a last list on each queue pair, all of it signalled, and waits for everything.
    fn finish(&mut self) -> Result<(), Failure> {
        let depth = self.setup.tx_depth as u64;
        for at in 0..self.lanes.len() {
            let list = self.flows[at].list.len() as u64;
            let mut said = false;
            loop {
                let lane = &mut self.lanes[at];
                if !said && lane.posted - lane.done + list <= depth {
                    self.flows[at].post(lane, true)?;
                    said = true;
                }
                let lane = &mut self.lanes[at];
                if said && lane.done == lane.posted {
                    break;
                }
                if lane.poll()? == 0 {
                    let done = lane.done;
                    self.idle(done, 0, u64::MAX)?;
                } else {
                    self.watch.came();
                }
            }
        }
        Ok(())
    }

    /// Sleeps on a queue pair that waits for something; each in turn, and shortly, where several do.
    fn sleep(&mut self) -> Result<bool, Failure> {
        let count = self.setup.iterations().unwrap_or(u64::MAX);
        let waits =
            |lane: &Lane| lane.done < lane.posted || (self.receives && lane.arrived < count && !lane.ended);
        let waiting = self.lanes.iter().filter(|lane| waits(lane)).count();
        let number = self.lanes.len();
        let next = (1..=number)
            .map(|step| (self.waited + step) % number)
            .find(|at| waits(&self.lanes[*at]));
        self.waited = next.unwrap_or(0);
        let until = if waiting > 1 {
            Instant::now() + SHORTLY
        } else {
            self.watch.nap()
        };
        self.lanes[self.waited].wait(until)
    }

    #[inline]
    fn idle(&mut self, done: u64, arrived: u64, total: u64) -> Result<(), Failure> {
        let (initiates, other) = (self.initiates, self.other.name());
        let what = move || {
            let of = if total == u64::MAX {
                String::new()
            } else {
                format!(" of {total}")
            };
            match initiates && done < total {
                true => format!("completions ({done}{of} messages are done)"),
                false => format!("messages of the {other} ({arrived}{of} have come)"),
            }
        };
        if self.setup.events {
            if !self.sleep()? {
                self.watch.look(&what)?;
            }
            return Ok(());
        }
        self.watch.nothing(&what).map(drop)
    }
}

/// Whether the peak is looked for: from the times of single messages, so only where they are few.
pub(super) fn has_peak(setup: &Setup, initiates: bool) -> bool {
    initiates && setup.iterations().is_some_and(|count| count <= MOST_FOR_PEAK)
}
