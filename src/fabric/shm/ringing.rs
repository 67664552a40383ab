//! The descriptor beside an endpoint's bell: an eventfd that peers write to while the endpoint sleeps in poll(2).

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::EventfdFlags;
use rustix::fs::OFlags;

use super::keys::system;
use crate::fabric::FabricError;

/// A new one.
pub(super) fn descriptor() -> Result<OwnedFd, FabricError> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    rustix::event::eventfd(0, flags)
        .map_err(|error| system("making the descriptor that wakes a sleeping rank", error))
}

/// Refuses what a peer could not have meant: a ring must never block, nor write into something else.
///
/// # Errors
/// In words.
pub(super) fn check(descriptor: &OwnedFd) -> Result<(), String> {
    let flags = rustix::fs::fcntl_getfl(descriptor)
        .map_err(|error| format!("its descriptor is of no use: {error}"))?;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
    // Where /proc does not tell, the flag must do.
    let kind = link.map_or_else(|_| "eventfd".into(), |name| name.to_string_lossy().into_owned());
    if !flags.contains(OFlags::NONBLOCK) || !kind.contains("eventfd") {
        return Err(format!(
            "the descriptor to wake it by is {kind}, and not an eventfd that never blocks"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_eventfd_that_never_blocks_is_taken() {
        assert_eq!(check(&descriptor().unwrap()), Ok(()));
        let blocking = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        assert!(check(&blocking).is_err());
        let (_reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        assert!(check(&writer).unwrap_err().contains("pipe"));
    }
}
