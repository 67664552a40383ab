//! A worker that comes back after a death, and catches up; none of the others' training threads takes part. Where memory is
//! mapped it takes over the memory that it had, which the others have kept, and theirs goes on being used as it is. Over
//! queue pairs its memory is new, and who needs it asks it for a queue pair.

use std::os::fd::OwnedFd;

use super::barrier::{Barrier, Driver};
use super::core::{Core, Parts};
use super::ground::Ground;
use super::mapped::Mapped;
use super::memory::Places;
use super::protocol::{Reach, Way, Worker};
use super::settings::cut;
use super::{BackupError, connecting};
use crate::communicator::{Communicator, CommunicatorError, Keepsake, Window};
use crate::fabric::Patience;
use crate::memory::{Element, MemoryError};

fn duplicate(file: std::os::fd::BorrowedFd<'_>) -> Result<OwnedFd, CommunicatorError> {
    let failed = |source| MemoryError::System {
        what: "duplicating the descriptor of shared memory",
        bytes: 0,
        source,
    };
    Ok(file.try_clone_to_owned().map_err(failed)?)
}

/// Keeps all workers' memory for those who come back. Collective.
pub(super) fn keep<T: Element>(
    communicator: &Communicator,
    (number, settings): (u32, String),
    words: &Window<u64>,
    data: &Window<T>,
) -> Result<Keepsake, CommunicatorError> {
    let files = [words.region(), data.region()];
    let files = files.map(|region| duplicate(region.kind().share().expect("it is a memory file")));
    let own = files.into_iter().collect::<Result<Vec<_>, _>>()?;
    let all = communicator.hand_round("handing round what those need who come back", own)?;
    communicator.keep(number, Ok((settings, all)))
}

/// Takes the old place. Waits for nobody but for one whose state is whole.
pub(super) fn take_over<T: Element>(
    communicator: &Communicator,
    (number, settings): (u32, String),
    (parts, places, count): (Parts, Places, usize),
) -> Result<Barrier<T>, BackupError> {
    let (rank, workers) = (communicator.rank(), communicator.size() as usize);
    let wrong = |what: String| BackupError::Argument { rank, what };
    if places.state == 0 {
        let what = "a rank that has come back needs training state to catch up with: name it when the exchange is made \
                    (`state`)";
        return Err(wrong(what.into()));
    }
    let (theirs, files) = communicator.fetch(number)?;
    if theirs != settings {
        return Err(wrong(format!(
            "settings differ: {theirs} in the job to which this rank comes back, {settings} here"
        )));
    }
    if parts.shape.reach() != Reach::LoadStore {
        let kept = communicator.keep(number, Ok((settings, Vec::new())))?;
        let (ground, data) = connecting::remote::<T>(communicator, number, places, &parts.shape)?;
        let mut core = Core::new(parts, ground);
        core.return_to(communicator.life())?;
        let mut barrier = Barrier::new(Driver::Remote(core), cut(data, &places, count), count);
        barrier.kept = Some(kept);
        return Ok(barrier);
    }
    if files.len() != 2 * workers {
        return Err(wrong(format!(
            "{} pieces of memory were handed out, and {workers} workers have {}",
            files.len(),
            2 * workers
        )));
    }
    let of = |which| files.iter().skip(which).step_by(2).collect::<Vec<_>>();
    let words: Window<u64> = communicator.taken_over(&of(0), places.words())?;
    let data: Window<T> = communicator.taken_over(&of(1), places.data_bytes() / size_of::<T>())?;
    let spare = match parts.way {
        Way::Flat => Some(communicator.unshared::<T>(count)?),
        Way::Tree { .. } => None,
    };
    let maps = (words.map().clone(), data.map().clone());
    let patience = Patience::for_ranks(workers);
    let ground = Mapped::new(places, rank, maps, patience, communicator.liveness());
    ground.take_over();
    let mut core = Core::new(parts, ground);
    core.spare = spare.as_ref().map(|_| places.kept());
    let kept = communicator.keep(number, Ok((settings, files)))?;
    core.return_to(communicator.life())?;
    let mut held = cut(data, &places, count);
    held.gradients.extend(spare.map(Some));
    let mut barrier = Barrier::new(Driver::Mapped(core), held, count);
    barrier.kept = Some(kept);
    Ok(barrier)
}

impl<G: Ground> Core<G> {
    /// Catches up with the others. A ticket says in which life it was taken.
    fn return_to(&mut self, life: u64) -> Result<(), BackupError> {
        self.worker = Worker::restarted(self.shape, self.me, life as u16);
        self.drive()?;
        self.caught = false;
        self.begin();
        Ok(())
    }
}
