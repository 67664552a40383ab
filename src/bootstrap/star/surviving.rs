//! What a rank says to the hub after a death, when steps cannot be finished any more: that it lives. The hub alone
//! decides who does.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Star, protocol};
use crate::bootstrap::inquiry::Inquiry;
use crate::bootstrap::message::{self, Kind, STAGES, Survive, Survivors};
use crate::bootstrap::{BootstrapError, Rank, control};

/// In the place of the number of an attempt: there is no other.
const OVER: u32 = u32::MAX;

impl Star {
    /// The number of the survivors' attempt to come together, unless one has ended well.
    pub(in crate::bootstrap) fn attempt(&self) -> Option<u32> {
        let attempt = self.attempt.load(Ordering::Relaxed);
        (attempt != OVER).then_some(attempt)
    }

    /// That attempt has ended.
    pub(in crate::bootstrap) fn end_attempt(&self, made: bool) {
        let attempt = self.attempt.load(Ordering::Relaxed);
        let next = if made { OVER } else { attempt + 1 };
        self.attempt.store(next, Ordering::Relaxed);
    }

    /// Says something to all who live, and waits until all of them have; what they said, by rank. The stage is the
    /// same on all.
    pub(in crate::bootstrap) fn survive(
        &self,
        stage: u64,
        name: &str,
        said: Vec<u8>,
        deadline: Instant,
    ) -> Result<Vec<(Rank, Vec<u8>)>, BootstrapError> {
        let started = Instant::now();
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let line = &mut *line;
        let body = message::encode(&Survive { stage, said });
        line.channel.queue_body(Kind::Survive, body);
        let mut inquiry = Inquiry::new(STAGES | stage, started, deadline);
        loop {
            line.channel.flush().map_err(protocol)?;
            while let Some(message) = line.channel.next_message() {
                match message.kind {
                    Kind::Survivors => {
                        let answer: Survivors = message::decode(&message.body).map_err(protocol)?;
                        if answer.stage == stage {
                            return Ok(answer.said);
                        }
                    }
                    Kind::Answer => inquiry.take(&message.body).map_err(protocol)?,
                    // Of a step that this rank had given up on.
                    Kind::Parts => {}
                    _ => self.note(line, message)?,
                }
            }
            if line.channel.is_closed() {
                self.lose_hub(line);
                return Err(self.departed_in(
                    &format!("{name} (the hub of the control connections was in its process)"),
                    0,
                ));
            }
            if Instant::now() >= deadline {
                return Err(self.overdue(&inquiry, name, started));
            }
            inquiry.ask(&mut line.channel);
            line.look_after_delivery();
            control::turn(&mut [&mut line.channel], |_| 0, deadline)?;
        }
    }
}
