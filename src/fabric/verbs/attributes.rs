//! What a queue pair is told when it changes its state, checked against the transition, the port and the device
//! before the driver sees it: its EINVAL does not say which attribute it means.

/// Attributes that the driver would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidAttributes(String);
