//! The device, its port and addresses, and registrations.
#![allow(clippy::missing_safety_doc, reason = "the C functions' own contracts")]

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr::{addr_of_mut, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sapwood_sys::verbs::bindings::*;

use super::queues;

/// 10.9.0.1 as a GID.
const ADDRESS: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 9, 0, 1];

/// `IBV_LINK_LAYER_ETHERNET`, of an enumeration without a name.
const LINK_LAYER_ETHERNET: u8 = 2;

/// Keys of registrations.
static NEXT_KEY: AtomicU32 = AtomicU32::new(1);

pub fn failed<T>(errno: c_int) -> *mut T {
    // SAFETY: the thread's own errno.
    unsafe { *libc::__errno_location() = errno };
    null_mut()
}

/// A descriptor that is never readable, for where the fabric polls one.
pub fn silent_descriptor() -> c_int {
    // SAFETY: no arguments that could be wrong.
    let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    assert!(descriptor >= 0, "eventfd: {}", std::io::Error::last_os_error());
    // SAFETY: just made and nobody else's.
    unsafe { OwnedFd::from_raw_fd(descriptor) }.into_raw_fd()
}

/// Takes back what [`silent_descriptor`] gave.
pub unsafe fn close_descriptor(descriptor: c_int) {
    // SAFETY: the caller gives it up.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    assert!(owned.as_raw_fd() >= 0);
}

pub unsafe extern "C" fn get_device_list(count: *mut c_int) -> *mut *mut ibv_device {
    // One for all: contexts point to it for as long as they like.
    static DEVICE: OnceLock<usize> = OnceLock::new();
    let device = *DEVICE.get_or_init(|| {
        // SAFETY: numbers, characters, pointers and options of functions, for all of which zero is a value.
        let mut device: Box<ibv_device> = Box::new(unsafe { zeroed() });
        for (to, from) in device.name.iter_mut().zip(b"stub0") {
            *to = from.cast_signed();
        }
        device.node_type = IBV_NODE_CA;
        device.transport_type = IBV_TRANSPORT_IB;
        Box::into_raw(device).expose_provenance()
    });
    let device = std::ptr::with_exposed_provenance_mut::<ibv_device>(device);
    // SAFETY: the caller gives a place for the count.
    unsafe { *count = 1 };
    Box::into_raw(Box::new([device, null_mut()])).cast()
}

pub unsafe extern "C" fn free_device_list(list: *mut *mut ibv_device) {
    // SAFETY: made by `get_device_list`, freed once. The device itself stays.
    drop(unsafe { Box::from_raw(list.cast::<[*mut ibv_device; 2]>()) });
}

pub unsafe extern "C" fn get_device_name(device: *mut ibv_device) -> *const c_char {
    // SAFETY: a device of the list.
    unsafe { (&raw const (*device).name).cast() }
}

pub unsafe extern "C" fn get_device_guid(_: *mut ibv_device) -> __be64 {
    0x0011_2233_4455_6677u64.to_be()
}

pub unsafe extern "C" fn open_device(device: *mut ibv_device) -> *mut ibv_context {
    // SAFETY: as in `get_device_list`; mutexes of zeros are unlocked ones.
    let mut context: Box<verbs_context> = Box::new(unsafe { zeroed() });
    context.sz = size_of::<verbs_context>();
    context.query_port = Some(query_port);
    context.context.device = device;
    context.context.abi_compat = usize::MAX as *mut c_void;
    context.context.async_fd = silent_descriptor();
    context.context.num_comp_vectors = 1;
    context.context.ops.post_send = Some(queues::stub_post_send);
    context.context.ops.post_recv = Some(queues::stub_post_recv);
    context.context.ops.poll_cq = Some(queues::stub_poll_cq);
    context.context.ops.req_notify_cq = Some(queues::req_notify_cq);
    // SAFETY: a field of what lives until `close_device`.
    unsafe { addr_of_mut!((*Box::into_raw(context)).context) }
}

pub unsafe extern "C" fn close_device(context: *mut ibv_context) -> c_int {
    // SAFETY: made by `open_device`, closed once.
    unsafe {
        close_descriptor((*context).async_fd);
        let whole = context.byte_sub(std::mem::offset_of!(verbs_context, context));
        drop(Box::from_raw(whole.cast::<verbs_context>()));
    }
    0
}

pub unsafe extern "C" fn query_device(_: *mut ibv_context, into: *mut ibv_device_attr) -> c_int {
    // SAFETY: as in `get_device_list`.
    let mut told: ibv_device_attr = unsafe { zeroed() };
    told.max_mr_size = 1 << 40;
    told.max_qp = 1 << 16;
    told.max_qp_wr = 1 << 14;
    told.max_sge = 16;
    told.max_sge_rd = 16;
    told.max_cq = 1 << 16;
    told.max_cqe = 1 << 20;
    told.max_mr = 1 << 20;
    told.max_pd = 1 << 16;
    told.max_qp_rd_atom = 16;
    told.max_qp_init_rd_atom = 16;
    told.atomic_cap = IBV_ATOMIC_HCA;
    told.max_pkeys = 1;
    told.phys_port_cnt = 1;
    // SAFETY: the caller gives a place for it.
    unsafe { into.write(told) };
    0
}

unsafe extern "C" fn query_port(_: *mut ibv_context, _: u8, into: *mut ibv_port_attr, size: usize) -> c_int {
    assert_eq!(size, size_of::<ibv_port_attr>());
    // SAFETY: as in `get_device_list`.
    let mut told: ibv_port_attr = unsafe { zeroed() };
    told.state = IBV_PORT_ACTIVE;
    told.max_mtu = IBV_MTU_4096;
    told.active_mtu = IBV_MTU_4096;
    told.gid_tbl_len = 1;
    told.max_msg_sz = 1 << 31;
    told.pkey_tbl_len = 1;
    told.active_width = 2;
    told.active_speed = 32;
    told.phys_state = 5;
    told.link_layer = LINK_LAYER_ETHERNET;
    // SAFETY: the caller gives a place for it.
    unsafe { into.write(told) };
    0
}

pub unsafe extern "C" fn query_port_compatible(
    _: *mut ibv_context,
    _: u8,
    _: *mut _compat_ibv_port_attr,
) -> c_int {
    libc::EOPNOTSUPP
}

pub unsafe extern "C" fn query_gid(_: *mut ibv_context, _: u8, _: c_int, into: *mut ibv_gid) -> c_int {
    // SAFETY: the caller gives a place for it.
    unsafe { (*into).raw = ADDRESS };
    0
}

pub unsafe extern "C" fn query_gid_ex(
    _: *mut ibv_context,
    port: u32,
    index: u32,
    into: *mut ibv_gid_entry,
    _: u32,
    size: usize,
) -> c_int {
    assert_eq!(size, size_of::<ibv_gid_entry>());
    let entry = ibv_gid_entry {
        gid: ibv_gid { raw: ADDRESS },
        gid_index: index,
        port_num: port,
        gid_type: IBV_GID_TYPE_ROCE_V2,
        ndev_ifindex: 0,
    };
    // SAFETY: the caller gives a place for it.
    unsafe { into.write(entry) };
    0
}

pub unsafe extern "C" fn query_pkey(_: *mut ibv_context, _: u8, _: c_int, into: *mut u16) -> c_int {
    // SAFETY: the caller gives a place for it.
    unsafe { *into = 0xFFFF };
    0
}

pub unsafe extern "C" fn alloc_pd(context: *mut ibv_context) -> *mut ibv_pd {
    Box::into_raw(Box::new(ibv_pd { context, handle: 0 }))
}

pub unsafe extern "C" fn dealloc_pd(domain: *mut ibv_pd) -> c_int {
    // SAFETY: made by `alloc_pd`, freed once.
    drop(unsafe { Box::from_raw(domain) });
    0
}

pub unsafe extern "C" fn reg_mr(
    domain: *mut ibv_pd,
    address: *mut c_void,
    length: usize,
    _: c_int,
) -> *mut ibv_mr {
    let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
    Box::into_raw(Box::new(ibv_mr {
        // SAFETY: a live domain.
        context: unsafe { (*domain).context },
        pd: domain,
        addr: address,
        length,
        handle: key,
        lkey: key,
        rkey: key,
    }))
}

pub unsafe extern "C" fn reg_mr_iova2(
    domain: *mut ibv_pd,
    address: *mut c_void,
    length: usize,
    _: u64,
    access: c_uint,
) -> *mut ibv_mr {
    // SAFETY: the caller's contract is the same.
    unsafe { reg_mr(domain, address, length, access.cast_signed()) }
}

pub unsafe extern "C" fn dereg_mr(region: *mut ibv_mr) -> c_int {
    // SAFETY: made by `reg_mr`, freed once.
    drop(unsafe { Box::from_raw(region) });
    0
}

pub unsafe extern "C" fn get_async_event(_: *mut ibv_context, _: *mut ibv_async_event) -> c_int {
    failed::<c_void>(libc::EAGAIN);
    -1
}

pub unsafe extern "C" fn ack_async_event(_: *mut ibv_async_event) {}

pub unsafe extern "C" fn fork_init() -> c_int {
    0
}

pub unsafe extern "C" fn text(_: c_uint) -> *const c_char {
    c"what the stub driver says of everything".as_ptr()
}
