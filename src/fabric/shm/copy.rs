//! Moves bytes between local memory and a peer's. Nothing here checks rights: callers have.

use rustix::io::Errno;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the peer to here.
    Pull,
    /// From here to the peer.
    Push,
}

/// How much is copied between two looks at whether the peer has revoked us.
pub(super) const STRIDE: usize = 256 << 10;

/// Copies between two places of this address space, a stride at a time, as long as `go_on`; says whether all was
/// copied.
///
/// # Safety
/// Both ranges are mapped for `len` bytes, the target writably, and the peer and the caller keep the contract of the
/// fabric: nobody else in this process holds references into what is written.
pub(super) unsafe fn mapped(
    from: *const u8,
    to: *mut u8,
    len: usize,
    mut go_on: impl FnMut() -> bool,
) -> bool {
    let mut done = 0;
    while done < len {
        if done > 0 && !go_on() {
            return false;
        }
        let piece = STRIDE.min(len - done);
        // SAFETY: inside both ranges. `copy` and not `copy_nonoverlapping`: a rank may write to itself.
        unsafe { std::ptr::copy(from.add(done), to.add(done), piece) };
        done += piece;
    }
    true
}

/// Copies between this process and an address of another through the kernel, which checks that address.
///
/// # Errors
/// The kernel's: no right to, no such process, no such memory.
///
/// # Safety
/// `local` is valid for `len` bytes, and the rest as for [`mapped`].
pub(super) unsafe fn attach(
    pid: i32,
    address: usize,
    local: *mut u8,
    len: usize,
    direction: Direction,
) -> Result<(), Errno> {
    let mut done = 0;
    while done < len {
        let here = libc::iovec {
            iov_base: local.wrapping_add(done).cast(),
            iov_len: len - done,
        };
        let there = libc::iovec {
            iov_base: (address + done) as *mut _,
            iov_len: len - done,
        };
        // SAFETY: the kernel checks both ranges and answers EFAULT; by the contract the local one is ours to use.
        let moved = unsafe {
            match direction {
                Direction::Pull => libc::process_vm_readv(pid, &here, 1, &there, 1, 0),
                Direction::Push => libc::process_vm_writev(pid, &here, 1, &there, 1, 0),
            }
        };
        match moved {
            1.. => done += moved as usize,
            0 => return Err(Errno::FAULT),
            _ => match Errno::from_io_error(&std::io::Error::last_os_error()) {
                Some(Errno::INTR) => {}
                Some(error) => return Err(error),
                None => return Err(Errno::IO),
            },
        }
    }
    Ok(())
}
