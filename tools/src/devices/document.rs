//! The JSON document of `sapwood devices`: the inventory as the library gives it, with what would be chosen.

use sapwood::fabric::verbs::{Choice, DeviceReport, Inventory};
use serde::Serialize;

/// See the module.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    devices: &'a [DeviceReport],
    /// Devices of the kernel that libibverbs has no driver for.
    without_driver: &'a [String],
    /// Functions that a newer libibverbs would have.
    missing_functions: &'a [String],
    /// What Sapwood would take; `null` if nothing can be taken.
    default: Option<Chosen>,
    /// Why it would take nothing, or why nothing could be looked at.
    error: Option<String>,
}

/// What would be taken, and why.
#[derive(Debug, Serialize)]
pub(super) struct Chosen {
    device: String,
    port: u8,
    gid_index: u32,
    gid: String,
    mtu: u32,
    reason: String,
    /// What else was looked at, and why it is not taken.
    passed_over: Vec<String>,
}

impl From<&Choice> for Chosen {
    fn from(choice: &Choice) -> Self {
        Self {
            device: choice.device.clone(),
            port: choice.port,
            gid_index: choice.gid.index,
            gid: choice.gid.gid.to_string(),
            mtu: choice.active_mtu.bytes(),
            reason: choice.reason.clone(),
            passed_over: choice.passed_over.clone(),
        }
    }
}

impl<'a> Document<'a> {
    pub(super) fn of(inventory: &'a Inventory, chosen: Result<Chosen, String>) -> Self {
        let (default, error) = match chosen {
            Ok(chosen) => (Some(chosen), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            devices: &inventory.devices,
            without_driver: &inventory.without_driver,
            missing_functions: &inventory.missing_functions,
            default,
            error,
        }
    }

    /// Where nothing could be looked at.
    pub(super) fn unknown(error: String) -> Self {
        Self {
            devices: &[],
            without_driver: &[],
            missing_functions: &[],
            default: None,
            error: Some(error),
        }
    }
}
