//! The star of control connections, and one turn of waiting on them.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::channel::Channel;
use super::message::{self, Kind};
use super::verdict::Verdict;
use super::{BootstrapError, Rank, socket};

/// How long a wait lasts before liveness is looked at again.
pub(super) const SLICE: Duration = Duration::from_millis(20);
/// How soon a channel that the kernel has starved of descriptors is tried again.
const STARVED_RETRY: Duration = Duration::from_millis(1);
/// How long rank 0 tries to tell the others why it ends, beyond its deadline.
const FAREWELL: Duration = Duration::from_millis(250);

/// This rank's part of the star.
pub(super) enum Control {
    /// Rank 0's: a channel to each other rank, rank 1's first.
    Root(Vec<Channel>),
    /// Another rank's: its channel to rank 0.
    Leaf(Box<Channel>),
}

/// Waits until a channel can go on, `until` has come or a slice is over, and moves what can be moved. The error
/// names the rank whose channel failed: `rank_of` an index.
pub(super) fn turn(
    channels: &mut [&mut Channel],
    rank_of: impl Fn(usize) -> Rank,
    until: Instant,
) -> Result<(), BootstrapError> {
    let retry = if channels.iter().any(|channel| channel.is_starved()) {
        STARVED_RETRY
    } else {
        SLICE
    };
    let until = until.min(Instant::now() + retry);
    let open: Vec<usize> = (0..channels.len())
        .filter(|&index| !channels[index].interest().is_empty())
        .collect();
    let sockets: Vec<_> = open
        .iter()
        .map(|&index| Arc::clone(channels[index].socket()))
        .collect();
    let mut entries: Vec<PollFd<'_>> = open
        .iter()
        .zip(&sockets)
        .map(|(&index, socket)| PollFd::from_borrowed_fd(socket.as_fd(), channels[index].interest()))
        .collect();
    socket::poll_until(&mut entries, until)?;
    for (entry, &index) in entries.iter().zip(&open) {
        let ready = entry.revents();
        let channel = &mut channels[index];
        let mut moved = Ok(());
        if ready.contains(PollFlags::OUT) || channel.is_starved() {
            moved = channel.flush();
        }
        if moved.is_ok() && ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            moved = channel.receive();
        }
        moved.map_err(|problem| BootstrapError::Protocol {
            rank: rank_of(index),
            problem,
        })?;
    }
    Ok(())
}

/// Rank 0 tells the others why it ends. Whoever does not listen within a moment is left to find out by the hang-up.
pub(super) fn tell_all<'channels>(
    channels: impl Iterator<Item = &'channels mut Channel>,
    error: &BootstrapError,
) {
    let body = Arc::new(message::encode(&Verdict::of(error, 0)));
    let until = Instant::now() + FAREWELL;
    let mut waiting: Vec<&mut Channel> = channels.collect();
    for channel in &mut waiting {
        channel.queue(Kind::Verdict, Arc::clone(&body), Arc::default());
    }
    loop {
        waiting.retain_mut(|channel| channel.flush().is_ok() && !channel.is_flushed());
        if waiting.is_empty() || Instant::now() >= until {
            return;
        }
        std::thread::sleep(STARVED_RETRY);
    }
}
