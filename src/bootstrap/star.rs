//! A job that meets over the network, seen from one of its ranks: its line to the hub, what the hub has said, and the
//! ranks on its own host, whom it meets at a Unix socket besides.
//!
//! Bytes go through the hub, encrypted from rank to hub and from hub to rank; descriptors go between the ranks of one
//! host and never over the network. Nothing in here waits for the hub beyond a deadline.

mod gone;
mod hearing;
mod surviving;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::control;
use super::inquiry::Inquiry;
use super::meanwhile::Meanwhile;
use super::message::{self, ContributionHeader, Kind, Leaving};
use super::near::Near;
use super::parts::{self, Brought};
use super::verdict::Verdict;
use super::{BootstrapError, Departure, DepartureKind, Gathered, Rank, tcp};
use gone::Gone;

/// How long a rank that leaves waits for the hub to have heard it.
const FAREWELL: Duration = Duration::from_millis(250);

/// One rank's part in it.
pub(super) struct Star {
    rank: Rank,
    line: Mutex<Line>,
    gone: Gone,
    near: Option<Near>,
    /// The number of the survivors' next attempt to come together; none, once one has ended well.
    attempt: AtomicU32,
    /// While this rank waits.
    pub(super) meanwhile: Meanwhile,
}

/// The connection to the hub.
struct Line {
    channel: Channel,
    /// The number of the latest step, from 1.
    sequence: u64,
    /// Why no step can be finished any more, as the others say.
    verdict: Option<BootstrapError>,
    /// Why this rank has given up.
    broken: Option<BootstrapError>,
    /// When the connection was last looked at for silence.
    looked: Instant,
}

impl Star {
    pub(super) fn new(rank: Rank, size: u32, channel: Channel) -> Self {
        Self {
            rank,
            line: Mutex::new(Line {
                channel,
                sequence: 0,
                verdict: None,
                broken: None,
                looked: Instant::now(),
            }),
            gone: Gone::nobody(size),
            near: None,
            attempt: AtomicU32::new(0),
            meanwhile: Meanwhile::default(),
        }
    }

    /// From here on descriptors go this way.
    pub(super) fn set_near(&mut self, near: Option<Near>) {
        self.near = near;
    }

    /// [`super::Membership::all_gather`], with a name and a payload that are short enough.
    pub(super) fn all_gather(
        &self,
        name: &str,
        payload: &[u8],
        descriptors: Vec<OwnedFd>,
        deadline: Instant,
    ) -> Result<Vec<Gathered>, BootstrapError> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &line.broken {
            return Err(error.clone());
        }
        let outcome = self
            .exchange(&mut line, name, payload, descriptors.len() as u32, deadline)
            .and_then(|brought| self.hand_round(name, brought, descriptors, deadline));
        outcome.inspect_err(|error| self.break_off(&mut line, error))
    }

    /// Ends the wait of whoever is in a step; that one tells the others. Where nobody is, they are told at once.
    pub(super) fn interrupt(&self) {
        self.meanwhile.interrupt();
        self.tell_of_interruption();
        // Who is in a step may be waiting for a host-mate.
        if let Some(near) = &self.near {
            near.interrupt();
        }
    }

    /// Tells the others of it, unless somebody holds the line: he does so when he lets go of it.
    fn tell_of_interruption(&self) {
        if self.is_interrupted()
            && let Ok(mut line) = self.line.try_lock()
            && line.broken.is_none()
        {
            let step = "between two steps".into();
            self.break_off(&mut line, &BootstrapError::Interrupted { step });
        }
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.meanwhile.is_interrupted()
    }

    /// Tells everybody that this rank has given up, and why.
    pub(super) fn give_up(&self, error: &BootstrapError) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        self.break_off(&mut line, error);
    }

    /// The same, for a reason of this rank's own.
    pub(super) fn give_up_for(&self, error: BootstrapError) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.broken.is_none() {
            self.break_off(&mut line, &error);
        }
    }

    fn break_off(&self, line: &mut Line, error: &BootstrapError) {
        let leaving = Leaving {
            how: DepartureKind::GaveUp,
            verdict: Some(Verdict::of(error, self.rank)),
            last: false,
        };
        line.channel.queue_body(Kind::Leaving, message::encode(&leaving));
        // A connection that cannot take it tells the hub enough when it is closed.
        let _ = line.channel.flush();
        if let Some(near) = &self.near {
            near.give_up();
        }
        line.broken = Some(error.clone());
    }

    fn exchange(
        &self,
        line: &mut Line,
        name: &str,
        payload: &[u8],
        apart: u32,
        deadline: Instant,
    ) -> Result<Vec<Brought>, BootstrapError> {
        let started = Instant::now();
        line.sequence += 1;
        let sequence = line.sequence;
        self.hear(line)?;
        if let Some(error) = self.hopeless(line, name) {
            return Err(error);
        }
        let header = ContributionHeader {
            step: name.into(),
            sequence,
            apart,
        };
        let body = message::encode_with_payload(&header, payload);
        line.channel.queue_body(Kind::Contribution, body);
        let mut brought: Vec<Option<Brought>> = vec![None; self.gone.size()];
        brought[self.rank as usize] = Some((payload.to_vec(), apart));
        let mut missing = brought.len() - 1;
        let mut inquiry = Inquiry::new(sequence, started, deadline);
        loop {
            line.channel.flush().map_err(protocol)?;
            // No further than this step: what comes after its last part belongs to the next one.
            while missing > 0
                && let Some(message) = line.channel.next_message()
            {
                match message.kind {
                    Kind::Parts => {
                        for (rank, part) in parts::split(message.body, sequence).map_err(protocol)? {
                            match brought.get_mut(rank as usize) {
                                Some(place @ None) => *place = Some(part),
                                Some(_) if rank == self.rank => continue,
                                _ => {
                                    return Err(protocol("passed on something that nobody waits for".into()));
                                }
                            }
                            missing -= 1;
                        }
                    }
                    Kind::Answer => inquiry.take(&message.body).map_err(protocol)?,
                    _ => {
                        self.note(line, message)?;
                        if let Some(error) = self.hopeless(line, name) {
                            return Err(error);
                        }
                    }
                }
            }
            if missing == 0 {
                return Ok(brought.into_iter().flatten().collect());
            }
            if line.channel.is_closed() {
                self.lose_hub(line);
                return Err(self.departed_in(name, 0));
            }
            if !self.meanwhile.waits_on() {
                return Err(BootstrapError::Interrupted { step: name.into() });
            }
            if Instant::now() >= deadline {
                return Err(self.overdue(&inquiry, name, started));
            }
            inquiry.ask(&mut line.channel);
            line.look_after_delivery();
            control::turn(&mut [&mut line.channel], |_| 0, deadline)?;
        }
    }

    /// Passes descriptors on among the ranks of this host, if any of them has brought some.
    fn hand_round(
        &self,
        name: &str,
        brought: Vec<Brought>,
        descriptors: Vec<OwnedFd>,
        deadline: Instant,
    ) -> Result<Vec<Gathered>, BootstrapError> {
        let own = self.rank as usize;
        let handed = match &self.near {
            Some(near) if near.ranks().iter().any(|rank| brought[*rank as usize].1 > 0) => {
                near.all_gather(name, descriptors, deadline)?
            }
            _ => vec![(self.rank, descriptors)],
        };
        let counts: Vec<u32> = brought.iter().map(|(_, apart)| *apart).collect();
        let mut all: Vec<Gathered> = brought
            .into_iter()
            .map(|(payload, _)| Gathered {
                payload,
                descriptors: Vec::new(),
            })
            .collect();
        for (rank, descriptors) in handed {
            if rank as usize != own && descriptors.len() != counts[rank as usize] as usize {
                return Err(BootstrapError::Protocol {
                    rank,
                    problem: format!("brought other descriptors to {name:?} than it said"),
                });
            }
            all[rank as usize].descriptors = descriptors;
        }
        Ok(all)
    }

    /// Waits for everybody in the join; steps are counted from there on.
    pub(super) fn assemble(&self, deadline: Instant) -> Result<(), BootstrapError> {
        self.all_gather("joining", &[], Vec::new(), deadline).map(drop)
    }

    /// In the join, before the first step: the error is why it cannot succeed any more.
    pub(super) fn still_joining(&self) -> Result<(), BootstrapError> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        self.hear(&mut line)?;
        self.hopeless(&line, "").map_or(Ok(()), Err)
    }

    /// All ranks that are gone, by rank, as the hub and this host's processes say. Does not block: where another
    /// thread holds the line, it takes the hub's news itself.
    pub(super) fn departures(&self) -> Vec<Departure> {
        self.take_news();
        let gone = |rank| {
            let how = self.gone.how(rank)?;
            Some(Departure { rank, how })
        };
        let mut departures: Vec<Departure> = (0..self.gone.size() as Rank).filter_map(gone).collect();
        if let Some(near) = &self.near {
            let near = near.departures();
            departures.extend(near.into_iter().filter(|gone| self.gone.how(gone.rank).is_none()));
            departures.sort_by_key(|gone| gone.rank);
        }
        departures
    }

    /// See [`super::Membership::ended`].
    pub(super) fn ended(&self) -> Vec<(Rank, DepartureKind)> {
        self.take_news();
        let mut ended = self.near.as_ref().map(Near::ended).unwrap_or_default();
        for rank in 0..self.gone.size() as Rank {
            if let (Some(how), true) = (self.gone.ended(rank), ended.iter().all(|one| one.0 != rank)) {
                ended.push((rank, how));
            }
        }
        ended.sort_by_key(|(rank, _)| *rank);
        ended
    }

    /// The address of this rank's host from which it speaks to rank 0's, and that of rank 0's; none on rank 0.
    pub(super) fn addresses(&self) -> (Option<IpAddr>, Option<IpAddr>) {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = line.channel.socket();
        let own = rustix::net::getsockname(socket).ok();
        let root = rustix::net::getpeername(socket).ok().flatten();
        let address = |any| SocketAddr::try_from(any).ok().map(|address| address.ip());
        (own.and_then(address), root.and_then(address))
    }

    /// Why a step cannot be finished: what the others gave up for, or that somebody is gone.
    fn hopeless(&self, line: &Line, name: &str) -> Option<BootstrapError> {
        if let Some(verdict) = &line.verdict {
            return Some(verdict.clone());
        }
        let gone = (0..self.gone.size() as Rank).filter_map(|rank| Some((self.gone.how(rank)?, rank)));
        let (_, rank) = gone.min()?;
        Some(self.departed_in(name, rank))
    }

    fn departed_in(&self, name: &str, rank: Rank) -> BootstrapError {
        BootstrapError::Departed {
            rank,
            how: self.gone.how(rank).unwrap_or(DepartureKind::Died),
            step: name.into(),
        }
    }

    fn overdue(&self, inquiry: &Inquiry, name: &str, started: Instant) -> BootstrapError {
        let (size, step, waited) = (self.gone.size() as u32, name.to_owned(), started.elapsed());
        match inquiry.behind() {
            None => BootstrapError::Unanswered { step, waited },
            Some([]) => BootstrapError::Unfinished { size, step, waited },
            Some(behind) => BootstrapError::Missing {
                ranks: behind.to_vec(),
                size,
                step,
                waited,
            },
        }
    }

    /// Tells the hub how this rank leaves, and waits a moment until it has heard: it then closes the connection.
    pub(super) fn leave(&mut self, panicking: bool) {
        let line = self.line.get_mut().unwrap_or_else(PoisonError::into_inner);
        let how = match (panicking, &line.broken) {
            (true, _) => DepartureKind::Panicked,
            (false, Some(_)) => DepartureKind::GaveUp,
            (false, None) => DepartureKind::Left,
        };
        let leaving = Leaving {
            how,
            verdict: None,
            last: true,
        };
        line.channel.queue_body(Kind::Leaving, message::encode(&leaving));
        let until = Instant::now() + FAREWELL;
        while Instant::now() < until && !line.channel.is_closed() {
            if line.channel.flush().is_err() {
                return;
            }
            // What still comes is for nobody; unread, it would have the kernel throw away what was just sent.
            if control::turn(&mut [&mut line.channel], |_| 0, until).is_err() {
                return;
            }
            while line.channel.next_message().is_some() {}
        }
    }
}

impl Line {
    fn look_after_delivery(&mut self) {
        if self.looked.elapsed() >= tcp::CHECK {
            self.looked = Instant::now();
            self.channel.look_after_delivery();
        }
    }
}

fn protocol(problem: String) -> BootstrapError {
    BootstrapError::Protocol { rank: 0, problem }
}
