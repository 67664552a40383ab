//! Several operations issued as one: all are checked before any is started, all are started before any is waited for.

use std::ops::Range;

use super::fusing::{Part, sets};
use super::point_to_point::{RECEIVE, SEND};
use super::request::{Fitted, Piece, Request};
use super::running::Held;
use super::window::Shared;
use super::{Communicator, CommunicatorError, Window};
use crate::engine::{Call, EngineError, Letter, MAXIMUM_ACTIVE, Ticket, Way};
use crate::memory::{DataType, Element};
use crate::plan::Collective;

/// The operations of a group, as they are named. See [`Communicator::group`].
#[derive(Debug)]
pub struct Group<'c, 'w> {
    communicator: &'c Communicator,
    members: Vec<Member<'w>>,
}

struct Member<'w> {
    name: &'static str,
    what: What,
    /// What it can be fused by, if it can.
    part: Option<Part>,
    shared: [Option<&'w Shared>; 2],
}

// One for each operation that is issued, and short-lived.
#[allow(clippy::large_enum_variant)]
enum What {
    Call(Call),
    Letter(Letter),
}

impl std::fmt::Debug for Member<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Communicator {
    /// Runs the operations that `name` adds to the group as one: none is started if one is refused, then all are
    /// started, in the order in which they were added (the same on every rank), then all are waited for. Small
    /// all-reduces of one type and operation are fused: they cost one wait for all ranks together, where ranks see each
    /// other's memory.
    ///
    /// ```
    /// use sapwood::{bootstrap::Job, communicator::{Communicator, Request}, engine::reduce::Operation};
    ///
    /// let job = Job::local(1)?.remove(0);
    /// let communicator = Communicator::builder().join(&job)?;
    /// let (mut gradients, mut counts) = (communicator.window::<f32>(100)?, communicator.window::<u64>(2)?);
    /// communicator.group(|group| {
    ///     group.add(&Request::all_reduce(Operation::Sum), &mut gradients)?;
    ///     group.add(&Request::broadcast(0), &mut counts)
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CommunicatorError::InGroup`] with the number of the operation, from 0, that was refused (nothing is started
    /// then, on this rank) or failed (then all the group's windows are in custody); what else `name` returns.
    pub fn group<'w>(
        &self,
        name: impl FnOnce(&mut Group<'_, 'w>) -> Result<(), CommunicatorError>,
    ) -> Result<(), CommunicatorError> {
        let mut group = Group {
            communicator: self,
            members: Vec::new(),
        };
        name(&mut group)?;
        group.run()
    }
}

impl<'w> Group<'_, 'w> {
    /// Adds a request in place.
    ///
    /// # Errors
    /// As [`Communicator::call`] refuses it, with its number.
    pub fn add<T: Element>(
        &mut self,
        request: &Request,
        window: &'w mut Window<T>,
    ) -> Result<(), CommunicatorError> {
        let all = 0..window.len();
        let piece = self.communicator.piece(request.name(), window, all);
        let fitted = piece.and_then(|piece| self.communicator.fit(request, T::TYPE, piece, None));
        self.take(request, fitted)
    }

    /// Adds a request out of place.
    ///
    /// # Errors
    /// As [`Communicator::call_into`] refuses it, with its number.
    pub fn add_into<T: Element>(
        &mut self,
        request: &Request,
        input: &'w Window<T>,
        result: &'w mut Window<T>,
    ) -> Result<(), CommunicatorError> {
        let communicator = self.communicator;
        let (all, whole) = (0..input.len(), 0..result.len());
        let fitted = communicator
            .read_piece(request.name(), input, all)
            .and_then(|input| {
                let result = communicator.piece(request.name(), result, whole)?;
                communicator.fit(request, T::TYPE, input, Some(result))
            });
        self.take(request, fitted)
    }

    /// Adds a message to another rank: see [`Communicator::send`].
    ///
    /// # Errors
    /// As that refuses it, with its number.
    pub fn send<T: Element>(
        &mut self,
        window: &'w Window<T>,
        range: Range<usize>,
        to: u32,
        tag: u32,
    ) -> Result<(), CommunicatorError> {
        let piece = self.communicator.read_piece(SEND, window, range);
        self.take_letter(Way::Send, piece, T::TYPE, to, tag)
    }

    /// Adds a message from another rank: see [`Communicator::receive`].
    ///
    /// # Errors
    /// As that refuses it, with its number.
    pub fn receive<T: Element>(
        &mut self,
        window: &'w mut Window<T>,
        range: Range<usize>,
        from: u32,
        tag: u32,
    ) -> Result<(), CommunicatorError> {
        let piece = self.communicator.piece(RECEIVE, window, range);
        self.take_letter(Way::Receive, piece, T::TYPE, from, tag)
    }

    fn take_letter(
        &mut self,
        way: Way,
        piece: Result<Piece<'w>, CommunicatorError>,
        data_type: DataType,
        peer: u32,
        tag: u32,
    ) -> Result<(), CommunicatorError> {
        let name = if way == Way::Send { SEND } else { RECEIVE };
        let number = self.members.len();
        let letter = piece.and_then(|piece| {
            let letter = self.communicator.letter(way, piece, data_type, peer, tag)?;
            Ok((letter, piece.shared))
        });
        let (letter, shared) = letter.map_err(|source| named(number, name, source))?;
        self.push(name, What::Letter(letter), None, [Some(shared), None])
    }

    fn take(
        &mut self,
        request: &Request,
        fitted: Result<Fitted<'w>, CommunicatorError>,
    ) -> Result<(), CommunicatorError> {
        let number = self.members.len();
        let named = |source| named(number, request.name(), source);
        let fitted = fitted.map_err(named)?;
        let call = self.communicator.prepare(&fitted, Some(0)).map_err(named)?;
        self.push(request.name(), What::Call(call), fitted.part(), fitted.shared())
    }

    fn push(
        &mut self,
        name: &'static str,
        what: What,
        part: Option<Part>,
        shared: [Option<&'w Shared>; 2],
    ) -> Result<(), CommunicatorError> {
        let number = self.members.len();
        if number == MAXIMUM_ACTIVE {
            let what = format!("a group has at most {MAXIMUM_ACTIVE} operations");
            return Err(named(number, name, self.communicator.argument(name, what)));
        }
        self.members.push(Member {
            name,
            what,
            part,
            shared,
        });
        Ok(())
    }

    fn run(self) -> Result<(), CommunicatorError> {
        let Self {
            communicator,
            members,
        } = self;
        let engine = communicator.engine();
        // Small all-reduces go together, when all others have been started.
        let parts: Vec<Option<Part>> = members.iter().map(|member| member.part).collect();
        let fits = |bytes| communicator.flat_way(Collective::AllReduce, bytes).is_some();
        let sets = sets(&parts, fits);
        let is_fused = |number: &usize| sets.iter().flatten().any(|fused| fused == number);
        let calls = (members.iter().enumerate())
            .filter(|(number, member)| matches!(member.what, What::Call(_)) && !is_fused(number))
            .count() as u64;
        communicator.make_room(calls)?;
        let mut next = communicator.reserve(calls);
        // A panic on the way takes the windows into custody too.
        let names: Vec<&'static str> = members.iter().map(|member| member.name).collect();
        let held = members
            .iter()
            .map(|member| Held(member.shared))
            .collect::<Vec<_>>();
        let mut started: Vec<(usize, Option<u64>, Ticket)> = Vec::with_capacity(members.len());
        let mut failure = None;
        for (number, Member { what, .. }) in members.into_iter().enumerate() {
            if is_fused(&number) {
                continue;
            }
            let ticket = Ticket::default();
            let (sequence, outcome) = match what {
                What::Call(call) => {
                    let sequence = next;
                    next += 1;
                    // SAFETY: the windows are borrowed until this returns, and it returns after the end of all.
                    let outcome = unsafe { engine.start_as(Call { sequence, ..call }, ticket.clone()) };
                    (Some(sequence), outcome)
                }
                What::Letter(letter) => {
                    let letter = communicator.numbered(letter);
                    // SAFETY: as above.
                    (None, unsafe { engine.post(letter, ticket.clone()) })
                }
            };
            if let Err(error) = outcome {
                failure = Some((number, error));
                break;
            }
            started.push((number, sequence, ticket));
        }
        for set in sets.iter().filter(|_| failure.is_none()) {
            let fused: Vec<Part> = set.iter().filter_map(|number| parts[*number]).collect();
            // SAFETY: as above.
            if let Err(error) = unsafe { communicator.fused(&fused) } {
                failure = Some((set[0], error));
                break;
            }
        }
        for (number, _, ticket) in &started {
            let Err(error) = engine.wait(ticket) else { continue };
            if failure.is_some() {
                continue;
            }
            // One failure ends all that is in progress: it says itself which it is about.
            let about = error.sequence();
            let about = started
                .iter()
                .find(|(_, sequence, _)| about.is_some() && *sequence == about);
            failure = Some((about.map_or(*number, |(number, ..)| *number), error));
        }
        match &failure {
            None => held.into_iter().for_each(std::mem::forget),
            // What was refused has touched nothing, and the rest has ended.
            Some((_, EngineError::Letter { .. })) if engine.check().is_ok() => {
                held.into_iter().for_each(std::mem::forget);
            }
            Some(_) => drop(held),
        }
        match failure {
            None => Ok(()),
            Some((number, error)) => Err(named(number, names[number], error.into())),
        }
    }
}

fn named(number: usize, call: &'static str, source: CommunicatorError) -> CommunicatorError {
    CommunicatorError::InGroup {
        number,
        call,
        source: Box::new(source),
    }
}
