//! The limit on locked memory, looked at before it bites: the kernel answers a registration beyond it with a bare
//! ENOMEM.

use rustix::process::{Resource, getrlimit};

/// A registration that the limit on locked memory does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "registering {wanted} bytes would lock {} bytes, but the limit is {limit} (ulimit -l, RLIMIT_MEMLOCK; {pinned} \
     are locked by registrations already): raise it with `ulimit -l unlimited`, for logins with `* - memlock \
     unlimited` in /etc/security/limits.conf, for services with LimitMEMLOCK=infinity (systemd), for containers with \
     --ulimit memlock=-1", pinned + wanted
)]
pub struct MemlockError {
    /// Bytes of whole pages that were to be registered.
    pub wanted: u64,
    /// Bytes that this process's registrations lock already.
    pub pinned: u64,
    /// The limit in bytes.
    pub limit: u64,
}

/// Refuses a registration of `len` bytes at `address` that the kernel would refuse for the limit. What cannot be
/// found out is left to the kernel.
pub(super) fn check(address: usize, len: usize) -> Result<(), MemlockError> {
    let Some(limit) = getrlimit(Resource::Memlock).current else {
        return Ok(());
    };
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return Ok(());
    };
    decide(&status, limit, pages(address, len))
}

/// Bytes of the pages that a piece of memory touches: what is locked and counted.
fn pages(address: usize, len: usize) -> u64 {
    let page = rustix::param::page_size();
    let end = address
        .saturating_add(len)
        .checked_next_multiple_of(page)
        .unwrap_or(usize::MAX);
    (end - address / page * page) as u64
}

/// From the text of /proc/self/status: the kernel counts pages pinned for devices (`VmPin`), and lets whoever may lock
/// memory (CAP_IPC_LOCK) lock all of it.
fn decide(status: &str, limit: u64, wanted: u64) -> Result<(), MemlockError> {
    const MAY_LOCK: u64 = 1 << 14;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next().map(str::to_owned)
    };
    let rights = field("CapEff:").and_then(|text| u64::from_str_radix(&text, 16).ok());
    let pinned = field("VmPin:").and_then(|text| text.parse::<u64>().ok());
    let (Some(rights), Some(pinned)) = (rights, pinned) else {
        return Ok(());
    };
    let pinned = pinned * 1024;
    if rights & MAY_LOCK != 0 || pinned.saturating_add(wanted) <= limit {
        return Ok(());
    }
    Err(MemlockError {
        wanted,
        pinned,
        limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nVmLck:\t       0 kB\nVmPin:\t    4096 kB\nCapEff:\t0000000000000000\n";

    #[test]
    fn what_is_pinned_already_counts() {
        assert_eq!(decide(STATUS, 8 << 20, 4 << 20), Ok(()));
        let error = decide(STATUS, 8 << 20, (4 << 20) + 4096).unwrap_err();
        assert_eq!((error.pinned, error.limit), (4 << 20, 8 << 20));
        let text = error.to_string();
        for part in [
            "8388608",
            "ulimit -l unlimited",
            "limits.conf",
            "LimitMEMLOCK=infinity",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn who_may_lock_memory_is_not_held_up() {
        let status = STATUS.replace("0000000000000000", "000001ffffffffff");
        assert_eq!(decide(&status, 0, 1 << 40), Ok(()));
    }

    #[test]
    fn what_the_kernel_does_not_say_is_left_to_it() {
        assert_eq!(decide("", 0, 1 << 40), Ok(()));
    }

    #[test]
    fn whole_pages_are_counted() {
        let page = rustix::param::page_size();
        assert_eq!(pages(page, 1), page as u64);
        assert_eq!(pages(2 * page - 1, 2), 2 * page as u64);
        assert_eq!(pages(page, page), page as u64);
    }
}
