//! The table of functions, as the loader would find them in libibverbs.

use std::ffi::{CStr, c_void};
use std::ptr::null_mut;

use sapwood_sys::verbs::Verbs;

use super::{device, queues};

/// The stand-in for libibverbs.
pub fn library() -> Verbs {
    // SAFETY: each name below is answered with a function of the signature that the header gives it at the version
    // that the loader asks for, and functions stay.
    unsafe { Verbs::from_symbols(|name, _version| find(name)) }
        .unwrap_or_else(|missing| panic!("the stub driver lacks {}", missing.join(", ")))
}

fn find(name: &CStr) -> *mut c_void {
    let functions: &[(&CStr, *mut c_void)] = &[
        (c"ibv_get_device_list", device::get_device_list as *mut c_void),
        (c"ibv_free_device_list", device::free_device_list as *mut c_void),
        (c"ibv_get_device_name", device::get_device_name as *mut c_void),
        (c"ibv_get_device_guid", device::get_device_guid as *mut c_void),
        (c"ibv_open_device", device::open_device as *mut c_void),
        (c"ibv_close_device", device::close_device as *mut c_void),
        (c"ibv_query_device", device::query_device as *mut c_void),
        (c"ibv_query_port", device::query_port_compatible as *mut c_void),
        (c"ibv_query_gid", device::query_gid as *mut c_void),
        (c"_ibv_query_gid_ex", device::query_gid_ex as *mut c_void),
        (c"ibv_query_pkey", device::query_pkey as *mut c_void),
        (c"ibv_alloc_pd", device::alloc_pd as *mut c_void),
        (c"ibv_dealloc_pd", device::dealloc_pd as *mut c_void),
        (c"ibv_reg_mr", device::reg_mr as *mut c_void),
        (c"ibv_reg_mr_iova2", device::reg_mr_iova2 as *mut c_void),
        (c"ibv_dereg_mr", device::dereg_mr as *mut c_void),
        (c"ibv_get_async_event", device::get_async_event as *mut c_void),
        (c"ibv_ack_async_event", device::ack_async_event as *mut c_void),
        (c"ibv_fork_init", device::fork_init as *mut c_void),
        (c"ibv_wc_status_str", device::text as *mut c_void),
        (c"ibv_event_type_str", device::text as *mut c_void),
        (c"ibv_port_state_str", device::text as *mut c_void),
        (
            c"ibv_create_comp_channel",
            queues::create_comp_channel as *mut c_void,
        ),
        (
            c"ibv_destroy_comp_channel",
            queues::destroy_comp_channel as *mut c_void,
        ),
        (c"ibv_create_cq", queues::create_cq as *mut c_void),
        (c"ibv_resize_cq", queues::resize_cq as *mut c_void),
        (c"ibv_destroy_cq", queues::destroy_cq as *mut c_void),
        (c"ibv_get_cq_event", queues::get_cq_event as *mut c_void),
        (c"ibv_ack_cq_events", queues::ack_cq_events as *mut c_void),
        (c"ibv_create_qp", queues::create_qp as *mut c_void),
        (c"ibv_modify_qp", queues::modify_qp as *mut c_void),
        (c"ibv_query_qp", queues::query_qp as *mut c_void),
        (c"ibv_destroy_qp", queues::destroy_qp as *mut c_void),
    ];
    functions
        .iter()
        .find(|(known, _)| *known == name)
        .map_or(null_mut(), |(_, function)| *function)
}
