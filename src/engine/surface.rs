//! What a communicator holds: an engine over boards or over messages, with one surface.

use std::sync::Arc;

use super::{Call, Core, EngineError, Letter, MessageCore, Observers, Ticket, Trouble, WindowMap};

/// The engine of one communicator on one rank.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one for each communicator")]
pub enum Engine {
    /// Ranks see each other's memory.
    Boards(Core),
    /// Ranks reach each other by messages.
    Messages(MessageCore),
}

/// The same call on either.
macro_rules! either {
    ($engine:expr, $core:ident => $call:expr) => {
        match $engine {
            Engine::Boards($core) => $call,
            Engine::Messages($core) => $call,
        }
    };
}

impl Engine {
    /// This rank.
    pub fn rank(&self) -> u32 {
        match self {
            Self::Boards(core) => core.group().rank,
            Self::Messages(core) => core.rank(),
        }
    }

    /// What the communicator's caller writes to.
    #[inline]
    pub fn caller(&self) -> &Observers {
        match self {
            Self::Boards(core) => &core.group().caller,
            Self::Messages(core) => &core.caller,
        }
    }

    /// What the engine writes to.
    pub fn observers(&self) -> &Observers {
        match self {
            Self::Boards(core) => &core.group().engine,
            Self::Messages(core) => &core.engine,
        }
    }

    /// Whether this is a forked child, which must not touch what it shares with its parent, nor wait for a lock that a
    /// thread of its parent may have held.
    #[inline]
    pub fn is_forked(&self) -> bool {
        either!(self, core => core.is_forked())
    }

    /// Refuses work after a failure.
    ///
    /// # Errors
    /// [`EngineError::Poisoned`] with the first failure; [`EngineError::Forked`].
    #[inline]
    pub fn check(&self) -> Result<(), EngineError> {
        either!(self, core => core.check())
    }

    /// Takes up a call; it runs whenever somebody drives.
    ///
    /// # Errors
    /// An earlier failure.
    ///
    /// # Safety
    /// As [`Core::start`], and as [`MessageCore::start`] where that is what runs.
    pub unsafe fn start(&self, call: Call) -> Result<Ticket, EngineError> {
        let ticket = Ticket::default();
        // SAFETY: passed on.
        unsafe { self.start_as(call, ticket.clone()) }?;
        Ok(ticket)
    }

    /// As [`Engine::start`], with a ticket that was there before, and [`Ticket::reset`]: nothing is allocated.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn start_as(&self, call: Call, ticket: Ticket) -> Result<(), EngineError> {
        // SAFETY: passed on.
        either!(self, core => unsafe { core.start(call, ticket) })
    }

    /// Takes up one end of a message between two ranks, whose end the ticket is to tell.
    ///
    /// # Errors
    /// An earlier failure.
    ///
    /// # Safety
    /// As [`Core::post`], and as [`MessageCore::post`] where that is what runs.
    pub unsafe fn post(&self, letter: Letter, ticket: Ticket) -> Result<(), EngineError> {
        // SAFETY: passed on.
        either!(self, core => unsafe { core.post(letter, ticket) })
    }

    /// Lets messages between two ranks lie in a window.
    pub fn remember(&self, window: &Arc<WindowMap>) {
        either!(self, core => core.remember(window));
    }

    /// Runs what is ready, if nobody else is just doing so.
    pub fn poll(&self) {
        either!(self, core => core.poll());
    }

    /// Whether nothing is in progress.
    pub fn is_idle(&self) -> bool {
        either!(self, core => core.is_idle())
    }

    /// Whether no collective is in progress; messages between two ranks may be.
    pub fn has_no_calls(&self) -> bool {
        either!(self, core => core.has_no_calls())
    }

    /// Drives until the operation has ended.
    ///
    /// # Errors
    /// How it failed.
    pub fn wait(&self, ticket: &Ticket) -> Result<(), EngineError> {
        either!(self, core => core.wait(ticket))
    }

    /// Drives whatever is in progress until `until` says so. Keeps every operation's deadline, but has none of its
    /// own: `until` must become true when operations end, well or not, or be somebody's wish to stop, followed by
    /// [`Engine::nudge`]. It must not call the engine, except for [`Engine::is_idle`] and [`Engine::is_forked`].
    pub fn wait_until(&self, until: impl Fn() -> bool) {
        either!(self, core => core.wait_until(until));
    }

    /// Ends the sleep of whoever drives: what it waits for may have come true.
    pub fn nudge(&self) {
        match self {
            Self::Boards(core) => core.group().bell().ring(),
            Self::Messages(core) => core.nudge(),
        }
    }

    /// Ends everything in progress with `error`; later calls are refused with it.
    pub fn abandon(&self, error: &EngineError) {
        either!(self, core => core.abandon(error));
    }

    /// Fails every operation in flight and every later one, on every rank. Returns at once.
    pub fn abort(&self) {
        if self.is_forked() {
            return;
        }
        let rank = self.rank();
        if let Self::Boards(core) = self {
            core.group().give_up(Trouble::Aborted);
        }
        self.abandon(&EngineError::Aborted { rank, by: rank });
    }

    /// Fails every operation in flight and every later one, on every rank, because of a rank that is gone.
    pub fn bury(&self, peer: u32, how: String) {
        if self.is_forked() {
            return;
        }
        if let Self::Boards(core) = self {
            core.group().give_up(Trouble::Gone(peer));
        }
        self.abandon(&EngineError::Gone {
            rank: self.rank(),
            peer,
            how,
            on: "the communicator is given up".into(),
        });
    }

    /// What has failed, if anything has that this rank can know of without waiting: here, or on another rank that has
    /// told.
    pub fn failure(&self) -> Option<EngineError> {
        if self.is_forked() {
            return Some(EngineError::Forked { rank: self.rank() });
        }
        either!(self, core => core.failure())
    }

    /// Takes part in nothing any more, and tells the others. What was in flight must have been aborted before; what
    /// is started later is refused.
    pub fn leave(&self) {
        let (rank, reason) = (self.rank(), "it was dropped".to_owned());
        match self {
            Self::Boards(core) => {
                core.abandon(&EngineError::Poisoned { rank, reason });
                let group = core.group();
                group.board().leave();
                (0..group.ranks).for_each(|rank| group.wake(rank));
            }
            Self::Messages(core) => {
                core.leave();
                core.abandon(&EngineError::Poisoned { rank, reason });
            }
        }
    }
}
