//! The one way in which the engine waits: spin, yield, sleep; look after the others before each sleep.

use super::{EngineError, Group};

/// What one look at the awaited thing found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is there.
    Done,
    /// Something moved: look again at once.
    Progressed,
    /// Nothing moved.
    Idle,
}

/// Repeats `turn` until it is done. `look` is asked before each sleep whether waiting on makes sense; it is what
/// keeps the deadline.
pub(super) fn wait(
    group: &Group,
    mut turn: impl FnMut() -> Turn,
    mut look: impl FnMut() -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let patience = group.patience;
    let spins = if patience.crowded { 0 } else { patience.spins };
    let mut idle = 0u32;
    let mut nap = patience.nap;
    let mut ahead = None;
    loop {
        match ahead.take().unwrap_or_else(&mut turn) {
            Turn::Done => return Ok(()),
            Turn::Progressed => {
                idle = 0;
                nap = patience.nap;
                continue;
            }
            Turn::Idle => idle += 1,
        }
        if idle < spins {
            std::hint::spin_loop();
        } else if idle < spins + patience.yields {
            std::thread::yield_now();
        } else {
            look()?;
            group.bell().sleep(nap, || {
                let found = turn();
                ahead = Some(found);
                found != Turn::Idle
            });
            // What was found before the sleep says nothing of what has come since.
            ahead = ahead.filter(|found| *found != Turn::Idle);
            nap = (nap * 2).min(patience.nap * 8);
        }
    }
}
