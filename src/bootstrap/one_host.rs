//! A job whose ranks all met at one Unix socket, seen from one of them: the star of control connections, the roll and
//! the descriptors of their processes.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::control::Control;
use super::liveness::Liveness;
use super::roll::Presence;
use super::verdict::Verdict;
use super::{BootstrapError, Gathered, gather, message};

/// One rank's part in it.
pub(super) struct OneHost {
    pub(super) liveness: Liveness,
    state: Mutex<State>,
}

/// What changes from step to step.
pub(super) struct State {
    pub(super) control: Control,
    /// The number of the latest collective step, from 1.
    pub(super) sequence: u64,
    /// Why no step can be done any more.
    broken: Option<BootstrapError>,
}

impl OneHost {
    pub(super) fn new(liveness: Liveness, control: Control) -> Self {
        Self {
            liveness,
            state: Mutex::new(State {
                control,
                sequence: 0,
                broken: None,
            }),
        }
    }

    /// Of a rank that has come back: what needs all ranks is over.
    pub(super) fn returned(liveness: Liveness) -> Self {
        let rank = liveness.rank;
        let one_host = Self::new(liveness, Control::Root(Vec::new()));
        let step = "an exchange between all ranks".to_owned();
        let returned = BootstrapError::Returned { rank, step };
        one_host
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .broken = Some(returned);
        one_host
    }

    /// [`super::Membership::all_gather`], with a name and a payload that are short enough.
    pub(super) fn all_gather(
        &self,
        name: &str,
        payload: &[u8],
        descriptors: Vec<OwnedFd>,
        deadline: Instant,
    ) -> Result<Vec<Gathered>, BootstrapError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        gather::all_gather(&self.liveness, &mut state, name, payload, descriptors, deadline).inspect_err(
            |error| {
                self.say_why(error);
                state.broken = Some(error.clone());
            },
        )
    }

    /// Ends the wait of whoever is in a step; the others see that this rank has given up.
    pub(super) fn interrupt(&self) {
        self.liveness.meanwhile.interrupt();
        self.give_up();
    }

    /// Says that this rank has given up, and not why.
    pub(super) fn give_up(&self) {
        self.liveness.roll.give_up(self.liveness.rank, &[]);
    }

    /// Ends all steps, this one's and the others', with this error.
    pub(super) fn give_up_for(&self, error: BootstrapError) {
        self.say_why(&error);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.broken.get_or_insert(error);
    }

    fn say_why(&self, error: &BootstrapError) {
        let rank = self.liveness.rank;
        let why = message::encode(&Verdict::of(error, rank));
        self.liveness.roll.give_up(rank, &why);
    }

    /// Says on the roll how this rank leaves.
    pub(super) fn leave(&self, panicking: bool) {
        let presence = match self.liveness.roll.presence(self.liveness.rank) {
            _ if panicking => Presence::Panicked,
            Presence::GaveUp => Presence::GaveUp,
            _ => Presence::Left,
        };
        self.liveness.roll.mark(self.liveness.rank, presence);
        self.liveness.roll.leave(self.liveness.rank);
    }
}
