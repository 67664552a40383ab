//! Whether ranks that have come back are still there: looked up at their doors, never waited for.
//!
//! Who came back was not there when processes were made known to all. A look at its door tells of its process: the
//! kernel says whose it is, and a descriptor of it stays. Where no door is open nobody is, or not yet.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::{Job, Rank, door, socket};

/// A process that was found at a rank's door.
struct Known {
    rank: Rank,
    life: u64,
    process: OwnedFd,
}

/// See the module.
pub(super) struct Lives {
    job: Job,
    /// In which life this rank itself is: 0 is the first.
    pub(super) own: u64,
    known: Mutex<Vec<Known>>,
}

impl Lives {
    pub(super) fn new(job: &Job, own: u64) -> Self {
        Self {
            job: job.clone(),
            own,
            known: Mutex::default(),
        }
    }

    /// Whether a rank's process in that life has ended, as far as can be seen. Does not block.
    pub(super) fn ended(&self, rank: Rank, life: u64) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = known.iter().position(|known| known.rank == rank) {
            if known[at].life == life {
                return is_ready(&known[at].process, PollFlags::IN);
            }
            known.swap_remove(at);
        }
        match self.look(rank) {
            Ok(process) => known.extend(process.map(|process| Known { rank, life, process })),
            Err(Errno::CONNREFUSED) => return true,
            // It may be there: whoever is taken for alive longer than true is doubted for its silence.
            Err(_) => {}
        }
        false
    }

    /// The process at a rank's door; none where the system does not tell.
    fn look(&self, rank: Rank) -> Result<Option<OwnedFd>, Errno> {
        let place = door::place(&self.job, rank).map_err(|_| Errno::IO)?;
        let connection = socket::connect_to_socket(&place)?;
        let found = socket::peer_credentials(&connection)?;
        if found.uid != socket::own_user() {
            return Err(Errno::CONNREFUSED);
        }
        let Some(pid) = Pid::from_raw(found.pid) else {
            return Ok(None);
        };
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        // Still connected: so the number was that process's when the descriptor was made.
        match is_ready(&connection, PollFlags::RDHUP) {
            true => Err(Errno::AGAIN),
            false => Ok(Some(process)),
        }
    }
}

fn is_ready(descriptor: &OwnedFd, events: PollFlags) -> bool {
    let mut entry = [PollFd::new(descriptor, events)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // A poll that fails has seen nothing; the next look will.
    rustix::event::poll(&mut entry, Some(&now)).is_ok_and(|ready| ready > 0)
}
