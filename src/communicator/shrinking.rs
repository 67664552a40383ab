//! After a death: the survivors get a communicator of the next generation.

use std::time::Instant;

use super::{Communicator, CommunicatorError};
use crate::bootstrap::{Conclusion, Survivors};
use crate::engine::EngineError;

impl Communicator {
    /// The communicator of those ranks that are left, after some have died (or dropped this one): collective over
    /// them. Ranks keep their order; settings and the current [timeout](Communicator::timeout) are those of this one.
    ///
    /// This communicator is given up for good: operations in flight on it end in an error that names a dead rank, on
    /// every rank; so does whatever is called later. [`Communicator::abort`] then gives its windows back. Where a rank
    /// dies while the survivors come together, they begin anew without it: all who live get the same communicator, or
    /// none does. A death that comes after that makes an operation on the new communicator fail, and
    /// [`Communicator::shrink`] is to be called on that one.
    ///
    /// On one host it does not matter which ranks have died. Across hosts rank 0's process carries what the others
    /// say, so that its death leaves an error that says so to all of them.
    ///
    /// ```no_run
    /// use sapwood::communicator::{Communicator, CommunicatorError, Window};
    /// use sapwood::engine::reduce::Operation;
    ///
    /// /// The sum, of those who are left if some are not.
    /// fn sum(communicator: &mut Communicator, gradient: &mut Window<f32>) -> Result<(), CommunicatorError> {
    ///     while let Err(error) = communicator.all_reduce(gradient, Operation::Sum) {
    ///         eprintln!("{error}"); // names who is dead
    ///         let rest = communicator.shrink()?;
    ///         communicator.abort(&[&*gradient])?; // nobody reads the old window any more
    ///         *gradient = rest.window(gradient.len())?; // to be filled anew: the old one may hold parts of sums
    ///         *communicator = rest;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// A rank that lives and does not call this by the deadline, or cannot take part: its name; this can be called
    /// again then. A communicator that was shrunk before. Whatever [`Builder::join`](super::Builder::join) can end in.
    pub fn shrink(&self) -> Result<Self, CommunicatorError> {
        if self.engine.is_forked() {
            self.engine.check()?;
        }
        self.first_life()?;
        let meeting = self.meeting.borrow();
        let membership = meeting.members.membership();
        self.give_up();
        // Who waits for this rank in a call that moves no data hears of it too.
        meeting.members.interrupt();
        let until = Instant::now() + self.timeout();
        loop {
            let survivors = membership.survivors(until)?;
            let made = self.made_of_survivors(&survivors, until);
            if let Err(error) = &made {
                tracing::debug!(rank = self.rank, %error, "the survivors' communicator could not be made");
            }
            match survivors.conclude(made.is_ok(), until) {
                Ok(Conclusion::Made) => {
                    if let Ok(made) = &made {
                        tracing::info!(
                            rank = self.rank,
                            now = made.rank,
                            size = made.ranks,
                            generation = made.generation,
                            "shrunk"
                        );
                    }
                    return made;
                }
                Ok(Conclusion::Again) => {
                    if let Ok(useless) = made {
                        // Nobody has it for long: there is nobody to take leave from.
                        useless.abort_handle().abort();
                    }
                }
                Err(error) => return Err(made.err().unwrap_or_else(|| error.into())),
            }
        }
    }

    /// Ends whatever is in flight, because of what has failed: the others are told of a dead rank, where there is one.
    fn give_up(&self) {
        match self.async_error() {
            Some(CommunicatorError::Engine(EngineError::Gone { peer, how, .. })) => {
                self.engine.bury(peer, how)
            }
            Some(CommunicatorError::Engine(error)) => self.engine.abandon(&error),
            _ => self.engine.abort(),
        }
    }

    fn made_of_survivors(
        &self,
        survivors: &Survivors<'_>,
        until: Instant,
    ) -> Result<Self, CommunicatorError> {
        let membership = survivors.join(until)?;
        self.made_with
            .clone()
            .timeout(self.timeout())
            .build(membership, self.generation + 1)
    }

    /// How many times the ranks have shrunk since the first communicator of this one's line was made.
    pub fn generation(&self) -> u32 {
        self.generation
    }
}
