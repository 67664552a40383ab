//! Why a device's file under /dev/infiniband does not open: its mode, its owner and group, and what gives access.

use std::ffi::CStr;
use std::os::unix::fs::MetadataExt;

use sapwood_sys::verbs::bindings::ibv_device;

use super::error::PermissionError;

/// The device's file.
///
/// # Safety
/// `device` is an entry of a device list that is not yet freed.
pub(super) unsafe fn file_of(device: *mut ibv_device) -> String {
    // SAFETY: the caller's contract; the library ends the name with a zero.
    let name = unsafe { CStr::from_ptr((&raw const (*device).dev_name).cast()) };
    format!("/dev/infiniband/{}", name.to_string_lossy())
}

/// What stands against opening `file`, if it is the permissions. The file is asked and not the errno of the open:
/// libibverbs looks for the device elsewhere then, and answers that it is not there.
pub(super) fn explain(device: &str, file: &str) -> Option<PermissionError> {
    use rustix::fs::{Access, AtFlags, CWD};
    let access = rustix::fs::accessat(CWD, file, Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS);
    if !matches!(access, Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM)) {
        return None;
    }
    Some(describe(device, file))
}

fn describe(device: &str, file: &str) -> PermissionError {
    let (who, group) = match std::fs::metadata(file) {
        Ok(metadata) => {
            let group = name_of("/etc/group", metadata.gid());
            let text = format!(
                "mode {:03o}, owner {}, group {group}; asked by user {}",
                metadata.mode() & 0o777,
                name_of("/etc/passwd", metadata.uid()),
                name_of("/etc/passwd", rustix::process::geteuid().as_raw()),
            );
            (text, group)
        }
        Err(error) => (format!("its metadata cannot be read: {error}"), "rdma".to_owned()),
    };
    let join = if group == "root" {
        "give it to a group (udev: KERNEL==\"uverbs*\", GROUP=\"rdma\", MODE=\"0660\") and join that"
            .to_owned()
    } else {
        format!("join the group (`usermod -aG {group} USER`, then log in again)")
    };
    PermissionError {
        device: device.into(),
        file: file.into(),
        who,
        remedy: format!(
            "{join}, or let everybody use it (`chmod 0666 {file}`, the udev rule of rdma-core: MODE=\"0666\"); in a \
             container its device cgroup must allow it too (`--device {file}`)"
        ),
    }
}

/// The name of a user or group in a file of the form `name:x:number:…`, else the number.
fn name_of(file: &str, number: u32) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(number)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_its_mode_and_its_group_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("uverbs0");
        std::fs::write(&file, "").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, mode).unwrap();
        let file = file.to_str().unwrap();
        let text = describe("r0", file).to_string();
        for part in ["device r0", file, "mode 600", "group", "chmod 0666", "--device"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn other_failures_are_not_about_permissions() {
        assert_eq!(explain("r0", "/dev/null"), None);
        assert_eq!(explain("r0", "/nowhere"), None);
    }

    #[test]
    fn numbers_without_a_name_stay_numbers() {
        assert_eq!(name_of("/etc/passwd", 0), "root");
        assert_eq!(name_of("/nowhere", 7), "7");
    }
}
