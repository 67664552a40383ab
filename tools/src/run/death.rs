//! What becomes of a job when one of its ranks dies: it ends, goes on, or gets that rank anew.

use std::process::{Child, ExitStatus};

use sapwood::bootstrap::Rank;

use super::RunError;

/// What to do when a rank ends with a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDeath {
    /// End the whole job.
    #[default]
    End,
    /// Let the others go on.
    Keep,
    /// The same, and say nothing: whoever watches the job does.
    Watch,
    /// Start that rank anew, up to so many times each; then end the job.
    Restart(u32),
}

/// `--on-death` without its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnDeathWord {
    /// End the whole job, and say which rank died and how
    End,
    /// Let the other ranks go on
    Keep,
    /// Start that rank anew, with SAPWOOD_ATTEMPT one higher, --restarts times at most; it can come back to backup
    /// workers over shared memory, whose steps go on meanwhile
    Restart,
}

/// Starts a rank again, for the so-manieth time.
pub(super) type Again = Box<dyn FnMut(Rank, u32) -> Result<Child, RunError>>;

/// What is done about one death.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    /// The rank stays dead and the job ends.
    TheEnd,
    /// The rank stays dead.
    TheOthersGoOn,
    /// The same, and others say so.
    Silence,
    /// It is started for the so-manieth time, from 1.
    Anew(u32),
}

impl OnDeath {
    /// What follows from the failure of a rank that has been started anew `attempts` times, in a job that is `ending`
    /// already or not.
    pub(super) fn consequence(self, status: ExitStatus, attempts: u32, ending: bool) -> Option<Consequence> {
        if status.success() {
            return None;
        }
        Some(match self {
            _ if ending => Consequence::TheEnd,
            Self::Keep => Consequence::TheOthersGoOn,
            Self::Watch => Consequence::Silence,
            Self::Restart(times) if attempts < times => Consequence::Anew(attempts + 1),
            Self::End | Self::Restart(_) => Consequence::TheEnd,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn what_follows() {
        let failed = ExitStatus::from_raw(9);
        for (what, attempts, ending, then) in [
            (OnDeath::End, 0, false, Consequence::TheEnd),
            (OnDeath::Keep, 0, false, Consequence::TheOthersGoOn),
            (OnDeath::Keep, 0, true, Consequence::TheEnd),
            (OnDeath::Watch, 0, false, Consequence::Silence),
            (OnDeath::Watch, 0, true, Consequence::TheEnd),
            (OnDeath::Restart(2), 0, false, Consequence::Anew(1)),
            (OnDeath::Restart(2), 1, false, Consequence::Anew(2)),
            (OnDeath::Restart(2), 2, false, Consequence::TheEnd),
            (OnDeath::Restart(2), 0, true, Consequence::TheEnd),
            (OnDeath::Restart(0), 0, false, Consequence::TheEnd),
        ] {
            assert_eq!(
                what.consequence(failed, attempts, ending),
                Some(then),
                "{what:?} {attempts}"
            );
            assert_eq!(what.consequence(ExitStatus::from_raw(0), attempts, ending), None);
        }
    }
}
