//! What only the tcp fabric can say.

use crate::fabric::FabricError;

/// Why the tcp fabric cannot be opened as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TcpError {
    /// A variable of the environment.
    #[error("{name}={value:?}: {why}")]
    Setting {
        /// Which.
        name: String,
        /// What it says.
        value: String,
        /// What is wrong.
        why: String,
    },
    /// No address fits the settings.
    #[error("no address of this host {wanted}; it has {present} (`ip address` shows them)")]
    NoAddress {
        /// What was asked for.
        wanted: String,
        /// What there is.
        present: String,
    },
}

impl From<TcpError> for FabricError {
    fn from(error: TcpError) -> Self {
        Self::Provider {
            fabric: super::NAME,
            source: Box::new(error),
        }
    }
}
