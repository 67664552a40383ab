//! Memory limits, looked at before allocating: shared memory that does not fit is a SIGBUS or a kill later on.

use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use super::MemoryError;

/// Refuses an allocation of `bytes` that the control group, the address-space or file-size limit, or the machine
/// could not hold.
///
/// # Errors
/// [`MemoryError::Limit`] names the limit, its value, what is left and what raises it.
pub fn check_allocation(bytes: usize) -> Result<(), MemoryError> {
    let refuse = |limit: String, available: u64, remedy: &str| {
        let available = usize::try_from(available).unwrap_or(usize::MAX);
        if bytes <= available {
            return Ok(());
        }
        Err(MemoryError::Limit {
            bytes,
            limit,
            available,
            remedy: remedy.into(),
        })
    };
    if let Some(limit) = getrlimit(Resource::As).current {
        let free = limit.saturating_sub(address_space_used());
        refuse(
            format!("the address-space limit of {limit} bytes (ulimit -v)"),
            free,
            "raise it with `ulimit -v unlimited`",
        )?;
    }
    if let Some(limit) = getrlimit(Resource::Fsize).current {
        refuse(
            format!("the file-size limit of {limit} bytes (ulimit -f), which holds for shared memory too,"),
            limit,
            "raise it with `ulimit -f unlimited`",
        )?;
    }
    for (path, limit, used) in control_groups() {
        refuse(
            format!(
                "the memory limit of {limit} bytes of control group {}",
                path.display()
            ),
            limit.saturating_sub(used),
            "raise its memory.max (systemd: MemoryMax=, Slurm: --mem, containers: --memory)",
        )?;
    }
    if let Some(free) = available_memory() {
        refuse(
            "this machine's free memory".into(),
            free,
            "use fewer ranks or smaller buffers on this host",
        )?;
    }
    Ok(())
}

fn address_space_used() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Path, limit and reclaim-adjusted use of every limited group from this process's own up to the root.
fn control_groups() -> Vec<(PathBuf, u64, u64)> {
    let Ok(own) = std::fs::read_to_string("/proc/self/cgroup") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (
            fields.next(),
            fields.next().unwrap_or(""),
            fields.next().unwrap_or("/"),
        );
        let (root, maximum, usage) = if controllers.is_empty() {
            (Path::new("/sys/fs/cgroup"), "memory.max", "memory.current")
        } else if controllers.split(',').any(|c| c == "memory") {
            (
                Path::new("/sys/fs/cgroup/memory"),
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        } else {
            continue;
        };
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let folder = root.join(group);
            let number = |file: &str| -> Option<u64> {
                std::fs::read_to_string(folder.join(file))
                    .ok()?
                    .trim()
                    .parse()
                    .ok()
            };
            // "max", or version 1's near-infinity, is no limit.
            let Some(limit) = number(maximum).filter(|limit| *limit < 1 << 60) else {
                continue;
            };
            let used = number(usage).unwrap_or(0).saturating_sub(page_cache(&folder));
            found.push((folder, limit, used));
        }
    }
    found
}

/// Clean page cache of a group: the kernel gives it back before it refuses memory.
fn page_cache(folder: &Path) -> u64 {
    let Ok(text) = std::fs::read_to_string(folder.join("memory.stat")) else {
        return 0;
    };
    ["inactive_file ", "active_file "]
        .iter()
        .filter_map(|key| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.parse::<u64>().ok())
        })
        .sum()
}

fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim()
        .trim_end_matches(" kB")
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_cannot_hold_is_refused_with_a_remedy() {
        let error = check_allocation(usize::MAX / 2).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("bytes are needed") && text.contains(';'), "{text}");
        check_allocation(1).expect("one byte fits");
    }
}
