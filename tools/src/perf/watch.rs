//! Waiting in a measurement: what spins, when it looks up, and how it ends. Nothing here is passed when something comes.

use std::time::{Duration, Instant};

use sapwood::bootstrap::{DepartureKind, Membership};

use crate::output::Failure;

/// Vain looks between two looks at the clock and at the other side: tens of microseconds.
const LOOKS: u32 = 2048;
/// The same where giving up the processor has shown again and again that nobody else wants it.
const MOST_LOOKS: u32 = LOOKS << 8;
/// After this without anything the wait is announced.
pub(super) const SILENCE: Duration = Duration::from_secs(1);

/// Whose turn it is to be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    Client,
}

impl Side {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::Server => Self::Client,
            Self::Client => Self::Server,
        }
    }

    /// The server is rank 0, where the two meet.
    pub(super) fn rank(self) -> u32 {
        match self {
            Self::Server => 0,
            Self::Client => 1,
        }
    }
}

/// Counts vain looks, and gives up when the other side is gone or the deadline passes.
pub(super) struct Watch<'a> {
    membership: &'a Membership,
    side: Side,
    patience: Duration,
    looks: u32,
    /// So many make a stretch, behind which the processor is given up.
    stretch: u32,
    half: Instant,
    since: Option<Instant>,
    announced: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(membership: &'a Membership, side: Side, patience: Duration) -> Self {
        Self {
            membership,
            side,
            patience,
            looks: 0,
            stretch: LOOKS,
            half: Instant::now(),
            since: None,
            announced: false,
        }
    }

    /// Something came.
    #[inline]
    pub(super) fn came(&mut self) {
        self.looks = 0;
        self.since = None;
    }

    /// Nothing came: now and then looks up. `true` when it did, so that the caller can look elsewhere, too.
    #[inline]
    pub(super) fn nothing(&mut self, what: &dyn Fn() -> String) -> Result<bool, Failure> {
        self.nothing_in(1, what)
    }

    /// As [`Watch::nothing`], in so many looks.
    #[inline]
    pub(super) fn nothing_in(&mut self, looks: u32, what: &dyn Fn() -> String) -> Result<bool, Failure> {
        self.looks += looks;
        if self.looks < self.stretch {
            if self.looks - looks < self.stretch / 2 && self.looks >= self.stretch / 2 {
                self.half = Instant::now();
            }
            // No pause: a look at a queue or at memory is one already, and a pause would be part of what is measured.
            return Ok(false);
        }
        self.look(what)?;
        self.give_up_the_processor();
        Ok(true)
    }

    /// Where there are more threads than cores the other side may be waiting for this one. Where nobody else has run
    /// meanwhile, the next time is later: each costs a system call, and what is measured waits behind it.
    #[cold]
    fn give_up_the_processor(&mut self) {
        let before = Instant::now();
        std::thread::yield_now();
        let another_ran = before.elapsed() > before - self.half;
        self.stretch = if another_ran {
            LOOKS
        } else {
            (self.stretch * 2).min(MOST_LOOKS)
        };
    }

    /// Until when a sleep may last before [`Self::look`] is due.
    pub(super) fn nap(&self) -> Instant {
        Instant::now() + Duration::from_millis(200)
    }

    #[cold]
    pub(super) fn look(&mut self, what: &dyn Fn() -> String) -> Result<(), Failure> {
        self.looks = 0;
        let since = *self.since.get_or_insert_with(Instant::now);
        self.alive()?;
        let waited = since.elapsed();
        if waited >= self.patience {
            return Err(Failure::Check(format!(
                "{}: waited {:.1} s in vain for {}",
                self.side.name(),
                waited.as_secs_f64(),
                what()
            )));
        }
        if waited >= SILENCE && !self.announced {
            self.announced = true;
            eprintln!("sapwood perf: {} is waiting for {}", self.side.name(), what());
        }
        Ok(())
    }

    /// Whether the other side is still there.
    pub(super) fn alive(&self) -> Result<(), Failure> {
        gone(self.membership, self.side).map_or(Ok(()), |sentence| Err(Failure::Check(sentence)))
    }
}

/// How the other side went, if it is gone.
pub(super) fn gone(membership: &Membership, side: Side) -> Option<String> {
    let departure = membership.departed()?;
    let other = side.other();
    let process = membership
        .pids()
        .get(other.rank() as usize)
        .copied()
        .unwrap_or_default();
    let how = match departure.how {
        DepartureKind::Died => "died",
        DepartureKind::Panicked => "crashed",
        _ => "gave up; its own output says why",
    };
    Some(format!(
        "{}: the {} (process {process}) {how}",
        side.name(),
        other.name()
    ))
}
