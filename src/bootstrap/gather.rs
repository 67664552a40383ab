//! The collective exchange: contributions go in to rank 0, which passes each on to all others.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::channel::Channel;
use super::control::{self, Control};
use super::liveness::{DepartureKind, Liveness};
use super::message::{self, ContributionHeader, Kind, RelayedHeader};
use super::one_host::State;
use super::roll::Roll;
use super::verdict::Verdict;
use super::{BootstrapError, Gathered, Rank};

/// What a rank that has given up has said of why.
pub(super) fn why(roll: &Roll, rank: Rank) -> Option<BootstrapError> {
    let verdict: Verdict = message::decode(&roll.why(rank)?).ok()?;
    Some(verdict.into_error())
}

/// One collective step, as one rank sees it.
struct Step<'step> {
    liveness: &'step Liveness,
    name: &'step str,
    sequence: u64,
    started: Instant,
    deadline: Instant,
}

pub(super) fn all_gather(
    liveness: &Liveness,
    state: &mut State,
    name: &str,
    payload: &[u8],
    descriptors: Vec<OwnedFd>,
    deadline: Instant,
) -> Result<Vec<Gathered>, BootstrapError> {
    state.sequence += 1;
    let step = Step {
        liveness,
        name,
        sequence: state.sequence,
        started: Instant::now(),
        deadline,
    };
    liveness.roll.come_to(liveness.rank, step.sequence);
    match &mut state.control {
        Control::Leaf(channel) => step.at_leaf(channel, payload, descriptors),
        Control::Root(channels) => {
            let own = Gathered {
                payload: payload.to_vec(),
                descriptors,
            };
            step.at_root(channels, own)
                .inspect_err(|error| control::tell_all(channels.iter_mut(), error))
        }
    }
}

impl Step<'_> {
    fn at_root(&self, channels: &mut [Channel], own: Gathered) -> Result<Vec<Gathered>, BootstrapError> {
        let mut gathered: Vec<Option<Gathered>> = Vec::with_capacity(channels.len() + 1);
        gathered.push(Some(own));
        gathered.resize_with(channels.len() + 1, || None);
        loop {
            for (channel, place) in channels.iter_mut().zip(1..) {
                self.take_contribution(channel, place, &mut gathered[place as usize])?;
            }
            if let Some(departure) = self.liveness.first() {
                return Err(self.departure(departure.rank, departure.how));
            }
            let missing: Vec<Rank> = (0..)
                .zip(&gathered)
                .filter(|(_, g)| g.is_none())
                .map(|(rank, _)| rank)
                .collect();
            if missing.is_empty() {
                break;
            }
            self.still()?;
            if Instant::now() >= self.deadline {
                return Err(self.missing(missing));
            }
            self.turn(channels)?;
        }
        self.relay(channels, gathered.into_iter().flatten().collect())
    }

    /// Takes what a rank has sent, which can only be its contribution to this step.
    fn take_contribution(
        &self,
        channel: &mut Channel,
        rank: Rank,
        place: &mut Option<Gathered>,
    ) -> Result<(), BootstrapError> {
        let protocol = |problem: String| BootstrapError::Protocol { rank, problem };
        while let Some(message) = channel.next_message() {
            if message.kind != Kind::Contribution || place.is_some() {
                return Err(protocol(format!(
                    "sent a {:?} in the middle of {:?}",
                    message.kind, self.name
                )));
            }
            let (header, payload): (ContributionHeader, _) =
                message::decode_with_payload(message.body).map_err(protocol)?;
            if (header.step.as_str(), header.sequence) != (self.name, self.sequence) {
                return Err(BootstrapError::Mismatch {
                    rank,
                    step: header.step,
                    sequence: header.sequence,
                    other_rank: 0,
                    other_step: self.name.into(),
                    other_sequence: self.sequence,
                });
            }
            *place = Some(Gathered {
                payload,
                descriptors: message.descriptors,
            });
        }
        Ok(())
    }

    fn relay(&self, channels: &mut [Channel], all: Vec<Gathered>) -> Result<Vec<Gathered>, BootstrapError> {
        let mut kept = Vec::with_capacity(all.len());
        for (rank, gathered) in (0..).zip(all) {
            let header = RelayedHeader {
                rank,
                sequence: self.sequence,
            };
            let body = Arc::new(message::encode_with_payload(&header, &gathered.payload));
            let mut descriptors = Arc::new(gathered.descriptors);
            for (channel, other) in channels.iter_mut().zip(1..) {
                if other != rank {
                    // Descriptors are for those who could also share memory.
                    let shared = if self.on_one_host(rank, other) {
                        Arc::clone(&descriptors)
                    } else {
                        Arc::default()
                    };
                    channel.queue(Kind::Relayed, Arc::clone(&body), shared);
                }
            }
            if !self.on_one_host(rank, 0) {
                descriptors = Arc::default();
            }
            kept.push((gathered.payload, descriptors));
        }
        // From here on the step succeeds for whoever is still there: a rank that dies now is the next step's affair.
        loop {
            for (channel, rank) in channels.iter_mut().zip(1..) {
                channel
                    .flush()
                    .map_err(|problem| BootstrapError::Protocol { rank, problem })?;
            }
            let Some(slow) = channels.iter().position(|channel| !channel.is_flushed()) else {
                break;
            };
            if Instant::now() >= self.deadline {
                let problem = format!(
                    "did not take the answer of {:?} before the deadline: is it stopped?",
                    self.name
                );
                return Err(BootstrapError::Protocol {
                    rank: slow as Rank + 1,
                    problem,
                });
            }
            self.turn(channels)?;
        }
        kept.into_iter()
            .map(|(payload, descriptors)| {
                let descriptors = match Arc::try_unwrap(descriptors) {
                    Ok(descriptors) => descriptors,
                    Err(shared) => shared
                        .iter()
                        .map(OwnedFd::try_clone)
                        .collect::<Result<_, _>>()
                        .map_err(|error| {
                            rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO)
                        })
                        .map_err(BootstrapError::system("duplicating descriptors"))?,
                };
                Ok(Gathered { payload, descriptors })
            })
            .collect()
    }

    fn at_leaf(
        &self,
        channel: &mut Channel,
        payload: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<Vec<Gathered>, BootstrapError> {
        let protocol = |problem: String| BootstrapError::Protocol { rank: 0, problem };
        let header = ContributionHeader {
            step: self.name.into(),
            sequence: self.sequence,
            apart: 0,
        };
        let descriptors = Arc::new(descriptors);
        let body = Arc::new(message::encode_with_payload(&header, payload));
        channel.queue(Kind::Contribution, body, Arc::clone(&descriptors));
        channel.flush().map_err(protocol)?;

        let mut relayed: Vec<Option<Gathered>> = Vec::new();
        relayed.resize_with(self.liveness.peers.len(), || None);
        let mut waiting_for = relayed.len() - 1;
        while waiting_for > 0 {
            // No further than this step: what comes after its last part belongs to the next one.
            while waiting_for > 0
                && let Some(message) = channel.next_message()
            {
                match message.kind {
                    Kind::Verdict => {
                        return Err(message::decode::<Verdict>(&message.body)
                            .map_err(protocol)?
                            .into_error());
                    }
                    Kind::Relayed => {
                        let (header, payload): (RelayedHeader, _) =
                            message::decode_with_payload(message.body).map_err(protocol)?;
                        let place = relayed.get_mut(header.rank as usize);
                        match place {
                            Some(place @ None)
                                if header.rank != self.liveness.rank && header.sequence == self.sequence =>
                            {
                                *place = Some(Gathered {
                                    payload,
                                    descriptors: message.descriptors,
                                });
                                waiting_for -= 1;
                            }
                            _ => return Err(protocol("passed on something that nobody waits for".into())),
                        }
                    }
                    kind => {
                        return Err(protocol(format!(
                            "sent a {kind:?} in the middle of {:?}",
                            self.name
                        )));
                    }
                }
            }
            if waiting_for == 0 {
                break;
            }
            if channel.is_closed() {
                let how = self
                    .liveness
                    .departures()
                    .into_iter()
                    .find(|departure| departure.rank == 0);
                return Err(self.departure(0, how.map_or(DepartureKind::Died, |departure| departure.how)));
            }
            self.still()?;
            if Instant::now() >= self.deadline {
                return Err(self.missing(self.liveness.roll.behind(self.sequence)));
            }
            // Rank 0 rules on who is gone once it has come to this step. If it had not when the departure was seen,
            // it will see the departure too, and this rank need not wait to say the same. Rank 0's own end shows on
            // the channel, after what it still had to say; that it gives up before it comes here, on the roll alone.
            let gone = self
                .liveness
                .departures()
                .into_iter()
                .filter(|gone| gone.rank != 0 || gone.how == DepartureKind::GaveUp)
                .min_by_key(|gone| gone.how);
            if let Some(gone) = gone
                && self.liveness.roll.behind(self.sequence).contains(&0)
            {
                return Err(self.departure(gone.rank, gone.how));
            }
            control::turn(&mut [&mut *channel], |_| 0, self.deadline)?;
        }
        let descriptors = Arc::into_inner(descriptors).unwrap_or_default();
        relayed[self.liveness.rank as usize] = Some(Gathered {
            payload: payload.to_vec(),
            descriptors,
        });
        Ok(relayed.into_iter().flatten().collect())
    }

    fn still(&self) -> Result<(), BootstrapError> {
        if !self.liveness.meanwhile.waits_on() {
            return Err(BootstrapError::Interrupted {
                step: self.name.into(),
            });
        }
        Ok(())
    }

    fn on_one_host(&self, one: Rank, other: Rank) -> bool {
        let peers = &self.liveness.peers;
        peers[one as usize].host == peers[other as usize].host
    }

    fn turn(&self, channels: &mut [Channel]) -> Result<(), BootstrapError> {
        let mut channels: Vec<&mut Channel> = channels.iter_mut().collect();
        control::turn(&mut channels, |index| index as Rank + 1, self.deadline)
    }

    fn missing(&self, ranks: Vec<Rank>) -> BootstrapError {
        let (size, step, waited) = (
            self.liveness.peers.len() as u32,
            self.name.to_owned(),
            self.started.elapsed(),
        );
        if ranks.is_empty() {
            return BootstrapError::Unfinished { size, step, waited };
        }
        BootstrapError::Missing {
            ranks,
            size,
            step,
            waited,
        }
    }

    /// A rank that gave up on this step did so because of others: it is they who are named.
    fn departure(&self, rank: Rank, how: DepartureKind) -> BootstrapError {
        if let Some(error) = why(&self.liveness.roll, rank) {
            return error;
        }
        let behind = self.liveness.roll.behind(self.sequence);
        if how == DepartureKind::GaveUp && !behind.is_empty() && !behind.contains(&rank) {
            return self.missing(behind);
        }
        BootstrapError::Departed {
            rank,
            how,
            step: self.name.into(),
        }
    }
}
