//! Takes the inventory: opens devices one after the other, asks them everything, and closes them again. What one
//! device does not answer is written down and keeps nobody from asking the next.

use std::collections::BTreeMap;
use std::ffi::CStr;

use sapwood_sys::mlx5::Mlx5;
use sapwood_sys::verbs::Verbs as Library;
use sapwood_sys::verbs::bindings::*;

use super::context::Context;
use super::error::{Place, VerbError, VerbsError, last_errno};
use super::gid::{Gid, GidType};
use super::inventory::*;
use super::link;
use super::mtu::Mtu;
use super::sysfs;

/// `IBV_QPF_GRH_REQUIRED` of a port's flags.
const GLOBAL_ROUTE_REQUIRED: u8 = 1;

/// Libibverbs' list of devices, freed when dropped.
pub(super) struct DeviceList {
    library: Library,
    list: *mut *mut ibv_device,
    count: usize,
}

impl DeviceList {
    pub fn get(library: Library) -> Result<Self, VerbsError> {
        let mut count = 0;
        // SAFETY: `count` is writable; the list is freed once, in `drop`.
        let list = unsafe { (library.get_device_list)(&mut count) };
        if list.is_null() {
            return Err(Place::device("(any)").failed_now(VerbError::GetDeviceList));
        }
        Ok(Self {
            library,
            list,
            count: usize::try_from(count).unwrap_or(0),
        })
    }

    /// The devices with their names.
    pub fn iter(&self) -> impl Iterator<Item = (String, *mut ibv_device)> {
        // SAFETY: the list has `count` entries and lives as long as this borrow.
        let entries = unsafe { std::slice::from_raw_parts(self.list, self.count) };
        entries.iter().map(|device| {
            // SAFETY: an entry of a list that is not freed; its name ends with a zero.
            let name = unsafe { CStr::from_ptr((self.library.get_device_name)(*device)) };
            (name.to_string_lossy().into_owned(), *device)
        })
    }

    /// Opens one by name.
    pub fn open(&self, wanted: &str) -> Result<Context, VerbsError> {
        let found = self.iter().find(|(name, _)| name == wanted);
        let (_, device) =
            found.ok_or_else(|| Place::device(wanted).failed(VerbError::OpenDevice, libc::ENODEV))?;
        // SAFETY: an entry of this list.
        unsafe { Context::open(self.library, device, wanted) }
    }
}

impl Drop for DeviceList {
    fn drop(&mut self) {
        // SAFETY: taken in `get`, freed once; open contexts do not need it.
        unsafe { (self.library.free_device_list)(self.list) };
    }
}

/// Looks at every device that `wanted` says yes to; of the others only the names are noted.
pub(super) fn take(library: Library, wanted: impl Fn(&str) -> bool) -> Result<Inventory, VerbsError> {
    let list = match DeviceList::get(library) {
        Ok(list) => Some(list),
        // A kernel without RDMA has no devices; that is an answer, not a failure.
        Err(VerbsError::Verb(VerbError::GetDeviceList(failure))) if failure.errno == libc::ENOSYS => None,
        Err(error) => return Err(error),
    };
    let mut devices = Vec::new();
    for (name, device) in list.iter().flat_map(DeviceList::iter) {
        // SAFETY: an entry of the list, which is still there.
        let mut report = unsafe { identify(&library, name, device) };
        if wanted(&report.name) {
            // SAFETY: as above.
            match unsafe { Context::open(library, device, &report.name) } {
                Ok(context) => fill(&context, &mut report),
                Err(error) => report.error = Some(error.to_string()),
            }
        } else {
            report.error = Some("not looked at: the settings name other devices".into());
        }
        devices.push(report);
    }
    let without_driver = sysfs::devices()
        .into_iter()
        .filter(|name| !devices.iter().any(|device| device.name == *name))
        .collect();
    let mut missing: Vec<_> = library
        .missing()
        .into_iter()
        .map(|name| format!("ibv_{name}"))
        .collect();
    if devices.iter().any(|device| device.name.starts_with("mlx5")) {
        missing.extend(Mlx5::load().missing().into_iter().map(str::to_owned));
    }
    Ok(Inventory {
        missing_functions: missing,
        without_driver,
        devices,
    })
}

/// Adds the counters, for each of which some drivers ask their firmware: not for who only wants to choose.
pub(super) fn count(inventory: &mut Inventory) {
    for device in &mut inventory.devices {
        for port in &mut device.ports {
            port.counters = sysfs::counters(&device.name, port.number);
        }
    }
}

/// # Safety
/// `device` is an entry of a list that is not yet freed.
unsafe fn identify(library: &Library, name: String, device: *mut ibv_device) -> DeviceReport {
    // SAFETY: the caller's contract.
    let (guid, transport) = unsafe { ((library.get_device_guid)(device), (*device).transport_type) };
    DeviceReport {
        name,
        node_guid: guid_text(guid),
        transport: match transport {
            IBV_TRANSPORT_IB => Transport::InfiniBand,
            IBV_TRANSPORT_IWARP => Transport::Iwarp,
            _ => Transport::Other,
        },
        error: None,
        details: None,
        ports: Vec::new(),
    }
}

/// A GUID, which verbs gives most significant byte first.
fn guid_text(guid: u64) -> String {
    let value = u64::from_be(guid);
    format!(
        "{:04x}:{:04x}:{:04x}:{:04x}",
        value >> 48,
        value >> 32 & 0xffff,
        value >> 16 & 0xffff,
        value & 0xffff
    )
}

fn fill(context: &Context, report: &mut DeviceReport) {
    match details(context) {
        Ok(details) => {
            report.ports = (1..=details.limits.ports)
                .map(|number| port(context, number))
                .collect();
            report.details = Some(details);
        }
        Err(error) => report.error = Some(error.to_string()),
    }
}

/// Identity and limits.
pub(super) fn details(context: &Context) -> Result<DeviceDetails, VerbsError> {
    // SAFETY: all numbers and characters, for which zero is a value.
    let mut told: ibv_device_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the context is open and the attributes are writable.
    let errno = unsafe { (context.library.query_device)(context.raw(), &mut told) };
    if errno != 0 {
        return Err(Place::device(context.name()).failed(VerbError::QueryDevice, errno));
    }
    let firmware: Vec<u8> = told
        .fw_ver
        .iter()
        .map(|byte| byte.cast_unsigned())
        .take_while(|byte| *byte != 0)
        .collect();
    let count = |number: i32| u32::try_from(number).unwrap_or(0);
    let small = |number: i32| u8::try_from(number.clamp(0, 255)).unwrap_or(0);
    Ok(DeviceDetails {
        firmware: String::from_utf8_lossy(&firmware).into_owned(),
        vendor: told.vendor_id,
        part: told.vendor_part_id,
        revision: told.hw_ver,
        limits: Limits {
            ports: told.phys_port_cnt,
            queue_pairs: count(told.max_qp),
            queue_depth: count(told.max_qp_wr),
            scatter_entries: count(told.max_sge),
            completion_queues: count(told.max_cq),
            completion_depth: count(told.max_cqe),
            registrations: count(told.max_mr),
            registration_size: told.max_mr_size,
            protection_domains: count(told.max_pd),
            reads_answered: small(told.max_qp_rd_atom),
            reads_started: small(told.max_qp_init_rd_atom),
            atomics: match told.atomic_cap {
                IBV_ATOMIC_HCA => AtomicSupport::Device,
                IBV_ATOMIC_GLOB => AtomicSupport::Global,
                _ => AtomicSupport::None,
            },
        },
    })
}

/// A port's attributes as verbs gives them.
pub(super) fn query_port(context: &Context, number: u8) -> Result<ibv_port_attr, VerbsError> {
    // SAFETY: all numbers, for which zero is a value.
    let mut told: ibv_port_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the context is open and the attributes are writable.
    let errno = unsafe { context.library.query_port(context.raw(), number, &mut told) };
    if errno == 0 {
        Ok(told)
    } else {
        Err(Place::device(context.name())
            .port(number)
            .failed(VerbError::QueryPort, errno))
    }
}

/// Everything about one port; what could not be read is noted in it.
pub(super) fn port(context: &Context, number: u8) -> PortReport {
    let mut problems = Vec::new();
    let told = query_port(context, number).unwrap_or_else(|error| {
        problems.push(error.to_string());
        // SAFETY: as in `query_port`.
        unsafe { std::mem::zeroed() }
    });
    let link_layer = link::layer(told.link_layer);
    let length = u32::try_from(told.gid_tbl_len).unwrap_or(0);
    let gids = (0..length).filter_map(|index| match gid(context, number, index, link_layer) {
        Ok(report) => report,
        Err(error) => {
            problems.push(error.to_string());
            None
        }
    });
    let gids = gids.collect();
    let lanes = link::lanes(told.active_width);
    PortReport {
        number,
        state: link::state(told.state),
        physical_state: link::physical_state(told.phys_state).into(),
        link_layer,
        active_mtu: Mtu::from_code(told.active_mtu),
        max_mtu: Mtu::from_code(told.max_mtu),
        lid: told.lid,
        subnet_manager_lid: told.sm_lid,
        lid_mask_count: told.lmc,
        global_route_required: link_layer == LinkLayer::Ethernet || told.flags & GLOBAL_ROUTE_REQUIRED != 0,
        width: lanes,
        speed: link::speed(told.active_speed).map(str::to_owned),
        rate_gb_per_s: link::rate(told.active_speed, told.active_width, link_layer),
        max_message: told.max_msg_sz,
        gid_table: length,
        partition_key_table: told.pkey_tbl_len,
        net_device: sysfs::net_device(context.name(), number),
        gids,
        counters: BTreeMap::new(),
        problems,
    }
}

/// Where in the table a GID of that type is now.
pub(super) fn find_gid(
    context: &Context,
    port: u8,
    length: u32,
    wanted: &GidReport,
    layer: LinkLayer,
) -> Option<u32> {
    let same = |index: &u32| {
        let entry = gid(context, port, *index, layer).ok().flatten();
        entry.is_some_and(|entry| (entry.gid, entry.kind) == (wanted.gid, wanted.kind))
    };
    (0..length).find(same)
}

/// One entry of the GID table; `None` if it is empty.
fn gid(context: &Context, port: u8, index: u32, layer: LinkLayer) -> Result<Option<GidReport>, VerbsError> {
    let place = || Place::device(context.name()).port(port);
    let report = match context.library.query_gid_ex {
        Some(query) => {
            // SAFETY: bytes and numbers, for which zero is a value.
            let mut entry: ibv_gid_entry = unsafe { std::mem::zeroed() };
            // SAFETY: the context is open, and the entry is writable and as long as is said.
            let errno = unsafe {
                query(
                    context.raw(),
                    port.into(),
                    index,
                    &mut entry,
                    0,
                    size_of::<ibv_gid_entry>(),
                )
            };
            match errno {
                0 => {
                    // SAFETY: both views of the union are plain bytes.
                    let value = Gid::from_bytes(unsafe { entry.gid.raw });
                    let mut report = GidReport::new(index, value, kind_of(entry.gid_type));
                    report.net_device = sysfs::interface(entry.ndev_ifindex);
                    report
                }
                // That is how it says that the entry is empty.
                libc::ENODATA => return Ok(None),
                errno => {
                    return Err(place().failed_with(VerbError::QueryGid, errno, format!("index {index}")));
                }
            }
        }
        None => {
            // SAFETY: bytes, for which zero is a value.
            let mut value: ibv_gid = unsafe { std::mem::zeroed() };
            // SAFETY: the context is open and the value is writable.
            let result =
                unsafe { (context.library.query_gid)(context.raw(), port, index.cast_signed(), &mut value) };
            if result != 0 {
                return Err(place().failed_with(VerbError::QueryGid, last_errno(), format!("index {index}")));
            }
            // SAFETY: both views of the union are plain bytes.
            let value = Gid::from_bytes(unsafe { value.raw });
            let words = sysfs::gid_type(context.name(), port, index);
            let kind = words.and_then(|words| GidType::from_sysfs(&words, layer == LinkLayer::Ethernet));
            GidReport::new(index, value, kind)
        }
    };
    if report.gid.is_empty() {
        return Ok(None);
    }
    let net_device = report
        .net_device
        .or_else(|| sysfs::gid_net_device(context.name(), port, index));
    let vlan = net_device.as_deref().and_then(sysfs::vlan);
    Ok(Some(GidReport {
        net_device,
        vlan,
        ..report
    }))
}

fn kind_of(code: u32) -> Option<GidType> {
    match code {
        IBV_GID_TYPE_IB => Some(GidType::InfiniBand),
        IBV_GID_TYPE_ROCE_V1 => Some(GidType::RoceV1),
        IBV_GID_TYPE_ROCE_V2 => Some(GidType::RoceV2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_are_shown_as_they_are_printed_on_the_card() {
        assert_eq!(guid_text(0x0011_2233_4455_6677u64.to_be()), "0011:2233:4455:6677");
    }
}
