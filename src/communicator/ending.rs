//! The end of a communicator: aborted by any thread, or left. Windows are given back when nobody can reach them.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::{Communicator, CommunicatorError, Window};
use crate::bootstrap::Membership;
use crate::engine::Engine;
use crate::memory::Element;

impl Communicator {
    /// A handle with which any thread may abort.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle {
            rank: self.rank,
            engine: Arc::downgrade(&self.engine),
            members: self.meeting.borrow().members.weak(),
        }
    }

    /// Ends the communicator in order: waits until every operation of this rank has ended and every rank has come here,
    /// then leaves. Collective. No rank is missed by another that is still at work, as it would be if one dropped its
    /// communicator before.
    ///
    /// # Errors
    /// An operation in flight that failed, or an earlier failure; a rank that does not come by the deadline, or is
    /// gone, named. The communicator is dropped all the same.
    pub fn finalize(self) -> Result<(), CommunicatorError> {
        self.settle()?;
        self.engine.wait_until(|| self.engine.is_idle());
        self.usable()?;
        let meeting = self.meeting.borrow();
        meeting.all_gather("finalizing", &(), Vec::new())?;
        Ok(())
    }

    /// Gives up: every operation in flight and every later one fails, on every rank. Waits until no other rank can
    /// reach this one's memory any more; then windows are no longer in custody.
    ///
    /// # Errors
    /// A window of another communicator, before anything is given up.
    /// A rank that has not heard of it by the deadline (stopped, or in no call of the communicator): its name. The
    /// windows stay in custody.
    pub fn abort(&self, windows: &[&dyn Custody]) -> Result<(), CommunicatorError> {
        if self.engine.is_forked() {
            self.engine.check()?;
        }
        if windows.iter().any(|window| window.owner() != self.id) {
            let what =
                "a window was registered with another communicator, whose ranks may still reach it".into();
            return Err(self.argument("abort", what));
        }
        self.abort_handle().abort();
        let until = Instant::now() + self.timeout();
        if let Some(rank) = self.still_reaching(until)? {
            return Err(CommunicatorError::Argument {
                rank: self.rank,
                call: "abort",
                what: format!(
                    "rank {rank} has not acknowledged within {:?}: it may still reach this rank's windows",
                    self.timeout()
                ),
            });
        }
        let silence = silence::Silence(());
        windows.iter().for_each(|window| window.release(&silence));
        Ok(())
    }

    /// After the abort: a rank of which it cannot be said, until then, that it touches this one's memory no more.
    fn still_reaching(&self, until: Instant) -> Result<Option<u32>, CommunicatorError> {
        let core = match &*self.engine {
            Engine::Boards(core) => core,
            Engine::Messages(core) => return Ok(core.fence(until)?.first().copied()),
        };
        let group = core.group();
        for rank in (0..self.ranks).filter(|rank| *rank != self.rank) {
            while !group.is_silent(rank) {
                if Instant::now() >= until {
                    return Ok(Some(rank));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(None)
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if self.engine.is_forked() {
            return;
        }
        // What is still in flight is given up: the others hear of it instead of waiting for a rank that left.
        if !self.engine.is_idle() {
            self.engine.abort();
        }
        // A bucket may outlive its exchange: what it starts is refused.
        self.engine.leave();
    }
}

/// Windows of any type, for [`Communicator::abort`].
pub trait Custody {
    /// The window's own communicator, if it may be released when that one is silent.
    #[doc(hidden)]
    fn owner(&self) -> u64;

    /// Nobody else can reach the window any more.
    #[doc(hidden)]
    fn release(&self, silence: &silence::Silence);
}

mod silence {
    /// That no other rank can reach this one's memory any more; only [`super::Communicator::abort`] can say so.
    #[derive(Debug)]
    pub struct Silence(pub(super) ());
}

impl<T: Element> Custody for Window<T> {
    fn owner(&self) -> u64 {
        self.shared().owner
    }

    fn release(&self, _: &silence::Silence) {
        self.shared().set_custody(false);
    }
}

/// Aborts a communicator from any thread: its operations fail on every rank. It may be kept for longer than the
/// communicator, and holds nothing of it open then.
#[derive(Clone, Debug)]
pub struct AbortHandle {
    pub(super) rank: u32,
    pub(super) engine: Weak<Engine>,
    /// Which the engine keeps.
    pub(super) members: Weak<Membership>,
}

impl AbortHandle {
    /// Fails every operation in flight and every later one, on every rank; also one that waits for all ranks to come
    /// to a collective call that moves no data (registering, splitting). Returns at once. Nothing happens where the
    /// communicator is gone.
    pub fn abort(&self) {
        if let Some(engine) = self.engine.upgrade() {
            engine.abort();
        }
        if let Some(members) = self.members.upgrade() {
            members.interrupt();
        }
    }
}
