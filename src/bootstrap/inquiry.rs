//! How a rank that shares no roll with the others learns who has not come: towards the end of its wait it asks rank 0,
//! again and again, so that at the deadline it can name them.

use std::time::{Duration, Instant};

use super::Rank;
use super::channel::Channel;
use super::message::{self, Answer, Kind, Question};

/// The part of a wait in which is asked, at most. Half the wait, where that is shorter.
const LAST_PART: Duration = Duration::from_secs(1);
/// How many times is asked in that part.
const TIMES: u32 = 8;

/// One wait's questions and what came of them.
pub(super) struct Inquiry {
    sequence: u64,
    begins: Instant,
    pause: Duration,
    open: bool,
    behind: Option<Vec<Rank>>,
}

impl Inquiry {
    /// For a wait from `started` to `deadline` in the step with this number.
    pub(super) fn new(sequence: u64, started: Instant, deadline: Instant) -> Self {
        let part = (deadline.saturating_duration_since(started) / 2).min(LAST_PART);
        Self {
            sequence,
            begins: deadline.checked_sub(part).unwrap_or(started),
            pause: part / TIMES,
            open: false,
            behind: None,
        }
    }

    /// Puts the question into the channel's queue if it is time for it. One is answered before the next is asked.
    pub(super) fn ask(&mut self, channel: &mut Channel) {
        let now = Instant::now();
        if self.open || now < self.begins {
            return;
        }
        let question = Question {
            sequence: self.sequence,
        };
        channel.queue_body(Kind::Question, message::encode(&question));
        self.begins = now + self.pause;
        self.open = true;
    }

    /// Takes an answer; one to an earlier wait's question says nothing.
    pub(super) fn take(&mut self, body: &[u8]) -> Result<(), String> {
        let answer: Answer = message::decode(body)?;
        if answer.sequence == self.sequence {
            self.open = false;
            self.behind = Some(answer.behind);
        }
        Ok(())
    }

    /// Who had not come when rank 0 answered last; `None` if it never has.
    pub(super) fn behind(&self) -> Option<&[Rank]> {
        self.behind.as_deref()
    }
}
