//! What a process manager that speaks PMI-1 sets: MPICH's `mpiexec` (Hydra), or `srun --mpi=pmi2`.

use std::os::fd::{BorrowedFd, RawFd};

use super::super::{BootstrapError, socket};
use super::placement::{Launcher, Meeting, Names, Placement, socket_name};
use super::variables::{Variables, number, refuse};

const NAMES: Names = Names {
    rank: "PMI_RANK",
    size: "PMI_SIZE",
    local_rank: "MPI_LOCALRANKID",
    local_size: "MPI_LOCALNRANKS",
};
/// The descriptor of the connection to the process manager.
const DESCRIPTOR: &str = "PMI_FD";

pub(super) fn read(variables: &Variables<'_>) -> Result<Option<Placement>, BootstrapError> {
    let Some(mut placement) = Placement::read(Launcher::Pmi, NAMES, variables)? else {
        return Ok(None);
    };
    let Some(text) = variables.filled(DESCRIPTOR)? else {
        placement.meeting = Meeting::Unknown {
            missing: DESCRIPTOR,
            hint: "the connection to the process manager, which mpiexec sets",
        };
        return Ok(Some(placement));
    };
    let expected = "the number of an open descriptor";
    let descriptor = number(DESCRIPTOR, &text, expected)?;
    let descriptor = RawFd::try_from(descriptor)
        .ok()
        .filter(|descriptor| is_open(*descriptor))
        .ok_or_else(|| {
            let why =
                "it is not open here: was this process started through something that closes descriptors?";
            refuse(DESCRIPTOR, &text, why)
        })?;
    // Where the launcher says that all are here, nothing is asked of it: it answers one client alone, once, and the
    // program may want to use MPI too.
    placement.meeting = match process_manager(descriptor) {
        Some(manager) if placement.is_on_one_host() => Meeting::OneHost(socket_name("mpiexec", &[&manager])?),
        _ => Meeting::KeyValue(descriptor),
    };
    Ok(Some(placement))
}

fn is_open(descriptor: RawFd) -> bool {
    // SAFETY: asks for the flags of a number; a number that is no descriptor's gives an error.
    unsafe { libc::fcntl(descriptor, libc::F_GETFD) != -1 }
}

/// The process that holds the other end, the same for all ranks of a host, and no other job's: its number and when it
/// was started.
fn process_manager(descriptor: RawFd) -> Option<String> {
    // SAFETY: it was open a moment ago, and who closes a descriptor that the launcher has given to this process for its
    // whole life gets an error from the calls below, at worst about another socket.
    let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let pid = socket::peer_credentials(&socket).ok()?.pid;
    let status = (pid > 0).then(|| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok())??;
    // The program's name, in parentheses, may hold anything; the start is the 20th word behind it.
    let started = status.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned();
    Some(format!("{pid} {started}"))
}
