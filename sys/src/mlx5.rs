//! What ConnectX adapters can do beyond the common verbs, from their driver's own library. Everything here is optional:
//! a machine without the library, or with an older one, does without.
//!
//! # What has been exercised
//! Loading, and that the symbols are there by name and version. None of the functions has been called on a device.

use std::ffi::{CStr, c_int, c_void};
use std::mem::transmute;

use libloading::os::unix::Library;

use crate::symbol::versioned;
use crate::verbs::bindings::{ibv_device, ibv_qp};

/// The file that the dynamic linker is asked for.
pub const LIBRARY: &str = "libmlx5.so.1";

type IsSupported = unsafe extern "C" fn(device: *mut ibv_device) -> bool;
type ModifyUdpSourcePort = unsafe extern "C" fn(pair: *mut ibv_qp, port: u16) -> c_int;

/// Functions of [`LIBRARY`]; calling one is unsafe as the C function is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mlx5 {
    /// `mlx5dv_is_supported`: whether a device is one of this driver.
    pub is_supported: Option<IsSupported>,
    /// `mlx5dv_modify_qp_udp_sport`: the UDP source port of a RoCE v2 queue pair in RTS; 0 or an errno.
    pub modify_qp_udp_sport: Option<ModifyUdpSourcePort>,
}

const IS_SUPPORTED: (&CStr, &CStr) = (c"mlx5dv_is_supported", c"MLX5_1.8");
const MODIFY_QP_UDP_SPORT: (&CStr, &CStr) = (c"mlx5dv_modify_qp_udp_sport", c"MLX5_1.17");

impl Mlx5 {
    /// Loads [`LIBRARY`], for good; everything is `None` where there is none.
    pub fn load() -> Self {
        Self::load_from(LIBRARY)
    }

    fn load_from(library: &str) -> Self {
        // SAFETY: the library's initialisers only register the driver with libibverbs, as libibverbs would have them.
        let Ok(library) = (unsafe { Library::new(library) }) else {
            return Self::default();
        };
        let handle = library.into_raw();
        // SAFETY: the handle is open and stays so.
        let find = |(name, version): (&CStr, &CStr)| unsafe { versioned(handle, name, version) };
        Self {
            // SAFETY: null, or a function of this signature: versions of the library's symbols never change.
            is_supported: unsafe { transmute::<*mut c_void, Option<IsSupported>>(find(IS_SUPPORTED)) },
            // SAFETY: as above.
            modify_qp_udp_sport: unsafe {
                transmute::<*mut c_void, Option<ModifyUdpSourcePort>>(find(MODIFY_QP_UDP_SPORT))
            },
        }
    }

    /// The functions that are not there, by their C names.
    pub fn missing(&self) -> Vec<&'static str> {
        let functions = [
            (self.is_supported.is_none(), "mlx5dv_is_supported"),
            (self.modify_qp_udp_sport.is_none(), "mlx5dv_modify_qp_udp_sport"),
        ];
        functions
            .into_iter()
            .filter(|(missing, _)| *missing)
            .map(|(_, name)| name)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_library_everything_is_missing_by_name() {
        for library in ["libmlx5-of-no-machine.so.1", "libc.so.6"] {
            let functions = Mlx5::load_from(library);
            assert_eq!(
                functions.missing(),
                ["mlx5dv_is_supported", "mlx5dv_modify_qp_udp_sport"]
            );
        }
    }

    #[test]
    fn a_library_that_is_there_has_them() {
        // SAFETY: as in `load_from`.
        if unsafe { Library::new(LIBRARY) }.is_err() {
            eprintln!("SKIPPED: no {LIBRARY} here");
            return;
        }
        assert_eq!(Mlx5::load().missing(), Vec::<&str>::new());
    }
}
