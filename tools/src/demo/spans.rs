//! What a worker did when, on a clock that all processes of a host share. Only for pictures and sums.

use rustix::time::{ClockId, clock_gettime};
use sapwood::plan::lowered::Rank;
use serde::{Deserialize, Serialize};

/// A kind of activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Training thread: forward and backward pass.
    Compute,
    /// Training thread: the sleep that `--slow` asks for.
    Slowed,
    /// Training thread: in `begin()` or `finish()`, until the buckets or the means are there.
    Blocked,
    /// Training thread: applying the means to the weights.
    Update,
    /// Exchange: pulling, reducing, storing.
    Exchange,
    /// Exchange: waiting for a peer.
    Wait,
}

impl Activity {
    /// Whether the training thread did it (else the exchange).
    pub fn of_training(self) -> bool {
        !matches!(self, Self::Exchange | Self::Wait)
    }
}

/// An interval of one activity of one rank.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Span {
    /// What was done.
    pub activity: Activity,
    /// In which step, from 0.
    pub step: u32,
    /// Nanoseconds of the host's monotonic clock.
    pub start: u64,
    /// Likewise; not before `start`.
    pub end: u64,
    /// Whom it was done with or waited for.
    pub peer: Option<Rank>,
    /// For which layer.
    pub layer: Option<u32>,
}

/// Nanoseconds of `CLOCK_MONOTONIC`, the same in all processes of a host.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
