//! Several operations issued as one: all are checked before any is started, all are started before any is waited for.

use super::request::{Fitted, Request};
use super::running::Held;
use super::window::Shared;
use super::{Communicator, CommunicatorError, Window};
use crate::engine::{Call, MAXIMUM_ACTIVE, Ticket};
use crate::memory::Element;

/// The operations of a group, as they are named. See [`Communicator::group`].
#[derive(Debug)]
pub struct Group<'c, 'w> {
    communicator: &'c Communicator,
    members: Vec<Member<'w>>,
}

struct Member<'w> {
    call: Call,
    shared: [Option<&'w Shared>; 2],
}

impl std::fmt::Debug for Member<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.call.signature.collective())
    }
}

impl Communicator {
    /// Runs the operations that `name` adds to the group as one: none is started if one is refused, then all are
    /// started, in the order in which they were added (the same on every rank), then all are waited for.
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

    fn take(
        &mut self,
        request: &Request,
        fitted: Result<Fitted<'w>, CommunicatorError>,
    ) -> Result<(), CommunicatorError> {
        let number = self.members.len();
        let named = |source| named(number, request.name(), source);
        let fitted = fitted.map_err(named)?;
        if number == MAXIMUM_ACTIVE {
            let what = format!("a group has at most {MAXIMUM_ACTIVE} operations");
            return Err(named(self.communicator.argument(request.name(), what)));
        }
        let call = self.communicator.prepare(&fitted, Some(0)).map_err(named)?;
        let shared = fitted.shared();
        self.members.push(Member { call, shared });
        Ok(())
    }

    fn run(self) -> Result<(), CommunicatorError> {
        let engine = self.communicator.engine();
        let first = self.communicator.reserve(self.members.len() as u64);
        let named_of = |number: usize, source| {
            let name = self.members[number].call.signature.collective();
            named(number, name, CommunicatorError::from(source))
        };
        // A panic on the way takes the windows into custody too.
        let held = self
            .members
            .iter()
            .map(|member| Held(member.shared))
            .collect::<Vec<_>>();
        let mut tickets: Vec<Ticket> = Vec::with_capacity(self.members.len());
        let mut failure = None;
        for (number, member) in self.members.iter().enumerate() {
            let call = Call {
                sequence: first + number as u64,
                ..member.call.clone()
            };
            // SAFETY: the windows are borrowed until this returns, and it returns after the end of all.
            match unsafe { engine.start(call) } {
                Ok(ticket) => tickets.push(ticket),
                Err(error) => {
                    failure = Some((number, error));
                    break;
                }
            }
        }
        for (number, ticket) in tickets.iter().enumerate() {
            if let Err(error) = engine.wait(ticket) {
                // One failure ends all that is in progress: it says itself which it is about.
                let about = error.sequence().and_then(|at| at.checked_sub(first));
                let about = about.filter(|about| *about < tickets.len() as u64);
                failure.get_or_insert((about.map_or(number, |about| about as usize), error));
            }
        }
        if let Some((number, error)) = failure {
            return Err(named_of(number, error));
        }
        held.into_iter().for_each(std::mem::forget);
        Ok(())
    }
}

fn named(number: usize, call: &'static str, source: CommunicatorError) -> CommunicatorError {
    CommunicatorError::InGroup {
        number,
        call,
        source: Box::new(source),
    }
}
