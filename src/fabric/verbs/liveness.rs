//! Whether a peer is still there, where nobody sends anything: a queue pair notices that its peer is gone by sending,
//! and only then. So when nothing has completed for a while, an empty write asks. It takes no receive, touches no
//! memory and costs the peer's processor nothing; if it is not acknowledged, the connection fails with an explanation.

use std::time::{Duration, Instant};

use sapwood_sys::verbs::bindings::IBV_SEND_SIGNALED;

use super::connection::Connection;
use super::in_flight::Outgoing;
use crate::fabric::Opcode;
use crate::fabric::state::State;

/// How long a connection is silent before the peer is asked for.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// The same before anything ever completed: the peer may not have connected its half yet, and asking a half that is
/// not connected would be the end of this one.
const ASK_FIRST_AFTER: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Liveness {
    /// Something completed, or was asked, or the connection was made.
    since: Instant,
    heard: bool,
    /// The last question that is to be answered.
    asked: Option<u64>,
    /// The oldest request when it was last looked at: small writes leave no other sign of life.
    oldest: u64,
}

impl Liveness {
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            heard: false,
            asked: None,
            oldest: 0,
        }
    }
}

impl Connection {
    /// Asks, if it is time to.
    pub fn ask_for_peer(&mut self, now: Instant) {
        let after = if self.liveness.heard {
            ASK_AFTER
        } else {
            ASK_FIRST_AFTER
        };
        if self.state != State::Connected || now.saturating_duration_since(self.liveness.since) < after {
            return;
        }
        self.liveness.since = now;
        let oldest = self.requests.oldest();
        let moved = std::mem::replace(&mut self.liveness.oldest, oldest) != oldest;
        if std::mem::take(&mut self.fresh) || moved {
            self.liveness.heard = true;
            return;
        }
        if self
            .liveness
            .asked
            .is_some_and(|asked| asked >= self.requests.oldest())
        {
            return;
        }
        // What came before and was not to be reported is known to be over once this is reported, and its memory is
        // free. If there is nothing of the kind, success is not worth waking anybody for; a failure is always reported.
        let question = Outgoing::internal(Opcode::Write);
        if self.requests.is_empty() {
            self.post_empty(0, question);
        } else {
            self.liveness.asked = Some(self.requests.next());
            self.post_empty(IBV_SEND_SIGNALED, question);
        }
    }

    /// Asks to be told when everything that was posted is over.
    pub fn ask_for_the_end(&mut self) {
        if self.state == State::Connected && !self.requests.is_empty() {
            self.post_empty(IBV_SEND_SIGNALED, Outgoing::internal(Opcode::Write));
        }
    }
}
