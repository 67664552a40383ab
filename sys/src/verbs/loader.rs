//! Opens libibverbs at run time and takes each function by name and version: some names exist in several versions
//! with different arguments, and the one that a plain look-up yields is not promised.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use libloading::os::unix::Library;

use super::bindings::*;
use crate::symbol::versioned;

/// The file that the dynamic linker is asked for.
pub const LIBRARY: &str = "libibverbs.so.1";

/// Why libibverbs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such library, or it does not load.
    #[error(
        "cannot load {library}: {source} (RDMA devices need it: Debian has it in libibverbs1 and the drivers in \
         ibverbs-providers)"
    )]
    Library {
        /// What was asked for.
        library: String,
        /// What the dynamic linker says.
        source: libloading::Error,
    },
    /// The library lacks functions without which nothing works.
    #[error("{library} lacks {}: it is another library, or too old", missing.join(", "))]
    Symbols {
        /// What was loaded.
        library: String,
        /// Every missing function as `name@version`.
        missing: Vec<String>,
    },
}

macro_rules! functions {
    (
        required { $($(#[$doc:meta])* $name:ident = $symbol:literal @ $version:literal
            ($($argument:ident: $type:ty),*) $(-> $result:ty)?;)* }
        optional { $($(#[$optional_doc:meta])* $optional:ident = $optional_symbol:literal @ $optional_version:literal
            ($($optional_argument:ident: $optional_type:ty),*) $(-> $optional_result:ty)?;)* }
    ) => {
        /// The functions of libibverbs. Those that not every version has are `Option`s.
        ///
        /// Calling one is unsafe as the C function is: see its manual page for what must hold.
        #[derive(Clone, Copy, Debug)]
        pub struct Verbs {
            $($(#[$doc])* pub $name: unsafe extern "C" fn($($argument: $type),*) $(-> $result)?,)*
            $($(#[$optional_doc])* pub $optional:
                Option<unsafe extern "C" fn($($optional_argument: $optional_type),*) $(-> $optional_result)?>,)*
        }

        impl Verbs {
            /// Looks every symbol up; a required one that is missing is noted.
            fn resolve(find: impl Fn(&CStr, &CStr) -> *mut c_void) -> Result<Self, Vec<String>> {
                let mut missing = Vec::new();
                $(
                    let $name = find($symbol, $version);
                    if $name.is_null() {
                        missing.push(format!("{}@{}", $symbol.to_string_lossy(), $version.to_string_lossy()));
                    }
                )*
                if !missing.is_empty() {
                    return Err(missing);
                }
                Ok(Self {
                    // SAFETY: not null, and this name at this version is a function of this signature: versions of
                    // the library's symbols never change. It stays loaded for good.
                    $($name: unsafe {
                        std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) $(-> $result)?>($name)
                    },)*
                    // SAFETY: as above, and null is `None`.
                    $($optional: unsafe {
                        std::mem::transmute::<
                            *mut c_void,
                            Option<unsafe extern "C" fn($($optional_type),*) $(-> $optional_result)?>,
                        >(find($optional_symbol, $optional_version))
                    },)*
                })
            }

            /// The optional functions that this library lacks.
            pub fn missing(&self) -> Vec<&'static str> {
                let mut missing = Vec::new();
                $(if self.$optional.is_none() {
                    missing.push(stringify!($optional));
                })*
                missing
            }
        }
    };
}

functions! {
    required {
        /// `ibv_get_device_list`
        get_device_list = c"ibv_get_device_list" @ c"IBVERBS_1.1" (count: *mut c_int) -> *mut *mut ibv_device;
        /// `ibv_free_device_list`
        free_device_list = c"ibv_free_device_list" @ c"IBVERBS_1.1" (list: *mut *mut ibv_device);
        /// `ibv_get_device_name`
        get_device_name = c"ibv_get_device_name" @ c"IBVERBS_1.1" (device: *mut ibv_device) -> *const c_char;
        /// `ibv_get_device_guid`; big-endian
        get_device_guid = c"ibv_get_device_guid" @ c"IBVERBS_1.1" (device: *mut ibv_device) -> __be64;
        /// `ibv_open_device`
        open_device = c"ibv_open_device" @ c"IBVERBS_1.1" (device: *mut ibv_device) -> *mut ibv_context;
        /// `ibv_close_device`
        close_device = c"ibv_close_device" @ c"IBVERBS_1.1" (context: *mut ibv_context) -> c_int;
        /// `ibv_query_device`
        query_device = c"ibv_query_device" @ c"IBVERBS_1.1"
            (context: *mut ibv_context, attributes: *mut ibv_device_attr) -> c_int;
        /// `ibv_query_port` as the library exports it: it fills only the part of the attributes that old libraries
        /// knew. Use [`Verbs::query_port`].
        query_port_compatible = c"ibv_query_port" @ c"IBVERBS_1.1"
            (context: *mut ibv_context, port: u8, attributes: *mut _compat_ibv_port_attr) -> c_int;
        /// `ibv_query_gid`
        query_gid = c"ibv_query_gid" @ c"IBVERBS_1.1"
            (context: *mut ibv_context, port: u8, index: c_int, gid: *mut ibv_gid) -> c_int;
        /// `ibv_query_pkey`; big-endian
        query_pkey = c"ibv_query_pkey" @ c"IBVERBS_1.1"
            (context: *mut ibv_context, port: u8, index: c_int, key: *mut u16) -> c_int;
        /// `ibv_alloc_pd`
        alloc_pd = c"ibv_alloc_pd" @ c"IBVERBS_1.1" (context: *mut ibv_context) -> *mut ibv_pd;
        /// `ibv_dealloc_pd`
        dealloc_pd = c"ibv_dealloc_pd" @ c"IBVERBS_1.1" (domain: *mut ibv_pd) -> c_int;
        /// `ibv_reg_mr` as the library exports it: without optional access flags. Use [`Verbs::reg_mr`].
        reg_mr_plain = c"ibv_reg_mr" @ c"IBVERBS_1.1"
            (domain: *mut ibv_pd, address: *mut c_void, length: usize, access: c_int) -> *mut ibv_mr;
        /// `ibv_dereg_mr`
        dereg_mr = c"ibv_dereg_mr" @ c"IBVERBS_1.1" (region: *mut ibv_mr) -> c_int;
        /// `ibv_create_comp_channel`
        create_comp_channel = c"ibv_create_comp_channel" @ c"IBVERBS_1.0"
            (context: *mut ibv_context) -> *mut ibv_comp_channel;
        /// `ibv_destroy_comp_channel`
        destroy_comp_channel = c"ibv_destroy_comp_channel" @ c"IBVERBS_1.0" (channel: *mut ibv_comp_channel) -> c_int;
        /// `ibv_create_cq`
        create_cq = c"ibv_create_cq" @ c"IBVERBS_1.1"
            (context: *mut ibv_context, entries: c_int, user: *mut c_void, channel: *mut ibv_comp_channel,
             vector: c_int) -> *mut ibv_cq;
        /// `ibv_resize_cq`
        resize_cq = c"ibv_resize_cq" @ c"IBVERBS_1.1" (queue: *mut ibv_cq, entries: c_int) -> c_int;
        /// `ibv_destroy_cq`
        destroy_cq = c"ibv_destroy_cq" @ c"IBVERBS_1.1" (queue: *mut ibv_cq) -> c_int;
        /// `ibv_get_cq_event`
        get_cq_event = c"ibv_get_cq_event" @ c"IBVERBS_1.1"
            (channel: *mut ibv_comp_channel, queue: *mut *mut ibv_cq, user: *mut *mut c_void) -> c_int;
        /// `ibv_ack_cq_events`
        ack_cq_events = c"ibv_ack_cq_events" @ c"IBVERBS_1.1" (queue: *mut ibv_cq, events: c_uint);
        /// `ibv_create_qp`
        create_qp = c"ibv_create_qp" @ c"IBVERBS_1.1"
            (domain: *mut ibv_pd, attributes: *mut ibv_qp_init_attr) -> *mut ibv_qp;
        /// `ibv_modify_qp`
        modify_qp = c"ibv_modify_qp" @ c"IBVERBS_1.1"
            (pair: *mut ibv_qp, attributes: *mut ibv_qp_attr, mask: c_int) -> c_int;
        /// `ibv_query_qp`
        query_qp = c"ibv_query_qp" @ c"IBVERBS_1.1"
            (pair: *mut ibv_qp, attributes: *mut ibv_qp_attr, mask: c_int, initial: *mut ibv_qp_init_attr) -> c_int;
        /// `ibv_destroy_qp`
        destroy_qp = c"ibv_destroy_qp" @ c"IBVERBS_1.1" (pair: *mut ibv_qp) -> c_int;
        /// `ibv_get_async_event`
        get_async_event = c"ibv_get_async_event" @ c"IBVERBS_1.1"
            (context: *mut ibv_context, event: *mut ibv_async_event) -> c_int;
        /// `ibv_ack_async_event`
        ack_async_event = c"ibv_ack_async_event" @ c"IBVERBS_1.1" (event: *mut ibv_async_event);
        /// `ibv_fork_init`
        fork_init = c"ibv_fork_init" @ c"IBVERBS_1.1" () -> c_int;
        /// `ibv_wc_status_str`
        wc_status_str = c"ibv_wc_status_str" @ c"IBVERBS_1.1" (status: ibv_wc_status) -> *const c_char;
        /// `ibv_event_type_str`
        event_type_str = c"ibv_event_type_str" @ c"IBVERBS_1.1" (event: ibv_event_type) -> *const c_char;
        /// `ibv_port_state_str`
        port_state_str = c"ibv_port_state_str" @ c"IBVERBS_1.1" (state: ibv_port_state) -> *const c_char;
    }
    optional {
        /// `ibv_reg_mr_iova2`
        reg_mr_iova2 = c"ibv_reg_mr_iova2" @ c"IBVERBS_1.8"
            (domain: *mut ibv_pd, address: *mut c_void, length: usize, virtual_address: u64, access: c_uint)
            -> *mut ibv_mr;
        /// `ibv_query_ece`
        query_ece = c"ibv_query_ece" @ c"IBVERBS_1.10" (pair: *mut ibv_qp, options: *mut ibv_ece) -> c_int;
        /// `ibv_set_ece`
        set_ece = c"ibv_set_ece" @ c"IBVERBS_1.10" (pair: *mut ibv_qp, options: *mut ibv_ece) -> c_int;
        /// `_ibv_query_gid_ex`; the header's `ibv_query_gid_ex` adds the size of an entry
        query_gid_ex = c"_ibv_query_gid_ex" @ c"IBVERBS_1.11"
            (context: *mut ibv_context, port: u32, index: u32, entry: *mut ibv_gid_entry, flags: u32,
             entry_size: usize) -> c_int;
        /// `ibv_reg_dmabuf_mr`
        reg_dmabuf_mr = c"ibv_reg_dmabuf_mr" @ c"IBVERBS_1.12"
            (domain: *mut ibv_pd, offset: u64, length: usize, virtual_address: u64, descriptor: c_int,
             access: c_int) -> *mut ibv_mr;
        /// `ibv_is_fork_initialized`
        is_fork_initialized = c"ibv_is_fork_initialized" @ c"IBVERBS_1.13" () -> ibv_fork_status;
    }
}

impl Verbs {
    /// Loads [`LIBRARY`]. It is never unloaded again: drivers leave threads and exit handlers behind.
    pub fn load() -> Result<Self, LoadError> {
        Self::load_from(LIBRARY)
    }

    /// Takes every function from elsewhere: from a library that is loaded already, or from what stands in for it in a
    /// test. `find` is given name and version and answers null for what there is not; `Err` lists those that are
    /// required and missing, as `name@version`.
    ///
    /// # Safety
    /// What `find` answers is null or a function of the signature that this version of the name has, and stays so for
    /// good.
    pub unsafe fn from_symbols(find: impl Fn(&CStr, &CStr) -> *mut c_void) -> Result<Self, Vec<String>> {
        Self::resolve(find)
    }

    /// Loads another file in its place.
    fn load_from(library: &str) -> Result<Self, LoadError> {
        let named = |source| LoadError::Library {
            library: library.to_owned(),
            source,
        };
        // SAFETY: libibverbs' initialisers only set up its own state. Who places another library under its name
        // runs code in this process, as with every library of the system.
        let handle = unsafe { Library::new(library) }.map_err(named)?.into_raw();
        Self::resolve(|symbol, version| {
            // SAFETY: the handle is open and stays so (`into_raw` gave it up); both names end with a zero.
            unsafe { versioned(handle, symbol, version) }
        })
        .map_err(|missing| LoadError::Symbols {
            library: library.to_owned(),
            missing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_named_with_what_mends_it() {
        let error = Verbs::load_from("libibverbs-of-no-machine.so.1")
            .unwrap_err()
            .to_string();
        assert!(error.contains("libibverbs-of-no-machine.so.1"), "{error}");
        assert!(error.contains("libibverbs1"), "{error}");
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_another_library_lacks_is_named_with_versions() {
        let error = Verbs::load_from("libc.so.6").unwrap_err();
        let LoadError::Symbols { missing, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            missing
                .iter()
                .any(|symbol| symbol == "ibv_create_comp_channel@IBVERBS_1.0"),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .starts_with("libc.so.6 lacks ibv_get_device_list@IBVERBS_1.1, "),
            "{error}"
        );
    }

    #[test]
    fn the_system_library_loads_and_lists_its_devices() {
        let verbs = match Verbs::load() {
            Ok(verbs) => verbs,
            Err(error) => {
                assert!(error.to_string().contains(LIBRARY), "{error}");
                eprintln!("SKIPPED: {error}");
                return;
            }
        };
        let mut count = -1;
        // SAFETY: the count is writable, and the list, if there is one, is freed once.
        let list = unsafe { (verbs.get_device_list)(&mut count) };
        if list.is_null() {
            let error = std::io::Error::last_os_error();
            eprintln!("SKIPPED: the library is there, but this kernel has no RDMA: {error}");
            return;
        }
        // SAFETY: `list` holds `count` devices.
        for device in unsafe { std::slice::from_raw_parts(list, count.max(0) as usize) } {
            // SAFETY: the device is on the list, which has not been freed; its name ends with a zero.
            let name = unsafe { CStr::from_ptr((verbs.get_device_name)(*device)) };
            assert!(!name.is_empty());
        }
        // SAFETY: taken above, freed once.
        unsafe { (verbs.free_device_list)(list) };
    }

    #[test]
    fn statuses_are_those_of_the_library() {
        let Ok(verbs) = Verbs::load() else {
            eprintln!("SKIPPED: no {LIBRARY} here");
            return;
        };
        // SAFETY: any status is answered with a static string.
        let text = unsafe { CStr::from_ptr((verbs.wc_status_str)(IBV_WC_RETRY_EXC_ERR)) };
        assert_eq!(text.to_str(), Ok("transport retry counter exceeded"));
    }
}
