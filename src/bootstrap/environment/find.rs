//! Which launcher has started this process, where several have left something in the environment.

use super::super::BootstrapError;
use super::placement::{Meeting, Placement};
use super::variables::Variables;
use super::{open_mpi, pmi, slurm, torchrun};

/// What the innermost launcher says. Slurm allocates what others launch in: it is heard where nobody else has spoken,
/// and where it says the same and knows better where to meet.
pub(super) fn placement(variables: &Variables<'_>) -> Result<Option<Placement>, BootstrapError> {
    // By hand or in scripts what torch wants is often made of what another launcher has set: then that one knows more.
    let spoken = [
        open_mpi::read(variables)?,
        pmi::read(variables)?,
        torchrun::read(variables)?,
    ];
    let mut spoken = spoken.into_iter().flatten();
    let Some(mut first) = spoken.next() else {
        slurm::warn_if_ignored(variables)?;
        return slurm::read(variables);
    };
    if let Some(other) = spoken.find(|other| !other.agrees_with(&first)) {
        return Err(BootstrapError::EnvironmentContradiction(format!(
            "{} and {} disagree: unset what the outer launcher has set, or say it with SAPWOOD_RANK, SAPWOOD_SIZE, \
             SAPWOOD_RENDEZVOUS and SAPWOOD_SECRET_FILE",
            first.described(),
            other.described()
        )));
    }
    // What is odd about Slurm's is no matter to whom it has not launched.
    if !matches!(first.meeting, Meeting::OneHost(_))
        && let Ok(Some(slurm)) = slurm::read(variables)
        && slurm.agrees_with(&first)
    {
        first.local_rank = first.local_rank.or(slurm.local_rank);
        let says_more = match first.meeting {
            Meeting::Unknown { .. } => !matches!(slurm.meeting, Meeting::Unknown { .. }),
            _ => matches!(slurm.meeting, Meeting::OneHost(_)),
        };
        if says_more {
            first.meeting = slurm.meeting;
        }
    }
    Ok(Some(first))
}
