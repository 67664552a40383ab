//! What only the kernel's files tell about ports: interfaces, GID types for old libraries, VLANs, counters. A file
//! that is not there is no answer, never an error.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const DEVICES: &str = "/sys/class/infiniband";

fn port_folder(device: &str, port: u8) -> PathBuf {
    Path::new(DEVICES)
        .join(device)
        .join("ports")
        .join(port.to_string())
}

fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The kernel's devices.
pub(super) fn devices() -> Vec<String> {
    let mut names: Vec<_> = entries(Path::new(DEVICES)).collect();
    names.sort();
    names
}

fn entries(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// The type of a GID in the kernel's words.
pub(super) fn gid_type(device: &str, port: u8, index: u32) -> Option<String> {
    line(
        port_folder(device, port)
            .join("gid_attrs/types")
            .join(index.to_string()),
    )
}

/// The interface that has a GID's address.
pub(super) fn gid_net_device(device: &str, port: u8, index: u32) -> Option<String> {
    line(
        port_folder(device, port)
            .join("gid_attrs/ndevs")
            .join(index.to_string()),
    )
}

/// The interface that a port belongs to: of the hardware, or what a software device was laid over.
pub(super) fn net_device(device: &str, port: u8) -> Option<String> {
    let folder = Path::new(DEVICES).join(device);
    if let Some(parent) = line(folder.join("parent")) {
        return Some(parent);
    }
    // Ports of one card are told apart by dev_port, from 0.
    let interfaces = folder.join("device/net");
    let mut names: Vec<_> = entries(&interfaces).collect();
    names.sort();
    let of_port = |name: &&String| {
        line(interfaces.join(name).join("dev_port")).and_then(|text| text.parse().ok())
            == Some(u32::from(port) - 1)
    };
    let found = names.iter().find(of_port).cloned();
    found.or_else(|| gid_net_device(device, port, 0))
}

/// The name of an interface.
pub(super) fn interface(number: u32) -> Option<String> {
    let mut name = [0 as libc::c_char; libc::IF_NAMESIZE];
    if number == 0 {
        return None;
    }
    // SAFETY: the buffer has the size that the call asks for.
    let found = unsafe { libc::if_indextoname(number, name.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: the call wrote a name that ends with a zero.
    let name = unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) };
    Some(name.to_string_lossy().into_owned())
}

/// The VLAN of an interface, if it is one.
pub(super) fn vlan(interface: &str) -> Option<u16> {
    // "v0.7  VID: 7  REORDER_HDR: 1  dev->priv_flags: 1"
    let text = fs::read_to_string(Path::new("/proc/net/vlan").join(interface)).ok()?;
    let mut words = text.split_whitespace();
    words.find(|word| *word == "VID:")?;
    words.next()?.parse().ok()
}

/// Counters of the port and of its driver.
pub(super) fn counters(device: &str, port: u8) -> BTreeMap<String, u64> {
    let folder = port_folder(device, port);
    let mut counters = BTreeMap::new();
    for group in ["counters", "hw_counters"] {
        let group = folder.join(group);
        for name in entries(&group) {
            // `lifespan` is how long the driver keeps values, not a count.
            let value = line(group.join(&name)).and_then(|text| text.parse().ok());
            if let Some(value) = value.filter(|_| name != "lifespan") {
                counters.insert(name, value);
            }
        }
    }
    counters
}
