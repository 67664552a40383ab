//! What the hub says that is no part of a step: who has gone, and why nothing can be finished any more.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::{Line, Star, protocol};
use crate::bootstrap::message::{self, Kind, Message, News};
use crate::bootstrap::verdict::Verdict;
use crate::bootstrap::{BootstrapError, DepartureKind, Rank, socket};

impl Star {
    /// The same, where no other thread holds the line and does so itself.
    pub(super) fn take_news(&self) {
        if let Ok(mut line) = self.line.try_lock() {
            // What is wrong with the connection is the next step's to say; that it is closed is noted here.
            if let Err(error) = self.hear(&mut line) {
                line.broken.get_or_insert(error);
            }
        }
        self.tell_of_interruption();
    }

    /// Takes the hub's news between two steps, without waiting.
    pub(super) fn hear(&self, line: &mut Line) -> Result<(), BootstrapError> {
        if !line.channel.is_closed() {
            let socket = Arc::clone(line.channel.socket());
            let mut entries = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
            if socket::poll_until(&mut entries, Instant::now())? > 0 {
                line.channel.receive().map_err(protocol)?;
            }
            line.look_after_delivery();
        }
        while let Some(message) = line.channel.next_message() {
            self.note(line, message)?;
        }
        if line.channel.is_closed() {
            self.lose_hub(line);
        }
        Ok(())
    }

    /// What the hub says that is no part of a step.
    pub(super) fn note(&self, line: &mut Line, message: Message) -> Result<(), BootstrapError> {
        match message.kind {
            Kind::News => {
                let News { gone } = message::decode(&message.body).map_err(protocol)?;
                for (rank, leaving) in gone {
                    self.mark(rank, leaving.how, leaving.last);
                    if let (Some(verdict), true) = (leaving.verdict, rank != self.rank) {
                        line.verdict.get_or_insert(verdict.into_error());
                    }
                }
                Ok(())
            }
            Kind::Verdict => {
                let verdict: Verdict = message::decode(&message.body).map_err(protocol)?;
                line.verdict.get_or_insert(verdict.into_error());
                Ok(())
            }
            // To a question of a wait that has ended; of a wait that was given up.
            Kind::Answer | Kind::Survivors => Ok(()),
            kind => Err(protocol(format!("sent a {kind:?} between two steps"))),
        }
    }

    /// The hub is in rank 0's process.
    pub(super) fn lose_hub(&self, line: &Line) {
        let how = match line.channel.is_out_of_reach() {
            true => DepartureKind::OutOfReach,
            false => DepartureKind::Died,
        };
        self.mark(0, how, true);
    }

    fn mark(&self, rank: Rank, how: DepartureKind, last: bool) {
        if rank != self.rank {
            self.gone.note(rank, how, last);
        }
    }
}
