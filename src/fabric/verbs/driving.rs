//! What keeps an endpoint going: takes completions from the device and hands them out, looks now and then at the
//! device's events and at silent peers, and sees connections to their end.

use std::time::{Duration, Instant};

use super::completion_queue::BATCH;
use super::connection::{Connection, Sink};
use super::endpoint::VerbsEndpoint;
use super::ticket::{Side, Ticket};
use crate::fabric::state::State;
use crate::fabric::{Completion, FabricError, Fence};

/// How often polls look at the device's events and at silent peers.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How many polls pass between two looks at the clock.
const POLLS_PER_LOOK: i32 = 128;
/// How long a fence waits for the device to give back what is in flight before it destroys the queue pairs.
const DRAIN: Duration = Duration::from_millis(200);
/// How long dropping an endpoint waits for requests that are on their way.
const LINGER: Duration = Duration::from_millis(100);

impl VerbsEndpoint {
    /// Takes at most `limit` completions from the device; those for the caller go `into`, and to the backlog where
    /// there is no room. How many there were.
    #[inline]
    pub(super) fn take_in(&mut self, limit: usize, into: &mut Vec<Completion>) -> Result<usize, FabricError> {
        let count = self.queue.take(limit);
        self.hand_out(count, into)
    }

    /// See [`Endpoint::poll`]: everything that there can be.
    #[cold]
    #[inline(never)]
    pub(super) fn poll_all(&mut self, into: &mut Vec<Completion>) -> Result<usize, FabricError> {
        self.birthplace.check(FabricError::Forked)?;
        self.bell.lower();
        self.news = false;
        self.act_on_events();
        let before = into.len();
        if !self.backlog.is_empty() {
            let count = self.backlog.len().min(into.capacity() - before);
            into.extend(self.backlog.drain(..count));
        }
        let room = into.capacity() - into.len();
        if room > 0 {
            self.take_in(room, into)?;
        }
        if Instant::now() >= self.look_from {
            self.look()?;
        }
        self.polls_left = if self.news || !self.backlog.is_empty() {
            0
        } else {
            POLLS_PER_LOOK
        };
        Ok(into.len() - before)
    }

    /// See [`Endpoint::poll`]: the device gave something else than the end of one of `lone`'s requests.
    #[cold]
    #[inline(never)]
    pub(super) fn poll_other(
        &mut self,
        count: i32,
        into: &mut Vec<Completion>,
    ) -> Result<usize, FabricError> {
        if count == 1 {
            let report = self.queue.first();
            let at = Ticket::connection_of(report.wr_id);
            if let Some(connection) = self.connections.get_mut(at)
                && connection.oldest_completed(report, into, &mut self.budget)
            {
                return Ok(1);
            }
        }
        self.poll_taken(count, into)
    }

    /// Goes on where something was taken from the device: takes back the alarm, and hands out what it is.
    #[inline(never)]
    pub(super) fn poll_taken(
        &mut self,
        count: i32,
        into: &mut Vec<Completion>,
    ) -> Result<usize, FabricError> {
        self.bell.lower();
        self.act_on_events();
        let before = into.len();
        if count != 0 {
            self.hand_out(count, into)?;
        }
        Ok(into.len() - before)
    }

    /// The next poll is to look at the backlog, if there is any.
    #[inline]
    pub(super) fn mind_backlog(&mut self) {
        if !self.backlog.is_empty() {
            self.polls_left = 0;
        }
    }

    #[inline]
    pub(super) fn hand_out(&mut self, count: i32, into: &mut Vec<Completion>) -> Result<usize, FabricError> {
        if self.queue.has_flushed(count) {
            self.ask_why(count)?;
        }
        let mut sink = Sink {
            into,
            backlog: &mut self.backlog,
            budget: &mut self.budget,
        };
        let reports = self.queue.taken(count)?;
        for report in reports {
            let ticket = Ticket::from_number(report.wr_id);
            let Some(connection) = self.connections.get_mut(usize::from(ticket.connection)) else {
                continue;
            };
            match ticket.side {
                Side::Request => connection.request_completed(ticket, report, &mut sink),
                Side::Receive => connection.receive_completed(ticket, report, &mut sink),
            }
        }
        let count = reports.len();
        self.mind_backlog();
        Ok(count)
    }

    /// Whether `poll` has something to do. Takes completions from the device, for the backlog.
    pub(super) fn has_work(&mut self) -> Result<bool, FabricError> {
        if self.news || self.bell.is_raised() || !self.backlog.is_empty() {
            // The next poll is to take it all up.
            self.polls_left = 0;
            return Ok(true);
        }
        self.act_on_events();
        Ok(self.news || self.take_in(BATCH, &mut Vec::new())? > 0)
    }

    /// Reads the device's events, acts upon them, and asks for silent peers.
    pub(super) fn look(&mut self) -> Result<(), FabricError> {
        self.listener.read()?;
        self.act_on_events();
        let now = Instant::now();
        self.look_from = now + LOOK_EVERY;
        for connection in &mut self.connections {
            connection.ask_for_peer(now);
        }
        match &self.broken {
            None => Ok(()),
            Some(what) => Err(FabricError::System {
                fabric: super::NAME,
                what: format!("the endpoint of rank {} on {}", self.rank, self.device.place()),
                source: std::io::Error::other(what.clone()),
            }),
        }
    }

    /// One atomic load where there is nothing.
    #[inline]
    pub(super) fn act_on_events(&mut self) {
        if self.listener.has_some() {
            self.act_on_all();
        }
    }

    #[cold]
    pub(super) fn act_on_all(&mut self) {
        while let Some(event) = self.listener.take() {
            self.act_on(event);
        }
    }

    /// Sends everything of a connection back and destroys its queue pairs.
    pub(super) fn close(&mut self, at: usize, deadline: Instant) -> Fence {
        self.connections[at].disconnect();
        let until = deadline.min(Instant::now() + DRAIN);
        while !self.connections[at].is_drained() && Instant::now() < until {
            match self.take_in(BATCH, &mut Vec::new()) {
                Ok(0) => std::thread::yield_now(),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        let mut sink = Sink {
            into: &mut Vec::new(),
            backlog: &mut self.backlog,
            budget: &mut self.budget,
        };
        let closed = self.connections[at].close(&mut sink);
        self.mind_backlog();
        match closed {
            Ok(()) => Fence::Fenced,
            Err(error) => {
                tracing::error!(%error, "nothing is known about what the peer can still reach");
                Fence::Quarantined
            }
        }
    }

    /// Something happened that `poll` is to be called for.
    pub(super) fn tell(&mut self) {
        self.news = true;
        self.polls_left = 0;
    }

    pub(super) fn break_down(&mut self, why: String) {
        self.broken = Some(why);
        self.tell();
    }

    /// Waits until requests that are on their way have arrived, or for [`LINGER`].
    pub(super) fn linger(&mut self) {
        for connection in &mut self.connections {
            connection.ask_for_the_end();
        }
        let until = Instant::now() + LINGER;
        let waiting =
            |connection: &Connection| connection.state == State::Connected && !connection.requests.is_empty();
        while self.connections.iter().any(|one| waiting(one)) && Instant::now() < until {
            match self.take_in(BATCH, &mut Vec::new()) {
                Ok(0) => std::thread::yield_now(),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// All connections to their end; everything goes to the error state first, so that it is drained together.
    pub(super) fn close_all(&mut self) {
        for connection in &mut self.connections {
            connection.disconnect();
        }
        let until = Instant::now() + DRAIN;
        for at in 0..self.connections.len() {
            self.close(at, until);
        }
    }
}
