//! How a caller that runs its operation itself waits for one peer: looks at once, then with pauses, then as every wait
//! does, moving on what was started before. What it looks at, the caller says; this names it where it does not come.

use std::time::{Duration, Instant};

use super::details::Details;
use super::wait::{Turn, wait};
use super::{Core, EngineError, Signature, Trouble, Waited};
use crate::observe::Kind;

/// Looks without a pause in between.
const AT_ONCE: u32 = 64;

/// Looks before the first yield where ranks share processors: as many as take no time beside a switch to another process.
const IN_A_CROWD: u32 = 8;
/// Yields before the wait becomes like every other. One that returns at once is shorter than what is done then.
const YIELDS: u32 = 16;

/// What is waited for.
#[derive(Clone, Copy)]
pub(super) struct Awaited<'a> {
    pub sequence: u64,
    pub signature: Signature,
    /// What the ranks have announced besides, if they have.
    pub details: Option<Details>,
    pub plan: &'a str,
    pub peer: u32,
    /// What the peer has not done, in words.
    pub step: &'a str,
    pub timeout: Duration,
}

impl Awaited<'_> {
    /// Returns when it is `here`.
    ///
    /// # Errors
    /// The deadline, a rank that is gone, a mismatch.
    #[inline(never)]
    pub fn here(self, core: &Core, here: impl Fn() -> bool) -> Result<(), EngineError> {
        let group = core.group();
        if group.patience.crowded {
            return self.in_a_crowd(core, here);
        }
        // A pause is longer than most of these waits.
        for _ in 0..group.patience.spins.min(AT_ONCE) {
            if here() {
                return Ok(());
            }
        }
        for _ in 0..group.patience.spins {
            if here() {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        self.at_length(core, here)
    }

    /// As [`Awaited::here`] where ranks share processors: then it is mostly one that is not running which is waited for, and
    /// pauses are as long as the switch that lets it run.
    fn in_a_crowd(self, core: &Core, here: impl Fn() -> bool) -> Result<(), EngineError> {
        for _ in 0..IN_A_CROWD {
            if here() {
                return Ok(());
            }
        }
        for _ in 0..YIELDS {
            std::thread::yield_now();
            if here() {
                return Ok(());
            }
        }
        self.at_length(core, here)
    }

    #[cold]
    fn at_length(self, core: &Core, here: impl Fn() -> bool) -> Result<(), EngineError> {
        let Self {
            sequence,
            signature,
            details,
            plan,
            peer,
            step,
            timeout,
        } = self;
        let group = core.group();
        let recorder = &group.caller.recorder;
        let began = Instant::now();
        recorder.mark(Kind::WaitBegin, sequence as u32, 0, 0, peer, 0);
        group.caller.counters.wait();
        let waited = wait(
            group,
            || {
                if here() {
                    Turn::Done
                } else if core.drive() {
                    // The peer may need operations that were started here to end before it comes.
                    Turn::Progressed
                } else {
                    Turn::Idle
                }
            },
            || {
                core.look();
                group.board().wait_for(Some(peer));
                let (last, chain) = group.last_awaited(sequence, peer);
                let describe = || Waited {
                    last,
                    operation: signature.to_string(),
                    sequence,
                    plan: plan.into(),
                    peer,
                    step: format!("{step}{chain}"),
                };
                if let Some(error) = group.look(sequence, signature, details, peer, || !here(), describe) {
                    return Err(error);
                }
                let waited = began.elapsed();
                if waited >= timeout && !here() {
                    group.give_up(Trouble::Deadline(last));
                    return Err(EngineError::Deadline {
                        rank: group.rank,
                        waited,
                        on: describe(),
                    });
                }
                Ok(())
            },
        );
        core.hand_on();
        group.board().wait_for(None);
        recorder.mark(Kind::WaitEnd, sequence as u32, 0, 0, peer, 0);
        waited
    }
}
