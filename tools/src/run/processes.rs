//! Looks through the processes of this machine, and what they were started with, as `/proc` shows them. Nothing here
//! takes memory or a lock: the guardian does it, too, in a forked child of a program with threads.

use std::ffi::CStr;

/// The guardians' name, by which they know each other: a guardian ends by itself, after it has ended its job.
pub(super) const GUARDIAN: &CStr = c"sapwood-guard";

/// "/proc/", ten digits, "/environ" and the end.
const PATH_BYTES: usize = 32;

/// Calls `found` with every name in a folder that is a number, and the folder's own descriptor.
pub(super) fn each_number(folder: &CStr, mut found: impl FnMut(i32, i32)) -> bool {
    // SAFETY: the path ends with a zero; a plain system call.
    let directory = unsafe {
        libc::open(
            folder.as_ptr(),
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
        )
    };
    if directory == -1 {
        return false;
    }
    let mut bytes = [0u8; 4096];
    loop {
        // SAFETY: the kernel writes at most as many bytes as there are.
        let length =
            unsafe { libc::syscall(libc::SYS_getdents64, directory, bytes.as_mut_ptr(), bytes.len()) };
        let Some(mut entries) = usize::try_from(length)
            .ok()
            .and_then(|length| bytes.get(..length))
        else {
            break;
        };
        if entries.is_empty() {
            break;
        }
        // An entry is eight bytes, eight bytes, its own length in two, one byte, and the name with its end.
        while let Some(&[low, high]) = entries.get(16..18) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            if let Some(number) = entries.get(19..length).and_then(number) {
                found(number, directory);
            }
            entries = entries.get(length.max(1)..).unwrap_or_default();
        }
    }
    // SAFETY: opened above, and nobody else's.
    unsafe { libc::close(directory) };
    true
}

fn number(name: &[u8]) -> Option<i32> {
    let mut number = 0i32;
    for (at, byte) in name.iter().enumerate() {
        match byte {
            b'0'..=b'9' => number = number.checked_mul(10)?.checked_add(i32::from(byte - b'0'))?,
            0 if at > 0 => return Some(number),
            _ => return None,
        }
    }
    None
}

/// Whether a process was started with this in its environment. `mark` is a whole variable, its final zero included.
/// False for processes of others, and for those that have ended.
pub(super) fn has_mark(pid: i32, mark: &[u8]) -> bool {
    contains(pid, b"/environ\0", mark)
}

pub(super) fn is_guardian(pid: i32) -> bool {
    contains(pid, b"/comm\0", GUARDIAN.to_bytes())
}

fn contains(pid: i32, file: &[u8], wanted: &[u8]) -> bool {
    let path = path(pid, file);
    // SAFETY: the path ends with a zero; a plain system call.
    let file = unsafe { libc::open(path.as_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file == -1 {
        return false;
    }
    let mut bytes = [0u8; 8192];
    let mut kept = 0;
    let mut found = false;
    while let Some(room) = bytes.get_mut(kept..).filter(|room| !room.is_empty()) {
        // SAFETY: the kernel writes at most as many bytes as there is room for.
        let length = unsafe { libc::read(file, room.as_mut_ptr().cast(), room.len()) };
        let Some(length) = usize::try_from(length).ok().filter(|length| *length > 0) else {
            break;
        };
        let known = kept + length;
        let text = bytes.get(..known).unwrap_or_default();
        if text.windows(wanted.len()).any(|part| part == wanted) {
            found = true;
            break;
        }
        // What is wanted may begin in this piece and end in the next.
        kept = known.min(wanted.len().saturating_sub(1));
        bytes.copy_within(known - kept..known, 0);
    }
    // SAFETY: opened above, and nobody else's.
    unsafe { libc::close(file) };
    found
}

fn path(pid: i32, file: &[u8]) -> [u8; PATH_BYTES] {
    let mut digits = [0u8; 10];
    let (mut rest, mut at) = (pid.unsigned_abs(), digits.len());
    while at > 0 && (rest > 0 || at == digits.len()) {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let mut path = [0u8; PATH_BYTES];
    let parts = [b"/proc/".as_slice(), digits.get(at..).unwrap_or_default(), file];
    for (place, byte) in path.iter_mut().zip(parts.into_iter().flatten()) {
        *place = *byte;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_paths_are_written_as_the_kernel_does() {
        assert_eq!(number(b"4194304\0\0"), Some(4_194_304));
        for none in [&b"self\0"[..], b"1a\0", b"\0", b"12", b"99999999999\0"] {
            assert_eq!(number(none), None, "{none:?}");
        }
        for pid in [0, 7, 10, i32::MAX] {
            let path = path(pid, b"/environ\0");
            let path = CStr::from_bytes_until_nul(&path).unwrap().to_str().unwrap();
            assert_eq!(path, format!("/proc/{pid}/environ"));
        }
    }

    #[test]
    fn what_a_process_was_started_with_is_found_wherever_it_stands() {
        let own = std::process::id() as i32;
        let mut seen = Vec::new();
        assert!(each_number(c"/proc", |pid, _| seen.push(pid)));
        assert!(seen.contains(&own) && seen.contains(&1));
        for filling in [0, 8150, 8180, 8192, 20_000] {
            let mut child = std::process::Command::new("sleep")
                .arg("1000")
                .env_clear()
                .env("FILLING", "x".repeat(filling))
                .env("MARKED", "by this test")
                .spawn()
                .unwrap();
            let pid = child.id() as i32;
            let found = has_mark(pid, b"MARKED=by this test\0");
            let (less, more) = (has_mark(pid, b"MARKED=by\0"), is_guardian(pid));
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(found && !less && !more, "{filling}");
            assert!(!has_mark(pid, b"MARKED=by this test\0"));
        }
    }
}
