//! Whether a peer's host still answers, where something is on its way to it.
//!
//! The kernel asks by itself where nothing is (keepalive), and a process that ends closes its sockets. In between it
//! sends again for a quarter of an hour. `TCP_USER_TIMEOUT` would cut that short, but goes on counting when a peer that
//! is stopped, or busy with something else for a while, takes in nothing more while its kernel answers well. So the
//! kernel's own account of the connection is looked at instead.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// Whether the other host has acknowledged nothing for that long, though it was asked again and again.
pub(super) fn is_cut_off(socket: &OwnedFd, silence: Duration) -> bool {
    // SAFETY: the structure is made of integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the option writes at most `length` bytes, which is the size of the structure that it is given.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut length,
        )
    };
    if code != 0 || (info.tcpi_unacked == 0 && info.tcpi_notsent_bytes == 0) {
        return false;
    }
    // A full window is asked about ever more seldom: two questions in a row without an answer are needed.
    Duration::from_millis(info.tcpi_last_ack_recv.into()) >= silence
        && (info.tcpi_retransmits > 0 || info.tcpi_probes > 1)
}
