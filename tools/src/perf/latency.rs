//! One message at a time: from one side to the other and back (write, send), or to the other side's memory and back
//! (read, atomic). A sample is the time from one post to the next, as in perftest.

use sapwood::fabric::{Operation, Request};

use super::lane::{EAGER, LAST};
use super::session::{Notification, Session};
use super::setup::{Length, Setup};
use super::watch::{Side, Watch};
use super::window::Window;
use crate::output::Failure;

/// The mark of the last message in memory; the others are marked 1 to [`MARKS`] in turn.
const LAST_MARK: u8 = 0xff;
const MARKS: u64 = 127;

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Measured {
    /// Nanoseconds of each iteration, in order.
    Samples(Vec<f64>),
    /// Iterations in a window of so many nanoseconds.
    Window { iterations: u64, nanoseconds: f64 },
}

/// One size, on one side. `None` on a side that measures nothing.
pub(super) fn measure(session: &mut Session, size: usize) -> Result<Option<Measured>, Failure> {
    let side = session.side();
    let place = session.lanes[0].place;
    let receives = session.notification == Notification::Receive;
    session.lanes[0].begin(receives);
    if receives {
        let depth = session.setup.rx_depth;
        session.lanes[0].fill(depth)?;
    }
    session.memory.set_byte(place.into + size - 1, 0);
    session.together(&format!("measuring {size} bytes"))?;
    if session.notification == Notification::None && side == Side::Server {
        return Ok(None);
    }
    let samples = session.setup.iterations().unwrap_or(0) as usize;
    // Touched here, so that no page is faulted in between two samples.
    let mut stamps = vec![u64::MAX; samples + 1];
    stamps.clear();
    let mut window = match session.setup.length {
        Length::Time(time) => Some(Window::start(time).map_err(|error| Failure::Check(error.to_string()))?),
        Length::Iterations(_) => None,
    };
    let mut run = Run::new(session, size);
    let iterations = run.setup.iterations();
    if let (false, Some(iterations)) = (run.answers, iterations) {
        run.fetch(iterations, &mut stamps)?;
    }
    loop {
        let number = run.lane.posted;
        if iterations.is_some_and(|iterations| number == iterations) {
            break;
        }
        // The server answers, so it never begins; the client does not wait before its first message.
        if run.answers && (number > 0 || side == Side::Server) {
            run.message(number + u64::from(side == Side::Server))?;
        }
        if window.is_none() {
            stamps.push(run.clock.now());
        }
        // Who initiates says when a timed test is over; the other answers that, too.
        let over = match &mut window {
            Some(window) => window.add(u64::from(number > 0)) && (side == Side::Client || !run.answers),
            None => false,
        };
        let last = over || run.ended;
        run.post(number, last)?;
        if last {
            break;
        }
    }
    if side == Side::Client && run.answers {
        let number = run.lane.posted;
        run.message(number)?;
    }
    if side == Side::Client {
        stamps.push(run.clock.now());
    }
    Ok(Some(match window {
        Some(window) => {
            let (iterations, time) = window.close();
            Measured::Window {
                iterations,
                nanoseconds: time.as_nanos() as f64,
            }
        }
        None => Measured::Samples(intervals(&stamps, session)),
    }))
}

/// Nanoseconds between the stamps.
fn intervals(stamps: &[u64], session: &Session) -> Vec<f64> {
    let conversion = session.clock.conversion();
    let (first, last) = match stamps {
        [first, .., last] => (*first, *last),
        _ => return Vec::new(),
    };
    let ticks = last.saturating_sub(first).max(1) as f64;
    let each = (conversion.nanoseconds(last) - conversion.nanoseconds(first)) as f64 / ticks;
    stamps
        .windows(2)
        .map(|pair| pair[1].saturating_sub(pair[0]) as f64 * each)
        .collect()
}

/// What a loop of messages needs, apart from the session's other parts.
struct Run<'a> {
    setup: &'a Setup,
    lane: &'a mut super::lane::Lane,
    memory: &'a super::memory::Memory,
    clock: &'a sapwood::observe::Clock,
    watch: Watch<'a>,
    request: Request,
    notification: Notification,
    /// Messages come back.
    answers: bool,
    /// The byte that is looked at, and the one that the other side looks at.
    theirs: usize,
    ours: usize,
    /// The other side's last message has come.
    ended: bool,
    other: Side,
}

impl<'a> Run<'a> {
    fn new(session: &'a mut Session, size: usize) -> Self {
        let watch = Watch::new(
            session.meeting.membership(),
            session.meeting.side(),
            session.setup.timeout,
        );
        let lane = &mut session.lanes[0];
        Self {
            request: lane.request(&session.setup, size),
            setup: &session.setup,
            memory: &session.memory,
            clock: &session.clock,
            notification: session.notification,
            answers: session.notification != Notification::None,
            theirs: lane.place.into + size - 1,
            ours: lane.place.out + size - 1,
            ended: false,
            other: session.meeting.side().other(),
            lane,
            watch,
        }
    }

    /// Waits for the other side's message of this number, from 1.
    #[inline]
    fn message(&mut self, number: u64) -> Result<(), Failure> {
        if self.notification == Notification::Memory {
            self.mark(number)
        } else {
            self.receive(number)
        }
    }

    #[inline]
    fn mark(&mut self, number: u64) -> Result<(), Failure> {
        let expected = mark(number);
        let byte = self.memory.byte(self.theirs);
        let other = self.other.name();
        loop {
            let found = byte.load(std::sync::atomic::Ordering::Acquire);
            if found == expected || found == LAST_MARK {
                self.ended = found == LAST_MARK;
                self.watch.came();
                return Ok(());
            }
            if self
                .watch
                .nothing(&|| format!("message {number} of the {other} in memory"))?
            {
                // A write that fails here (the other side is gone) shows in a completion.
                self.lane.poll()?;
            }
        }
    }

    #[inline]
    fn receive(&mut self, number: u64) -> Result<(), Failure> {
        let other = self.other.name();
        while self.lane.arrived < number {
            if self.lane.poll_eagerly()? == 0 {
                self.idle(&|| format!("message {number} of the {other}"))?;
            }
        }
        self.ended = self.lane.ended;
        self.watch.came();
        Ok(())
    }

    /// Reads or atomics, one after the other. Between a completion and the next post there is a reading of the clock and
    /// nothing else: a device may still be busy with the one and take the other up at no cost, or just miss it and
    /// have to be woken.
    fn fetch(&mut self, iterations: u64, stamps: &mut Vec<u64>) -> Result<(), Failure> {
        let mut number = 0;
        self.request.id = number;
        while number < iterations {
            stamps.push(self.clock.now());
            self.lane.post(std::slice::from_ref(&self.request))?;
            self.watch.came();
            number += 1;
            self.request.id = number;
            while self.lane.done < number {
                if self.lane.poll_eagerly()? == 0 {
                    self.idle(&|| format!("the completion of message {number}"))?;
                }
            }
        }
        Ok(())
    }

    /// Posts message `number`, from 0, and waits for its completion.
    #[inline]
    fn post(&mut self, number: u64, last: bool) -> Result<(), Failure> {
        self.request.id = number;
        match &mut self.request.operation {
            Operation::Send { immediate, .. } => *immediate = last.then_some(LAST),
            Operation::Write {
                immediate: Some(immediate),
                ..
            } => {
                *immediate = if last { LAST } else { number as u32 & (LAST >> 1) };
            }
            Operation::Write { .. } => {
                let value = if last { LAST_MARK } else { mark(number + 1) };
                self.memory.set_byte(self.ours, value);
            }
            _ => {}
        }
        self.lane.post(std::slice::from_ref(&self.request))?;
        while self.lane.done <= number {
            if self.lane.poll_eagerly()? == 0 {
                self.idle(&|| format!("the completion of message {}", number + 1))?;
            }
        }
        self.watch.came();
        Ok(())
    }

    #[inline]
    fn idle(&mut self, what: &dyn Fn() -> String) -> Result<(), Failure> {
        if self.setup.events {
            if !self.lane.wait(self.watch.nap())? {
                self.watch.look(what)?;
            }
            return Ok(());
        }
        self.watch.nothing_in(EAGER, what).map(drop)
    }
}

/// The mark of a message, from 1.
fn mark(number: u64) -> u8 {
    ((number - 1) % MARKS) as u8 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_have_different_marks_and_none_is_the_last() {
        let marks: Vec<u8> = (1..1000).map(mark).collect();
        assert!(marks.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(!marks.contains(&LAST_MARK) && !marks.contains(&0));
    }
}
